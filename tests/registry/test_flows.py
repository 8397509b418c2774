"""Flows by themselves: tries, waits and drivers, with neither socket nor clock."""

import asyncio
import threading

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from imagekit.errors import RegistryError, UnreachableError
from imagekit.registry.auth import actions_of, scopes_of
from imagekit.registry.calls import Call, Flow, Reply, adrive, drive, through
from imagekit.registry.problems import error_of, retry_after
from imagekit.registry.retry import RetryPolicy, retrying
from imagekit.registry.transport import RateGuard, Timeouts, Transport

POLICY = RetryPolicy(jitter=lambda: 1.0)
GET = Call(method="GET", url="http://127.0.0.1/x")


def ask(call: Call = GET) -> Flow[int]:
    reply = yield call
    return reply.status


class Script:
    """Answers that come one after the other; an exception is raised."""

    def __init__(self, *answers: Reply | Exception) -> None:
        self.answers = list(answers)
        self.delays: list[float] = []

    def __call__(self, call: Call) -> Reply:
        self.delays.append(call.delay)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def reply(status: int, **headers: str) -> Reply:
    pairs = tuple((k.replace("_", "-"), v) for k, v in headers.items())
    return Reply(status=status, url="http://127.0.0.1/x", headers=pairs)


def test_waits_double_up_to_a_bound() -> None:
    script = Script(*[reply(503)] * 9)
    policy = evolve(POLICY, tries=9, longest_delay=2.0)
    assert drive(retrying(ask(), policy), script) == 503
    assert script.delays == [0, 0.25, 0.5, 1, 2, 2, 2, 2, 2]


def test_jitter_is_full() -> None:
    assert evolve(POLICY, jitter=lambda: 0.0).delay(3) == 0
    assert evolve(POLICY, jitter=lambda: 0.5).delay(3) == 0.5


def test_waits_end_with_patience() -> None:
    script = Script(*[reply(429, retry_after="50")] * 9)
    assert drive(retrying(ask(), POLICY), script) == 429
    assert script.delays == [0, 50, 50, 50]


def test_a_call_that_is_not_repeatable_is_sent_once() -> None:
    script = Script(reply(503))
    assert drive(retrying(ask(evolve(GET, repeatable=False)), POLICY), script) == 503


@pytest.mark.parametrize("code", ["tls", "unknown-host", "address-refused"])
def test_what_another_try_would_repeat_is_not_tried(code: str) -> None:
    script = Script(UnreachableError("no", code=code))
    with pytest.raises(UnreachableError):
        drive(retrying(ask(), POLICY), script)


def test_a_lost_connection_is_tried_again() -> None:
    script = Script(UnreachableError("lost"), reply(200))
    assert drive(retrying(ask(), POLICY), script) == 200


def test_an_error_may_be_caught_inside_a_flow() -> None:
    def careful() -> Flow[str]:
        try:
            yield GET
        except RegistryError:
            reply = yield GET
            return f"then {reply.status}"
        return "no error"

    assert drive(careful(), Script(RegistryError("x"), reply(200))) == "then 200"

    def exchange(call: Call) -> Flow[Reply]:
        return (yield call)

    through_it = through(careful(), exchange)
    assert drive(through_it, Script(RegistryError("x"), reply(200))) == "then 200"


def test_both_drivers_do_the_same() -> None:
    script = Script(UnreachableError("lost"), reply(204))

    async def send(call: Call) -> Reply:
        return script(call)

    assert asyncio.run(adrive(retrying(ask(), POLICY), send)) == 204


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry_after": "5"}, 5),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "-1"}, None),
        (
            {
                "retry_after": "Thu, 01 Jan 2026 00:01:00 GMT",
                "date": "Thu, 01 Jan 2026 00:00:00 GMT",
            },
            60,
        ),
        ({"retry_after": "Thu, 01 Jan 2026 00:01:00 GMT"}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(reply(429, **headers)) == seconds


@given(st.binary(max_size=200), st.integers(400, 599))
def test_any_error_body_becomes_an_error(body: bytes, status: int) -> None:
    error = error_of(Reply(status=status, url="http://h/x", body=body), "thing")
    assert error.status == status
    assert str(error).isprintable()


names = st.text("abc", min_size=1, max_size=3)
scopes = st.lists(
    st.builds(
        lambda name, verbs: f"repository:{name}:{','.join(sorted(verbs))}",
        names,
        st.sets(st.sampled_from(["pull", "push", "delete"]), min_size=1),
    )
)


@given(scopes)
def test_scopes_merged_ask_for_the_same_actions(asked: list[str]) -> None:
    merged = scopes_of(actions_of(asked))
    assert actions_of(merged) == actions_of(asked)
    assert list(merged) == sorted(set(merged))


def test_a_trickle_is_given_up_and_a_stream_is_not() -> None:
    guard = RateGuard(GET, Timeouts())
    for _ in range(100):
        guard.count(100_000, 1.0)
    trickle = RateGuard(GET, Timeouts())
    for _ in range(59):
        trickle.count(10, 1.0)
    with pytest.raises(UnreachableError, match="too slow"):
        trickle.count(10, 1.0)


def test_equal_shared_calls_are_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = Transport()
    shared = evolve(GET, shared="token")
    sent: list[Call] = []
    got: list[Reply] = []
    second = threading.Thread(target=lambda: got.append(transport.send(shared)))

    def answer(call: Call) -> Reply:
        sent.append(call)
        second.start()
        flight = transport._flights["token"]
        while not flight._condition._waiters:  # type: ignore[attr-defined] # until it waits
            pass
        return reply(200)

    monkeypatch.setattr(transport, "_send", answer)
    first = transport.send(shared)
    second.join()
    assert got == [first]
    assert len(sent) == 1
    assert not transport._flights

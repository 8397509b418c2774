"""Output of commands: secrets masked wherever chunks are cut, a cap, and the last lines."""

import base64
import itertools
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagekit.events import Event, StepInfo, StepLog
from imagekit.executor import output
from imagekit.executor.output import CAP, TAIL, Log

STEP = StepInfo(id=1, name="RUN x")
SECRET = b"hunter2-hunter2/+="


def logged(chunks: list[bytes], *secrets: bytes, stream: str = "stdout") -> tuple[bytes, Log]:
    events: list[Event] = []
    log = Log(events.append, STEP, secrets)
    for chunk in chunks:
        log.write(stream, chunk)  # type: ignore[arg-type]
    log.close()
    return b"".join(e.data for e in events if isinstance(e, StepLog)), log


def cut(data: bytes, *places: int) -> list[bytes]:
    ends = [0, *sorted(places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(ends)]


def test_bytes_are_passed_on_as_they_come() -> None:
    events: list[Event] = []
    log = Log(events.append, STEP)
    log.write("stdout", b"one")
    log.write("stderr", b"\xfftwo\n")
    assert [(e.stream, e.data) for e in events if isinstance(e, StepLog)] == [
        ("stdout", b"one"),
        ("stderr", b"\xfftwo\n"),
    ]


SPELLINGS = [SECRET, base64.b64encode(SECRET), quote(SECRET.decode()).encode()]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_secret_is_masked_wherever_it_is_cut(spelling: bytes) -> None:
    data = b"before " + spelling + b" after " + spelling + b"\n"
    for first in range(len(data)):
        shown, log = logged(cut(data, first), SECRET)
        assert shown == b"before **** after ****\n"
        assert SECRET.decode() not in log.tail


def test_a_secret_is_masked_byte_by_byte() -> None:
    shown, _ = logged([bytes([b]) for b in b"x" + SECRET + b"y"], SECRET)
    assert shown == b"x****y"


PIECES = st.lists(
    st.sampled_from([b"hunter", b"2", b"-", b"/+=", b" ", b"\n", SECRET]), max_size=8
)


@given(PIECES, st.lists(st.integers(0, 100), max_size=4))
def test_cutting_makes_no_difference(pieces: list[bytes], places: list[int]) -> None:
    data = b"".join(pieces)
    shown, _ = logged(cut(data, *(min(p, len(data)) for p in places)), SECRET)
    assert SECRET not in shown
    assert shown == logged([data], SECRET)[0]


def test_what_only_starts_as_a_secret_is_passed_on_at_the_end() -> None:
    assert logged([b"is it ", SECRET[:7]], SECRET)[0] == b"is it " + SECRET[:7]


def test_the_end_of_a_line_in_a_secret_file_does_not_matter() -> None:
    assert logged([SECRET + b" x"], SECRET + b"\n")[0] == b"**** x"
    assert logged([SECRET + b"\nx"], SECRET + b"\n")[0].startswith(b"****")


def test_short_secrets_are_left_alone() -> None:
    assert logged([b"a 1234567 b"], b"1234567")[0] == b"a 1234567 b"


def test_a_secret_within_another_leaves_nothing_of_the_longer_one() -> None:
    longer = b"prefix--" + SECRET
    assert logged([longer], SECRET, longer)[0] == b"****"


def test_streams_are_masked_apart() -> None:
    events: list[Event] = []
    log = Log(events.append, STEP, [SECRET])
    log.write("stdout", SECRET[:5])
    log.write("stderr", b"warning\n")
    log.write("stdout", SECRET[5:])
    log.close()
    assert [e.data for e in events if isinstance(e, StepLog)] == [b"warning\n", b"****"]


def test_the_tail_holds_the_last_lines() -> None:
    _, log = logged([f"line {n}\n".encode() for n in range(1_000)])
    assert log.tail.splitlines()[-1] == "line 999"
    assert len(log.tail.splitlines()) == 25


def test_the_tail_of_one_long_line_is_bounded() -> None:
    _, log = logged([b"x" * (1 << 20)])
    assert len(log.tail) == TAIL


def test_more_than_the_cap_is_counted_and_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "CAP", 1_000)
    shown, log = logged([b"y" * 300] * 4 + [b"the end\n"])
    assert shown == b"y" * 1_000
    assert log.tail.endswith("the end\n[208 bytes of output are not shown]")


def test_the_cap_is_that_of_the_security_spec() -> None:
    assert CAP == 64 << 20

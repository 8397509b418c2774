from typing import TypeVar

import pytest

from imagekit.errors import DockerfileError, PlanError
from imagekit.oci.platform import Platform
from imagekit.plan import NamedContext, Plan, lower, ops
from tests.support.plans import AMD64, ARM64, graph_of, traced

SCRATCH = "FROM scratch\n"


def plan(text: str, **options: object) -> Plan:
    return traced(text, **options).plan


T = TypeVar("T")


def only(plan: Plan, kind: type[T]) -> T:
    (found,) = (step.op for step in plan.steps if isinstance(step.op, kind))
    return found


def test_a_plan_without_its_bases_is_refused() -> None:
    with pytest.raises(PlanError, match=r"docker\.io/library/a:latest"):
        lower(graph_of("FROM a\n"), {})


def test_only_what_the_target_needs_is_in_the_plan() -> None:
    text = "FROM a AS one\nRUN 1\nFROM b AS two\nRUN 2\nFROM one\nCOPY --link x /\n"
    assert [step.name for step in plan(text).steps] == [
        "[one 1/2] FROM docker.io/library/a:latest",
        "[one 2/2] RUN 1",
        "[internal] load build context",
        "[stage-2 1/1] COPY --link x /",
    ]


def test_equal_sources_are_one_step() -> None:
    text = "FROM a AS one\nCOPY x /\nFROM a\nCOPY y /\nCOPY --from=one /x /\nCOPY --from=a / /z\n"
    kinds = [type(step.op).__name__ for step in plan(text).steps]
    assert kinds.count("Base") == 1
    assert kinds.count("Local") == 1


def test_inputs_are_earlier_steps_and_the_result_is_the_last() -> None:
    done = plan("FROM a AS p\nRUN x\nFROM b\nCOPY --from=p / /\nRUN --mount=from=p,target=/p y\n")
    assert all(i < n for n, step in enumerate(done.steps) for i in step.inputs)
    assert done.result == len(done.steps) - 1


def test_steps_know_their_place_stage_and_platform() -> None:
    done = plan("FROM --platform=linux/arm64 a AS base\nRUN one \\\n  two\n", target=AMD64)
    step = done.steps[-1]
    assert step.span is not None
    assert (step.span.line, step.span.end_line) == (2, 3)
    assert (step.stage, step.platform, done.platform) == ("base", ARM64, AMD64)


def test_triggers_are_counted_and_named() -> None:
    names = [s.name for s in traced("FROM a\nRUN b\n", {"a": {"OnBuild": ["RUN t"]}}).plan.steps]
    assert names[1:] == ["[2/3] ONBUILD RUN t", "[3/3] RUN b"]


def test_the_history_of_the_base_is_kept_and_counted() -> None:
    done = plan("FROM a\nENV K=v\nONBUILD RUN x\nRUN y\n")
    assert done.base_history == 1
    assert [(h.created_by, h.empty_layer) for h in done.config.history] == [
        ("base", False),
        ("ENV K=v", True),
        ("RUN /bin/sh -c y # buildkit", False),
    ]


def test_the_config_has_no_times_and_no_layers_yet() -> None:
    config = plan("FROM a\n").config
    assert (config.created, config.diff_ids) == ("", ())


def test_an_asked_platform_is_that_of_the_image() -> None:
    assert plan("FROM a\n", target=Platform("linux", "arm", "v7")).config.platform == Platform(
        "linux", "arm", "v7"
    )


def test_without_an_asked_platform_the_image_keeps_that_of_its_base() -> None:
    done = plan("FROM --platform=linux/arm64 a\n")
    assert (done.platform, done.config.platform) == (ARM64, ARM64)


def test_scratch_has_a_path_and_a_folder() -> None:
    config = plan(SCRATCH).config.config
    assert dict(config.env)["PATH"].startswith("/usr/local/sbin:")
    assert config.working_dir == "/"


def test_windows_has_no_path_of_its_own() -> None:
    config = plan(SCRATCH, target=Platform("windows", "amd64")).config.config
    assert (config.env, config.working_dir) == ((), "\\")


def test_labels_of_the_caller_win() -> None:
    config = plan("FROM scratch\nLABEL a=1 b=2\n", labels={"b": "3"}).config.config
    assert dict(config.labels) == {"a": "1", "b": "3"}


def test_an_argument_beats_an_earlier_variable_but_only_in_steps() -> None:
    done = plan("FROM a\nENV V=env\nARG V=arg\nRUN x\n")
    assert dict(only(done, ops.Exec).env)["V"] == "arg"
    assert dict(done.config.config.env)["V"] == "env"


def test_a_workdir_is_made_for_the_user_of_the_stage() -> None:
    done = plan("FROM scratch\nUSER u:g\nWORKDIR /a\nWORKDIR b/../c/\n")
    assert [s.op for s in done.steps if isinstance(s.op, ops.Mkdir)] == [
        ops.Mkdir(path="/a", owner="u:g"),
        ops.Mkdir(path="/a/c", owner="u:g"),
    ]


def test_the_epoch_is_that_of_all_that_steps_make() -> None:
    done = plan("FROM scratch\nWORKDIR /a\nCOPY f /\n", build_args={"SOURCE_DATE_EPOCH": "5"})
    assert (done.epoch, only(done, ops.Mkdir).epoch, only(done, ops.Copy).epoch) == (5, 5, 5)


def test_a_folder_as_a_base_is_the_first_layer() -> None:
    done = plan("FROM base\nRUN a b\n", contexts={"base": NamedContext.parse("base", "./folder")})
    kinds = [type(step.op).__name__ for step in done.steps]
    assert kinds == ["Local", "Base", "Copy", "Exec"]
    assert [h.created_by for h in done.config.history] == [
        "RUN /bin/sh -c a b # buildkit",
        "mount / from exec /bin/sh -c a b",
    ]


def test_a_stage_may_come_from_a_repository() -> None:
    context = NamedContext.parse("src", "https://h/x.git?ref=v1&subdir=d&mtime=commit")
    done = plan("FROM scratch\nCOPY --from=src / /\n", contexts={"src": context})
    assert only(done, ops.Fetch) == ops.Fetch(
        url="https://h/x.git", kind="git", ref="v1", subdir="d", commit_times=True
    )


@pytest.mark.parametrize(
    ("line", "config"),
    [
        ("CMD a b", {"cmd": ("/bin/sh", "-c", "a b"), "args_escaped": True}),
        ('ENTRYPOINT ["e"]', {"entrypoint": ("e",), "cmd": None}),
        ("EXPOSE 80 90-91/UDP", {"exposed_ports": ("80/tcp", "90/udp", "91/udp")}),
        ("VOLUME /a /b", {"volumes": ("/a", "/b")}),
        ("STOPSIGNAL RTMIN+3", {"stop_signal": "RTMIN+3"}),
        ("USER $NOPE", {"user": ""}),
        ("ONBUILD ADD a b", {"on_build": ("ADD a b",)}),
        ('SHELL ["/bin/bash", "-c"]', {"shell": ("/bin/bash", "-c")}),
    ],
)
def test_settings_of_the_config(line: str, config: dict[str, object]) -> None:
    got = traced(f"FROM a\n{line}\n", {"a": {"Cmd": ["old"]}}).plan.config.config
    assert {key: getattr(got, key) for key in config} == config


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('CMD ["a", "q\\"\\n"]', 'CMD ["a" "q\\"\\n"]'),
        (
            "HEALTHCHECK --interval=1h2m3.5s --retries=2 CMD x",
            (
                "HEALTHCHECK {Test:[CMD-SHELL x] Interval:1h2m3.5s Timeout:0s StartPeriod:0s"
                " StartInterval:0s Retries:2}"
            ),
        ),
        ("VOLUME /a /b", "VOLUME [/a /b]"),
        ("MAINTAINER me", "MAINTAINER me"),
        ("WORKDIR /usr//x/", "WORKDIR /usr//x/"),
        ("ARG A B=1", "ARG A B=1"),
    ],
)
def test_history_is_printed_as_go_prints(line: str, text: str) -> None:
    assert plan(f"FROM scratch\n{line}\n").new_history[0].created_by == text


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("EXPOSE 70000", "port-invalid"),
        ("EXPOSE 5-3", "port-invalid"),
        ("EXPOSE 1:2:3:4", "port-invalid"),
        ("STOPSIGNAL 0", "signal-invalid"),
        ("VOLUME $NOPE", "volume-empty"),
        ("ENV A=${B:?gone}", "expansion"),
    ],
)
def test_settings_that_cannot_be(line: str, code: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        plan(f"FROM scratch\n{line}\n")
    assert caught.value.code == code
    assert caught.value.span is not None
    assert caught.value.span.line == 2


def test_the_trace_tells_how_each_stage_ended() -> None:
    one, two = traced("FROM a AS one\nARG X=1\nFROM one\nENV Y=$X\nCOPY $Y /\n").stages
    assert [(arg.name, arg.value) for arg in two.args] == [("X", "1")]
    assert two.state is not None
    assert two.state.env["Y"] == "1"
    copy = two.commands[1].command
    assert (one.reached, two.node.parent, getattr(copy, "sources", None)) == (True, 0, ("1",))

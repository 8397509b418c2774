import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagekit.errors import DockerfileError, StageCycleError, UnknownStageError
from imagekit.oci.platform import Platform
from imagekit.plan import NamedContext, missing_bases
from tests.support.plans import AMD64, ARM64, base, graph_of, traced

THREE = "FROM a AS one\nFROM b AS Two\nCOPY --from=one /x /y\nFROM c\n"


def names(text: str, **options: object) -> list[str]:
    return sorted(str(request) for request in missing_bases(graph_of(text, **options), {}))


def test_the_last_stage_is_built_and_the_others_are_not_resolved() -> None:
    assert names(THREE) == ["docker.io/library/c:latest"]


def test_a_target_is_found_in_any_case_and_brings_what_it_reads() -> None:
    assert names(THREE, stage="TWO") == [
        "docker.io/library/a:latest",
        "docker.io/library/b:latest",
    ]


def test_a_target_is_a_name_and_no_number() -> None:
    with pytest.raises(UnknownStageError) as caught:
        graph_of(THREE, stage="0")
    assert caught.value.code == "target-not-found"


def test_a_misspelt_target_is_hinted_at() -> None:
    with pytest.raises(UnknownStageError) as caught:
        graph_of(THREE, stage="tow")
    assert caught.value.hint == "did you mean two?"


def test_a_base_is_asked_for_in_the_platform_of_its_from() -> None:
    graph = graph_of("FROM --platform=linux/arm64 a\n", target=AMD64)
    (request,) = missing_bases(graph, {})
    assert request.platform == ARM64


def test_images_of_from_flags_are_asked_for_in_the_target_platform() -> None:
    text = "FROM --platform=$BUILDPLATFORM a\nCOPY --from=tools /x /y\n"
    found = missing_bases(graph_of(text, target=ARM64), {})
    assert {r.reference.familiar: r.platform for r in found} == {
        "a:latest": AMD64,
        "tools:latest": ARM64,
    }


def test_triggers_of_a_base_bring_further_images() -> None:
    graph = graph_of("FROM a\n")
    (first,) = missing_bases(graph, {})
    known = {first: base(first, {"OnBuild": ["COPY --from=tools /t /t"]})}
    (second,) = missing_bases(graph, known)
    assert second.reference.familiar == "tools:latest"
    known[second] = base(second, {})
    assert missing_bases(graph, known) == frozenset()


def test_triggers_of_a_stage_run_in_its_children_and_not_further() -> None:
    done = traced("FROM a AS p\nONBUILD RUN t\nFROM p AS q\nRUN q\nFROM q\nRUN r\n")
    lines = [line.created_by for line in done.plan.new_history]
    assert lines == [f"RUN /bin/sh -c {name} # buildkit" for name in "tqr"]
    assert done.plan.config.config.on_build == ()


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("ARG V\nFROM $V\n", "base-name-blank", 2),
        ("FROM a AS x\nFROM Upper\n", "reference-invalid", 2),
        ("FROM --platform=a/b/c/d x\n", "platform-invalid", 1),
        ("FROM --platform=$P x\n", "platform-invalid", 1),
        ("FROM a\nCOPY --from=7 x y\n", "stage-index-invalid", 2),
        ("FROM a\nCOPY --from=$X x y\n", "from-variable", 2),
        ("FROM ${A!}\n", "expansion", 1),
    ],
)
def test_errors_say_where_they_are(text: str, code: str, line: int) -> None:
    with pytest.raises(DockerfileError) as caught:
        graph_of(text)
    assert caught.value.code == code
    assert caught.value.span is not None
    assert caught.value.span.line == line


def test_an_error_points_at_the_word() -> None:
    with pytest.raises(DockerfileError) as caught:
        graph_of("FROM Upper AS x\n")
    assert caught.value.excerpt() == "1 | FROM Upper AS x\n  |      ^^^^^"


def test_only_arguments_are_no_file_to_build() -> None:
    with pytest.raises(DockerfileError) as caught:
        graph_of("ARG A=1\n")
    assert caught.value.code == "no-stages"


def test_a_circle_names_each_instruction_in_it() -> None:
    text = "FROM a AS x\nCOPY --from=y /a /b\nFROM b AS y\nCOPY --from=x /a /b\n"
    with pytest.raises(StageCycleError) as caught:
        graph_of(text)
    assert [span.line for span in caught.value.spans] == [2, 4]


def test_a_long_chain_of_stages_is_no_problem() -> None:
    text = "".join(f"FROM a AS s{n}\nCOPY --from=s{n + 1} /a /b\n" for n in range(3000))
    graph = graph_of(text)
    assert len(graph.nodes) == 3001


def test_stages_are_cheap_however_deep_they_stand_on_each_other() -> None:
    text = "FROM a AS s0\n" + "".join(f"FROM s{n} AS s{n + 1}\n" for n in range(2000))
    done = traced(text, {"a": {"User": "u"}})
    assert (len(done.plan.steps), done.plan.config.config.user) == (1, "u")


def test_a_named_context_replaces_a_base_under_any_spelling() -> None:
    image = NamedContext.parse("debian", "docker-image://mirror.example/debian:13")
    for text in ("FROM debian\n", "FROM docker.io/library/debian:latest\n"):
        assert names(text, contexts={"debian": image}) == ["mirror.example/debian:13"]
    assert names("FROM debian:12\n", contexts={"debian": image}) == ["docker.io/library/debian:12"]


def test_a_named_context_of_a_platform_goes_first() -> None:
    contexts = {
        "a": NamedContext.parse("a", "docker-image://any"),
        "a::linux/arm64": NamedContext.parse("a::linux/arm64", "docker-image://arm"),
    }
    assert names("FROM a\n", target=ARM64, contexts=contexts) == ["docker.io/library/arm:latest"]
    assert names("FROM a\n", target=AMD64, contexts=contexts) == ["docker.io/library/any:latest"]


def test_a_named_context_replaces_a_whole_stage() -> None:
    text = "FROM a AS x\nRUN never\nFROM scratch\nCOPY --from=x /f /f\n"
    done = traced(text, contexts={"x": NamedContext.parse("x", "./folder")})
    assert {step.name for step in done.plan.steps} == {
        "FROM scratch",
        "[context x] load from client",
        "[stage-1 1/1] COPY --from=x /f /f",
    }


def test_a_layout_is_asked_for_by_its_place() -> None:
    context = NamedContext.parse("a", "oci-layout:///srv/layout:v1")
    (request,) = missing_bases(graph_of("FROM a\n", contexts={"a": context}), {})
    assert (request.layout, str(request)) == ("/srv/layout:v1", "oci-layout:///srv/layout:v1")


def test_scratch_cannot_be_replaced() -> None:
    image = NamedContext.parse("scratch", "docker-image://debian")
    assert names("FROM scratch\n", contexts={"scratch": image}) == []


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("docker-image://a", "image"),
        ("oci-layout://p", "layout"),
        ("https://h/x.git#main", "git"),
        ("git@h:o/r.git", "git"),
        ("https://h/x.tar", "http"),
        ("../folder", "folder"),
    ],
)
def test_the_source_of_a_context_says_its_kind(source: str, kind: str) -> None:
    assert NamedContext.parse("n", source).kind == kind


@pytest.mark.parametrize(
    ("value", "epoch", "place"),
    [("1700000000", 1700000000, ""), ("", None, ""), ("context", None, "context")],
)
def test_the_epoch_is_a_number_or_says_where_to_look(
    value: str, epoch: int | None, place: str
) -> None:
    graph = graph_of("FROM scratch\n", build_args={"SOURCE_DATE_EPOCH": value})
    assert (graph.epoch, graph.arguments.epoch_of) == (epoch, place)


def test_the_epoch_may_be_that_of_a_stage_with_one_download() -> None:
    text = (
        "ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nARG V=2\n"
        "ADD https://h/$V.tar /\nFROM scratch\n"
    )
    assert graph_of(text).arguments.epoch_of == "https://h/2.tar"


@pytest.mark.parametrize("value", ["abc", "1.5", "0x10", "\u0661"])
def test_an_epoch_that_is_no_number_is_refused(value: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        graph_of("FROM scratch\n", build_args={"SOURCE_DATE_EPOCH": value})
    assert caught.value.code == "date-invalid"


ARGS = {f"A{n}": str(n) for n in range(6)} | {"HTTP_PROXY": "p", "no_proxy": "q"}
LABELS = {"z": "1", "y": "2", "a": "3"}


@given(order=st.permutations(sorted(ARGS)), labels=st.permutations(sorted(LABELS)))
def test_the_plan_is_the_same_whatever_the_order_of_mappings(
    order: list[str], labels: list[str]
) -> None:
    text = "ARG A0\nFROM a$A0\nARG A1 A2 A3\nRUN --mount=from=t,target=/t x\nLABEL z=0\n"

    def plan(args: list[str], marks: list[str]) -> object:
        given_args = {name: ARGS[name] for name in args}
        marked = {name: LABELS[name] for name in marks}
        return traced(text, build_args=given_args, labels=marked).plan

    assert plan(order, labels) == plan(sorted(ARGS), sorted(LABELS))


@given(st.text(alphabet="abcFROM AS\n$\\{}-=/:,\"'<", max_size=60))
def test_no_text_makes_more_than_a_dockerfile_error(text: str) -> None:
    try:
        traced(f"FROM scratch\n{text}\n", stage=None, target=Platform("linux", "arm", "v7"))
    except DockerfileError as error:
        assert error.code  # noqa: PT017 - any class will do, another exception will not

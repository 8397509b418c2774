"""Variables in COPY --from and RUN from=, which have to be asked for."""

import pytest

from imagekit.dockerfile import parse
from imagekit.errors import DockerfileError
from imagekit.oci.platform import Platform
from imagekit.plan import StageGraph, stage_graph

LINUX = Platform.parse("linux/amd64")


def graph(text: str, **build_args: str) -> StageGraph:
    file = parse(text, expand_from=True)
    return stage_graph(file, build_args=build_args, build=LINUX, expand_from=True)


def read(graph: StageGraph) -> list[str]:
    """What the last stage reads."""
    nodes = graph.nodes
    return [nodes[index].name or nodes[index].base for index in nodes[graph.target].sources]


STAGES = "ARG G=one\nFROM scratch AS one\nFROM scratch AS two\nFROM scratch\n"


@pytest.mark.parametrize(
    ("lines", "args", "want"),
    [
        ("COPY --from=$G / /", {}, ["one"]),
        ("COPY --from=${G} / /", {"G": "two"}, ["two"]),
        ("ARG S=two\nCOPY --from=$S / /", {}, ["two"]),
        ("ARG S=two\nARG S=one\nCOPY --from=$S / /", {}, ["one"]),
        ("ARG G\nCOPY --from=${G#o}${X:-x} / /", {}, ["docker.io/library/nex:latest"]),
        ("COPY --from=${TARGETARCH}:1 / /", {}, ["docker.io/library/amd64:1"]),
        ("RUN --mount=target=/m,from=$G x", {}, ["one"]),
        ("RUN --mount=target=/m,from=two --mount=from=$G,target=/n x", {}, ["two", "one"]),
        ("COPY --from=${N:-1} / /", {}, ["two"]),
    ],
)
def test_names_are_expanded(lines: str, args: dict[str, str], want: list[str]) -> None:
    assert read(graph(f"{STAGES}{lines}\n", **args)) == want


def test_arguments_of_the_stage_that_a_stage_is_based_on_count() -> None:
    text = "FROM scratch AS one\nFROM scratch AS base\nARG S=one\nFROM base\nCOPY --from=$S / /\n"
    assert read(graph(text)) == ["one"]


def test_a_name_of_which_nothing_remains_is_refused() -> None:
    with pytest.raises(DockerfileError, match="nothing remains") as raised:
        graph("FROM scratch\nCOPY --from=$X / /\n")
    assert raised.value.code == "from-variable"
    assert raised.value.place == "Dockerfile:2:13"


@pytest.mark.parametrize("line", ["COPY --from=$G / /", "RUN --mount=target=/m,from=$G x"])
def test_variables_are_refused_by_default(line: str) -> None:
    with pytest.raises(DockerfileError) as raised:
        stage_graph(parse(f"{STAGES}{line}\n"), build_args={}, build=LINUX)
    assert raised.value.code == "from-variable"

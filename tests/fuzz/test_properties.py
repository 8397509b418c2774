"""Laws of the Dockerfile language, for files that people write and for files that nobody does."""

import random
from typing import Any

from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagekit.dockerfile import (
    Arg,
    Dockerfile,
    Stage,
    expand,
    expand_words,
    parse,
    parse_ignore,
)
from imagekit.dockerfile.printer import print_dockerfile, reparse
from imagekit.errors import DockerfileError, DockerfileSyntaxError, ImagekitError, Span
from imagekit.plan import Plan, lower, stage_graph
from tests.support import fuzzing
from tests.support.plans import AMD64
from tests.support.strategies_dockerfile import (
    dockerfiles,
    environments,
    ignore_files,
    mutants,
    paths,
    sound_dockerfiles,
    words,
)

SOME = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
FEW = settings(SOME, max_examples=100)


@SOME
@given(text=dockerfiles())
def test_a_file_is_planned_or_refused_with_its_place(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    assert fuzzing.plan(data) == fuzzing.plan(data)


@SOME
@given(data=mutants())
def test_a_broken_file_is_planned_or_refused_with_its_place(data: bytes) -> None:
    assert fuzzing.plan(data) == fuzzing.plan(data)


@FEW
@given(text=sound_dockerfiles())
def test_a_sound_file_is_planned(text: str) -> None:
    kind, found = fuzzing.plan(text.encode())
    assert kind == "plan", found


@FEW
@given(text=sound_dockerfiles(), seed=st.integers())
def test_the_order_of_mappings_does_not_matter(text: str, seed: int) -> None:
    file = parse(text)
    names = list(fuzzing.BUILD_ARGS)
    plans = []
    for order in (names, random.Random(seed).sample(names, len(names))):
        given_args = {name: fuzzing.BUILD_ARGS[name] for name in order}
        graph = stage_graph(file, build_args=given_args, build=AMD64)
        bases = fuzzing.resolved(graph)
        if order is not names:
            bases = dict(reversed(bases.items()))
        plans.append(lower(graph, bases))
    assert plans[0] == plans[1]


@FEW
@given(text=sound_dockerfiles())
def test_comments_and_blank_lines_between_instructions_plan_the_same(text: str) -> None:
    file = parse(text)
    starts = {span.line - 1 for span in fuzzing.spans(file)}
    lines = text.split("\n")
    header = 1  # behind the parser directive, which has to stay on top
    spread = [
        piece
        for number, line in enumerate(lines)
        for piece in ([*["", "# x", ""], line] if number in starts and number > header else [line])
    ]
    assert without_places(planned(parse("\n".join(spread)))) == without_places(planned(file))


@FEW
@given(text=sound_dockerfiles())
def test_line_ends_of_windows_plan_the_same(text: str) -> None:
    there = parse(text.replace("\n", "\r\n"))
    # A heredoc's body keeps its carriage returns, as BuildKit has it; nothing else does.
    assert without_places(planned(there)) == without_places(planned(parse(text)))


def planned(file: Dockerfile) -> Plan:
    graph = stage_graph(file, build_args=fuzzing.BUILD_ARGS, build=AMD64)
    return lower(graph, fuzzing.resolved(graph))


def without_places(plan: Plan) -> list[object]:
    return [plan.config, *((step.op, step.inputs, step.name) for step in plan.steps)]


@SOME
@given(data=st.one_of(dockerfiles().map(str.encode), mutants()))
def test_printing_gives_the_same_bytes(data: bytes) -> None:
    try:
        file = parse(data)
    except DockerfileSyntaxError:
        return
    printed = print_dockerfile(file).encode("utf-8", "surrogateescape")
    assert printed == data
    assert parse(printed) == file


@FEW
@given(text=st.one_of(sound_dockerfiles(), dockerfiles()))
def test_instructions_that_are_written_anew_mean_the_same(text: str) -> None:
    try:
        file = parse(text)
        again = reparse(as_new(file))
    except DockerfileError:
        return
    assert [meanings(stage) for stage in again.stages] == [meanings(s) for s in file.stages]


def as_new(file: Dockerfile) -> Dockerfile:
    """The file with instructions that no text stands for."""
    stages = [
        evolve(stage, commands=tuple(evolve(command, text="") for command in stage.commands))
        for stage in file.stages
    ]
    return evolve(file, stages=tuple(stages))


def meanings(stage: Stage) -> list[str]:
    """The instructions without their place, comments and text."""
    copies: dict[str, Any] = {"span": Span(0, 0), "text": "", "comments": (), "flags": ()}
    found = []
    for command in stage.commands:
        bare = evolve(command, **copies)
        if isinstance(bare, Arg):
            bare = evolve(bare, pairs=tuple(evolve(pair, doc="") for pair in bare.pairs))
        found.append(repr(bare))
    return found


@SOME
@given(word=words(), env=environments(), escape=st.sampled_from("\\`"))
def test_words_expand_the_same_every_time(word: str, env: dict[str, str], escape: str) -> None:
    def both() -> object:
        try:
            return expand(word, env, escape=escape), expand_words(word, env, escape=escape)
        except ImagekitError as error:
            return fuzzing.checked(error)

    first = both()
    assert first == both()
    if isinstance(first, tuple) and not isinstance(first[0], str):
        whole = first[0]
        assert not set(whole.unmatched) & set(env)
        assert set(whole.matched) <= set(env)


@SOME
@given(
    text=st.text(st.characters(exclude_characters="$\\'\"\ufeff", exclude_categories=["Cs"])),
    env=environments(),
)
def test_text_without_signs_stays_as_it_is(text: str, env: dict[str, str]) -> None:
    assert expand(text, env).result == text
    assert expand(f"'{text}'", env).result == text
    assert expand(f'"{text}"', env).result == text


@SOME
@given(text=ignore_files(), some=st.lists(paths(), min_size=1, max_size=8))
def test_ignore_files_are_read_or_refused(text: str, some: list[str]) -> None:
    data = "\f".join([text, "\n".join(some)]).encode()
    assert fuzzing.ignore(data) == fuzzing.ignore(data)


@SOME
@given(text=ignore_files())
def test_patterns_that_were_read_are_read_the_same_again(text: str) -> None:
    patterns = parse_ignore(text)
    if not any(pattern.startswith("#") for pattern in patterns):
        assert parse_ignore("\n".join(patterns)) == patterns

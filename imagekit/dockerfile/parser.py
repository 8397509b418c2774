"""`parse`: Dockerfile text to stages of instructions.

Two passes. `parse_tree` needs the grammar alone and gives untyped nodes; `build_file` gives each
its type, checks its arguments and flags, and sorts the instructions into stages.
"""

from collections.abc import Iterable, Sequence
from typing import NoReturn

from attrs import evolve

from imagekit.dockerfile.builders import build, doc_comment
from imagekit.dockerfile.directives import detect_syntax, read_directives
from imagekit.dockerfile.grammar import (
    GrammarError,
    heredocs_of,
    may_have_heredocs,
    read_node,
)
from imagekit.dockerfile.instructions import (
    Arg,
    Command,
    Dockerfile,
    EmptyContinuation,
    From,
    Heredoc,
    Maintainer,
    Node,
    Onbuild,
    Stage,
    SyntaxTree,
)
from imagekit.dockerfile.lines import (
    LineReader,
    LogicalLine,
    decode,
    has_bom,
    printable,
    with_word,
)
from imagekit.errors import DockerfileSyntaxError, ExpansionError, Span

MAX_INSTRUCTIONS = 10_000
"""Instructions that a Dockerfile may have."""

MAX_ERRORS = 20
"""Errors that are told at a time."""


def parse(
    text: str | bytes, *, filename: str = "Dockerfile", expand_from: bool = False
) -> Dockerfile:
    """Return the stages and instructions of a Dockerfile.

    A file of nothing but ARGs has no stages, which is not refused here.

    Args:
        text: the file; bytes need not be UTF-8.
        filename: for errors.
        expand_from: variables may stand in the `from` of a mount, which BuildKit refuses.

    Raises:
        DockerfileSyntaxError: with the span of the instruction, the column of the word that is
            wrong where that stands in its first line, and a hint where there is a likely fix;
            the other wrong instructions are in `others`.

    Spec: Dockerfile reference, Format; where BuildKit differs, BuildKit.
    """
    return build_file(parse_tree(text, filename=filename), expand_from=expand_from)


def parse_tree(text: str | bytes, *, filename: str = "Dockerfile") -> SyntaxTree:
    """Return the untyped instructions of a Dockerfile; arguments as in `parse`.

    Raises:
        DockerfileSyntaxError: of the grammar alone; unknown instructions pass, but if there is
            another error, they are among its `others`.
    """
    source = decode(text, filename)
    reader = LineReader(source, filename)
    nodes: list[Node] = []
    warnings: list[EmptyContinuation] = []
    errors: list[DockerfileSyntaxError] = []
    while (line := reader.next_line()) is not None:
        if line.has_blank:
            warnings.append(EmptyContinuation(span=Span(line.end, line.end)))
        if len(nodes) == MAX_INSTRUCTIONS:
            raise reader.fail(
                f"more than {MAX_INSTRUCTIONS} instructions",
                "too-many-instructions",
                line.start,
            )
        try:
            nodes.append(_read_instruction(reader, line))
        except _LineError as exc:
            errors.append(exc.error)
            if len(errors) == MAX_ERRORS:
                break
    if errors:
        raise _together(errors, _Builder(nodes, filename, source).errors)
    if not nodes:
        raise reader.fail("the file has no instructions", "no-instructions", reader.number)
    return SyntaxTree(
        filename=filename,
        source=source,
        escape=reader.escape,
        directives=read_directives(source),
        syntax=detect_syntax(source),
        nodes=tuple(nodes),
        warnings=tuple(warnings),
        has_bom=has_bom(text),
    )


def build_file(tree: SyntaxTree, *, expand_from: bool = False) -> Dockerfile:
    """Return the typed form of a tree; `expand_from` as in `parse`.

    Raises:
        DockerfileSyntaxError: an instruction that is unknown or whose arguments are wrong; the
            others that are wrong are in its `others`.
    """
    built = _Builder(tree.nodes, tree.filename, tree.source, expand_from=expand_from)
    if built.errors:
        raise _together(built.errors)
    return Dockerfile(
        filename=tree.filename,
        source=tree.source,
        escape=tree.escape,
        directives=tree.directives,
        syntax=tree.syntax,
        global_args=tuple(built.global_args),
        stages=tuple(
            Stage(
                index=index,
                from_=start,
                doc=doc_comment(start.comments, start.name),
                commands=tuple(commands),
            )
            for index, (start, commands) in enumerate(built.stages)
        ),
        warnings=tree.warnings,
        nodes=tree.nodes,
        has_bom=tree.has_bom,
    )


class _Builder:
    """Gives nodes their types and sorts them into stages.

    Attributes:
        global_args: those above the first FROM.
        stages: each FROM with what follows it.
        errors: in file order, at most MAX_ERRORS; if there are any, the rest is of no use.
    """

    def __init__(
        self, nodes: Iterable[Node], filename: str, source: str, *, expand_from: bool = False
    ) -> None:
        self._filename = filename
        self._expand_from = expand_from
        self._source = printable(source)
        self._lines = self._source.split("\n")
        self._has_from = False
        self.global_args: list[Arg] = []
        self.stages: list[tuple[From, list[Command]]] = []
        self.errors: list[DockerfileSyntaxError] = []
        for node in nodes:
            self._add(node)
            if len(self.errors) == MAX_ERRORS:
                break

    def _add(self, node: Node) -> None:
        span = _span(self._lines, node, node.word)
        # What follows a FROM that is wrong is no second mistake.
        is_below = self._has_from
        self._has_from = is_below or node.cmd == "from"
        try:
            instruction = build(node, span, expand_from=self._expand_from)
        except (GrammarError, ExpansionError) as error:
            self._has_from = True  # An unknown instruction may well be meant as FROM.
            self.errors.append(_failure(error, self._lines, node, self._filename, self._source))
            return
        if isinstance(instruction, From):
            self.stages.append((instruction, []))
        elif self.stages:
            self.stages[-1][1].append(instruction)
        elif isinstance(instruction, Arg):
            self.global_args.append(instruction)
        elif not is_below:
            self._has_from = True  # That the first FROM is too late is said once.
            self.errors.append(
                DockerfileSyntaxError(
                    f"{node.cmd.upper()} stands before the first FROM",
                    span=span,
                    filename=self._filename,
                    source=self._source,
                    hint="only ARG may stand above FROM",
                    code="no-stages",
                )
            )


def _together(
    errors: Sequence[DockerfileSyntaxError], more: Sequence[DockerfileSyntaxError] = ()
) -> DockerfileSyntaxError:
    """The first of the errors, the others with it in the order of their lines."""
    first, *rest = errors
    found = sorted((*rest, *more), key=lambda error: error.span.line if error.span else 0)
    first.others = tuple(found[: MAX_ERRORS - 1])
    return first


def parse_onbuild(
    expression: str,
    *,
    filename: str = "Dockerfile",
    span: Span | None = None,
    source: str = "",
) -> Command:
    """Return the instruction of an ONBUILD trigger, from a file or an image config.

    A trigger is read as a file of its own: the escape character is a backslash again.

    Args:
        expression: the text after ONBUILD, heredocs below it.
        filename: for errors.
        span: the place that errors and the instruction are given: the FROM that inherits it.
        source: the text that `span` is in, for errors.

    Raises:
        DockerfileSyntaxError: it is no instruction, more than one (`onbuild-trigger`), or one
            that cannot be a trigger (`onbuild-forbidden`).
    """
    place = span or Span(1, 1)

    def fail(error: DockerfileSyntaxError | GrammarError | ExpansionError) -> NoReturn:
        raise DockerfileSyntaxError(
            f"ONBUILD {printable(expression)}: {error}",
            span=span,
            filename=filename,
            source=source,
            hint=getattr(error, "hint", ""),
            code=error.code,
        ) from error

    try:
        tree = parse_tree(expression, filename=filename)
    except DockerfileSyntaxError as error:
        fail(error)
    if len(tree.nodes) != 1:
        fail(GrammarError("a trigger is one instruction", "onbuild-trigger"))
    node = evolve(tree.nodes[0], start=place.line, end=place.end_line)
    try:
        instruction = build(node, place)
    except (GrammarError, ExpansionError) as error:
        fail(error)
    if isinstance(instruction, From | Maintainer | Onbuild):
        fail(GrammarError(f"{node.cmd.upper()} cannot be a trigger", "onbuild-forbidden"))
    return instruction


class _LineError(Exception):
    """One line is wrong; those below can be read."""

    def __init__(self, error: DockerfileSyntaxError) -> None:
        super().__init__(str(error))
        self.error = error


def _read_instruction(reader: LineReader, line: LogicalLine) -> Node:
    try:
        node = read_node(line.text, reader.escape, start=line.start, end=line.end)
        announced = heredocs_of(line.text) if "<<" in line.text and may_have_heredocs(node) else []
    except (GrammarError, ExpansionError) as error:
        failure = reader.fail(str(error), error.code, line.start, line.end)
        word = error.word if isinstance(error, GrammarError) else ""
        place = Span(line.start, line.end)
        failure.span = with_word(failure.source.split("\n"), place, printable(word))
        failure.__cause__ = error
        raise _LineError(failure) from error
    heredocs: list[Heredoc] = []
    for heredoc in announced:
        body = reader.heredoc(heredoc.name, chomp=heredoc.chomp)
        if body is None:
            raise reader.fail(
                f"the heredoc {heredoc.name} is not closed",
                "heredoc-unterminated",
                line.start,
                reader.number,
                hint=f"its last line has to be {heredoc.name} and nothing else",
            )
        heredocs.append(evolve(heredoc, content=body))
    return evolve(
        node,
        end=reader.number,
        column=line.column,
        comments=line.comments,
        heredocs=tuple(heredocs),
    )


def _failure(
    error: GrammarError | ExpansionError,
    lines: list[str],
    node: Node,
    filename: str,
    source: str,
) -> DockerfileSyntaxError:
    word = error.word if isinstance(error, GrammarError) else ""
    failure = DockerfileSyntaxError(
        printable(str(error)),
        span=_span(lines, node, word),
        filename=filename,
        source=source,
        hint=getattr(error, "hint", ""),
        code=error.code,
    )
    failure.__cause__ = error
    return failure


def _span(lines: list[str], node: Node, word: str) -> Span:
    """Return the place of an instruction, with the columns of a word if that stands there."""
    start = Span(node.start, node.end, node.column)
    found = with_word(lines, start, printable(word))
    return Span(node.start, node.end) if found is start else found

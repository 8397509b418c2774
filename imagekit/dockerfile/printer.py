r"""Dockerfiles back to text: what was not edited keeps every byte.

`print_dockerfile(parse(text))` is `text`. Where instructions were edited with `attrs.evolve`, left
out, moved or added, only their own text changes:

    file = parse(text)
    stage = file.stages[0]
    stage = evolve(stage, from_=evolve(stage.from_, image="debian:13"))
    print_dockerfile(evolve(file, stages=(stage, *file.stages[1:])))

    print_dockerfile(replace(file, old, evolve(old, dest="/srv/")))

An edited word is changed where it stands, so that the continuations, comments and blanks around
it stay; only what cannot be done that way is written anew (`render`). Either way the text is read
again, and what does not come back as it was meant is refused.

Of an instruction, `span` says which text is its own (that of a new one can be anything that no
other has), and `text`, `comments` and `flags`, which are copies of the text, are not looked at.
Text that holds bytes which are not UTF-8 is to be encoded with `surrogateescape`.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar

from attrs import evolve, fields

from imagekit.dockerfile.builders import build
from imagekit.dockerfile.directives import match_directive
from imagekit.dockerfile.grammar import GrammarError
from imagekit.dockerfile.instructions import (
    Arg,
    ArgPair,
    Dockerfile,
    Expose,
    From,
    Healthcheck,
    Instruction,
    Run,
)
from imagekit.dockerfile.parser import parse, parse_tree
from imagekit.dockerfile.patch import Header
from imagekit.dockerfile.render import from_name, render_heredocs, render_line
from imagekit.dockerfile.words import BLANKS
from imagekit.errors import DockerfileError, ExpansionError, Span

_BOM: Final = "\ufeff"
_COPIES: Final = frozenset({"span", "text", "comments", "flags"})
_MAX_TRIES: Final = 64
"""Places of a word that are tried before an instruction is written anew."""

_Leaf = tuple[str | int, ...]
_I = TypeVar("_I", bound=Instruction)


def print_dockerfile(file: Dockerfile) -> str:
    """Return the text of a file, a byte order mark included if there was one.

    Args:
        file: as parsed, or an edited copy of that.

    Raises:
        DockerfileError: an instruction that no text stands for (`cannot-be-written`).
    """
    lines = file.source.split("\n")
    printed = _Printed(file, lines)
    for instruction in file.instructions:
        printed.add(instruction)
    text = "\n".join(printed.finish())
    return _BOM + text if file.has_bom else text


def replace(file: Dockerfile, old: Instruction, *new: Instruction) -> Dockerfile:
    """Return the file with an instruction replaced by others, or by none, and parsed again.

    Args:
        file: as parsed.
        old: one of its instructions.
        new: what stands in its place, of any span; a FROM can only become a FROM.

    Raises:
        DockerfileError: `new` cannot be written, or the file is none any more.
        ValueError: `old` is no instruction of the file.
    """
    if all(old is not each and old != each for each in file.instructions):
        raise ValueError("the file does not have the instruction that is to be replaced")
    if new:
        new = (evolve(new[0], span=old.span, text=old.text), *new[1:])
    edited = evolve(
        file,
        global_args=tuple(_swapped(file.global_args, old, new)),
        stages=tuple(
            evolve(
                stage,
                from_=next(_swapped((stage.from_,), old, new), stage.from_),
                commands=tuple(_swapped(stage.commands, old, new)),
            )
            for stage in file.stages
        ),
    )
    return reparse(edited)


def reparse(file: Dockerfile) -> Dockerfile:
    """Return an edited file with the text, lines and nodes that it now has.

    Raises:
        DockerfileError: it cannot be written, or is no Dockerfile any more.
    """
    return parse(print_dockerfile(file), filename=file.filename, expand_from=True)


def _swapped(
    instructions: Sequence[_I], old: Instruction, new: Sequence[Instruction]
) -> Iterator[_I]:
    for instruction in instructions:
        if instruction == old:
            yield from new  # type: ignore[misc] # a mistake shows when the file is parsed again
        else:
            yield instruction


class _Printed:
    """The lines of a file as they come out."""

    def __init__(self, file: Dockerfile, lines: Sequence[str]) -> None:
        self._file = file
        self._lines = lines
        self._nodes = {node.start: node for node in file.nodes}
        self._used: set[int] = set()
        self._at = 0
        self._out: list[str] = []

    def add(self, instruction: Instruction) -> None:
        """Print one instruction, and what stands between it and the one before."""
        node = self._nodes.get(instruction.span.line)
        if node is None or node.start in self._used or not instruction.text:
            self._header()
            self._out += self._fresh(instruction)
            return
        self._used.add(node.start)
        raw = self._lines[node.start - 1 : node.end]
        if node.start > self._at:
            self._gap(node.start - 1)
            self._at = node.end
        original = build(node, instruction.span, expand_from=True)
        wanted = _normalised(instruction, original)
        same = _meaning(wanted) == _meaning(original)
        self._out += raw if same else self._edited(raw, original, wanted)

    def finish(self) -> list[str]:
        """The lines, with those below the last instruction."""
        self._gap(len(self._lines))
        return self._out

    def _header(self) -> None:
        """Print the parser directives, which nothing may stand above."""
        lines = self._lines
        at = int(lines[0].startswith("#!"))
        while at < len(lines) and match_directive(lines[at].rstrip("\r").lstrip(BLANKS)):
            at += 1
        self._gap(at)

    def _gap(self, end: int) -> None:
        """Print comments and blank lines up to a line, and leave out instructions."""
        at = self._at
        while at < end:
            node = self._nodes.get(at + 1)
            if node is None:
                self._out.append(self._lines[at])
                at += 1
            else:
                at = node.end
        self._at = max(at, self._at)

    def _fresh(self, instruction: Instruction) -> list[str]:
        """The lines of an instruction that no text stands for yet."""
        line = render_line(instruction, self._file.escape)
        text = f"{line}\n{render_heredocs(instruction)}"
        self._check(instruction, text)
        lines = text.removesuffix("\n").split("\n")
        ends_in_return = bool(self._lines) and self._lines[0].endswith("\r")
        return [
            line if line.endswith("\r") or not ends_in_return else f"{line}\r" for line in lines
        ]

    def _edited(self, raw: Sequence[str], original: Instruction, wanted: Instruction) -> list[str]:
        header = Header.read("\n".join(raw), self._file.escape)
        below = raw[header.count :]
        if render_heredocs(wanted) != render_heredocs(original):
            below = render_heredocs(wanted).split("\n")[:-1]
        tail = "".join(f"\n{line}" for line in below)
        header = self._patched(header, tail, wanted) or header.rewritten(
            render_line(wanted, self._file.escape)
        )
        text = header.raw + tail
        self._check(wanted, text)
        return text.split("\n")

    def _patched(self, header: Header, tail: str, wanted: Instruction) -> Header | None:
        """The header with the words changed that differ; None if more than words does."""
        current = self._read(header.raw + tail)
        if current is None:
            return None
        goal = dict(_leaves(_meaning(wanted)))
        while True:
            have = dict(_leaves(_meaning(current)))
            if have.keys() != goal.keys():
                return None
            wrong = [leaf for leaf in goal if have[leaf] != goal[leaf]]
            if not wrong:
                return header
            found = self._with_word(header, tail, have, wrong[0], goal[wrong[0]])
            if found is None:
                return None
            header, current = found

    def _with_word(
        self,
        header: Header,
        tail: str,
        have: dict[_Leaf, object],
        leaf: _Leaf,
        new: object,
    ) -> tuple[Header, Instruction] | None:
        """The header with one word put where it belongs, which reading it again tells."""
        old = have[leaf]
        if not isinstance(old, str) or not isinstance(new, str) or not old:
            return None
        here, here_new = old.partition("\n")[0], new.partition("\n")[0]
        for at in _places(header.text, here):
            changed = header.spliced(at, at + len(here), here_new)
            read = self._read(changed.raw + tail)
            if read is not None and dict(_leaves(_meaning(read))) == {**have, leaf: new}:
                return changed, read
        return None

    def _read(self, text: str) -> Instruction | None:
        """The instruction that a text is, or None if it is none."""
        start = "# escape=`\n" if self._file.escape == "`" else ""
        try:
            nodes = parse_tree(start + text, filename=self._file.filename).nodes
            return build(nodes[0], Span(1, 1), expand_from=True) if len(nodes) == 1 else None
        except (DockerfileError, GrammarError, ExpansionError):
            return None

    def _check(self, wanted: Instruction, text: str) -> None:
        read = self._read(text)
        if read is None or _meaning(read) != _meaning(_normalised(wanted, read)):
            raise DockerfileError(
                f"{wanted.keyword.upper()} cannot be written as it was edited: {text.strip()!r}",
                filename=self._file.filename,
                span=wanted.span if wanted.text else None,
                source=self._file.source,
                code="cannot-be-written",
            )


def _places(text: str, word: str) -> Iterator[int]:
    """Where a word stands, the last places first: flags repeat what stands in arguments."""
    end = len(text)
    for _ in range(_MAX_TRIES):
        at = text.rfind(word, 0, end)
        if at < 0:
            return
        yield at
        end = at + len(word) - 1


def _normalised(wanted: Instruction, original: Instruction) -> Instruction:
    """The same, with what its other fields say of a field that follows from them."""
    word = wanted.word
    if not word or word.lower() != wanted.keyword:
        is_same = original.keyword == wanted.keyword
        word = original.word if is_same else wanted.keyword.upper()
    match wanted:
        case From() if isinstance(original, From):
            if wanted.written_name != original.written_name:
                wanted = evolve(wanted, name=wanted.written_name.lower())
            written = from_name(wanted)
            return evolve(wanted, word=word, written_name=written, name=written.lower())
        case Expose():
            return evolve(wanted, word=word, ports=tuple(sorted(wanted.ports)))
        case Healthcheck() if wanted.test == ("NONE",):
            return Healthcheck(span=wanted.span, text=wanted.text, word=word, test=wanted.test)
        case _:
            return evolve(wanted, word=word)


def _meaning(instruction: Instruction) -> Instruction:
    """The instruction without the copies of its text."""
    bare = evolve(instruction, span=Span(0, 0), text="", comments=(), flags=())
    match bare:
        case Arg(pairs=pairs):
            return evolve(bare, pairs=tuple(ArgPair(key=p.key, value=p.value) for p in pairs))
        case Run(argv=("",), shell_form=True):
            return evolve(bare, argv=())
        case _:
            return bare


def _leaves(value: Any, path: _Leaf = ()) -> Iterator[tuple[_Leaf, object]]:  # noqa: ANN401 - a field
    """The single values that an instruction is made of; what follows from another left out."""
    if isinstance(value, tuple):
        yield (*path, "count"), len(value)
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    elif hasattr(type(value), "__attrs_attrs__"):
        is_named = isinstance(value, From)
        for attribute in fields(type(value)):
            if attribute.name not in _COPIES and not (is_named and attribute.name == "name"):
                yield from _leaves(getattr(value, attribute.name), (*path, attribute.name))
    else:
        yield path, value

"""A parsed Dockerfile as JSON: what `imagekit parse` prints.

    {"filename", "escape", "syntax": {"reference", "value", "line"} or null,
     "directives": [{"name", "value", "line"}],
     "global_args": [instruction],
     "stages": [{"index", "name", "base", "platform", "doc", "span", "instructions": [...]}],
     "warnings": [{"code", "line"}]}

An instruction is

    {"instruction": "COPY", "word": "copy", "span", "text", "flags", "comments",
     "heredocs": [{"name", "content", "expand", "chomp", "fd"}], "arguments": {...}}

where `text` is its logical line, `span` is `{"line", "end_line", "column"}`, counted from 1, and
`arguments` has the fields of its class in `instructions`, not expanded. A stage's first
instruction is its FROM. Bytes that are not UTF-8 are shown as replacement characters.
"""

from typing import Any

from attrs import asdict, fields

from imagekit.dockerfile.instructions import Dockerfile, Instruction, Located, Stage
from imagekit.dockerfile.lines import printable
from imagekit.errors import Span

_SHARED = frozenset(attribute.name for attribute in fields(Located)) | {"heredocs"}


def describe_file(file: Dockerfile) -> dict[str, Any]:
    """Return a file as a JSON value."""
    found = {
        "filename": file.filename,
        "escape": file.escape,
        "syntax": asdict(file.syntax) if file.syntax else None,
        "directives": [asdict(directive) for directive in file.directives],
        "global_args": [describe(arg) for arg in file.global_args],
        "stages": [_stage(stage) for stage in file.stages],
        "warnings": [
            {"code": "NoEmptyContinuation", "line": warning.span.line} for warning in file.warnings
        ],
    }
    clean: dict[str, Any] = _printable(found)
    return clean


def describe(instruction: Instruction) -> dict[str, Any]:
    """Return an instruction as a JSON value."""
    values = asdict(instruction)
    return {
        "instruction": instruction.keyword.upper(),
        "word": instruction.word,
        "span": _span(instruction.span),
        "text": instruction.text,
        "flags": list(instruction.flags),
        "comments": list(instruction.comments),
        "heredocs": list(values.get("heredocs", ())),
        "arguments": {
            name.rstrip("_"): value for name, value in values.items() if name not in _SHARED
        },
    }


def summary(file: Dockerfile) -> str:
    """Return a file for people: a line an instruction, with its lines in the file."""
    rows = []
    for instruction in file.instructions:
        span = instruction.span
        place = str(span.line) if span.line == span.end_line else f"{span.line}-{span.end_line}"
        bodies = len(getattr(instruction, "heredocs", ()))
        more = f"  (+{bodies} heredoc{'s' * (bodies > 1)})" if bodies else ""
        indent = "" if instruction.keyword == "from" or not file.stages else "  "
        indent = indent if instruction not in file.global_args else ""
        rows.append((place, f"{indent}{' '.join(printable(instruction.text).split())}{more}"))
    width = max((len(place) for place, _ in rows), default=0)
    return "".join(f"{place:>{width}} | {text}\n" for place, text in rows)


def _stage(stage: Stage) -> dict[str, Any]:
    return {
        "index": stage.index,
        "name": stage.name,
        "base": stage.base,
        "platform": stage.platform,
        "doc": stage.doc,
        "span": _span(stage.span),
        "instructions": [describe(each) for each in (stage.from_, *stage.commands)],
    }


def _span(span: Span) -> dict[str, int]:
    return {"line": span.line, "end_line": span.end_line, "column": span.column}


def _printable(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    match value:
        case str():
            return printable(value)
        case dict():
            return {key: _printable(item) for key, item in value.items()}
        case list() | tuple():
            return [_printable(item) for item in value]
        case _:
            return value

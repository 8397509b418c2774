"""`imagekit parse`, `plan`, `check` and `pin`, and `--call` of `build`: nothing is built."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from imagekit.cli.words import (
    Run,
    add_definition,
    add_store,
    context_of,
    definition,
    print_json,
    split,
)
from imagekit.errors import UsageError


class _Shown(Protocol):
    def to_json(self) -> dict[str, Any]: ...

    def to_text(self) -> str: ...


_CALLS = ("build", "check", "lint", "outline", "targets")


def call(method: str, arguments: argparse.Namespace) -> int:
    """Carry out `--call=METHOD[,format=json|text]`; exit codes are those of buildx.

    Raises:
        UsageError: an unknown method or format.
    """
    from imagekit import language  # noqa: PLC0415 - what --help does not need

    name, form = _parse_call(method)
    given = definition(arguments)
    context = context_of(arguments)
    if name in ("check", "lint"):
        report = language.check(context, store=arguments.store, **given)
        _show(report, form)
        return int(not report.is_clean)
    show = language.outline if name == "outline" else language.targets
    _show(show(context, store=arguments.store, **given), form)
    return 0


def _parse_call(text: str) -> tuple[str, str]:
    name, *options = text.split(",")
    form = "text"
    for option in options:
        key, _, form = option.partition("=")
        if key != "format" or form not in ("json", "text"):
            raise UsageError(f"--call {text!r}: {option!r}", hint="format=json or format=text")
    if name not in _CALLS[1:]:
        raise UsageError(f"--call {text!r}: unknown method", hint=f"one of {', '.join(_CALLS)}")
    return name, form


def _show(found: _Shown, form: str) -> None:
    if form == "json":
        print_json(found.to_json())
    else:
        sys.stdout.write(found.to_text())


def add_parse(parser: argparse.ArgumentParser) -> Run:
    """Add the arguments of `imagekit parse`; returns what carries it out."""
    _add_file(parser)
    _add_format(parser, ("text", "json"))
    return _parse


def _parse(arguments: argparse.Namespace) -> int:
    from imagekit import language  # noqa: PLC0415 - what --help does not need
    from imagekit.dockerfile.describe import describe_file, summary  # noqa: PLC0415

    file = language.parse(_text(arguments), filename=_name(arguments), expand_from=True)
    if arguments.format == "json":
        print_json(describe_file(file))
    else:
        sys.stdout.write(summary(file))
    return 0


def add_plan(parser: argparse.ArgumentParser) -> Run:
    """Add the arguments of `imagekit plan`; returns what carries it out."""
    add_store(parser)
    _add_context(parser)
    add_definition(parser)
    _add_format(parser, ("text", "json", "mermaid", "svg"))
    return _plan


def _plan(arguments: argparse.Namespace) -> int:
    from imagekit import language  # noqa: PLC0415 - what --help does not need

    planned = language.plan_build(
        context_of(arguments), store=arguments.store, **definition(arguments)
    )
    match arguments.format:
        case "json":
            print_json(planned.to_json())
        case "mermaid":
            sys.stdout.write(planned.to_mermaid())
        case "svg":
            sys.stdout.write(planned.to_svg())
        case _:
            sys.stdout.write(planned.to_text())
    return 0


def add_check(parser: argparse.ArgumentParser) -> Run:
    """Add the arguments of `imagekit check`; returns what carries it out."""
    add_store(parser)
    _add_context(parser)
    add_definition(parser)
    parser.add_argument(
        "--fix", action="store_true", help="mend in FILE what can be mended, then check again"
    )
    _add_format(parser, ("text", "json"))
    return _check


def _check(arguments: argparse.Namespace) -> int:
    from imagekit import language  # noqa: PLC0415 - what --help does not need

    context, given = context_of(arguments), definition(arguments)
    report = language.check(context, store=arguments.store, **given)
    if arguments.fix and report.warnings:
        path = Path(report.filename)
        if report.filename == "-" or not path.is_file():
            raise UsageError(
                f"--fix needs a Dockerfile on this machine, not {report.filename}",
                hint="name one with -f FILE",
            )
        fixed = language.fix(report)
        language.write_dockerfile(path, fixed.text)
        for finding in fixed.mended:
            place = f"{report.filename}:{finding.span.line}"
            sys.stderr.write(f"{place}: fixed {finding.rule.name}\n")
        report = language.check(context, store=arguments.store, **given)
    _show(report, arguments.format)
    return int(not report.is_clean)


def add_pin(parser: argparse.ArgumentParser) -> Run:
    """Add the arguments of `imagekit pin`; returns what carries it out."""
    add_store(parser)
    _add_file(parser)
    parser.add_argument("--write", action="store_true", help="change FILE instead of printing it")
    parser.add_argument(
        "--insecure-registry", action="append", default=[], metavar="HOST", help="speak HTTP to it"
    )
    return _pin


def _pin(arguments: argparse.Namespace) -> int:
    from imagekit import language  # noqa: PLC0415 - what --help does not need

    name = _name(arguments)
    if arguments.write and arguments.file == "-":
        raise UsageError("--write needs a FILE, not standard input")
    found = language.pin(
        _text(arguments),
        filename=name,
        insecure_registries=split(arguments.insecure_registry),
        store=arguments.store,
    )
    for pin in found.pins:
        sys.stderr.write(f"{name}:{pin.line}: {pin.before} is {pin.after}\n")
    for line, image in found.skipped:
        sys.stderr.write(f"{name}:{line}: {image} has variables and stays as it is\n")
    if arguments.write:
        language.write_dockerfile(arguments.file, found.text)
    else:
        sys.stdout.buffer.write(found.text.encode("utf-8", "surrogateescape"))
    return 0


def _add_context(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "context", nargs="?", default=".", metavar="CONTEXT", help="as for build (default: .)"
    )


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        nargs="?",
        default="Dockerfile",
        metavar="FILE",
        help="default: Dockerfile; -: stdin",
    )


def _add_format(parser: argparse.ArgumentParser, forms: Sequence[str]) -> None:
    parser.add_argument("--format", choices=forms, default=forms[0])


def _text(arguments: argparse.Namespace) -> Path | bytes:
    from imagekit.contexts import MAX_DOCKERFILE  # noqa: PLC0415 - see above

    if arguments.file == "-":
        return sys.stdin.buffer.read(MAX_DOCKERFILE + 1)
    return Path(arguments.file)


def _name(arguments: argparse.Namespace) -> str:
    return str(arguments.file)

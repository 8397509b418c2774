"""Verb `parse`: text to instructions and stages."""

import base64
from collections.abc import Callable
from typing import Any

from imagekit.dockerfile import instructions as ins
from imagekit.dockerfile.directives import detect_syntax, read_directives
from imagekit.dockerfile.lines import decode, printable
from imagekit.dockerfile.parser import build_file, parse_tree
from imagekit.errors import DockerfileError

COUNTED_FROM_ZERO = frozenset({"line-too-long", "directive-repeated"})
"""Errors that BuildKit places one line too high."""


def text_of(case: dict[str, Any]) -> bytes:
    if "b64" in case:
        return base64.b64decode(case["b64"])
    return str(case["dockerfile"]).encode("utf-8", "surrogatepass")


def answer(case: dict[str, Any]) -> dict[str, Any]:
    data = text_of(case)
    text = decode(data, "Dockerfile")
    syntax = detect_syntax(text)
    out: dict[str, Any] = {
        "directives": [
            {"name": d.name, "value": d.value, "line": d.line} for d in read_directives(text)
        ],
        "syntax": syntax and {"ref": syntax.reference, "value": syntax.value, "line": syntax.line},
    }
    try:
        tree = parse_tree(data)
    except DockerfileError as error:
        return {**out, "error": error_view(error, "parse")}
    out["escape"] = tree.escape
    out["instructions"] = [node_view(node) for node in tree.nodes]
    out["empty_continuation_lines"] = [w.span.line for w in tree.warnings]
    try:
        file = build_file(tree)
    except DockerfileError as error:
        return clean({**out, "error": error_view(error, "instructions")})
    out["global_args"] = [pair_view(pair) for arg in file.global_args for pair in arg.pairs]
    out["stages"] = [stage_view(stage) for stage in file.stages]
    return clean(out)


def error_view(error: DockerfileError, phase: str) -> dict[str, Any]:
    view: dict[str, Any] = {"class": error.code, "message": error.message, "phase": phase}
    if error.span is None:
        view["lines"] = [[0, 0]]
    else:
        shift = error.code in COUNTED_FROM_ZERO
        view["lines"] = [
            [line - shift, line - shift]
            for line in range(error.span.line, error.span.end_line + 1)
        ]
    return view


def node_view(node: ins.Node, *, sub: bool = False) -> dict[str, Any]:
    view: dict[str, Any] = {
        "cmd": node.cmd,
        "original": node.original,
        "flags": list(node.flags),
        "json": node.json,
        "args": list(node.args),
    }
    if not sub:
        view |= {"start": node.start, "end": node.end}
    if node.word != node.word.upper():
        view["word"] = node.word
    if node.comments:
        view["comments"] = list(node.comments)
    if node.heredocs:
        view["heredocs"] = [
            {
                "name": h.name,
                "fd": h.fd,
                "expand": h.expand,
                "chomp": h.chomp,
                "content": h.content,
            }
            for h in node.heredocs
        ]
    if node.sub:
        view["sub"] = node_view(node.sub, sub=True)
    return view


def stage_view(stage: ins.Stage) -> dict[str, Any]:
    view: dict[str, Any] = {
        "name": stage.name,
        "base": stage.base,
        "platform": stage.platform,
        "line": stage.span.line,
        "commands": [
            {"cmd": c.keyword, "line": c.span.line, "typed": typed_view(c)} for c in stage.commands
        ],
    }
    if stage.doc:
        view["doc"] = stage.doc
    return view


def pair_view(pair: ins.ArgPair) -> dict[str, Any]:
    view: dict[str, Any] = {"key": pair.key, "value": pair.value}
    if pair.doc:
        view["doc"] = pair.doc
    return view


def typed_view(command: ins.Instruction) -> dict[str, Any]:
    return TYPED[type(command)](command)


def copy_view(c: ins.Copy | ins.Add) -> dict[str, Any]:
    view: dict[str, Any] = {"dest": c.dest, "sources": list(c.sources)}
    if c.heredocs:
        view["contents"] = [
            {"path": h.name, "data": h.body, "expand": h.expand} for h in c.heredocs
        ]
    for name, key in (
        ("from_", "from"),
        ("chown", "chown"),
        ("chmod", "chmod"),
        ("link", "link"),
        ("parents", "parents"),
        ("checksum", "checksum"),
    ):
        if value := getattr(c, name, None):
            view[key] = value
    if c.exclude:
        view["exclude"] = list(c.exclude)
    for key in ("keep_git_dir", "unpack"):
        value = getattr(c, key, None)
        if value is not None:
            view[key] = value
    return view


def run_view(c: ins.Run) -> dict[str, Any]:
    view: dict[str, Any] = {
        "cmdline": list(c.argv),
        "shell_form": c.shell_form,
        "network": c.network,
        "security": c.security,
    }
    if c.heredocs:
        view["files"] = [{"name": h.name, "data": h.content, "chomp": h.chomp} for h in c.heredocs]
    return view


def argv_view(c: ins.Cmd | ins.Entrypoint) -> dict[str, Any]:
    return {"cmdline": list(c.argv), "shell_form": c.shell_form}


def health_view(c: ins.Healthcheck) -> dict[str, Any]:
    numbers = {
        "Interval": c.interval_ns,
        "Timeout": c.timeout_ns,
        "StartPeriod": c.start_period_ns,
        "StartInterval": c.start_interval_ns,
        "Retries": c.retries,
    }
    return {"health": {"Test": list(c.test), **{k: v for k, v in numbers.items() if v}}}


def pairs_view(c: ins.Env | ins.Label) -> list[list[Any]]:
    return [[pair.key, pair.value, pair.legacy] for pair in c.pairs]


TYPED: dict[type, Callable[[Any], dict[str, Any]]] = {
    ins.Add: copy_view,
    ins.Arg: lambda c: {"args": [pair_view(pair) for pair in c.pairs]},
    ins.Cmd: argv_view,
    ins.Copy: copy_view,
    ins.Entrypoint: argv_view,
    ins.Env: lambda c: {"env": pairs_view(c)},
    ins.Expose: lambda c: {"ports": list(c.ports)},
    ins.Healthcheck: health_view,
    ins.Label: lambda c: {"labels": pairs_view(c)},
    ins.Maintainer: lambda c: {"maintainer": c.maintainer},
    ins.Onbuild: lambda c: {"expression": c.expression},
    ins.Run: run_view,
    ins.Shell: lambda c: {"shell": list(c.argv)},
    ins.Stopsignal: lambda c: {"signal": c.signal},
    ins.User: lambda c: {"user": c.user},
    ins.Volume: lambda c: {"volumes": list(c.paths)},
    ins.Workdir: lambda c: {"path": c.path},
}


def clean(value: Any) -> Any:
    """Return a JSON value whose strings have no lone surrogates."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [clean(item) for item in value]
    if isinstance(value, dict):
        return {key: clean(item) for key, item in value.items()}
    return value

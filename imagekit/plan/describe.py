"""A plan as JSON and as text: what `imagekit plan` prints.

    {"platform", "target", "epoch",
     "stages": [{"index", "name", "base", "parent", "platform", "reached", "implicit", "line",
                 "reads": [index], "args": {name: value}}],
     "steps": [{"index", "name", "stage", "platform", "inputs": [index], "line",
                "op": {"type": "exec", ...}}],
     "result": index, "config": {the image config, without diff IDs},
     "warnings": [{"code", "message", "line"}]}

`type` is `base`, `local`, `fetch`, `copy`, `mkdir` or `exec`; the other keys of `op` are the
fields of its class in `ops`. Nested values with several forms (mounts, sources) have a `type` as
well. Proxies, which may hold passwords, and parameters of URLs are left out.
"""

import base64
from typing import Any

from attrs import fields, has

from imagekit.dockerfile.lines import printable
from imagekit.oci.descriptor import Descriptor
from imagekit.oci.digest import Digest
from imagekit.oci.platform import Platform
from imagekit.plan import ops
from imagekit.plan.lower import StageResult, Trace
from imagekit.plan.stages import StageGraph

_TYPED = (
    ops.Base | ops.Local | ops.Fetch | ops.Copy | ops.Mkdir | ops.Exec | ops.CopySource
    | ops.InlineFile | ops.Mount
)  # fmt: skip


def describe_plan(graph: StageGraph, trace: Trace) -> dict[str, Any]:
    """Return a plan as a JSON value."""
    plan = trace.plan
    target = graph.nodes[graph.target]
    return {
        "platform": str(plan.platform),
        "target": target.name or str(target.index),
        "epoch": plan.epoch,
        "stages": [_stage(stage) for stage in trace.stages if not stage.node.is_empty],
        "steps": [_step(index, step) for index, step in enumerate(plan.steps)],
        "result": plan.result,
        "config": plan.config.to_json(),
        "warnings": [
            {"code": w.code, "message": w.message, "line": w.span.line if w.span else 0}
            for w in plan.warnings
        ],
    }


def summary(graph: StageGraph, trace: Trace) -> str:
    """Return a plan for people: its steps in the order in which they can run, and its config."""
    plan = trace.plan
    target = graph.nodes[graph.target]
    lines = [f"plan of {target.name or f'stage {target.index}'} for {plan.platform}"]
    width = len(str(max(len(plan.steps) - 1, 0)))
    for index, step in enumerate(plan.steps):
        inputs = f"  <- {', '.join(map(str, step.inputs))}" if step.inputs else ""
        lines.append(f"{index:>{width}} {type(step.op).__name__.lower():5} {step.name}{inputs}")
    unused = [s.node for s in trace.stages if not s.reached and not s.node.implicit]
    if unused:
        lines.append(f"not needed: {', '.join(n.name or f'stage {n.index}' for n in unused)}")
    config = plan.config.config
    for name, value in (
        ("entrypoint", config.entrypoint),
        ("cmd", config.cmd),
        ("user", config.user),
        ("workdir", config.working_dir),
        ("ports", config.exposed_ports),
        ("volumes", config.volumes),
    ):
        if value:
            shown = value if isinstance(value, str) else " ".join(value)
            lines.append(f"{name}: {shown}")
    lines += [f"env: {name}={value}" for name, value in config.env]
    return printable("\n".join(lines)) + "\n"


def _stage(stage: StageResult) -> dict[str, Any]:
    node = stage.node
    return {
        "index": node.index,
        "name": node.name,
        "base": printable(node.base),
        "parent": node.parent,
        "platform": str(stage.platform),
        "reached": stage.reached,
        "implicit": node.implicit,
        "line": node.span.line,
        "reads": sorted(set(node.sources)),
        "args": {printable(a.name): printable(a.value or "") for a in stage.args},
    }


def _step(index: int, step: ops.Step) -> dict[str, Any]:
    return {
        "index": index,
        "name": printable(step.name),
        "stage": step.stage,
        "platform": str(step.platform),
        "inputs": list(step.inputs),
        "line": step.span.line if step.span else 0,
        "op": _value(step.op),
    }


def _value(value: Any) -> Any:  # noqa: ANN401, PLR0911 - a field of an operation
    match value:
        case str():
            return printable(value)
        case bytes():
            return base64.b64encode(value).decode()
        case tuple():
            return [_value(item) for item in value]
        case Platform() | Digest():
            return str(value)
        case Descriptor():
            return value.to_json()
        case _ if has(type(value)):
            found = {
                attribute.name: _value(getattr(value, attribute.name))
                for attribute in fields(type(value))
                if attribute.name != "proxy_env"
            }
            if isinstance(value, ops.Fetch):
                found["url"] = printable(value.shown)
            kind = {"type": type(value).__name__.lower()} if isinstance(value, _TYPED) else {}
            return {**kind, **found}
        case _:
            return value

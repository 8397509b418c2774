"""Verb `graph`: stages, expanded instructions, config and history of a build."""

from collections.abc import Mapping
from typing import Any

from attrs import evolve

from imagekit.errors import DockerfileError, StageCycleError
from imagekit.oci.config import ImageConfig
from imagekit.oci.document import encode_json
from imagekit.oci.platform import Platform
from imagekit.plan import (
    BaseRequest,
    ResolvedBase,
    StageGraph,
    StageResult,
    Trace,
    missing_bases,
    stage_graph,
    trace,
)
from imagekit.plan.checks import Checks
from imagekit.plan.lint import open_checks, parse_checked
from imagekit.plan.mounts import MountOptions
from imagekit.plan.state import ExpandedCommand
from tests.conformance.parse_view import clean, error_view, text_of, typed_view


def answer(case: dict[str, Any]) -> dict[str, Any]:
    checks = Checks()
    try:
        checks = open_checks(text_of(case), case.get("build_args", {}))
        return clean({**view(*traced(case, checks)), "lint": lint_view(checks)})
    except DockerfileError as error:
        return clean({"lint": lint_view(checks), "error": place_view(error)})


def lint_view(checks: Checks) -> list[list[Any]]:
    return sorted([found.rule.name, found.span.line, found.detail] for found in checks.found)


def traced(case: dict[str, Any], checks: Checks) -> tuple[StageGraph, Trace]:
    """Plan a case, its images taken from the table that comes with it."""
    graph = stage_graph(
        parse_checked(text_of(case), checks),
        build_args=case.get("build_args", {}),
        build=Platform.parse(case["build_platforms"][0]),
        target=Platform.parse(case["platform"]) if "platform" in case else None,
        stage=case.get("target"),
        all_stages=case.get("all_stages", False),
        checks=checks,
    )
    bases: dict[BaseRequest, ResolvedBase] = {}
    while missing := missing_bases(graph, bases):
        bases |= {request: resolve(request, case["images"]) for request in missing}
    return graph, trace(graph, bases, labels=case.get("labels", {}), checks=checks)


def resolve(request: BaseRequest, images: Mapping[str, Any]) -> ResolvedBase:
    name = request.reference.familiar
    config = ImageConfig.decode(encode_json(images.get(name, images["*"])))
    if name not in images:
        wanted = request.platform
        platform = evolve(config.platform, os=wanted.os, architecture=wanted.architecture)
        config = evolve(config, platform=platform)
    return ResolvedBase(config=config)


def view(graph: StageGraph, done: Trace) -> dict[str, Any]:
    plan = done.plan
    config = plan.config
    image: dict[str, Any] = {
        "os": config.platform.os,
        "architecture": config.platform.architecture,
        "config": config.config.to_json(),
    }
    if config.platform.variant:
        image["variant"] = config.platform.variant
    if config.author:
        image["author"] = config.author
    return {
        "target": graph.target,
        "stages": [stage_view(s) for s in done.stages if is_shown(s)],
        "image": image,
        "history": [
            {"created_by": line.created_by, "empty_layer": line.empty_layer}
            for line in plan.new_history
        ],
    }


def is_shown(stage: StageResult) -> bool:
    """Whether the cases list it: not what is unused, nor the empty start of a cache mount."""
    return not stage.node.implicit or (stage.reached and stage.node.base != "scratch")


def stage_view(stage: StageResult) -> dict[str, Any]:
    node = stage.node
    if node.implicit:
        keys = {"index": node.index, "implicit": True, "base": node.base}
        return {**keys, "reached": stage.reached}
    out: dict[str, Any] = {
        "index": node.index,
        "name": node.name,
        "base": node.base,
        "reached": stage.reached,
    }
    if node.parent is not None:
        out["base_stage"] = node.parent
    if stage.state is None or not stage.reached:
        return out
    return out | {
        "platform": str(stage.platform),
        "env": dict(stage.state.env),
        "workdir": stage.state.workdir,
        "args": [[arg.name, arg.value] for arg in stage.args],
        "commands": [command_view(command) for command in stage.commands],
        "config": stage.state.image.config.to_json(),
    }


def command_view(done: ExpandedCommand) -> dict[str, Any]:
    command = done.command
    expanded = typed_view(command)
    if done.mounts:
        expanded["mounts"] = [mount_view(mount) for mount in done.mounts]
    out: dict[str, Any] = {
        "cmd": command.keyword,
        "expanded": expanded,
        "line": command.span.line,
    }
    if done.trigger:
        out["onbuild"] = True
    return out


def mount_view(mount: MountOptions) -> dict[str, Any]:
    given = {
        "from": mount.from_,
        "source": mount.source,
        "target": mount.target,
        "id": mount.id,
        "sharing": mount.sharing,
        "required": mount.required,
        "size": mount.size or None,
        "uid": mount.uid,
        "gid": mount.gid,
        "mode": mount.mode,
        "env": mount.env,
    }
    kept = {k: v for k, v in given.items() if v is not None and v is not False and v != ""}
    return {"type": mount.type, "readonly": mount.read_only, **kept}


def place_view(error: DockerfileError) -> dict[str, Any]:
    out = error_view(error, "convert")
    if isinstance(error, StageCycleError):
        out["lines"] = sorted([span.line, span.line] for span in error.spans)
    elif error.span is None:
        del out["lines"]
    return out

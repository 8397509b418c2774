"""Graph cases against the planner: stages, config and history, and the operations of the plan.

Operations are compared in the order in which a walk from the result
meets them: which of two independent stages stands first in a plan is each planner's own affair.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imagekit.errors import DockerfileError
from imagekit.plan import ops, paths
from imagekit.plan.checks import Checks

HERE = Path(__file__).resolve().parent
CASES = Path(os.environ.get("IMAGEKIT_CONFORMANCE", HERE.parents[2] / "shared" / "conformance"))

pytestmark = pytest.mark.skipif(
    not CASES.is_dir(), reason="the conformance cases are not here (IMAGEKIT_CONFORMANCE)"
)

if str(HERE.parents[1]) not in sys.path:
    sys.path.insert(0, str(HERE.parents[1]))


def cases(name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each case as a question and its answer."""
    images = json.loads((CASES / "graph" / "images.json").read_text())
    texts = {}
    if name == "buildkit-inline":
        lines = (CASES / "parser" / "buildkit-inline.jsonl").read_text().splitlines()
        texts = {row["id"]: row["dockerfile"] for row in map(json.loads, lines)}
    for line in (CASES / "graph" / f"{name}.jsonl").read_text().splitlines():
        row = json.loads(line)
        answer = row.pop("expected")
        row["images"] = images
        if name == "corpus":
            data = (CASES / "parser" / "inputs" / row["id"]).read_bytes()
            row["dockerfile"] = data.decode("utf-8", "surrogateescape")
        elif texts:
            row["dockerfile"] = texts[row["id"]]
        yield row, answer


@pytest.mark.parametrize("name", ["hand", "buildkit-inline", "corpus"])
def test_stages_config_history_findings_and_errors_are_those_of_buildkit(name: str) -> None:
    from tests.conformance import graph_view  # noqa: PLC0415 - the path is set above

    differences = []
    for question, want in cases(name):
        got = graph_view.answer(question)
        for side in (want, got):
            side.pop("ops", None)
            side["lint"].sort()
            side.get("error", {}).pop("message", None)
        differences += [question["id"]] if want != got else []
    assert differences == []


@pytest.mark.parametrize("name", ["hand", "buildkit-inline"])
def test_operations_are_those_of_buildkit(name: str) -> None:
    from tests.conformance import graph_view  # noqa: PLC0415 - the path is set above

    differences = []
    for question, want in cases(name):
        if "ops" not in want:
            continue
        try:
            _, done = graph_view.traced(question, Checks())
        except DockerfileError as error:
            differences.append((question["id"], str(error)))
            continue
        mine = inline_last(plan_view(done.plan))
        theirs = inline_last(buildkit_view(want["ops"]))
        if mine != theirs:
            differences.append((question["id"], [x for x in theirs if x not in mine], mine))
    assert differences == []


def plan_view(plan: ops.Plan) -> Iterator[dict[str, Any]]:
    for step in walked(plan, plan.result, set()):
        match step.op:
            case ops.Exec():
                scripts = (m for m in step.op.mounts if isinstance(m, ops.ScriptMount))
                yield from (file_view(m.target, m.content, 0o755) for m in scripts)
                yield exec_view(step.op)
            case ops.Mkdir():
                yield owned({"do": "mkdir", "path": step.op.path}, step.op.owner)
            case ops.Copy():
                inline = (s for s in step.op.sources if isinstance(s, ops.InlineFile))
                yield from (file_view(s.name, s.content, s.mode) for s in inline)
                yield from (copy_view(step.op, source) for source in step.op.sources)
                yield from [{"do": "merge"}] * step.op.link
            case ops.Base() if step.op.reference:
                yield {"source": f"docker-image://{step.op.reference}", "on": str(step.platform)}
            case ops.Fetch():
                yield {"source": step.op.url, "filename": step.op.filename}
            case _:
                pass


def inline_last(views: Iterable[dict[str, Any]]) -> list[Any]:
    """The views, and last the files that stand in the Dockerfile: equal ones are one operation."""
    ordered = list(views)
    inline = {json.dumps(view, sort_keys=True) for view in ordered if view.get("do") == "mkfile"}
    return [*(view for view in ordered if view.get("do") != "mkfile"), sorted(inline)]


def walked(plan: ops.Plan, position: int, seen: set[int]) -> Iterator[ops.Step]:
    """The steps that one needs, in the order of their inputs, then itself."""
    if position not in seen:
        seen.add(position)
        for needed in plan.steps[position].inputs:
            yield from walked(plan, needed, seen)
        yield plan.steps[position]


def exec_view(op: ops.Exec) -> dict[str, Any]:
    return {
        "args": list(op.argv),
        "env": dict(op.env),
        "proxies": {k.lower(): v for k, v in op.proxy_env},
        "cwd": op.cwd,
        "user": op.user,
        "network": op.network,
        "security": op.security,
        "mounts": sorted(str(mount_view(mount)) for mount in op.mounts),
    }


def mount_view(mount: ops.Mount) -> tuple[Any, ...]:
    match mount:
        case ops.BindMount():
            return ("bind", mount.target, mount.source, mount.read_only)
        case ops.CacheMount():
            return ("cache", mount.target, mount.source, mount.read_only, mount.id, mount.sharing)
        case ops.TmpfsMount():
            return ("tmpfs", mount.target)
        case ops.SecretMount() | ops.SshMount():
            kind = "secret" if isinstance(mount, ops.SecretMount) else "ssh"
            name = mount.id if kind == "secret" or mount.id != "default" else ""
            variable = getattr(mount, "env", "")
            owner = (mount.uid, mount.gid, mount.mode) if mount.target else ()
            return (kind, mount.target, name, variable, mount.required, *owner)
        case ops.ScriptMount():
            return ("bind", mount.target.rpartition("/")[0], "/", True)


def file_view(path: str, content: bytes, mode: int) -> dict[str, Any]:
    name = f"/{path.rpartition('/')[2]}"
    return {"do": "mkfile", "path": name, "mode": oct(mode), "data": content.decode()}


def copy_view(op: ops.Copy, source: ops.CopySource | ops.InlineFile) -> dict[str, Any]:
    if isinstance(source, ops.InlineFile):
        view = {"do": "copy", "src": f"/{source.name}"}
    else:
        view = {"do": "copy", "src": source.path, "unpack": source.unpack}
        if source.pattern:
            view["include"] = [source.pattern]
        if source.required:
            view["required"] = [paths.clean(f"{source.path}/{source.pattern}")]
    if op.chmod:
        view["mode"] = oct(int(op.chmod, 8)) if op.chmod.isdecimal() else op.chmod
    view |= {"dest": op.dest, "exclude": list(op.exclude)}
    return owned({k: v for k, v in view.items() if v}, op.chown)


def owned(view: dict[str, Any], owner: str) -> dict[str, Any]:
    owner = f"{owner}0" if owner.endswith(":") else owner
    return {**view, "owner": owner} if owner else view


def buildkit_view(steps: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for step in steps:
        match step["op"]:
            case "exec":
                yield buildkit_exec(step)
            case "file":
                yield from filter(None, map(buildkit_action, step["actions"]))
            case "merge":
                yield {"do": "merge"}
            case "source" if step["identifier"].startswith("docker-image://"):
                yield {"source": step["identifier"], "on": step["platform"]}
            case "source" if not step["identifier"].startswith("local://"):
                attrs = step.get("attrs", {})
                url = attrs.get("git.fullurl") or step["identifier"]
                yield {"source": url, "filename": attrs.get("http.filename", "")}


def buildkit_exec(step: dict[str, Any]) -> dict[str, Any]:
    mounts = [buildkit_mount(mount) for mount in step.get("mounts", [])]
    for secret in step.get("secret_env", []):
        beside = [m for m in mounts if m[0] == "secret" and m[2] == secret["id"]]
        if beside:
            mounts.remove(beside[0])
            mounts.append((*beside[0][:3], secret["name"], *beside[0][4:]))
        else:
            mounts.append(("secret", "", secret["id"], secret["name"], not secret["optional"]))
    return {
        "args": step["args"],
        "env": step["env"],
        "proxies": step.get("proxy_env", {}),
        "cwd": paths.clean(step["cwd"]),
        "user": step.get("user", ""),
        "network": step.get("network", "default"),
        "security": step.get("security", "sandbox"),
        "mounts": sorted(map(str, mounts)),
    }


def buildkit_mount(mount: dict[str, Any]) -> tuple[Any, ...]:
    target, opt = paths.clean(mount["dest"]), mount.get("opt", {})
    source = mount.get("source", "/")
    match mount["type"]:
        case "bind":
            return ("bind", target, source, mount.get("readonly", False))
        case "cache":
            # BuildKit makes a folder of this name where the mount has an owner.
            source = "/" if source == "/cache" else source
            name = mount["cache_id"].removeprefix("/")
            return ("cache", target, source, mount.get("readonly", False), name, mount["sharing"])
        case "tmpfs":
            return ("tmpfs", target)
        case kind:
            owner = (opt["uid"], opt["gid"], int(opt["mode"], 8))
            return (kind, target, opt["id"], "", not opt["optional"], *owner)


def buildkit_action(action: dict[str, Any]) -> dict[str, Any] | None:
    keys = ("src", "dest", "unpack", "include", "required", "mode", "exclude")
    owner = ":".join(str(x) for x in action.get("owner", {}).values() if x is not None)
    match action["do"]:
        case "mkdir" if action["path"] != "/cache":
            return owned({"do": "mkdir", "path": paths.clean(action["path"])}, owner)
        case "mkfile":
            return action
        case "copy":
            view = {key: action[key] for key in keys if action.get(key)}
            return owned({"do": "copy", **view}, owner)
    return None

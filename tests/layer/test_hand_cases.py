"""Real builds by BuildKit, compared with what the same plans make of trees in memory."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from imagekit.errors import ImagekitError
from imagekit.oci.digest import Digest
from imagekit.plan import ops
from imagekit.plan.key import cache_key
from tests.support.memory_build import MemoryBuild, Unsupported, layer_view

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("IMAGEKIT_CONFORMANCE", ROOT / "../shared/conformance")) / "build"


def cases(name: str) -> list[Any]:
    path = FOLDER / name
    if not path.exists():
        reason = pytest.mark.skip(reason="no conformance data: set IMAGEKIT_CONFORMANCE")
        return [pytest.param({}, marks=reason, id=f"no {name}")]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [pytest.param(row, id=row["id"]) for row in rows]


def built(case: dict[str, Any]) -> MemoryBuild | str:
    """The build, or the code of the error that ends it."""
    try:
        return MemoryBuild(case)
    except Unsupported as reason:
        pytest.skip(str(reason))
    except ImagekitError as error:
        return error.code


@pytest.mark.parametrize("case", [*cases("hand.jsonl"), *cases("buildah-contexts.jsonl")])
def test_layers_are_those_of_buildkit(case: dict[str, Any]) -> None:
    expected = case["expected"]
    if "images" in expected:
        pytest.skip("needs an engine for several platforms")
    build = built(case)
    if isinstance(build, str):
        assert expected.get("error", {}).get("class") == build
        return
    assert "image" in expected, expected
    timed = "rewrite-timestamp" not in case.get("output", "")
    layers = [layer_view(changes, build.contents) for changes in build.result]
    assert [shown(layer, timed=timed) for layer in layers] == [
        shown(layer, timed=timed) for layer in expected["image"]["layers"]
    ]


@pytest.mark.parametrize("case", cases("cache.jsonl"))
def test_content_decides_on_a_second_build_as_in_buildkit(case: dict[str, Any]) -> None:
    first = built(case["first"])
    assert isinstance(first, MemoryBuild)
    known = set(keys(first).values())
    for change, expected in zip(case["then"], case["expected"], strict=True):
        again = built(changed(case["first"], change))
        assert isinstance(again, MemoryBuild)
        hits = {name: key in known for name, key in keys(again).items()}
        known |= set(keys(again).values())
        assert {name: hits[name] for name in expected["cached"]} == expected["cached"]


def keys(build: MemoryBuild) -> dict[str, Digest]:
    """The cache key of each step of files, by what BuildKit calls the step."""
    all_keys: list[Digest] = []
    named: dict[str, Digest] = {}
    for step, digests in zip(build.plan.steps, build.digests, strict=True):
        parents = [all_keys[n] for n in step.inputs]
        if isinstance(step.op, ops.Copy):
            content = Digest.of("\n".join(digests).encode())
            parents = [parents[0], *(content for _ in parents[1:])]
        all_keys.append(cache_key(step.op, step.platform, parents).key())
        if isinstance(step.op, ops.Copy | ops.Mkdir):
            named[step.name] = all_keys[-1]
    return named


def changed(case: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    context = {**case["context"], **change.get("context_set", {})}
    context = {k: v for k, v in context.items() if k not in change.get("context_drop", ())}
    rest = {k: v for k, v in change.items() if not k.startswith("context_")}
    return {**case, **rest, "context": context}


def shown(layer: dict[str, Any], *, timed: bool) -> dict[str, Any]:
    """A layer without the times of directories, which BuildKit's answers leave out."""
    kept: dict[str, Any] = {}
    for path, entry in layer.items():
        untimed = entry["type"] == "dir" or not timed
        kept[path] = {k: v for k, v in entry.items() if not (untimed and k == "mtime")}
        if entry.get("content") == "any":
            kept[path] = {"type": "file", "content": "any"}
    return kept

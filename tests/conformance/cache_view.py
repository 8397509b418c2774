"""Verb `cache`: builds one after the other, and which steps of the later ones were cached."""

import copy
import tempfile
from pathlib import Path
from typing import Any

import imagekit
from imagekit.errors import ImagekitError
from imagekit.events import Event, StepCached, StepStarted
from tests.conformance.build_view import error_of, prepared, support


def answer(case: dict[str, Any]) -> dict[str, Any]:
    support.fresh_base()
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        root = Path(folder)
        current = case["first"]
        build(current, root, 0)
        results = []
        for number, change in enumerate(case["then"], 1):
            current = changed(current, change)
            results.append(build(current, root, number))
    return {"results": results}


def changed(case: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    after = copy.deepcopy(case)
    change = dict(change)
    dropped, added = change.pop("context_drop", []), change.pop("context_set", {})
    after.update(change)
    context = after.setdefault("context", {})
    for path in dropped:
        context.pop(path, None)
    for path, spec in added.items():
        later = spec if isinstance(spec, dict) else {"c": spec}
        context[path] = spec if path.endswith("/") or "link" in later else later
    return after


def build(case: dict[str, Any], root: Path, number: int) -> dict[str, Any]:
    cached: dict[str, bool] = {}

    def watch(event: Event) -> None:
        if isinstance(event, StepCached):
            cached[event.step.name] = True
        elif isinstance(event, StepStarted):
            cached[event.step.name] = False

    with prepared(case, root / str(number)) as (arguments, _):
        try:
            imagekit.build(
                **arguments,
                store=root / "store",
                observer=watch,
                no_cache="no-cache" in case.get("options", {}),
            )
        except ImagekitError as exc:
            return {"cached": cached, "error": error_of(exc)}
    return {"cached": {name: hit for name, hit in cached.items() if "FROM" not in name}}

"""Every shared case, answered in this process; each difference is listed.

Where the cases are is read from IMAGEKIT_CONFORMANCE.
"""

import base64
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
CASES = Path(os.environ.get("IMAGEKIT_CONFORMANCE", HERE.parents[2] / "shared" / "conformance"))
FILES = {
    "parser/buildkit-inline": "parse",
    "parser/corpus": "parse",
    "parser/hand": "parse",
    "parser/random": "parse",
    "shlex/buildkit": "shlex",
    "shlex/random": "shlex",
    "shlex/table": "shlex",
    "dockerignore/match": "ignore",
    "dockerignore/moby-table": "ignore",
    "dockerignore/random-match": "ignore",
    "dockerignore/walk": "walk",
    "dockerignore/random-walk": "walk",
    "graph/gitref": "git",
}

pytestmark = pytest.mark.skipif(
    not CASES.is_dir(), reason="the conformance cases are not here (IMAGEKIT_CONFORMANCE)"
)


def module_at(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def runner(monkeypatch_module: pytest.MonkeyPatch) -> ModuleType:
    """The program beside the cases; it knows what is the same."""
    monkeypatch_module.setattr(sys, "dont_write_bytecode", True)
    return module_at("conformance_run", CASES / "run.py")


@pytest.fixture(scope="module")
def monkeypatch_module() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.mark.parametrize("name", FILES)
def test_answers_are_those_of_buildkit(name: str, runner: ModuleType) -> None:
    verb = FILES[name]
    load: Callable[[str], Any] = module_at("conformance_adapter", HERE / "adapter.py").load
    answer = load(verb)
    assert answer is not None
    text = (CASES / f"{name}.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    differences = []
    for row in rows:
        question = {key: value for key, value in row.items() if key != "expected"}
        if name == "parser/corpus":
            data = (CASES / "parser" / "inputs" / row["id"]).read_bytes()
            question["b64"] = base64.b64encode(data).decode()
        why = runner.same(verb, row["expected"], answer(question), strict=True)
        if why:
            differences.append(f"{row['id']}: {why}")
    assert differences == []

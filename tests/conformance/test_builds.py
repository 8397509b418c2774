"""Every shared build, made by imagekit and compared with what BuildKit made of the same input.

What differs on purpose is in `differences.tsv`, with its reason; a row that no longer differs is
a failure as well.
"""

import csv
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.tools import need, need_root

HERE = Path(__file__).resolve().parent
CASES = Path(os.environ.get("IMAGEKIT_CONFORMANCE", HERE.parents[2] / "shared" / "conformance"))
FILES = {"build/hand": "build", "build/buildah-contexts": "build", "build/cache": "cache"}
MAX_DIFFERENCES = 9

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


def differences() -> dict[str, set[str]]:
    """The cases that differ on purpose, by file."""
    with (HERE / "differences.tsv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    assert all(row["difference"] and row["reason"] for row in rows)
    found: dict[str, set[str]] = {}
    for row in rows:
        file, _, case = row["case"].partition(" ")
        found.setdefault(file, set()).add(case)
    return found


def test_the_table_of_differences_is_short_and_about_cases_that_exist() -> None:
    table = differences()
    assert sum(map(len, table.values())) <= MAX_DIFFERENCES
    for file, cases in table.items():
        text = (CASES / f"{file}.jsonl").read_text(encoding="utf-8")
        assert cases <= {json.loads(line)["id"] for line in text.splitlines()}


# What reads the images back, beside the cases, leaves its archives open.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", FILES)
def test_builds_are_those_of_buildkit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    need_root()
    need("git", "busybox")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    runner = module_at("conformance_run", CASES / "run.py")
    answer = module_at("conformance_adapter", HERE / "adapter.py").load(FILES[name])
    assert answer is not None
    text = (CASES / f"{name}.jsonl").read_text(encoding="utf-8")
    found = {}
    for line in text.splitlines():
        case = json.loads(line)
        question = {key: value for key, value in case.items() if key != "expected"}
        why = runner.same(FILES[name], case["expected"], answer(question), strict=True)
        if why:
            found[case["id"]] = why
    expected = differences().get(name, set())
    assert {id_: why for id_, why in found.items() if id_ not in expected} == {}
    assert expected == set(found)

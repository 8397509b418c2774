"""The corpus through every target, and a few seconds of new inputs where atheris is installed."""

import importlib.util
import sys
from pathlib import Path

import pytest

from tests.support.fuzzing import TARGETS
from tests.support.tools import FIXTURES, REPOSITORY, imagekit_env, run

SECONDS = 4
FOLDERS = {name: FIXTURES / "fuzz" / name for name in TARGETS}
SEEDS = [(name, path) for name, folder in FOLDERS.items() for path in sorted(folder.iterdir())]


@pytest.mark.parametrize(
    ("target", "seed"), SEEDS, ids=[f"{target}-{path.name}" for target, path in SEEDS]
)
def test_the_corpus_holds_what_the_target_checks(target: str, seed: Path) -> None:
    data = seed.read_bytes()
    assert TARGETS[target](data) == TARGETS[target](data)


@pytest.mark.parametrize("target", TARGETS)
def test_new_inputs_hold_it_too(target: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("not installed: atheris")
    program = REPOSITORY / "tests" / "fuzz" / "fuzz.py"
    options = [f"-max_total_time={SECONDS}", "-timeout=10", f"-artifact_prefix={tmp_path}/"]
    found = tmp_path / "found"
    found.mkdir()
    command = [sys.executable, program, target, found, FOLDERS[target], *options]
    run(command, env=imagekit_env(), timeout_s=120)

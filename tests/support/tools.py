"""Programs that tests start: found, asked for, run; a test without them skips and says why."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import imagekit

REPOSITORY = Path(__file__).parents[2]
FIXTURES = REPOSITORY / "fixtures"


class ToolError(AssertionError):
    """A program failed; the message holds its whole output."""


def need(*programs: str) -> None:
    """Skip the test unless every program is installed."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def need_root() -> None:
    """Skip the test unless it runs as root."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


def reference_folder() -> Path:
    """The folder of public reference data, else the test skips (env IMAGEKIT_REFERENCE)."""
    folder = Path(os.environ.get("IMAGEKIT_REFERENCE", REPOSITORY / "../shared/reference"))
    if not folder.is_dir():
        pytest.skip(f"no reference data in {folder} (set IMAGEKIT_REFERENCE)")
    return folder


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 280,
    expect: int | None = 0,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end with its output captured; `expect=None` takes any exit code."""
    done = subprocess.run(
        [os.fspath(word) for word in command],
        cwd=cwd,
        env=None if env is None else {**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=timeout_s,
        check=False,
    )
    if expect is not None and done.returncode != expect:
        words = " ".join(os.fspath(word) for word in command)
        raise ToolError(f"exit {done.returncode}: {words}\n{done.stdout}\n{done.stderr}")
    return done


def imagekit_command() -> list[str]:
    """The command line of the imagekit under test, whatever the working directory."""
    return [sys.executable, "-P", "-m", "imagekit"]


def imagekit_env() -> dict[str, str]:
    """What a child process needs to import the same imagekit as this one."""
    source = Path(imagekit.__file__).parents[1]
    return {} if source.name == "site-packages" else {"PYTHONPATH": os.fspath(source)}

"""A small root of busybox, and `box` to run things in it.

The back end is `auto`, or what IMAGEKIT_TEST_SANDBOX names: `test_back_ends.py` runs the files
beside it again as an ordinary user with that set.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from imagekit.sandbox import (
    BindMount,
    Cancellation,
    ExitStatus,
    Folder,
    Mount,
    Overlay,
    ProcessSpec,
    Sandbox,
)
from imagekit.sandbox.choose import choose
from tests.support.busybox import make_root


@frozen(kw_only=True)
class Result:
    status: ExitStatus
    out: str
    err: str
    upper: Path

    @property
    def code(self) -> int:
        return self.status.exit_code

    def changes(self) -> set[str]:
        return {str(path.relative_to(self.upper)) for path in self.upper.rglob("*")}


@frozen(kw_only=True)
class Box:
    """Runs commands, each over a fresh upper folder."""

    sandbox: Sandbox
    base: Path
    lower: Path
    numbers: Iterator[int]

    def overlay(self, *lowers: Path) -> Overlay:
        number = next(self.numbers)
        upper, work = self.base / f"upper{number}", self.base / f"work{number}"
        upper.mkdir()
        work.mkdir()
        names = tuple(map(str, lowers or (self.lower,)))
        return Overlay(lowers=names, upper=str(upper), work=str(work))

    def spec(self, command: str | Sequence[str], **fields: Any) -> ProcessSpec:
        argv = ("/bin/sh", "-c", command) if isinstance(command, str) else tuple(command)
        fields.setdefault("root", self.overlay())
        fields.setdefault("env", (("PATH", "/bin"),))
        return ProcessSpec(argv=argv, **fields)

    def run(
        self,
        command: str | Sequence[str],
        *,
        cancelled: Cancellation | None = None,
        **fields: Any,
    ) -> Result:
        spec = self.spec(command, **fields)
        collected = {"stdout": bytearray(), "stderr": bytearray()}
        status = self.sandbox.run(
            spec,
            output=lambda stream, data: collected[stream].extend(data),
            cancelled=cancelled,
        )
        root = spec.root
        return Result(
            status=status,
            out=collected["stdout"].decode("utf-8", "surrogateescape"),
            err=collected["stderr"].decode("utf-8", "surrogateescape"),
            upper=Path(root.path if isinstance(root, Folder) else root.upper),
        )


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    preference = os.environ.get("IMAGEKIT_TEST_SANDBOX", "auto")
    chosen = choose(preference)
    with chosen:
        chosen.ready()
        yield chosen


@pytest.fixture(scope="session")
def busybox_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(tmp_path_factory.mktemp("lower") / "root")


@pytest.fixture
def box(sandbox: Sandbox, busybox_root: Path, tmp_path: Path) -> Box:
    return Box(sandbox=sandbox, base=tmp_path, lower=busybox_root, numbers=count())


@pytest.fixture
def bare_root(tmp_path: Path) -> Path:
    return make_root(tmp_path / "bare", bare=True)


@pytest.fixture
def python_mounts() -> tuple[Mount, ...]:
    """The host's own Python, read-only, for probes that need system calls."""
    if not Path("/usr/bin/python3").exists():
        pytest.skip("the host has no /usr/bin/python3 to probe with")
    folders = [path for path in ("/usr", "/lib", "/lib64") if Path(path).is_dir()]
    return tuple(BindMount(source=path, target=path) for path in folders)

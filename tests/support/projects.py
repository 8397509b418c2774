"""The projects of fixtures/builds: what is built, on what, and what must come out.

A case is a folder with `project/`, the build context as a person would keep it, and `case.toml`:

    title           what the case shows
    contexts        named build contexts: name = "embedded" or a Debian base's name
    registry        build arg = bases pushed to a local registry, whose host is its value
    before          name = folder of the project to build first; its image is a named context
    build_args, platforms, unprivileged, times
    network         what RUN fetches; the case is skipped where it cannot be had
    referee, referee_args   the Dockerfile and further build args for buildah
    [[path]]        what git cannot keep: mode, xattrs, capability, hardlink
    [[archive]]     archives to make in the context
    [[run]]         args after the entrypoint, stdout, exit_code
    [[allow]]       path, what, reason of a difference from buildah's image
"""

import bz2
import gzip
import io
import lzma
import os
import shutil
import tarfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.flatten import Allowed
from tests.support.tools import FIXTURES, need, run

BUILDS = FIXTURES / "builds"
EPOCH = 1_700_000_000  # the time of every file in a copied project
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    ".tar": bytes,
    ".gz": lambda content: gzip.compress(content, mtime=0),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


class Run(NamedTuple):
    """One run of the image."""

    args: tuple[str, ...]
    stdout: str
    exit_code: int


class Case(NamedTuple):
    """A project and what is expected of it."""

    name: str
    table: dict[str, Any]

    @property
    def runs(self) -> list[Run]:
        return [
            Run(tuple(row["args"]), row["stdout"], row.get("exit_code", 0))
            for row in self.table.get("run", ())
        ]

    @property
    def allowed(self) -> list[Allowed]:
        return [Allowed(**row) for row in self.table.get("allow", ())]

    @property
    def platforms(self) -> list[str]:
        return list(self.table.get("platforms", ()))

    def materialise(self, folder: Path) -> Path:
        """Copy the project to `folder`, with fixed modes and times and what git cannot keep."""
        shutil.copytree(BUILDS / self.name / "project", folder, symlinks=True)
        for path in folder.rglob("*"):
            if not path.is_symlink():
                executable = path.is_dir() or path.stat().st_mode & 0o100
                path.chmod(0o755 if executable else 0o644)
        folder.chmod(0o755)
        for row in self.table.get("archive", ()):
            make_archive(folder / row["name"], row["entries"])
        for row in self.table.get("path", ()):
            shape(folder, row)
        for path in [*folder.rglob("*"), folder]:
            os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
        return folder


def all_cases() -> list[Case]:
    return [
        Case(path.parent.name, tomllib.loads(path.read_text("utf-8")))
        for path in sorted(BUILDS.glob("*/case.toml"))
    ]


def shape(folder: Path, row: dict[str, Any]) -> None:
    """Give one path of the context what git does not keep."""
    path = folder / row["name"]
    if "hardlink" in row:
        path.hardlink_to(folder / row["hardlink"])
    for name, value in row.get("xattrs", {}).items():
        try:
            os.setxattr(path, name, value.encode())
        except OSError as error:
            pytest.skip(f"no {name} in {folder}: {error.strerror}")
    if "mode" in row:
        path.chmod(row["mode"])
    if "capability" in row:
        need("setcap")
        run(["setcap", row["capability"], path])


def make_archive(path: Path, entries: list[dict[str, Any]]) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for row in entries:
            content = row.get("content", "").encode()
            tar.addfile(archive_entry(row, len(content)), io.BytesIO(content))
    path.write_bytes(COMPRESSORS[path.suffix](out.getvalue()))


def archive_entry(row: dict[str, Any], size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(row["name"].rstrip("/"))
    entry.mtime, entry.size = EPOCH, size
    entry.uid, entry.gid = row.get("owner", (0, 0))
    entry.mode = row.get("mode", 0o644)
    if row["name"].endswith("/"):
        entry.type, entry.mode = tarfile.DIRTYPE, row.get("mode", 0o755)
    elif "target" in row:
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, row["target"], 0o777
    elif "hardlink" in row:
        entry.type, entry.linkname = tarfile.LNKTYPE, row["hardlink"]
    return entry

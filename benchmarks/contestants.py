"""The programs that are compared: imagekit's command line, buildah's, and the floor."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from measure import Usage, run
from samples import REPOSITORY

BUILDAH = shutil.which("buildah")
BASE = "busybox"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to build: a Dockerfile, its context, and a layout that is its base image, if any."""

    dockerfile: Path
    context: Path
    base: Path | None = None


class Imagekit:
    """`imagekit build` as a process of its own, with a store of its own."""

    def __init__(self, folder: Path) -> None:
        self._store = folder / "imagekit-store"
        self._layout = folder / "imagekit-layout"

    def reset(self) -> None:
        """Forget all that was built."""
        for folder in (self._store, self._layout):
            shutil.rmtree(folder, ignore_errors=True)

    def build(self, job: Job, *, export: bool = True) -> Usage:
        """One run of the command line, which fills its store and exports an OCI layout folder."""
        command = [sys.executable, "-m", "imagekit", "build", "--progress", "plain"]
        command += ["--store", os.fspath(self._store), "--file", os.fspath(job.dockerfile)]
        if job.base is not None:
            command += ["--build-context", f"{BASE}=oci-layout://{job.base}"]
        if export:
            command += ["--output", f"oci:{self._layout}"]
        return run([*command, job.context], env={"PYTHONPATH": os.fspath(REPOSITORY)})

    def build_fresh(self, job: Job) -> Usage:
        """The same with nothing known."""
        self.reset()
        return self.build(job)


class Buildah:
    """`buildah bud` and `buildah push`, with a storage of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "buildah"
        self._layout = folder / "buildah-layout"

    def reset(self) -> None:
        """Forget all that was built."""
        if self._folder.exists():
            subprocess.run(self._command("rm", "--all"), check=True, stdout=subprocess.DEVNULL)
            _unmount_below(self._folder)
        for folder in (self._folder, self._layout):
            shutil.rmtree(folder, ignore_errors=True)

    def pull(self, layout: Path) -> None:
        """Bring a base image into the storage, by the name that Dockerfiles here give it."""
        # A relative path, as buildah makes a name of it and few paths are valid names.
        run(self._command("pull", f"oci:{layout.name}:latest"), folder=layout.parent)
        run(self._command("tag", f"localhost/{layout.name}:latest", f"{BASE}:latest"))

    def build(self, job: Job, *, cache: bool = True, export: bool = True) -> Usage:
        """Build and push the image into an OCI layout.

        With `cache`, each step is a layer, found again by the next build, as in imagekit;
        otherwise buildah makes one layer of all and hashes nothing beforehand, and is faster.
        """
        options = ["--layers"] if cache else []
        options += ["--isolation", "chroot", "--tag", "bench"]
        command = self._command("bud", *options, "--file", os.fspath(job.dockerfile))
        used = run([*command, job.context])
        if not export:
            return used
        return used + run(self._command("push", "bench", f"oci:{self._layout}:latest"))

    def build_fresh(self, job: Job, *, cache: bool = True) -> Usage:
        """The same with nothing built before, and the base image there."""
        self.reset()
        if job.base is not None:
            self.pull(job.base)
        return self.build(job, cache=cache)

    def _command(self, *words: str) -> list[str]:
        storage = ["--root", self._folder / "root", "--runroot", self._folder / "run"]
        return [BUILDAH or "buildah", *map(str, storage), "--storage-driver", "overlay", *words]


def floor(folder: Path) -> Usage:
    """Read, hash and compress a folder in one Python process, and nothing else."""
    return run([sys.executable, Path(__file__).with_name("floor.py"), folder])


def _unmount_below(folder: Path) -> None:
    """Storage of buildah's overlay driver is mounted on itself; it cannot be removed before."""
    with Path("/proc/self/mounts").open(encoding="utf-8") as mounts:
        points = [line.split(" ")[1] for line in mounts]
    for point in reversed(points):
        if Path(point).is_relative_to(folder):
            subprocess.run(["umount", point], check=True)

"""How long builds take and how much memory, beside buildah and beside what the machine can do.

    python benchmarks/bench_build.py [--only copy,warm,run,memory] [--rounds N] [--folder DIR]

Needs root (for buildah and RUN), buildah (without it its rows are left out and say so), and the
embedded base's busybox. Samples come from this machine's system folders and are kept in a cache
folder (`samples.py`); stores and results live in a temporary folder that is removed.

Four parts:

copy    COPY of 20,000 files, 250 MB, into a gzip layer exported as an OCI layout folder: the whole
        `imagekit build` process with an empty store; `buildah bud` and `buildah push` with an
        empty storage; the floor (`floor.py`: walk, SHA-256 and isal on two threads, as a process).
warm    The same build again, unchanged, with both caches filled; and `import imagekit` less what
        the interpreter takes by itself.
run     Eleven RUN steps that each write a small file less one such step, by ten, less what the
        command takes when it is run alone: what one more step costs.
memory  COPY of a file of 1 GB and of one of 4 GB. (The peaks of the other parts stand there.)

How to read it: contestants take turns, N rounds. A ratio or difference is taken within a round,
between runs a moment apart, and the median over the rounds is shown against its target, so a slow
or busy machine moves both sides; what each contestant took is listed below for the reader, as
medians, and is no claim. Peaks are those of the largest single process, of the program or of
helpers it waited for; the benchmark's own size (15 to 20 MB) is the least that can be shown.
The exit code is 0 whether targets are met or not, and 1 if a build fails.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import samples
from contestants import BASE, BUILDAH, Buildah, Imagekit, Job, floor
from measure import MEGABYTE, CommandFailedError, Series, Table, Usage, run, take_turns

STEPS = 10
IMPORTS = 4
"""Imports a round: they are short, so that more of them are needed for a steady median."""

MOST_MEMORY = 150
LARGE = (1_000 << 20, 4_000 << 20)
NO_BUILDAH = "buildah is not installed"


class Bench:
    """One run of the benchmark: where it works, how often, and its table."""

    def __init__(self, folder: Path, rounds: int) -> None:
        self._folder = folder
        self._rounds = rounds
        self._imagekit = Imagekit(folder)
        self._buildah = Buildah(folder)
        self._table = Table()

    def close(self) -> None:
        """Remove what was built; buildah's storage holds a mount."""
        self._imagekit.reset()
        self._buildah.reset()

    def copy(self) -> None:
        """A large source tree, with nothing known before."""
        job = self._copy_job()
        found = self._take_turns(
            {
                "imagekit": lambda: self._imagekit.build_fresh(job),
                "floor": lambda: floor(job.context),
            },
            {"buildah": lambda: self._buildah.build_fresh(job, cache=False)},
        )
        imagekit = found["imagekit"]
        self._against_buildah("time, as a part of buildah's", found, "buildah", 1 / 8)
        self._table.at_most(
            "time, as a multiple of the floor", imagekit.ratio(found["floor"]), 1.7
        )
        self._finish("COPY of 20,000 files, 250 MB", found)

    def warm(self) -> None:
        """The same again, and what an import takes."""
        job = self._copy_job()
        self._imagekit.build_fresh(job)
        if BUILDAH:
            self._buildah.build_fresh(job)
        found = self._take_turns(
            {
                "imagekit": lambda: self._imagekit.build(job),
                "imagekit, no export": lambda: self._imagekit.build(job, export=False),
            },
            {
                "buildah": lambda: self._buildah.build(job),
                "buildah, no export": lambda: self._buildah.build(job, export=False),
            },
        )
        self._table.at_most("time of the whole process", found["imagekit"].seconds, 0.35, "s")
        self._against_buildah("time, as a part of buildah's", found, "buildah", 1 / 10)
        if BUILDAH:
            ratio = found["imagekit, no export"].ratio(found["buildah, no export"])
            self._table.at_most("the same with no export on either side", ratio, 1 / 10)
        self._finish("the same build again", found)
        self._imports()

    def _imports(self) -> None:
        code = {"nothing": "pass", "import imagekit": "import imagekit"}
        env = {"PYTHONPATH": os.fspath(samples.REPOSITORY)}
        jobs = {
            name: lambda text=text: run([sys.executable, "-c", text], env=env)
            for name, text in code.items()
        }
        found = take_turns(jobs, self._rounds * IMPORTS)
        cost = found["import imagekit"].difference(found["nothing"]) * 1000
        self._table.at_most("import imagekit, less bare Python", cost, 60, "ms")
        self._table.series(found)
        self._table.print("import")

    def run(self) -> None:
        """Many small steps, each a layer."""
        one, many = self._run_job(1), self._run_job(1 + STEPS)
        found = self._take_turns(
            {
                "imagekit, 1 step": lambda: self._imagekit.build_fresh(one),
                "imagekit, 11 steps": lambda: self._imagekit.build_fresh(many),
                "10 commands alone": self._commands,
            },
            {
                "buildah, 1 step": lambda: self._buildah.build_fresh(one),
                "buildah, 11 steps": lambda: self._buildah.build_fresh(many),
            },
        )
        each = self._each_step(found, "imagekit")
        self._table.at_most("a step beyond its command", each * 1000, 60, "ms")
        if BUILDAH:
            peer = self._each_step(found, "buildah")
            self._table.note("the same of buildah, one layer a step", f"{peer * 1000:.3g} ms")
        else:
            self._table.note("the same of buildah, one layer a step", "-", NO_BUILDAH)
        self._finish("ten RUN steps, one layer each", found)

    def memory(self) -> None:
        """Two large files: the peak is in bounds, and the size of the file is not in it."""
        peaks = []
        for size in LARGE:
            job = Job(dockerfile=self._dockerfile("copy"), context=samples.large_file(size))
            found = {"imagekit": Series(rounds=(self._imagekit.build_fresh(job),))}
            self._imagekit.reset()
            peaks.append(found["imagekit"].peak)
            self._finish(f"COPY of one file of {size >> 20:,} MiB", found)
        self._table.at_most("peak of 4 times the bytes, as a multiple", peaks[1] / peaks[0], 1.1)
        self._table.print("memory and size")

    def _take_turns(
        self,
        own: Mapping[str, Callable[[], Usage]],
        peers: Mapping[str, Callable[[], Usage]],
    ) -> dict[str, Series]:
        return take_turns({**own, **(peers if BUILDAH else {})}, self._rounds)

    def _against_buildah(
        self, figure: str, found: Mapping[str, Series], peer: str, target: float
    ) -> None:
        if peer in found:
            self._table.at_most(figure, found["imagekit"].ratio(found[peer]), target)
        else:
            self._table.note(figure, "-", NO_BUILDAH)

    def _finish(self, title: str, found: Mapping[str, Series]) -> None:
        peak = max(one.peak for name, one in found.items() if name.startswith("imagekit"))
        self._table.at_most("peak memory", peak / MEGABYTE, MOST_MEMORY, "MB")
        self._table.series(found)
        self._table.print(title)

    def _each_step(self, found: Mapping[str, Series], name: str) -> float:
        """Seconds that one step more costs beyond its command."""
        rows = zip(
            found[f"{name}, 1 step"].rounds,
            found[f"{name}, 11 steps"].rounds,
            found["10 commands alone"].rounds,
            strict=True,
        )
        return statistics.median(
            (many.seconds - one.seconds - alone.seconds) / STEPS for one, many, alone in rows
        )

    def _commands(self) -> Usage:
        """The commands of the steps outside of any container, by the same shell."""
        shell = ["busybox", "sh", "-c"]
        used = [run([*shell, f"echo {n} > {self._folder}/step-{n}"]) for n in range(STEPS)]
        return sum(used[1:], used[0])

    def _copy_job(self) -> Job:
        return Job(dockerfile=self._dockerfile("copy"), context=samples.source_tree())

    def _run_job(self, steps: int) -> Job:
        context = self._folder / "empty"
        context.mkdir(exist_ok=True)
        return Job(
            dockerfile=self._dockerfile("run", steps),
            context=context,
            base=samples.embedded_base(),
        )

    def _dockerfile(self, kind: str, steps: int = 0) -> Path:
        lines = ["FROM scratch", "COPY . /src/"]
        if kind == "run":
            lines = [f"FROM {BASE}", *(f"RUN echo {n} > /step-{n}" for n in range(steps))]
        path = self._folder / f"Dockerfile.{kind}{steps}"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path


PARTS = {"copy": Bench.copy, "warm": Bench.warm, "run": Bench.run, "memory": Bench.memory}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", default=",".join(PARTS), metavar="PART[,...]")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where to build")
    options = parser.parse_args()
    parts = options.only.split(",")
    if unknown := sorted(set(parts) - set(PARTS)):
        parser.error(f"unknown part {unknown[0]!r}; parts are {', '.join(PARTS)}")
    print(f"{_machine()}, {options.rounds} rounds\n")
    with tempfile.TemporaryDirectory(prefix="imagekit-bench-", dir=options.folder) as name:
        bench = Bench(Path(name), max(1, options.rounds))
        try:
            for part in parts:
                PARTS[part](bench)
        except CommandFailedError as exc:
            print(f"a build failed: {exc}", file=sys.stderr)
            return 1
        finally:
            bench.close()
    return 0


def _machine() -> str:
    peer = NO_BUILDAH
    if BUILDAH:
        done = subprocess.run([BUILDAH, "--version"], capture_output=True, text=True, check=True)
        peer = done.stdout.strip()
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, {peer}"


if __name__ == "__main__":
    sys.exit(main())

"""Running programs in turns, and putting what they took into a table."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MEGABYTE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one program took, with all the helpers that it waited for.

    Attributes:
        seconds: from start to exit, by the clock.
        cpu: seconds of processor, user and system.
        peak: bytes of memory that the largest of the processes had at its largest.
    """

    seconds: float
    cpu: float
    peak: int

    def __add__(self, other: "Usage") -> "Usage":
        """One after the other."""
        return Usage(
            seconds=self.seconds + other.seconds,
            cpu=self.cpu + other.cpu,
            peak=max(self.peak, other.peak),
        )


class CommandFailedError(Exception):
    """A program that has to work did not; the message has what it said."""


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Usage:
    """Run a program to its end.

    Python programs may keep their bytecode, as installed ones have it.

    Args:
        command: the program and its arguments.
        env: variables beside those of this process.
        folder: where it runs; here by default.

    Raises:
        CommandFailedError: it cannot be started, or its exit code is not 0.
    """
    arguments = [os.fspath(part) for part in command]
    surroundings = {**os.environ, **(env or {})}
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env={k: v for k, v in surroundings.items() if k != "PYTHONDONTWRITEBYTECODE"},
            cwd=folder,
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            text = said.read().decode(errors="replace")
            raise CommandFailedError(f"{arguments}: exit code {process.returncode}\n{text}")
    return Usage(seconds=seconds, cpu=used.ru_utime + used.ru_stime, peak=used.ru_maxrss * 1024)


@dataclass(frozen=True, kw_only=True)
class Series:
    """One contestant's rounds, in order."""

    rounds: tuple[Usage, ...]

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(u.seconds for u in self.rounds)

    @property
    def cpu(self) -> float:
        """The median."""
        return statistics.median(u.cpu for u in self.rounds)

    @property
    def peak(self) -> int:
        """The largest."""
        return max(u.peak for u in self.rounds)

    def ratio(self, other: "Series") -> float:
        """The median over the rounds of this one's time to the other's."""
        pairs = zip(self.rounds, other.rounds, strict=True)
        return statistics.median(a.seconds / b.seconds for a, b in pairs)

    def difference(self, other: "Series") -> float:
        """The median over the rounds of this one's time less the other's."""
        pairs = zip(self.rounds, other.rounds, strict=True)
        return statistics.median(a.seconds - b.seconds for a, b in pairs)


def take_turns(contestants: Mapping[str, Callable[[], Usage]], rounds: int) -> dict[str, Series]:
    """Run each contestant once a round, so that noise and a warming machine hit all alike.

    What earlier ones left to be written goes to the disk first, at nobody's expense.
    """
    found: dict[str, list[Usage]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, job in contestants.items():
            os.sync()
            found[name].append(job())
    return {name: Series(rounds=tuple(used)) for name, used in found.items()}


@dataclass
class Table:
    """The figures of a run: what was found, what was wanted, and whether it holds."""

    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    def at_most(self, figure: str, value: float, target: float, unit: str = "") -> None:
        """Add a figure that has a target."""
        verdict = "ok" if value <= target else "MISS"
        self.rows.append((figure, f"{value:.3g} {unit}", f"<= {target:.3g} {unit}", verdict))

    def note(self, figure: str, value: str, why: str = "") -> None:
        """Add a figure without a target, or the reason why there is none."""
        self.rows.append((figure, value, why, ""))

    def series(self, found: Mapping[str, Series]) -> None:
        """Add what each contestant took."""
        for name, one in found.items():
            value = f"{one.seconds:.3f} s"
            used = f"{one.cpu:.2f} s of processor, peak {one.peak / MEGABYTE:.0f} MB"
            self.note(f"  {name}", value, used)

    def print(self, title: str) -> None:
        """Write the rows added since the last time, under a title, as aligned columns."""
        heads = (title, "value", "target", "")
        widths = [max(len(row[i]) for row in [heads, *self.rows]) for i in range(4)]
        for row in (heads, tuple("-" * width for width in widths), *self.rows):
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            sys.stdout.write(line.rstrip() + "\n")
        sys.stdout.write("\n")
        sys.stdout.flush()
        self.rows.clear()

"""How fast Dockerfiles are read and planned, and paths matched.

    python benchmarks/bench_dockerfile.py [ROUNDS]

Each figure is the best of ROUNDS (7); imports are not counted, caches of a first call are. The
figures with a target are those of the project; the others say how they come about.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from measure import Table  # noqa: E402 - beside this file

from imagekit.dockerfile import Matcher, parse, parse_ignore  # noqa: E402
from imagekit.plan import lower, stage_graph  # noqa: E402
from tests.support.fuzzing import resolved  # noqa: E402
from tests.support.plans import AMD64  # noqa: E402

STAGE = """\
FROM {base} AS s{number}
ARG VERSION=1.{number}
ENV A{number}=${{VERSION}} PATH=/opt/{number}/bin:$PATH
WORKDIR /src/{number}
COPY --chown=1000:1000 go.mod go.sum *.lock ./
RUN --mount=type=cache,target=/root/.cache \\
    apt-get update && \\
    # what is needed to build
    apt-get install -y --no-install-recommends gcc make && \\
    rm -rf /var/lib/apt/lists/*
COPY . .
RUN make VERSION=${{VERSION%.*}} OUT="/out/${{VERSION//./_}}"
LABEL org.opencontainers.image.version="${{VERSION}}" stage.number={number}
USER 1000
"""
PATTERNS = 200
PATHS = 100_000
FORMS = ("dir{}", "**/name{}", "**/*.e{}", "src/*/x{}", "*.o{}", "b{}/**", "!keep{}/*.c")


def dockerfile(instructions: int) -> str:
    """A file of stages that build on each other now and then."""
    stages = []
    for number in range(instructions // 10):
        base = f"s{number - 1}" if number % 4 else "debian:12"
        stages.append(STAGE.format(number=number, base=base))
    return "\n".join(stages)


def best(job: Callable[[], object], rounds: int) -> float:
    """The shortest time that a job takes, in seconds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        job()
        times.append(time.perf_counter() - start)
    return min(times)


def lines_of(count: int) -> str:
    """A file of that many lines in many short instructions and some long ones."""
    pieces = ["FROM a"]
    while len(pieces) < count:
        pieces += ["ENV A=$B C='d e'", "RUN x && \\", "  # why", "  y", "COPY --link a b* /c/", ""]
    return "\n".join(pieces[:count]) + "\n"


def bench_plan(table: Table, rounds: int) -> None:
    text = dockerfile(200)
    file = parse(text)
    count = sum(1 + len(stage.commands) for stage in file.stages)
    graph = stage_graph(file, build_args={}, build=AMD64)
    bases = resolved(graph)

    def all_of_it() -> None:
        lower(stage_graph(parse(text), build_args={}, build=AMD64), bases)

    table.at_most(f"parse and plan {count} instructions", best(all_of_it, rounds) * 1e3, 15, "ms")
    table.note("  parse", f"{best(lambda: parse(text), rounds) * 1e3:.2f} ms")
    linked = best(lambda: stage_graph(file, build_args={}, build=AMD64), rounds)
    table.note("  stage graph", f"{linked * 1e3:.2f} ms")
    table.note("  lower", f"{best(lambda: lower(graph, bases), rounds) * 1e3:.2f} ms")


def bench_lines(table: Table, rounds: int) -> None:
    small, large = lines_of(2_500), lines_of(10_000)
    quarter, whole = (best(lambda t=text: parse(t), rounds) for text in (small, large))
    table.note("parse 10,000 lines", f"{whole * 1e3:.1f} ms", f"{whole * 1e5:.0f} ns a line")
    table.at_most("  to 2,500 lines, as a multiple of 4", whole / quarter / 4, 1.5)


def bench_ignore(table: Table, rounds: int) -> None:
    text = "\n".join(FORMS[index % len(FORMS)].format(index) for index in range(PATTERNS))
    table.note(
        f"read and compile {PATTERNS} patterns",
        f"{best(lambda: Matcher(parse_ignore(text)), rounds) * 1e3:.1f} ms",
    )
    paths = [f"src/p{i % 50}/q{i % 1000}/file{i}.py" for i in range(PATHS)]

    def match() -> None:
        matcher = Matcher(parse_ignore(text))
        for path in paths:
            matcher.step(path, 0)

    table.at_most(f"{PATTERNS} patterns, {PATHS:,} paths", best(match, rounds), 1, "s")


def main(rounds: int) -> None:
    table = Table()
    bench_plan(table, rounds)
    bench_lines(table, rounds)
    bench_ignore(table, rounds)
    table.print("Dockerfiles")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)

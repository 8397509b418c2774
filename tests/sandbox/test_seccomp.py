"""The filter, run by a small BPF machine, against the reference profile and kernel numbers."""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagekit.sandbox import seccomp
from imagekit.sandbox.caps import DOCKER
from imagekit.sandbox.seccomp_table import ARCHITECTURES, GREATEST_KNOWN, ROWS

REFERENCE = "moby-default-seccomp.json"
HEADERS = {
    "x86_64": "x86_64-linux-gnu/asm/unistd_64.h",
    "i386": "x86_64-linux-gnu/asm/unistd_32.h",
    "x32": "x86_64-linux-gnu/asm/unistd_x32.h",
    "aarch64": "asm-generic/unistd.h",
}
MACHINES = {
    "x86_64": "x86_64",
    "i386": "x86_64",
    "x32": "x86_64",
    "aarch64": "aarch64",
    "arm": "aarch64",
}


def decide(program: bytes, architecture: str, number: int, argument: int = 0) -> int:
    """What the filter returns for one call, as the kernel would run it."""
    if architecture == "x32":
        architecture, number = "x86_64", number | seccomp.X32_BIT
    data = b"".join(
        (
            number.to_bytes(4, "little"),
            seccomp.AUDIT_ARCH[architecture].to_bytes(4, "little"),
            bytes(8),
            argument.to_bytes(8, "little"),
            bytes(40),
        )
    )
    return execute(program, data)


def execute(program: bytes, data: bytes) -> int:
    accumulator = at = 0
    while True:
        instruction = program[at * 8 : at * 8 + 8]
        operation = int.from_bytes(instruction[:2], "little")
        yes, no = instruction[2], instruction[3]
        value = int.from_bytes(instruction[4:], "little")
        at += 1
        match operation:
            case 0x20:
                accumulator = int.from_bytes(data[value : value + 4], "little")
            case 0x05:
                at += value
            case 0x15:
                at += yes if accumulator == value else no
            case 0x35:
                at += yes if accumulator >= value else no
            case 0x45:
                at += yes if accumulator & value else no
            case 0x06:
                return value
            case _:
                raise AssertionError(operation)


def numbers(architecture: str) -> dict[str, int]:
    column = ARCHITECTURES.index(architecture) + 1
    rows = (row.split(" ") for row in ROWS.splitlines())
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


def reference() -> dict[str, object]:
    folder = os.environ.get("IMAGEKIT_CONFORMANCE", "../shared/conformance")
    path = Path(__file__).parents[2] / folder / ".." / "reference" / REFERENCE
    if not path.exists():
        pytest.skip(f"{REFERENCE} is not there to compare with")
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def _applies(rule: dict[str, dict[str, list[str]]], arches: set[str]) -> bool:
    held = {f"CAP_{name}" for name in DOCKER}
    includes, excludes = rule.get("includes", {}), rule.get("excludes", {})
    wanted = includes.get("caps", [])
    return not (
        (wanted and not held & set(wanted))
        or (includes.get("arches") and not arches & set(includes["arches"]))
        or held & set(excludes.get("caps", []))
        or arches & set(excludes.get("arches", []))
    )


COMPARE: dict[str, Callable[[int, int], bool]] = {
    "SCMP_CMP_EQ": lambda argument, value: argument == value,
    "SCMP_CMP_LT": lambda argument, value: argument < value,
    "SCMP_CMP_GT": lambda argument, value: argument > value,
    "SCMP_CMP_MASKED_EQ": lambda argument, value: argument & value == 0,
}


def expected(profile: dict, name: str, argument: int, arches: set[str]) -> int:
    """The decision of the reference; explicit errors win over allowing, as in libseccomp."""
    action = seccomp.DENY
    for rule in profile["syscalls"]:
        if name not in rule["names"] or not _applies(rule, arches):
            continue
        tests = rule.get("args", [])
        if any(test["index"] != 0 for test in tests):
            continue
        if all(COMPARE[test["op"]](argument, test["value"]) for test in tests):
            if rule["action"] == "SCMP_ACT_ERRNO":
                return 0x00050000 | rule["errnoRet"]
            action = seccomp.ALLOW
    return action


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_decisions_equal_the_reference(architecture: str) -> None:
    profile = reference()
    machine = MACHINES[architecture]
    arches = {"x86_64": {"amd64", "x86", "x32"}, "aarch64": {"arm64", "arm"}}[machine]
    program = seccomp.program(machine)
    known = numbers(architecture)
    arguments = (
        0,
        1,
        2,
        8,
        37,
        38,
        39,
        40,
        41,
        0x20000,
        0x20008,
        0x11,
        0x10000000,
        0x7E020000,
        0x40000000,
        0xFFFFFFFF,
    )
    by_number: dict[int, set[str]] = {}
    for name, number in (*known.items(), ("clone3", 435)):
        by_number.setdefault(number, set()).add(name)
    for number in range(GREATEST_KNOWN + 1):
        for argument in arguments:
            wanted = {expected(profile, n, argument, arches) for n in by_number.get(number, {"?"})}
            got = decide(program, architecture, number, argument)
            assert got in wanted, (number, by_number.get(number), argument)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_table_has_every_name_of_the_reference(architecture: str) -> None:
    profile = reference()
    path = _header(architecture)
    known = numbers(architecture)
    machine = MACHINES[architecture]
    arches = {"x86_64": {"amd64", "x86", "x32"}, "aarch64": {"arm64", "arm"}}[machine]
    header = _parse(path)
    for name, number in header.items():
        allowed = seccomp.ALLOW in {
            expected(profile, name, argument, arches) for argument in (0, 39)
        }
        assert allowed == (name in known), name
        if allowed:
            assert known[name] == number, name


def _header(architecture: str) -> Path:
    path = Path("/usr/include") / HEADERS.get(architecture, "none")
    if not path.is_file():
        pytest.skip(f"no kernel header for {architecture}")
    return path


def _parse(path: Path) -> dict[str, int]:
    pattern = re.compile(r"^#define __NR(?:3264)?_(\w+)\s+\(?(?:__X32_SYSCALL_BIT \+ )?(\d+)\)?")
    found = {}
    for line in path.read_text().splitlines():
        if match := pattern.match(line):
            found[match[1]] = int(match[2])
    found.pop("clone3", None)  # judged by its own rule
    if path.name == "unistd.h":  # of which 64-bit machines have a part, some by other names
        for name in ("sync_file_range2", "syscalls", "arch_specific_syscall"):
            found.pop(name, None)
        found = {name: n for name, n in found.items() if not 403 <= n <= 423}
        found["newfstatat"] = found.pop("fstatat", 79)
    return found


def test_abstract_families_cannot_hide_in_the_high_half() -> None:
    program = seccomp.program("x86_64")
    assert decide(program, "x86_64", 41, (1 << 32) | 38) == seccomp.DENY


def test_calls_newer_than_the_table_do_not_exist() -> None:
    program = seccomp.program("x86_64")
    for number in (GREATEST_KNOWN + 1, 5000, 0x3FFFFFFF):
        assert decide(program, "x86_64", number) == seccomp.NO_SUCH_CALL
        assert decide(program, "x32", number) == seccomp.NO_SUCH_CALL
        assert decide(program, "i386", number) == seccomp.NO_SUCH_CALL


def test_an_unknown_architecture_is_killed() -> None:
    data = bytes(4) + (0xC000_0015).to_bytes(4, "little") + bytes(56)
    for machine in ("x86_64", "aarch64"):
        assert execute(seccomp.program(machine), data) == seccomp.KILL_PROCESS


def test_socketcall_is_denied_only_when_restricted() -> None:
    assert decide(seccomp.program("x86_64"), "i386", 102) == seccomp.ALLOW
    restricted = seccomp.program("x86_64", restricted=True)
    assert decide(restricted, "i386", 102) == seccomp.DENY


def _instructions(program: bytes) -> Iterator[tuple[int, bytes]]:
    return ((at // 8, program[at : at + 8]) for at in range(0, len(program), 8))


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_program_is_one_that_the_kernel_takes(machine: str) -> None:
    program = seccomp.program(machine)
    length = len(program) // 8
    assert length < 4096
    for at, instruction in _instructions(program):
        operation = int.from_bytes(instruction[:2], "little")
        if operation == 0x05:
            assert at + 1 + int.from_bytes(instruction[4:], "little") < length
        elif operation != 0x06:
            assert at + 1 + max(instruction[2], instruction[3]) < length


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
def test_every_call_has_a_decision(number: int, argument: int) -> None:
    decisions = {seccomp.ALLOW, seccomp.DENY, seccomp.NO_SUCH_CALL}
    for machine, architectures in seccomp.NATIVE_AND_COMPATIBLE.items():
        for architecture in architectures:
            got = decide(seccomp.program(machine), architecture, number, argument)
            assert got in decisions

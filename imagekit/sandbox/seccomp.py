"""The system call filter of a step, assembled as a BPF program without libseccomp.

Equal in effect to Docker's default profile for Docker's default capabilities, with these
decisions of our own: arguments that the kernel reads as 32 bits are compared as 32 bits (the high
half cannot hide an AF_ALG); calls with numbers newer than our table fail with ENOSYS, as runc
does it, so that C libraries fall back; an architecture that the table does not know is killed.

Layout: one jump on the architecture, then for each a balanced tree over ranges of call numbers
whose leaves return. Trees need no shared labels, so assembling is plain concatenation.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final

from imagekit.sandbox.seccomp_table import ARCHITECTURES, GREATEST_KNOWN, ROWS

ALLOW: Final = 0x7FFF0000
KILL_PROCESS: Final = 0x80000000
DENY: Final = 0x00050001  # SECCOMP_RET_ERRNO with EPERM
NO_SUCH_CALL: Final = 0x00050026  # ... with ENOSYS

X32_BIT: Final = 0x40000000
AUDIT_ARCH: Final = {
    "x86_64": 0xC000003E,
    "i386": 0x40000003,
    "aarch64": 0xC00000B7,
    "arm": 0x40000028,
}
NATIVE_AND_COMPATIBLE: Final = {"x86_64": ("x86_64", "i386"), "aarch64": ("aarch64", "arm")}

_NEW_NAMESPACES: Final = 0x7E020000
_AF_ALG: Final = 38
_AF_VSOCK: Final = 40
_PERSONALITIES: Final = (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP: Final = 0x05
_JUMP_EQ: Final = 0x15
_JUMP_GE: Final = 0x35
_JUMP_SET: Final = 0x45
_RETURN: Final = 0x06
_OFFSET_NUMBER: Final = 0
_OFFSET_ARCH: Final = 4
_OFFSET_ARGUMENT_0: Final = 16  # its low half, on little-endian machines

Code = list[tuple[int, int, int, int]]


def _return(action: int) -> Code:
    return [(_RETURN, 0, 0, action)]


def _any_of(values: tuple[int, ...], found: int, otherwise: int) -> Code:
    tests = [(_JUMP_EQ, len(values) - i, 0, value) for i, value in enumerate(values)]
    return [
        (_LOAD, 0, 0, _OFFSET_ARGUMENT_0),
        *tests,
        *_return(otherwise),
        *_return(found),
    ]


def _clone() -> Code:
    return [
        (_LOAD, 0, 0, _OFFSET_ARGUMENT_0),
        (_JUMP_SET, 0, 1, _NEW_NAMESPACES),
        *_return(DENY),
        *_return(ALLOW),
    ]


_LEAVES: Final[dict[str, Callable[[], Code]]] = {
    "allow": lambda: _return(ALLOW),
    "deny": lambda: _return(DENY),
    "unknown": lambda: _return(NO_SUCH_CALL),
    "clone": _clone,
    "clone3": lambda: _return(NO_SUCH_CALL),
    "socket": lambda: _any_of((_AF_ALG, _AF_VSOCK), DENY, ALLOW),
    "personality": lambda: _any_of(_PERSONALITIES, ALLOW, DENY),
}


def _decisions(architecture: str, *, restricted: bool) -> Iterator[tuple[int, str]]:
    """Call numbers of one architecture and the leaf that judges each."""
    column = ARCHITECTURES.index(architecture) + 1
    for row in ROWS.splitlines():
        fields = row.split(" ")
        if fields[column] == "-":
            continue
        name = fields[0]
        leaf = name if name in _LEAVES else "allow"
        if name == "socketcall" and restricted:
            leaf = "deny"
        yield int(fields[column]), leaf
    yield 435, "clone3"


def _ranges(architecture: str, *, restricted: bool) -> list[tuple[int, str]]:
    """Where each run of equal decisions begins, in order, from 0."""
    known = dict(_decisions(architecture, restricted=restricted))
    ranges = [(0, "deny")]
    following = 0
    for number in sorted(known):
        if number != following:
            _begin(ranges, following, "deny" if following <= GREATEST_KNOWN else "unknown")
            if following <= GREATEST_KNOWN < number:
                _begin(ranges, GREATEST_KNOWN + 1, "unknown")
        _begin(ranges, number, known[number])
        following = number + 1
    if following <= GREATEST_KNOWN:
        _begin(ranges, following, "deny")
    _begin(ranges, max(following, GREATEST_KNOWN + 1), "unknown")
    return ranges


def _begin(ranges: list[tuple[int, str]], start: int, leaf: str) -> None:
    if start == ranges[-1][0]:
        ranges.pop()
    if not ranges or ranges[-1][1] != leaf:
        ranges.append((start, leaf))


def _branch(number: int, at_least: Code, below: Code) -> Code:
    """Go to `at_least` if the accumulator is that much, else to `below`."""
    if len(below) <= 255:
        return [(_JUMP_GE, len(below), 0, number), *below, *at_least]
    return [(_JUMP_GE, 0, 1, number), (_JUMP, 0, 0, len(below)), *below, *at_least]


def _tree(ranges: list[tuple[int, str]]) -> Code:
    if len(ranges) == 1:
        return _LEAVES[ranges[0][1]]()
    middle = len(ranges) // 2
    return _branch(ranges[middle][0], _tree(ranges[middle:]), _tree(ranges[:middle]))


def _section(architecture: str, *, restricted: bool) -> Code:
    code = _tree(_ranges(architecture, restricted=restricted))
    if architecture == "x86_64":
        x32 = [(n + X32_BIT, leaf) for n, leaf in _ranges("x32", restricted=restricted)]
        code = _branch(X32_BIT, _tree(x32), code)
    return [(_LOAD, 0, 0, _OFFSET_NUMBER), *code]


@lru_cache(maxsize=4)
def program(machine: str, *, restricted: bool = False) -> bytes:
    """The filter for a kernel of `machine` ("x86_64", "aarch64"), ready for seccomp(2).

    Args:
        machine: as uname(2) has it.
        restricted: also deny the 32-bit socketcall, which hides its socket family.

    Raises:
        KeyError: the table has no numbers for that machine.

    Spec: security.md X-6.
    """
    code: Code = _return(KILL_PROCESS)
    for architecture in reversed(NATIVE_AND_COMPATIBLE[machine]):
        section = _section(architecture, restricted=restricted)
        skip: Code = [
            (_JUMP_EQ, 1, 0, AUDIT_ARCH[architecture]),
            (_JUMP, 0, 0, len(section)),
        ]
        code = [*skip, *section, *code]
    code = [(_LOAD, 0, 0, _OFFSET_ARCH), *code]
    return b"".join(
        operation.to_bytes(2, "little") + bytes((yes, no)) + value.to_bytes(4, "little")
        for operation, yes, no, value in code
    )

"""The value of --chmod: octal, or symbolic as chmod(1) has it.

Grammar::

mode   = octal | clause { "," clause }
clause = { "u" | "g" | "o" | "a" } action { action }
action = ( "+" | "-" | "=" ) ( "u" | "g" | "o" | { "r" | "w" | "x" | "X" | "s" | "t" } )
"""

import re
from collections.abc import Callable

from attrs import frozen

from imagekit.errors import PathError
from imagekit.layer.tree import DIRECTORY, SYMLINK, Entry

_SET_ID = 0o6000
_STICKY = 0o1000
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o0007, "a": 0o7777}
_SHIFT = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111}
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)")
_ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_OCTAL = re.compile(r"[0-7]+")


@frozen
class Mode:
    """What --chmod does to the modes of what is copied.

    Attributes:
        octal: the mode that everything gets, or None if the change is symbolic.
        change: mode and whether it is a directory's -> new mode.
    """

    octal: int | None
    change: Callable[[int, bool], int]

    @property
    def of_made_directories(self) -> int:
        """The mode of directories that are not copied but made, as parents are."""
        return 0o755 if self.octal is None else self.octal & 0o777

    def of(self, entry: Entry) -> int:
        """The mode of a copy of an entry; symlinks have none of their own."""
        if entry.kind == SYMLINK:
            return entry.mode
        return self.change(entry.mode, entry.kind == DIRECTORY)


def parse_mode(text: str) -> Mode:
    """Read the value of --chmod.

    Raises:
        PathError: neither octal from 0 to 07777 nor symbolic; code `chmod-invalid`.

    Spec: dockerfile-semantics.md section 9.
    """
    if _OCTAL.fullmatch(text):
        octal = int(text, 8)
        if octal > 0o7777:
            raise _bad(text)
        return Mode(octal, lambda _mode, _directory: octal)
    steps: list[tuple[str, str, str]] = []
    for clause in text.split(","):
        match = _CLAUSE.fullmatch(clause)
        if match is None:
            raise _bad(text)
        who, actions = match.groups()
        steps += [(who, sign, bits) for sign, bits in _ACTION.findall(actions)]

    def change(mode: int, directory: bool) -> int:  # noqa: FBT001 - the signature of Mode.change
        executable = directory or bool(mode & 0o111)
        for who, sign, bits in steps:
            mode = _step(mode, who or "a", sign, _meant(mode, bits, executable=executable))
        return mode

    return Mode(None, change)


def _meant(mode: int, bits: str, *, executable: bool) -> int:
    """The bits that an action names, for everyone."""
    if bits in _SHIFT and bits:
        return (mode >> _SHIFT[bits] & 0o7) * 0o111
    found = 0
    for bit in bits:
        match bit:
            case "X":
                found |= 0o111 if executable else 0
            case "s":
                found |= _SET_ID
            case "t":
                found |= _STICKY
            case _:
                found |= _BITS[bit]
    return found


def _step(mode: int, who: str, sign: str, bits: int) -> int:
    mask = 0
    for one in who:
        mask |= _WHO[one]
    if mask & 0o770:
        mask |= bits & _STICKY
    bits &= mask
    if sign == "+":
        return mode | bits
    if sign == "-":
        return mode & ~bits
    return mode & ~mask | bits


def _bad(text: str) -> PathError:
    return PathError(
        f"--chmod={text}: no mode",
        hint="give an octal mode such as 0755, or a symbolic one such as u=rwX,go=rX",
        code="chmod-invalid",
    )

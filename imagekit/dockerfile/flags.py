"""The flags of each instruction, and the small value grammars that flags are written in."""

import re
from collections.abc import Iterable, Mapping
from enum import Enum, auto

from attrs import frozen

from imagekit.dockerfile.grammar import GrammarError

_DURATION = re.compile(
    r"[-+]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|\u00b5s|\u03bcs|ms|s|m|h))+"
)
_DURATION_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|\u00b5s|\u03bcs|ms|s|m|h)")
_UNITS_NS = {
    "ns": 1,
    "us": 10**3,
    "\u00b5s": 10**3,
    "\u03bcs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_SHORTEST_NS = 10**6
_INTEGER = re.compile(r"[-+]?[0-9]+")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that this one may be a slip of, or nothing."""
    from difflib import get_close_matches  # noqa: PLC0415 - only errors need it

    return next(iter(get_close_matches(word, list(known), n=1)), "")


class Kind(Enum):
    """What a flag takes."""

    TEXT = auto()
    BOOL = auto()
    LIST = auto()


FLAGS: Mapping[str, Mapping[str, Kind]] = {
    "from": {"platform": Kind.TEXT},
    "copy": {
        "from": Kind.TEXT,
        "chown": Kind.TEXT,
        "chmod": Kind.TEXT,
        "link": Kind.BOOL,
        "parents": Kind.BOOL,
        "exclude": Kind.LIST,
    },
    "add": {
        "chown": Kind.TEXT,
        "chmod": Kind.TEXT,
        "link": Kind.BOOL,
        "keep-git-dir": Kind.BOOL,
        "checksum": Kind.TEXT,
        "unpack": Kind.BOOL,
        "exclude": Kind.LIST,
    },
    "run": {
        "mount": Kind.LIST,
        "network": Kind.TEXT,
        "security": Kind.TEXT,
        "device": Kind.LIST,
    },
    "healthcheck": {
        "interval": Kind.TEXT,
        "timeout": Kind.TEXT,
        "start-period": Kind.TEXT,
        "start-interval": Kind.TEXT,
        "retries": Kind.TEXT,
    },
}
"""The flags there are, by instruction; those not listed take none."""


class UnknownFlagError(GrammarError):
    """A flag that the instruction does not have; `hint` names the nearest one."""

    def __init__(self, name: str, known: Mapping[str, Kind]) -> None:
        super().__init__(f"unknown flag --{name}", "unknown-flag", f"--{name}")
        near = nearest(name.lower(), known)
        self.hint = ""
        if near:
            self.hint = f"did you mean --{near}?"
        elif known:
            self.hint = "it takes " + ", ".join(f"--{flag}" for flag in known)


@frozen
class Flags:
    """The values of one instruction's flags."""

    texts: Mapping[str, str]
    bools: Mapping[str, bool]
    lists: Mapping[str, tuple[str, ...]]

    def text(self, name: str, default: str = "") -> str:
        """Return the value of `--name=value`, or the default."""
        return self.texts.get(name, default)

    def flag(self, name: str) -> bool:
        """Return whether a boolean flag is on."""
        return self.bools.get(name, False)

    def list(self, name: str) -> tuple[str, ...]:
        """Return the values of a flag that may be repeated, in order."""
        return self.lists.get(name, ())


def read_flags(cmd: str, raw: tuple[str, ...]) -> Flags:
    """Check the raw flags of an instruction and return their values.

    Raises:
        GrammarError: `unknown-flag`, `duplicate-flag`, `flag-value-missing` or
            `flag-value-invalid`.
    """
    known = FLAGS.get(cmd, {})
    texts: dict[str, str] = {}
    bools: dict[str, bool] = {}
    lists: dict[str, tuple[str, ...]] = {}
    for flag in raw:
        name, equals, value = flag[2:].partition("=")
        kind = known.get(name)
        if kind is None:
            raise UnknownFlagError(name, known)
        if name in texts or name in bools:
            raise GrammarError(f"--{name} is given twice", "duplicate-flag", flag)
        if (kind is Kind.BOOL) == bool(equals) and not value:
            raise GrammarError(f"--{name} lacks a value", "flag-value-missing", flag)
        if kind is Kind.BOOL:
            bools[name] = _bool(name, value)
        elif not equals:
            raise GrammarError(f"--{name} lacks a value", "flag-value-missing", flag)
        elif kind is Kind.TEXT:
            texts[name] = value
        else:
            lists[name] = (*lists.get(name, ()), value)
    return Flags(texts, bools, lists)


def _bool(name: str, value: str) -> bool:
    if value.lower() not in ("", "true", "false"):
        raise GrammarError(
            f"--{name} is true or false, not {value}", "flag-value-invalid", f"--{name}"
        )
    return value.lower() != "false"


def split_csv(text: str) -> tuple[str, ...]:
    """Split a flag's value at its commas; a field in double quotes may hold commas.

    Raises:
        GrammarError: `mount-invalid`: a quote inside a bare field, or one not closed.

    Spec: RFC 4180.
    """
    fields: list[str] = []
    at = 0
    while text:
        if text.startswith('"', at):
            field, at = _quoted_field(text, at + 1)
        else:
            end = text.find(",", at)
            end = len(text) if end < 0 else end
            field, at = text[at:end], end
            if '"' in field:
                raise GrammarError(f"a quote inside {field}", "mount-invalid", text)
        fields.append(field)
        if at >= len(text):
            break
        at += 1
    return tuple(fields)


def _quoted_field(text: str, at: int) -> tuple[str, int]:
    field: list[str] = []
    while True:
        end = text.find('"', at)
        if end < 0:
            raise GrammarError(f"a quote is not closed in {text}", "mount-invalid", text)
        field.append(text[at:end])
        at = end + 1
        if text.startswith('"', at):
            field.append('"')
            at += 1
        elif at == len(text) or text[at] == ",":
            return "".join(field), at
        else:
            raise GrammarError(f"text behind a quote in {text}", "mount-invalid", text)


def check_mount(value: str, *, expand_from: bool = False) -> None:
    """Check what is known of a `--mount` before its variables are: that `from` has none.

    Args:
        value: of the flag.
        expand_from: it may have some.

    Raises:
        GrammarError: `mount-invalid` or `from-variable`.
    """
    for field in split_csv(value):
        key, _, name = field.partition("=")
        if key.lower() == "from" and not expand_from and re.search(r"\$.", name):
            raise GrammarError(
                f"from cannot hold a variable, as in {name}", "from-variable", field
            )


def check_device(value: str) -> None:
    """Check a `--device`: a name, alone or as `name=`, and `required[=bool]`.

    Raises:
        GrammarError: `mount-invalid`.
    """
    for index, field in enumerate(split_csv(value)):
        key, equals, _ = field.partition("=")
        is_name = index == 0 and ("/" in key or not equals)
        if not is_name and key.lower() not in ("name", "required"):
            raise GrammarError(f"{field} is no key=value of a device", "mount-invalid", field)


def read_duration(text: str) -> int:
    """Return nanoseconds; `1h30m`, `1.5s` and so on, 0 for nothing.

    Raises:
        GrammarError: `healthcheck-invalid`: no duration, or one below a millisecond.
    """
    if text in ("", "0", "+0", "-0"):
        return 0
    if not _DURATION.fullmatch(text):
        raise GrammarError(
            f"{text} is no duration such as 30s or 1m30s", "healthcheck-invalid", text
        )
    total = 0
    for whole, fraction, unit in _DURATION_PART.findall(text):
        scale = _UNITS_NS[unit]
        total += int(whole or "0") * scale
        if fraction:
            total += int(fraction) * scale // 10 ** len(fraction)
    if total == 0:
        return 0
    if text.startswith("-") or total < _SHORTEST_NS or total >= 2**63:
        raise GrammarError(
            f"{text} is not between a millisecond and 292 years", "healthcheck-invalid", text
        )
    return total


def read_retries(text: str) -> int:
    """Return a count, 0 for nothing.

    Raises:
        GrammarError: `healthcheck-invalid`: no integer, negative, or above 2**31-1.
    """
    if not text:
        return 0
    if not _INTEGER.fullmatch(text) or not 0 <= int(text[:20]) < 2**31:
        raise GrammarError(f"{text} is no count of retries", "healthcheck-invalid", text)
    return int(text)

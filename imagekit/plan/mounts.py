"""The value of `RUN --mount`: comma-separated options with quotes as in CSV (RFC 4180).

    mount  = option *( "," option )
    option = key [ "=" value ] / DQUOTE *( any / 2DQUOTE ) DQUOTE

Options are read in order, and `required` and `size` are judged by the type read so far.
"""

import posixpath
import re
from collections.abc import Callable, Iterator
from typing import Final, Literal, cast

from attrs import evolve, frozen

from imagekit.errors import ImagekitError
from imagekit.plan.places import did_you_mean

MountType = Literal["bind", "cache", "tmpfs", "secret", "ssh"]
Sharing = Literal["", "shared", "private", "locked"]

_TYPES: Final = ("bind", "cache", "secret", "ssh", "tmpfs")
_SHARING: Final = ("locked", "private", "shared")
_KEYS: Final = tuple(
    "type from source target readonly id sharing required size mode uid gid env"
    " src dst destination ro rw readwrite".split()
)
_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "false", "FALSE", "False"})
_SIZE: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) ?([kmgtp]?)i?b?", re.IGNORECASE)
_NUMBER_LIMIT: Final = 1 << 32


class MountError(ImagekitError):
    """An option of a mount that is wrong; whoever knows the instruction adds the place."""

    default_code = "mount-invalid"


@frozen(kw_only=True)
class MountOptions:
    """One `--mount`, as written and expanded; empty and None are what was not given.

    Only the `id` and `from_` of a cache have defaults of their own: its target and `scratch`.
    """

    type: MountType = "bind"
    from_: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = True
    id: str = ""
    sharing: Sharing = ""
    required: bool = False
    size: int = 0
    uid: int | None = None
    gid: int | None = None
    mode: int | None = None
    env: str = ""


def parse_mount(text: str, expand: Callable[[str], str]) -> MountOptions:
    """Read one mount, each value expanded by `expand`.

    Raises:
        MountError: an unknown key or value, or one that the type does not have.
    """
    mount = MountOptions()
    read_only: bool | None = None
    for option in _fields(text):
        key, equals, value = option.partition("=")
        key = key.lower()
        value = expand(value) if equals else _implied(mount, key, option)
        if key in {"readonly", "ro"}:
            read_only = _boolean(key, value)
        elif key in {"readwrite", "rw"}:
            read_only = not _boolean(key, value)
        else:
            mount = _with_option(mount, key, value, option)
    if read_only is None:
        read_only = mount.type not in {"cache", "tmpfs"}
    mount = evolve(mount, read_only=read_only)
    _check(mount)
    if mount.type == "cache":
        identity = mount.id or posixpath.normpath(mount.target)
        return evolve(mount, id=identity, from_=mount.from_ or "scratch")
    return mount


def mount_source(text: str) -> str:
    """The stage or image that `from` names, in which variables have no meaning; may be empty.

    Raises:
        MountError: the text is no CSV.
    """
    name = ""
    for option in _fields(text):
        key, _, value = option.partition("=")
        if key.lower() == "from":
            name = value
    return name


def _implied(mount: MountOptions, key: str, option: str) -> str:
    if key in {"readonly", "ro", "readwrite", "rw"}:
        return "true"
    if key == "required":
        if mount.type not in {"secret", "ssh"}:
            raise MountError(f"unexpected key {key!r} for mount type {mount.type!r}")
        return "true"
    raise MountError(f"invalid field {option!r} must be a key=value pair")


def _with_option(  # noqa: C901, PLR0911, PLR0912 - a case a key
    mount: MountOptions, key: str, value: str, option: str
) -> MountOptions:
    match key:
        case "type":
            kind = _one_of("mount type", value, _TYPES)
            return evolve(mount, type=cast(MountType, kind))
        case "from":
            return evolve(mount, from_=value)
        case "source" | "src":
            return evolve(mount, source=value)
        case "target" | "dst" | "destination":
            return evolve(mount, target=value)
        case "required" if mount.type in {"secret", "ssh"}:
            return evolve(mount, required=_boolean(key, value))
        case "size" if mount.type == "tmpfs":
            return evolve(mount, size=_size(value))
        case "required" | "size":
            raise MountError(f"unexpected key {key!r} for mount type {mount.type!r}")
        case "id":
            return evolve(mount, id=value)
        case "sharing":
            sharing = _one_of("sharing value", value, _SHARING, code="sharing-invalid")
            return evolve(mount, sharing=cast(Sharing, sharing))
        case "mode":
            return evolve(mount, mode=_number(key, value, base=8))
        case "uid":
            return evolve(mount, uid=_number(key, value, base=10))
        case "gid":
            return evolve(mount, gid=_number(key, value, base=10))
        case "env":
            return evolve(mount, env=value)
        case _:
            pass
    raise MountError(f"unexpected key {key!r} in {option!r}", hint=did_you_mean(key, _KEYS))


def _check(mount: MountOptions) -> None:
    given = [k for k in ("mode", "uid", "gid") if getattr(mount, k) is not None]
    if given and mount.type in {"bind", "tmpfs"}:
        raise MountError(f"{given[0]} not allowed for {mount.type!r} type mounts")
    if mount.type == "secret":
        if mount.from_:
            raise MountError("secret mount should not have a from")
        if not (mount.source or mount.target or mount.id):
            raise MountError("invalid secret mount: one of id, source, target required")
        if mount.source and mount.id:
            raise MountError("both source and id can't be set")
    if mount.type == "ssh" and mount.source:
        raise MountError("ssh does not support source")
    if mount.sharing and mount.type != "cache":
        raise MountError(f"invalid cache sharing set for {mount.type} mount")


def _one_of(
    what: str, value: str, allowed: tuple[str, ...], *, code: str = "mount-invalid"
) -> str:
    if value.lower() not in allowed:
        hint = did_you_mean(value, allowed) or f"one of {', '.join(allowed)}"
        raise MountError(f"unsupported {what} {value!r}", hint=hint, code=code)
    return value.lower()


def _boolean(key: str, value: str) -> bool:
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise MountError(f"invalid value for {key}: {value}")


def _number(key: str, value: str, *, base: int) -> int:
    digits = "01234567" if base == 8 else "0123456789"
    if not value or not set(value) <= set(digits) or int(value, base) >= _NUMBER_LIMIT:
        raise MountError(f"invalid value {value} for {key}")
    return int(value, base)


def _size(value: str) -> int:
    match = _SIZE.fullmatch(value)
    if match is None:
        raise MountError(f"invalid value for size: {value}", hint="write 64m, 2g or bytes")
    power = " kmgtp".index(match[2].lower() or " ")
    return int(float(match[1]) * 1024**power)


def _fields(text: str) -> Iterator[str]:
    """The fields of one CSV record."""
    at = 0
    while True:
        if text.startswith('"', at):
            field, at = _quoted(text, at + 1)
        else:
            end = text.find(",", at)
            end = len(text) if end < 0 else end
            field, at = text[at:end], end
            if '"' in field:
                raise MountError(f"failed to parse csv mounts: bare quote in {field!r}")
        yield field
        if at >= len(text):
            return
        at += 1


def _quoted(text: str, at: int) -> tuple[str, int]:
    """A quoted field from behind its first quote, and where it ends."""
    parts = []
    while (end := text.find('"', at)) >= 0:
        parts.append(text[at:end])
        at = end + 1
        if not text.startswith('"', at):
            if at < len(text) and text[at] != ",":
                raise MountError("failed to parse csv mounts: text after a closing quote")
            return "".join(parts), at
        parts.append('"')
        at += 1
    raise MountError("failed to parse csv mounts: a quote is not closed")

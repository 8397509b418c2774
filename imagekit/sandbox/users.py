"""USER looked up in the root's own passwd and group, as BuildKit and runc do it.

The files are opened inside the root, must be regular and small; what the host knows is never
asked.

Spec: security.md C-9; dockerfile-semantics.md, USER.
"""

import os
import stat
from collections.abc import Iterator
from typing import Final, NamedTuple

from imagekit.sandbox.failure import SetupError
from imagekit.sandbox.inroot import open_in

FILE_LIMIT: Final = 1 << 20
_GREATEST_ID: Final = (1 << 31) - 1


class Account(NamedTuple):
    """Who the command is; `groups` are the supplementary ones and include `gid`."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


class _Passwd(NamedTuple):
    name: str
    uid: int
    gid: int
    home: str


class _Group(NamedTuple):
    name: str
    gid: int
    members: tuple[str, ...]


def look_up(root: int, user: str) -> Account:
    """The account that `user` ("", "app", "1000", "app:staff", "7:8") means in `root`.

    Raises:
        SetupError: code `user-unknown` for a name that is not there, `id-out-of-range` for a
            number outside 0..2^31-1, `bad-root` for files that are no small regular ones.
    """
    return resolve(user, _read(root, "/etc/passwd"), _read(root, "/etc/group"))


def resolve(user: str, passwd: str, group: str) -> Account:
    """`look_up` on the texts of the two files."""
    user_part, colon, group_part = user.partition(":")
    number = _number(user_part) if user_part else 0
    entry = next(
        (
            e
            for e in _passwd_entries(passwd)
            if (e.uid == number if number is not None else e.name == user_part)
        ),
        None,
    )
    if number is None and entry is None:
        raise SetupError(
            f"unable to find user {user_part}: no matching entries in passwd file",
            code="user-unknown",
            hint="create the user in an earlier step, or give a number",
        )
    uid = entry.uid if entry else number or 0
    home = (entry.home if entry else "") or "/"
    if colon and group_part:
        gid = _group_id(group_part, group)
        return Account(_checked(uid), gid, (gid,), home)
    gid = _checked(entry.gid) if entry else 0
    member_of = (g.gid for g in _group_entries(group) if entry and entry.name in g.members)
    groups = tuple(dict.fromkeys((gid, *map(_checked, member_of))))
    return Account(_checked(uid), gid, groups, home)


def _group_id(text: str, group: str) -> int:
    number = _number(text)
    for entry in _group_entries(group):
        if entry.name == text or entry.gid == number:
            return _checked(entry.gid)
    if number is None:
        raise SetupError(
            f"unable to find group {text}: no matching entries in group file",
            code="user-unknown",
            hint="create the group in an earlier step, or give a number",
        )
    return number


def _number(text: str) -> int | None:
    """The id that `text` spells, None for a name."""
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not (digits.isascii() and digits.isdigit()):
        return None
    return _checked(int(text)) if len(text) < 20 else _checked(-1)


def _checked(number: int) -> int:
    if not 0 <= number <= _GREATEST_ID:
        raise SetupError(
            f"user or group id {number} is not in 0..{_GREATEST_ID}", code="id-out-of-range"
        )
    return number


def _passwd_entries(text: str) -> Iterator[_Passwd]:
    for fields in _rows(text, 6):
        if fields[2].isdecimal() and fields[3].isdecimal():
            yield _Passwd(fields[0], int(fields[2]), int(fields[3]), fields[5])


def _group_entries(text: str) -> Iterator[_Group]:
    for fields in _rows(text, 3):
        if fields[2].isdecimal():
            members = tuple(fields[3].split(",")) if len(fields) > 3 else ()
            yield _Group(fields[0], int(fields[2]), members)


def _rows(text: str, least: int) -> Iterator[list[str]]:
    for line in text.split("\n"):
        fields = line.strip().split(":")
        if len(fields) >= least and not line.startswith("#"):
            yield fields


def _read(root: int, path: str) -> str:
    try:
        fd = open_in(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as exc:
        raise SetupError(f"{path} in the root: {exc.strerror}", code="bad-root") from exc
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > FILE_LIMIT:
            raise SetupError(
                f"{path} in the root is no regular file of at most {FILE_LIMIT} bytes",
                code="bad-root",
            )
        data = bytearray()
        while len(data) <= FILE_LIMIT and (chunk := os.read(fd, 1 << 16)):
            data += chunk
    finally:
        os.close(fd)
    if len(data) > FILE_LIMIT:
        raise SetupError(f"{path} in the root is over {FILE_LIMIT} bytes", code="bad-root")
    return data.decode("utf-8", "surrogateescape")

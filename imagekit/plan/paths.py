"""Paths in an image: `str` with `/`, always absolute, never above the root."""

import posixpath
from typing import Final

WILDCARDS: Final = frozenset("*?[\\")


def clean(path: str) -> str:
    """`path` as seen from the root: absolute, without `.`, `..`, doubled or trailing slashes."""
    return posixpath.normpath("/" + path.lstrip("/"))


def absolute(folder: str, path: str) -> str:
    """`path` cleaned, taken relative to `folder` unless it is absolute."""
    return clean(path if path.startswith("/") else f"{folder}/{path}")


def workdir(folder: str, path: str) -> str:
    """`path` after WORKDIR: as written if absolute, which is how images say it."""
    return path if path.startswith("/") else absolute(folder, path) if path else folder


def destination(folder: str, path: str) -> str:
    """`absolute`, with a trailing slash where `path` says that a directory is meant."""
    is_folder = path in {"", "."} or path.endswith(("/", "/."))
    cleaned = absolute(folder, path)
    return f"{cleaned}/" if is_folder and cleaned != "/" else cleaned


def is_pattern(path: str) -> bool:
    """Whether `path` is to be matched rather than looked up."""
    return not WILDCARDS.isdisjoint(path)


def from_windows(path: str) -> str:
    r"""`C:\a\b` as `/a/b`."""
    drive, colon, rest = path.partition(":")
    return (rest if colon and drive.lower() == "c" else path).replace("\\", "/")


def to_windows(path: str) -> str:
    r"""`/a/b` as `\a\b`, which is how Windows configs write it."""
    return path.replace("/", "\\")

"""References to repositories: what ADD and named contexts take as git.

    reference = remote [ "?" query ] [ "#" [ ref ] [ ":" subdir ] ]
    remote    = "git@host:path" / "ssh://.." / "git://.." / ( "http://" / "https://" ) .. ".git"
    query     = ref tag branch subdir commit checksum keep-git-dir submodules fetch-by-commit mtime

Fragment and query may say the same thing, not different ones. `github.com/owner/name` is a
repository only where no local path can be meant.
"""

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from attrs import evolve, frozen

from imagekit.errors import ImagekitError

_SCHEME: Final = re.compile(r"([A-Za-z0-9]+)://")
_SCHEMES: Final = ("http", "https", "ssh", "git")
_SCP: Final = re.compile(
    r"(?P<remote>[A-Za-z0-9_]+@[A-Za-z0-9.-]+:(?P<path>[^?#]*))"
    r"(?:\?(?P<query>[^#]*))?(?:#(?P<fragment>.*))?",
    re.DOTALL,
)
_GITHUB: Final = "github.com/"
_TRUE: Final = ("1", "t", "T", "true", "TRUE", "True")
_FALSE: Final = ("0", "f", "F", "false", "FALSE", "False")
_MTIMES: Final = ("checkout", "commit")


class GitReferenceError(ImagekitError):
    """A reference to a repository whose query contradicts itself or holds an unknown key."""

    default_code = "other"


@frozen(kw_only=True)
class GitReference:
    """A repository and what is meant in it; empty and None are what was not given.

    Attributes:
        remote: without query and fragment.
        ref: branch, tag or commit.
        subdir: the folder that is meant.
        checksum: the commit that `ref` must be.
        looks_local: `github.com/owner/name`, which may be a path as well.
        fetch_by_commit: ask the server for the commit itself, not for a ref that holds it.
        mtime: `commit` gives files the time of the commit.
    """

    remote: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    looks_local: bool = False
    keep_git_dir: bool | None = None
    submodules: bool | None = None
    fetch_by_commit: bool | None = None
    mtime: str = ""

    @property
    def short_name(self) -> str:
        """The name of the folder that a clone makes."""
        return self.remote.rpartition("/")[2].removesuffix(".git")


def parse_git(text: str, *, known: bool = False) -> GitReference | None:
    """Read a reference; None for what is no repository.

    Args:
        text: as written.
        known: something else says that it is a repository, so `.git` is not asked for.

    Raises:
        GitReferenceError: it is one, but its query is wrong.
    """
    if text.startswith(("./", "../")):
        return None
    if text.startswith(_GITHUB):
        found = _from_url(f"https://{text}")
        parts = found and (
            evolve(found[0], remote=found[0].remote[8:], looks_local=True),
            found[1],
        )
    elif scheme := _SCHEME.match(text):
        if scheme[1].lower() not in _SCHEMES:
            return None
        parts = _from_url(text)
        is_web = scheme[1].lower().startswith("http")
        if parts and is_web and not known and not unquote(parts[0].remote).endswith(".git"):
            return None
    else:
        parts = _from_scp(text)
    return None if parts is None else _with_query(*parts)


def _from_url(text: str) -> tuple[GitReference, str] | None:
    try:
        url = urlsplit(text)
    except ValueError:
        return None
    remote = urlunsplit((url.scheme, url.netloc, url.path, "", ""))
    return _with_fragment(remote, unquote(url.fragment)), url.query


def _from_scp(text: str) -> tuple[GitReference, str] | None:
    match = _SCP.fullmatch(text)
    if match is None:
        return None
    return _with_fragment(match["remote"], match["fragment"] or ""), match["query"] or ""


def _with_fragment(remote: str, fragment: str) -> GitReference:
    ref, _, subdir = fragment.partition(":")
    return GitReference(remote=remote, ref=ref, subdir=subdir)


def _with_query(reference: GitReference, query: str) -> GitReference:
    pairs = parse_qsl(query, keep_blank_values=True)
    values = dict(pairs)
    if len(values) != len(pairs):
        repeated = next(k for k, _ in pairs if sum(k == other for other, _ in pairs) > 1)
        raise GitReferenceError(f'query "{repeated}" has multiple values')
    for key, value in values.items():
        if key not in _KEYS:
            raise GitReferenceError(f'unexpected query "{key}"')
        if not value and key not in _FLAGS:
            raise GitReferenceError(f'query "{key}" has no value')
    if "branch" in values and "tag" in values:
        raise GitReferenceError("branch conflicts with tag")
    # Plain values before those that may contradict them.
    for key in sorted(values, key=_ORDER.index):
        reference = _KEYS[key](reference, key, values[key])
    return reference


def _ref(reference: GitReference, _: str, value: str) -> GitReference:
    if reference.ref not in {"", value}:
        raise GitReferenceError(f'ref conflicts: "{reference.ref}" vs "{value}"')
    return evolve(reference, ref=value)


def _named_ref(reference: GitReference, key: str, value: str) -> GitReference:
    prefix = {"tag": "refs/tags/", "branch": "refs/heads/"}[key]
    return _ref(reference, key, prefix + value.removeprefix(prefix))


def _subdir(reference: GitReference, _: str, value: str) -> GitReference:
    if reference.subdir not in {"", value}:
        raise GitReferenceError(f'subdir conflicts: "{reference.subdir}" vs "{value}"')
    return evolve(reference, subdir=value)


def _checksum(reference: GitReference, _: str, value: str) -> GitReference:
    if reference.checksum not in {"", value}:
        raise GitReferenceError(f'commit conflicts: "{reference.checksum}" vs "{value}"')
    return evolve(reference, checksum=value)


def _flag(reference: GitReference, key: str, value: str) -> GitReference:
    if value not in ("", *_TRUE, *_FALSE):
        raise GitReferenceError(f'invalid {key} value: "{value}"')
    wanted = value not in _FALSE
    match key:
        case "keep-git-dir":
            return evolve(reference, keep_git_dir=wanted)
        case "submodules":
            return evolve(reference, submodules=wanted)
        case _:
            return evolve(reference, fetch_by_commit=wanted)


def _mtime(reference: GitReference, _: str, value: str) -> GitReference:
    if value not in _MTIMES:
        raise GitReferenceError(f'invalid mtime value: "{value}"')
    return evolve(reference, mtime=value)


_KEYS: Final[dict[str, Callable[[GitReference, str, str], GitReference]]] = {
    "ref": _ref,
    "tag": _named_ref,
    "branch": _named_ref,
    "subdir": _subdir,
    "checksum": _checksum,
    "commit": _checksum,
    "keep-git-dir": _flag,
    "submodules": _flag,
    "fetch-by-commit": _flag,
    "mtime": _mtime,
}
_ORDER: Final = tuple(_KEYS)
_FLAGS: Final = frozenset({"keep-git-dir", "submodules", "fetch-by-commit"})

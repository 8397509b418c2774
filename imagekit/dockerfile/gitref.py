"""References to git repositories, as ADD, `--from` contexts and build contexts accept them.

    reference = [ scheme "://" ] host path [ "?" query ] [ "#" ref [ ":" subdir ] ]
              | user "@" host ":" path [ "?" query ] [ "#" ref [ ":" subdir ] ]

An http(s) address is a repository only if its path ends with `.git`.
"""

import re
from urllib.parse import parse_qs, unquote

from attrs import frozen

from imagekit.errors import UsageError

_SCHEME = re.compile(r"([a-zA-Z0-9]+)://")
_SCP = re.compile(r"([a-zA-Z0-9\-_]+@[a-zA-Z0-9\-.]+:[^?#]*?)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL)
_SCHEMES = ("http", "https", "ssh", "git")
_TRUTHS = {
    **dict.fromkeys(("", "1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}
_FLAGS = ("keep-git-dir", "submodules", "fetch-by-commit")
_KEYS = ("ref", "tag", "branch", "subdir", "commit", "checksum", "mtime", *_FLAGS)
_MTIMES = ("checkout", "commit")


class NotGitError(ValueError):
    """The text names no git repository."""


@frozen(kw_only=True)
class GitReference:
    """A repository and what of it is wanted.

    Attributes:
        remote: what git is to fetch from, without query and fragment.
        ref: branch, tag, commit or full ref name; empty for the default branch.
        subdir: the folder wanted; empty for all.
        checksum: the commit that `ref` has to be; empty for any.
        short_name: the last part of the remote, without `.git`.
        keep_git_dir: None when not given.
        submodules: None when not given.
        fetch_by_commit: None when not given.
        mtime: `checkout` or `commit`; empty when not given.
        looks_local: written `github.com/...`, which may be a local path as well.
    """

    remote: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    short_name: str = ""
    keep_git_dir: bool | None = None
    submodules: bool | None = None
    fetch_by_commit: bool | None = None
    mtime: str = ""
    looks_local: bool = False


def parse_git_reference(text: str) -> GitReference | None:
    """Return the repository that the text names, None if it names none.

    Raises:
        UsageError: it does, and asks for what cannot be (`git-reference-invalid`).
    """
    try:
        return read_git_reference(text)
    except NotGitError:
        return None


def read_git_reference(text: str) -> GitReference:
    """Return the repository that the text names.

    Raises:
        NotGitError: it names none; the message says why.
        UsageError: it does, and asks for what cannot be (`git-reference-invalid`).
    """
    remote, query, fragment, looks_local = _split(text)
    ref, _, subdir = fragment.partition(":")
    values = _query(query)
    ref = _agree("ref", ref, values.get("ref", ""))
    tag = _full_name("refs/tags/", values.get("tag", ""))
    branch = _full_name("refs/heads/", values.get("branch", ""))
    ref = _agree("ref", ref, tag)
    if tag and branch:
        raise _invalid("branch conflicts with tag")
    ref = _agree("ref", ref, branch)
    mtime = values.get("mtime", "")
    if mtime and mtime not in _MTIMES:
        raise _invalid(f'invalid mtime "{mtime}"')
    return GitReference(
        remote=remote,
        ref=ref,
        subdir=_agree("subdir", subdir, values.get("subdir", "")),
        checksum=_agree("checksum", values.get("checksum", ""), values.get("commit", "")),
        short_name=remote.rpartition("/")[2].removesuffix(".git"),
        keep_git_dir=_truth(values, "keep-git-dir"),
        submodules=_truth(values, "submodules"),
        fetch_by_commit=_truth(values, "fetch-by-commit"),
        mtime=mtime,
        looks_local=looks_local,
    )


def _split(text: str) -> tuple[str, str, str, bool]:
    """Return remote, query, fragment and whether the text may be a local path."""
    if text.startswith(("./", "../")):
        raise NotGitError("invalid argument")
    scheme = _SCHEME.match(text)
    looks_local = text.startswith("github.com/")
    if scheme is None and not looks_local:
        scp = _SCP.fullmatch(text)
        if scp is None:
            raise NotGitError("unknown protocol")
        return scp[1], scp[2] or "", scp[3] or "", False
    address, _, fragment = text.partition("#")
    remote, _, query = address.partition("?")
    if scheme is not None:
        name = scheme[1].lower()
        if name not in _SCHEMES:
            raise NotGitError(f"{name}: invalid protocol")
        host, _, path = remote[scheme.end() :].partition("/")
        if name in ("http", "https") and not (host and path.endswith(".git")):
            raise NotGitError("invalid argument")
        remote = f"{name}://{remote[scheme.end() :]}"
    return remote, query, unquote(fragment), looks_local


def _query(query: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for key, found in parse_qs(query, keep_blank_values=True).items():
        if len(found) > 1:
            raise _invalid(f'query "{key}" has multiple values')
        if key not in _KEYS:
            raise _invalid(f'unexpected query "{key}"')
        if not found[0] and key not in _FLAGS:
            raise _invalid(f'query "{key}" has no value')
        values[key] = found[0]
    return values


def _full_name(prefix: str, name: str) -> str:
    return name if not name or name.startswith(prefix) else prefix + name


def _agree(what: str, first: str, second: str) -> str:
    """Return whichever is given; both have to be equal if both are."""
    if first and second and first != second:
        raise _invalid(f'{what} conflicts: "{first}" vs "{second}"')
    return first or second


def _truth(values: dict[str, str], key: str) -> bool | None:
    if key not in values:
        return None
    if values[key] not in _TRUTHS:
        raise _invalid(f'invalid {key} value: "{values[key]}"')
    return _TRUTHS[values[key]]


def _invalid(message: str) -> UsageError:
    return UsageError(message, code="git-reference-invalid")

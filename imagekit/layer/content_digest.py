"""The digest of what a copy reads, for cache keys.

In: names, kinds, modes, owners, sizes and digests of content, link targets, devices and xattrs.
Not in: times, inodes, where bytes are, what is excluded, and the metadata of the directory at the
top, which no copy takes.

Spec: dockerfile-semantics.md section 15.
"""

import hashlib
from collections.abc import Callable, Iterable

from imagekit.errors import LayerError
from imagekit.layer.changes import Changes
from imagekit.layer.selection import Filter, Patterns, Source, chosen
from imagekit.layer.tree import DIRECTORY, FILE, SYMLINK, Directory, Entry
from imagekit.oci.digest import Digest

Complete = Callable[[Entry], Entry]
"""Gives an entry with its digest and attributes, for one that has none yet."""


def content_digest(
    source: Source,
    *,
    patterns: Patterns,
    exclude: tuple[str, ...] = (),
    complete: Complete | None = None,
) -> Digest:
    """The digest of what a source argument of a copy names.

    Args:
        source: the argument.
        patterns: what patterns mean.
        exclude: the patterns of --exclude.
        complete: asked for what has no digest; without it that is an error.

    Raises:
        PathError: as for `copying.copy`, if the source is not there.
        LayerError: the digest of a file's content is not known yet; code `digest-unknown`.
    """
    parts: list[str] = []
    for match, rules in chosen(source, exclude, patterns):
        parts += _match(match.within, match.node, rules, complete)
    return _digest(parts)


def tree_digest(top: Directory | Entry) -> Digest:
    """The digest of a file, or of all that is in a directory, as a bind mount reads it.

    Raises:
        LayerError: the digest of a file's content is not known yet; code `digest-unknown`.
    """
    return _digest(list(_match("", top, Filter())))


def changes_digest(changes: Changes) -> Digest:
    """The digest of what a layer does to the tree below it, whatever tar it is in.

    Raises:
        LayerError: the digest of a file's content is not known yet; code `digest-unknown`.
    """
    parts = [_record(path, entry) for path, entry in sorted(changes.entries.items())]
    for word, paths in (
        ("whiteout", changes.whiteouts),
        ("opaque", changes.opaque),
        ("implied", changes.implied),
    ):
        parts += [f"{word} {len(path)}:{path}" for path in sorted(paths)]
    return _digest(parts)


def _match(
    within: str, node: Directory | Entry, rules: Filter, complete: Complete | None = None
) -> Iterable[str]:
    yield f"match {len(within)}:{within}"
    if isinstance(node, Directory):
        yield "directory"
        yield from [_record(path, entry, complete) for path, entry, _ in rules.select(node)]
    else:
        yield _record("", node, complete)


def _record(path: str, entry: Entry, complete: Complete | None = None) -> str:
    """One entry in a form that no other entry has."""
    if complete is not None and not entry.digest and entry.kind not in (DIRECTORY, SYMLINK):
        entry = complete(entry)
    kind, mode, uid, gid, _, size, link, digest, *_ = entry
    if kind == FILE:
        if not digest:
            raise LayerError(
                f"/{path}: the digest of its content is not known",
                path=path,
                code="digest-unknown",
            )
        text = f"{len(path)}:{path} f{mode:o} {uid} {gid} {size} {digest.hex()}"
    else:
        text = f"{len(path)}:{path} {kind}{mode:o} {uid} {gid} {len(link)}:{link}"
        if entry.device != (0, 0):
            text += f" {entry.device[0]} {entry.device[1]}"
    if entry.xattrs:
        text += " " + " ".join(f"{len(name)}:{name} {value.hex()}" for name, value in entry.xattrs)
    return text


def _digest(parts: list[str]) -> Digest:
    data = "\n".join(parts).encode("utf-8", "surrogateescape")
    return Digest("sha256", hashlib.sha256(data).hexdigest())

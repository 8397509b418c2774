"""The digest of what a copy reads, for cache keys.

In: names, kinds, modes, owners, sizes and digests of content, link targets, devices and xattrs. Not
in: times, inodes, where bytes are, what is excluded, and the metadata of the directory at the top,
which no copy takes.

Spec: dockerfile-semantics.md section 15.
"""

import hashlib
from collections.abc import Iterable

from imagekit.errors import LayerError
from imagekit.layer.selection import Filter, Ignore, Source, kept_parents, matches
from imagekit.layer.tree import FILE, Directory, Entry
from imagekit.oci.digest import Digest


def content_digest(
    source: Source,
    *,
    ignore: Ignore,
    exclude: tuple[str, ...] = (),
    parents: bool = False,
) -> Digest:
    """The digest of what a source argument of a copy names.

    Args:
        source: the argument.
        ignore: as in `copying.Readers`.
        exclude: the patterns of --exclude.
        parents: whether the copy is one with --parents.

    Raises:
        PathError: as for `copying.copy`, if the source is not there.
        LayerError: the digest of a file's content is not known yet; code `digest-unknown`.
    """
    excluded = ignore(exclude) if exclude else None
    reincludes = any(pattern.startswith("!") for pattern in exclude)
    parts: list[str] = []
    if parents:
        for match, kept in kept_parents(source, ignore):
            chosen = Filter(
                include=kept.include, prefix=kept.prefix, exclude=excluded, reincludes=reincludes
            )
            parts += _match(match.within, match.node, chosen)
    else:
        chosen = Filter(exclude=excluded, reincludes=reincludes)
        for match in matches(source, excluded):
            parts += _match(match.within, match.node, chosen)
    return _digest(parts)


def tree_digest(top: Directory | Entry) -> Digest:
    """The digest of a file, or of all that is in a directory, as a bind mount reads it.

    Raises:
        LayerError: the digest of a file's content is not known yet; code `digest-unknown`.
    """
    return _digest(_match("", top, Filter()))


def _match(within: str, node: Directory | Entry, chosen: Filter) -> Iterable[str]:
    yield f"match {len(within)}:{within}"
    if isinstance(node, Directory):
        yield "directory"
        yield from [_record(path, entry) for path, entry, _ in chosen.select(node)]
    else:
        yield _record("", node)


def _record(path: str, entry: Entry) -> str:
    """One entry in a form that no other entry has."""
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

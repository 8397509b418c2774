"""Cache keys: what is in them, and what is not.

A key is the digest of a `KeyRecord`: an ordered list of (name, value) pairs in which every input
of a step is named. The encoding is length-prefixed, so no two records have the same bytes, and it
opens with a schema number. The record itself is kept beside the key, so that a miss can be
explained by the field that changed.

In: the operation and all that it was expanded to, the keys of its parents, digests of the content
it reads, the platform for what runs on one. Not in: file times, comments, the name of the
Dockerfile, the kind of sandbox, values of secrets, proxy variables, the id of a cache mount.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final, assert_never

from attrs import frozen

from imagekit.oci.digest import Digest
from imagekit.oci.platform import Platform
from imagekit.plan.ops import (
    Base,
    BindMount,
    CacheMount,
    Copy,
    CopySource,
    Exec,
    Fetch,
    InlineFile,
    Local,
    Mkdir,
    Mount,
    Op,
    ScriptMount,
    SecretMount,
    SshMount,
    TmpfsMount,
)

SCHEMA: Final = 1
"""Part of every key; raised when the meaning of any field changes."""

Field = tuple[str, str]


@frozen
class KeyRecord:
    """The named inputs of a step, in order; its digest is the cache key."""

    fields: tuple[Field, ...]

    def key(self) -> Digest:
        """The cache key."""
        digest = hashlib.sha256(f"imagekit key {SCHEMA}\n".encode())
        for pair in self.fields:
            for text in pair:
                data = text.encode("utf-8", "surrogateescape")
                digest.update(b"%d:" % len(data))
                digest.update(data)
        return Digest("sha256", digest.hexdigest())


def cache_key(op: Op, platform: Platform, parents: Sequence[Digest]) -> KeyRecord:
    """The record of an operation.

    Args:
        op: the operation.
        platform: of the root it works on; counts only for what runs there.
        parents: one digest an input, in their order: the key of the step that gives it, or the
            digest of the content that is read. The root of a linked copy does not count.
    """
    fields = [("operation", type(op).__name__.lower()), *_op_fields(op, platform)]
    skip = 1 if isinstance(op, Copy) and op.link else 0
    fields += [(f"input {n}", str(p)) for n, p in enumerate(parents) if n >= skip]
    return KeyRecord(tuple(fields))


def _op_fields(op: Op, platform: Platform) -> Iterable[Field]:
    match op:
        case Base():
            yield from ((f"layer {n}", str(d)) for n, d in enumerate(op.diff_ids))
        case Local(name):
            yield "context", name
        case Fetch():
            yield "url", op.url
            yield "kind", op.kind
            yield "filename", op.filename
            yield "unpack", str(op.unpack)
            yield "checksum", op.checksum
            yield "ref", op.ref
            yield "subdir", op.subdir
            yield "submodules", str(op.submodules)
            yield "keep git dir", str(op.keep_git_dir)
            yield "commit times", str(op.commit_times)
        case Copy():
            yield from _copy_fields(op)
        case Mkdir():
            yield "path", op.path
            yield "owner", op.owner
            yield "epoch", "" if op.epoch is None else str(op.epoch)
        case Exec():
            yield "platform", str(platform.normalised())
            yield from _exec_fields(op)
        case _:
            assert_never(op)


def _copy_fields(op: Copy) -> Iterable[Field]:
    yield "kind", op.kind
    yield "dest", op.dest
    yield "chown", op.chown
    yield "chmod", op.chmod
    yield "parents", str(op.parents)
    yield "link", str(op.link)
    yield from (("exclude", pattern) for pattern in op.exclude)
    for source in op.sources:
        match source:
            case CopySource():
                yield "source", source.path
                yield "source input", str(source.input)
                yield "source wildcard", str(source.wildcard)
                yield "source pattern", source.pattern
                yield "source unpack", str(source.unpack)
            case InlineFile():
                yield "inline", source.name
                yield "inline mode", oct(source.mode)
                yield "inline content", str(Digest.of(source.content))
                yield "inline epoch", "" if op.epoch is None else str(op.epoch)
            case _:
                assert_never(source)


def _exec_fields(op: Exec) -> Iterable[Field]:
    yield from (("argv", word) for word in op.argv)
    yield from ((f"env {name}", value) for name, value in op.env)
    yield "cwd", op.cwd
    yield "user", op.user
    yield "network", op.network
    yield "security", op.security
    yield "hostname", op.hostname
    yield from ((f"host {name}", address) for name, address in op.extra_hosts)
    yield from ((f"ulimit {name}", f"{soft}:{hard}") for name, soft, hard in op.ulimits)
    yield "shm size", str(op.shm_size)
    yield from (("device", device) for device in op.devices)
    for mount in op.mounts:
        yield from _mount_fields(mount)


def _mount_fields(mount: Mount) -> Iterable[Field]:
    match mount:
        case BindMount():
            yield "mount bind", mount.target
            yield "mount source", mount.source
            yield "mount input", str(mount.input)
            yield "mount read only", str(mount.read_only)
        case CacheMount():
            yield "mount cache", mount.target
            yield "mount input", str(mount.input)
            yield "mount source", mount.source
            yield "mount read only", str(mount.read_only)
            yield "mount owner", f"{mount.uid}:{mount.gid} {mount.mode:o}"
        case TmpfsMount():
            yield "mount tmpfs", mount.target
            yield "mount size", str(mount.size)
        case SecretMount():
            yield "mount secret", mount.id
            yield "mount target", mount.target
            yield "mount env", mount.env
            yield "mount owner", f"{mount.uid}:{mount.gid} {mount.mode:o}"
        case SshMount():
            yield "mount ssh", mount.id
            yield "mount target", mount.target
            yield "mount owner", f"{mount.uid}:{mount.gid} {mount.mode:o}"
        case ScriptMount():
            yield "mount script", mount.target
            yield "mount content", str(Digest.of(mount.content))
        case _:
            assert_never(mount)

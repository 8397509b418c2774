"""Images as one file: OCI archives, and archives that `docker load` takes.

Both are the tar of an image layout; a docker archive has a `manifest.json` as well, which names
config and layers by their paths, as Docker's own archives do since version 25. The same image
gives the same bytes: entries have one order and no times. Writing needs no seeking, so it may go
to a pipe.
"""

import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Self

from imagekit.errors import (
    DigestMismatchError,
    InvalidDocumentError,
    NotFoundError,
    OutputError,
    StoreError,
)
from imagekit.oci.descriptor import Descriptor
from imagekit.oci.digest import hasher
from imagekit.oci.document import MAX_DOCUMENT, encode_json
from imagekit.oci.manifest import Index, Manifest
from imagekit.oci.reference import Reference
from imagekit.store.blobs import SMALL
from imagekit.store.files import storing
from imagekit.store.layout import MARKER, names_of, read_index, with_name, without_names
from imagekit.store.roles import Source, check_bytes
from imagekit.store.walk import Graph, read_graph

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK: Final = 1 << 20
_RECORD: Final = 10_240
_ATTESTATION: Final = "vnd.docker.reference.type"


def write_oci_archive(
    stream: BinaryIO, source: Source, root: Descriptor, *, names: Sequence[str] = ()
) -> None:
    """Write the tar of an image layout.

    Args:
        stream: takes the bytes; left open.
        source: where the image is.
        root: a manifest or an index.
        names: tags or full references that it gets; `latest` if there are none.

    Raises:
        NotFoundError: the source lacks something.
        DigestMismatchError: a blob is damaged; what was written must be thrown away.
    """
    graph = read_graph(source, root)
    tar = _Tar(stream)
    _write_layout(tar, source, graph, root, names)
    tar.finish()


def write_docker_archive(
    stream: BinaryIO, source: Source, root: Descriptor, *, names: Sequence[str] = ()
) -> None:
    """Write an archive of one image, for `docker load` and its like.

    Args:
        stream: takes the bytes; left open.
        source: where the image is.
        root: a manifest, or an index with one image.
        names: references that the image gets when it is loaded.

    Raises:
        OutputError: there is not exactly one image.
        NotFoundError: the source lacks something.
        DigestMismatchError: a blob is damaged; what was written must be thrown away.
    """
    graph = read_graph(source, root)
    manifest = _only_image(graph)
    references = [Reference.parse(name).with_default_tag() for name in names]
    document = {
        "Config": _path(manifest.config),
        "RepoTags": [r.familiar for r in references],
        "Layers": [_path(layer) for layer in manifest.layers],
    }
    tar = _Tar(stream)
    _write_layout(tar, source, graph, root, names)
    tar.file("manifest.json", encode_json([document]))
    tar.file("repositories", encode_json(_repositories(manifest, references)))
    tar.finish()


def _write_layout(
    tar: "_Tar", source: Source, graph: Graph, root: Descriptor, names: Sequence[str]
) -> None:
    entries = tuple(with_name(root, name) for name in names or ("latest",))
    tar.folder("blobs")
    for algorithm in sorted({d.digest.algorithm for d in graph.blobs} | {root.digest.algorithm}):
        tar.folder(f"blobs/{algorithm}")
    for document in reversed(graph.documents):
        tar.file(_path(document.descriptor), document.raw)
    for blob in graph.blobs:
        tar.blob(source, blob)
    tar.file("index.json", Index(manifests=entries).encode())
    tar.file("oci-layout", MARKER)


def _only_image(graph: Graph) -> Manifest:
    attestations = {
        child.digest
        for document in graph.documents
        if isinstance(document.value, Index)
        for child in document.value.manifests
        if _ATTESTATION in child.annotations
    }
    found = [
        document.value
        for document in graph.documents
        if isinstance(document.value, Manifest) and document.descriptor.digest not in attestations
    ]
    if len(found) != 1:
        raise OutputError(
            f"a docker archive holds one image, not {len(found)}",
            hint="choose one platform, or write an OCI archive",
        )
    return found[0]


def _repositories(
    manifest: Manifest, references: Sequence[Reference]
) -> dict[str, dict[str, str]]:
    """The form of the names before manifest.json; loaders of old look for the file."""
    top = manifest.layers[-1].digest.hex if manifest.layers else ""
    found: dict[str, dict[str, str]] = {}
    for reference in references:
        name = reference.familiar.removesuffix(f":{reference.tag}")
        found.setdefault(name, {})[reference.tag] = top
    return found


def _path(descriptor: Descriptor) -> str:
    return f"blobs/{descriptor.digest.algorithm}/{descriptor.digest.hex}"


class _Tar:
    """Entries without times and owners, one after the other."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._size = 0

    def folder(self, name: str) -> None:
        info = tarfile.TarInfo(name)
        info.type = tarfile.DIRTYPE
        info.mode = 0o755
        self._put(info.tobuf(tarfile.PAX_FORMAT))

    def file(self, name: str, data: bytes) -> None:
        self._header(name, len(data))
        self._put(data)
        self._pad()

    def blob(self, source: Source, descriptor: Descriptor) -> None:
        """A blob, checked while it passes."""
        hashed = _Hashing(descriptor)
        self._header(_path(descriptor), descriptor.size)
        with source.open(descriptor) as blob:
            while data := blob.read(CHUNK):
                hashed.update(data)
                self._put(data)
        hashed.check()
        self._pad()

    def finish(self) -> None:
        self._put(bytes(1024))
        self._put(bytes(-self._size % _RECORD))

    def _header(self, name: str, size: int) -> None:
        info = tarfile.TarInfo(name)
        info.size = size
        info.mode = 0o644
        self._put(info.tobuf(tarfile.PAX_FORMAT))

    def _pad(self) -> None:
        self._put(bytes(-self._size % tarfile.BLOCKSIZE))

    def _put(self, data: bytes) -> None:
        self._stream.write(data)
        self._size += len(data)


class _Hashing:
    """Bytes on their way into an archive, which must not become more than announced."""

    def __init__(self, descriptor: Descriptor) -> None:
        self._descriptor = descriptor
        self._hash = hasher(descriptor.digest.algorithm)
        self._size = 0

    def update(self, data: bytes) -> None:
        self._hash.update(data)
        self._size += len(data)
        if self._size > self._descriptor.size:
            self.check()

    def check(self) -> None:
        want = self._descriptor
        got = f"{want.digest.algorithm}:{self._hash.hexdigest()}"
        if got != str(want.digest) or self._size != want.size:
            raise DigestMismatchError(
                f"want {want.digest} of {want.size} bytes, got {got} of {self._size}",
                descriptor=want,
            )


class OciArchive:
    """An OCI archive as a Source: nothing is unpacked, blobs are read where they lie."""

    def __init__(self, path: Path) -> None:
        """Open an archive.

        Raises:
            StoreError: it cannot be read, is compressed, or is no archive of an image layout.
        """
        self.path = path
        with storing(f"cannot open {path}"):
            self._file = path.open("rb", buffering=0)
        try:
            self._members = self._read_members()
            self._entries = read_index(self._read("index.json"), str(path)).manifests
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_members(self) -> dict[str, tuple[int, int]]:
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as tar:
                return {
                    member.name.removeprefix("./"): (member.offset_data, member.size)
                    for member in tar
                    if member.type in tarfile.REGULAR_TYPES
                }
        except (tarfile.TarError, OSError) as exc:
            hint = "decompress it first, if it is compressed"
            raise StoreError(f"{self.path} is no tar archive: {exc}", hint=hint) from exc

    def _read(self, name: str) -> bytes:
        if name not in self._members:
            raise StoreError(f"{self.path} is no archive of an image layout: it has no {name}")
        at, size = self._members[name]
        if size > MAX_DOCUMENT:
            raise InvalidDocumentError(f"{self.path}: {name} has {size} bytes")
        return os.pread(self._file.fileno(), size, at)

    def tags(self) -> dict[str, Descriptor]:
        """Names and what they stand for."""
        return {n: without_names(entry) for entry in self._entries for n in names_of(entry)}

    def resolve(self, name: str) -> Descriptor:
        """See `Source`; an empty name is the only image there is."""
        found = [e for e in self._entries if not name or name in (*names_of(e), str(e.digest))]
        if not found or (not name and len({entry.digest for entry in found}) > 1):
            names = ", ".join(sorted(self.tags()))
            raise NotFoundError(
                f"{self.path} has no image {name}".rstrip(), hint=f"it has: {names}"
            )
        return without_names(found[-1])

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """See `Source`; what is up to 4 MiB is checked at once."""
        found = self._members.get(_path(descriptor))
        if found is None:
            raise NotFoundError(f"no such blob: {descriptor.digest}", descriptor=descriptor)
        stream = io.BufferedReader(_Part(self._file.fileno(), *found), CHUNK)
        if descriptor.size > SMALL:
            return stream
        with stream:
            data = stream.read(descriptor.size + 1)
        check_bytes(descriptor, data)
        return io.BytesIO(data)


class _Part(io.RawIOBase):
    """A part of an open file; several may be read at once."""

    def __init__(self, fd: int, at: int, size: int) -> None:
        super().__init__()
        self._fd = fd
        self._at = at
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer).cast("B")[: self._left]
        size = os.preadv(self._fd, [view], self._at) if view else 0
        self._at += size
        self._left -= size
        return size

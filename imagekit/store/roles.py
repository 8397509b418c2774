"""What a store can do, as roles; `MemoryStore` is their meaning in the fewest lines."""

import io
from collections.abc import Callable
from typing import BinaryIO, Protocol

from imagekit.errors import DigestMismatchError, NotFoundError
from imagekit.oci.descriptor import Descriptor
from imagekit.oci.digest import Digest, hasher


class Source(Protocol):
    """Somewhere that blobs and manifests can be read from."""

    def resolve(self, name: str) -> Descriptor:
        """The descriptor that a tag or digest stands for.

        Raises:
            NotFoundError: there is none.
        """

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """The bytes of a blob or manifest, to be closed by the caller.

        The reader of the stream checks size and digest, if it has not been done before.

        Raises:
            NotFoundError: there is no such blob.
        """


class Target(Protocol):
    """Somewhere that blobs and manifests can be written to."""

    def exists(self, descriptor: Descriptor) -> bool:
        """Whether the blob is there, with the right size."""

    def write(self, descriptor: Descriptor, open_source: Callable[[], BinaryIO]) -> None:
        """Store a blob or manifest; what it names must be stored already.

        Args:
            descriptor: what the bytes are to be; they are checked while they pass.
            open_source: gives the bytes from the start; called again when an upload is retried.

        Raises:
            DigestMismatchError: the bytes are not those of the descriptor; nothing is stored.
        """


class Tagger(Protocol):
    """Somewhere that names can be given."""

    def tag(self, descriptor: Descriptor, name: str) -> None:
        """Make `name` stand for what is stored under `descriptor`."""


class MemoryStore:
    """All roles, in memory: for tests and small artifacts."""

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.tags: dict[str, Descriptor] = {}

    def resolve(self, name: str) -> Descriptor:
        """See `Source`."""
        if name not in self.tags:
            raise NotFoundError(f"no such tag: {name}")
        return self.tags[name]

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """See `Source`."""
        if descriptor.digest not in self.blobs:
            raise NotFoundError(f"no such blob: {descriptor.digest}", descriptor=descriptor)
        return io.BytesIO(self.blobs[descriptor.digest])

    def exists(self, descriptor: Descriptor) -> bool:
        """See `Target`."""
        return descriptor.digest in self.blobs

    def write(self, descriptor: Descriptor, open_source: Callable[[], BinaryIO]) -> None:
        """See `Target`."""
        with open_source() as stream:
            data = stream.read(descriptor.size + 1)
        check_bytes(descriptor, data)
        self.blobs[descriptor.digest] = data

    def tag(self, descriptor: Descriptor, name: str) -> None:
        """See `Tagger`."""
        if not self.exists(descriptor):
            raise NotFoundError(f"no such blob: {descriptor.digest}", descriptor=descriptor)
        self.tags[name] = descriptor


def check_bytes(descriptor: Descriptor, data: bytes) -> None:
    """Check that these are the bytes of the descriptor.

    Raises:
        DigestMismatchError: they are not; the message names both sides.
    """
    digest = hasher(descriptor.digest.algorithm)
    digest.update(data)
    got = f"{descriptor.digest.algorithm}:{digest.hexdigest()}"
    if got != str(descriptor.digest) or len(data) != descriptor.size:
        raise DigestMismatchError(
            f"want {descriptor.digest} of {descriptor.size} bytes, got {got} of {len(data)}",
            descriptor=descriptor,
        )


def read_blob(source: Source, descriptor: Descriptor) -> bytes:
    """A small blob or manifest whole, checked.

    Raises:
        DigestMismatchError: the bytes are not those of the descriptor.
    """
    with source.open(descriptor) as stream:
        data = stream.read(descriptor.size + 1)
    check_bytes(descriptor, data)
    return data

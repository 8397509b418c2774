"""A repository as a store: the roles that `copy` works with, so that push and pull are one walk.

Spec: registry spec sections 5 and 6.
"""

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, Final

from imagekit.errors import ImageNotFoundError, NotFoundError
from imagekit.oci.descriptor import INDEX_TYPES, MANIFEST_TYPES, Descriptor
from imagekit.oci.digest import Digest
from imagekit.oci.reference import Reference
from imagekit.registry.client import Registry
from imagekit.store.roles import check_bytes

_DOCUMENT_TYPES: Final = INDEX_TYPES | MANIFEST_TYPES
_KEPT: Final = 32 << 20


class Repository:
    """One repository of a registry: a Source, Target and Tagger. Threads may share it.

    Manifests that passed are kept, so that a tag is given without asking for them again.
    """

    def __init__(
        self, registry: Registry, reference: Reference | str, *, mount_from: Sequence[str] = ()
    ) -> None:
        """View a repository.

        Args:
            registry: where it is; left open.
            reference: names it; tag and digest are not looked at.
            mount_from: repositories of the same registry that may have blobs that are written
                here; those that the registry was seen to give blobs from are known without.

        Raises:
            UsageError: the reference is to another registry.
        """
        self.registry = registry
        self.name = registry.session.read(reference)[0]
        self._mount_from = tuple(name for name in mount_from if name != self.name)
        self._documents: dict[Digest, bytes] = {}
        self._lock = threading.Lock()

    def resolve(self, name: str) -> Descriptor:
        """See `Source`; the manifest is fetched at once, so the tag cannot move in between."""
        with _not_found(f"{self.name}: {name}"):
            document = self.registry.document(
                self.name, Digest.parse(name) if ":" in name else name
            )
        self._keep(document.descriptor.digest, document.raw)
        return document.descriptor

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """See `Source`."""
        if descriptor.media_type in _DOCUMENT_TYPES:
            return io.BytesIO(self._document(descriptor))
        with _not_found(f"{self.name}: blob {descriptor.digest}", descriptor):
            return self.registry.open_blob(self.name, descriptor)

    def exists(self, descriptor: Descriptor) -> bool:
        """See `Target`."""
        return self.registry.exists(self.name, descriptor, push=True)

    def write(self, descriptor: Descriptor, open_source: Callable[[], BinaryIO]) -> None:
        """See `Target`; a blob that another repository is known to have is mounted."""
        if descriptor.media_type not in _DOCUMENT_TYPES:
            self.registry.upload(
                self.name, descriptor, open_source, mount_from=self._holder(descriptor)
            )
            return
        with open_source() as stream:
            raw = stream.read(descriptor.size + 1)
        check_bytes(descriptor, raw)
        name = str(descriptor.digest)
        self.registry.put_manifest(self.name, name, raw, descriptor.media_type)
        self._keep(descriptor.digest, raw)

    def tag(self, descriptor: Descriptor, name: str) -> None:
        """See `Tagger`; nothing is written if the tag stands for it already."""
        try:
            reference = Reference(self.registry.host, self.name, name)
            if self.registry.resolve(reference).digest == descriptor.digest:
                return
        except ImageNotFoundError:
            pass  # a new tag
        raw = self._document(descriptor)
        self.registry.put_manifest(self.name, name, raw, descriptor.media_type)

    def _document(self, descriptor: Descriptor) -> bytes:
        raw = self._documents.get(descriptor.digest)
        if raw is None:
            with _not_found(f"{self.name}: manifest {descriptor.digest}", descriptor):
                raw = self.registry.document(self.name, descriptor.digest).raw
            self._keep(descriptor.digest, raw)
        check_bytes(descriptor, raw)
        return raw

    def _keep(self, digest: Digest, raw: bytes) -> None:
        with self._lock:
            if sum(map(len, self._documents.values())) + len(raw) > _KEPT:
                self._documents.clear()
            self._documents[digest] = raw

    def _holder(self, descriptor: Descriptor) -> str:
        known = self.registry.session.holder(descriptor, but=self.name)
        return known or next(iter(self._mount_from), "")


@contextmanager
def _not_found(what: str, descriptor: Descriptor | None = None) -> Iterator[None]:
    """Say in the words of stores that something is not there."""
    try:
        yield
    except ImageNotFoundError as exc:
        message = f"not in the registry: {what}"
        raise NotFoundError(message, descriptor=descriptor, hint=exc.hint) from exc

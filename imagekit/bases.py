"""Where base images come from: named layouts, the store, registries.

Part of the doors: only these may speak to registries. Of an image that a plan needs, the manifest
and the config are read and nothing else; its layers come when a step asks for them, through
`open`.
"""

import io
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Self

from imagekit.errors import NotFoundError, UnreachableError
from imagekit.events import Observer, Warned, ignore_events
from imagekit.oci.descriptor import CONFIG_TYPES, INDEX_TYPES, MANIFEST_TYPES, Descriptor
from imagekit.oci.reference import Reference
from imagekit.plan import BaseRequest, ResolvedBase
from imagekit.store.local import Store
from imagekit.store.roles import Source, read_blob
from imagekit.store.select import select_image

if TYPE_CHECKING:
    from imagekit.registry import Registries, Repository

LAYOUT: Final = "oci-layout://"
STORE: Final = "store:"
_DOCUMENTS: Final = CONFIG_TYPES | INDEX_TYPES | MANIFEST_TYPES


class Bases:
    """Resolves base images, and opens their blobs (`executor.values.Fetcher`)."""

    def __init__(
        self,
        store: Store,
        *,
        insecure: Collection[str] = (),
        pull: bool = False,
        observer: Observer = ignore_events,
    ) -> None:
        self._store = store
        self._insecure = frozenset(insecure)
        self._pull = pull
        self._observer = observer
        self._registries: dict[frozenset[str], Registries] = {}
        self._lock = threading.Lock()

    def repository(
        self, reference: Reference, *, insecure: bool = False, mount_from: Sequence[str] = ()
    ) -> "Repository":
        """The repository that a reference names.

        Args:
            reference: tag and digest are not looked at.
            insecure: whether its host may be spoken to without TLS, beside those always allowed.
            mount_from: repositories of the same registry that may have blobs written there.
        """
        from imagekit.registry import Registries, Repository  # noqa: PLC0415 - needs httpx

        hosts = self._insecure | ({reference.host} if insecure else frozenset())
        with self._lock:
            if hosts not in self._registries:
                self._registries[hosts] = Registries(insecure=hosts, observer=self._observer)
            registries = self._registries[hosts]
        return Repository(registries.at(reference.host), reference, mount_from=mount_from)

    def close(self) -> None:
        """Close the connections to registries."""
        for registries in self._registries.values():
            registries.close()
        self._registries.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def resolve(self, request: BaseRequest) -> ResolvedBase:
        """What an image is: its config, its layers, and where they can be had.

        Raises:
            NotFoundError: no such image, or none for the platform.
            RegistryError: the registry does not answer, or says no.
        """
        if request.layout:
            return self._from_layout(request)
        reference = request.reference
        local = None if self._pull else self._local(reference)
        if local is not None:
            origin = f"{STORE}{_origin(reference, local)}"
            return self._select(self._store, local, request, origin)
        repository = self.repository(reference)
        try:
            root = repository.resolve(_name(reference))
        except UnreachableError as exc:
            known = self._remembered(reference, exc)
            return self._select(self._store, known, request, _origin(reference, known))
        source = _Through(self._store, repository)
        found = self._select(source, root, request, _origin(reference, root))
        self._remember(reference, source, root)
        return found

    def open(self, origin: str, descriptor: Descriptor) -> BinaryIO:
        """See `Fetcher`."""
        if origin.startswith(LAYOUT):
            from imagekit.store.layout import Layout  # noqa: PLC0415 - few builds need it

            return Layout(Path(origin.removeprefix(LAYOUT))).open(descriptor)
        if origin.startswith(STORE) and self._store.exists(descriptor):
            return self._store.open(descriptor)
        reference = Reference.parse(origin.removeprefix(STORE))  # it was pushed and never fetched
        return self.repository(reference).open(descriptor)

    def _local(self, reference: Reference) -> Descriptor | None:
        """What the caller pulled or built under this name."""
        if reference.digest is not None:
            return None
        try:
            return self._store.resolve(str(reference))
        except NotFoundError:
            return None

    def _remembered(self, reference: Reference, why: UnreachableError) -> Descriptor:
        """What the registry said last, when it is not there to be asked."""
        try:
            known = self._store.resolve(_memory(reference))
        except NotFoundError:
            raise why from None
        message = f"{reference}: using what the registry said before: {why.message}"
        self._observer(Warned(code="stale-base", message=message))
        return known

    def _remember(self, reference: Reference, source: Source, root: Descriptor) -> None:
        """Keep what the registry said, for when it is not there to be asked."""
        name = _memory(reference)
        if self._store.tags().get(name) != root:
            source.open(root).close()
            self._store.tag(root, name)

    def _from_layout(self, request: BaseRequest) -> ResolvedBase:
        from imagekit.store.layout import Layout  # noqa: PLC0415 - few builds need it

        path, name = split_layout(request.layout)
        layout = Layout(path)
        return self._select(layout, layout.resolve(name), request, f"{LAYOUT}{path.absolute()}")

    def _select(
        self, source: Source, root: Descriptor, request: BaseRequest, origin: str
    ) -> ResolvedBase:
        found = select_image(source, root, request.platform, name=str(request))
        return ResolvedBase(
            config=found.config.value,
            manifest=found.manifest.descriptor,
            layers=found.manifest.value.layers,
            origin=origin,
        )


class _Through:
    """A repository, its small documents kept in the store as they pass."""

    def __init__(self, store: Store, remote: Source) -> None:
        self._store = store
        self._remote = remote

    def resolve(self, name: str) -> Descriptor:
        """See `Source`."""
        return self._remote.resolve(name)

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """See `Source`."""
        if descriptor.media_type not in _DOCUMENTS:
            return self._remote.open(descriptor)
        if not self._store.exists(descriptor):
            self._store.write_bytes(descriptor, read_blob(self._remote, descriptor))
        return io.BytesIO(read_blob(self._store, descriptor))


def split_layout(location: str) -> tuple[Path, str]:
    """A layout's folder, and the tag or digest of what is meant in it.

    `PATH`, `PATH:TAG` or `PATH@DIGEST`; the tag is `latest` where nothing is said.
    """
    path, at, digest = location.partition("@")
    if at:
        return Path(path), digest
    head, colon, tag = location.rpartition(":")
    if colon and "/" not in tag:
        return Path(head), tag
    return Path(location), "latest"


def _name(reference: Reference) -> str:
    return str(reference.digest) if reference.digest else reference.tag


def _memory(reference: Reference) -> str:
    """The name in the store under which a registry's last answer is kept."""
    return f"registry {reference}"


def _origin(reference: Reference, root: Descriptor) -> str:
    return f"{reference.name}@{root.digest}"

"""Registries for threads: the pull and push of documents and blobs, blocking.

Nothing is asked before the first method is called, and httpx is imported then.
"""

import io
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Final, Self

from imagekit.events import Observer, ignore_events
from imagekit.oci.descriptor import Descriptor
from imagekit.oci.digest import Digest
from imagekit.oci.document import Document
from imagekit.oci.manifest import Index, Manifest
from imagekit.oci.reference import Reference
from imagekit.registry import flows
from imagekit.registry.auth import Credential, CredentialSource
from imagekit.registry.calls import Call, Flow, Reply, T, drive
from imagekit.registry.credentials import StoredCredentials
from imagekit.registry.reader import BlobCheck, BlobReader
from imagekit.registry.session import Session, Settings
from imagekit.registry.uploads import Outcome, UploadSource, upload_blob

if TYPE_CHECKING:
    from imagekit.registry.transport import Transport

_BUFFER: Final = 256 << 10


class Registry:
    """One registry. Threads may share it; close it when done.

    Every method raises UnreachableError without an answer, AuthError without the right
    credentials, RateLimitedError where the registry has had enough of us, and RegistryError for
    whatever else it says no with.
    """

    def __init__(
        self,
        host: str,
        *,
        insecure: bool = False,
        credentials: Credential | CredentialSource | None = None,
        ca: Path | None = None,
        observer: Observer = ignore_events,
        settings: Settings | None = None,
    ) -> None:
        """Prepare to talk to a registry.

        Args:
            host: `host` or `host:port`; `docker.io` is Docker Hub.
            insecure: it may be spoken to in plain HTTP; loopback always is, unless `settings` or
                an `https://` before the host say that it speaks TLS.
            credentials: one credential, or what gives them by host and repository; those that
                `docker login` stored if None.
            ca: a file of certificates that are trusted besides the system's.
            observer: told how transfers go on.
            settings: the rest; the defaults if None.

        Raises:
            UsageError: a host that plain HTTP is not allowed with.
        """
        self._ca = ca
        self._transport: Transport | None = None
        self._lock = threading.Lock()
        self.session = Session(
            host,
            insecure=insecure,
            credentials=credential_source(credentials),
            clock=time.monotonic,
            observer=observer,
            settings=settings or Settings(),
        )

    @property
    def host(self) -> str:
        """The host as references have it."""
        return self.session.host

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def resolve(self, reference: Reference | str) -> Descriptor:
        """The descriptor of a manifest or index; its digest is a claim until the bytes are read.

        Raises:
            ImageNotFoundError: there is none.
        """
        return self._run(flows.resolve(*self.session.read(reference)))

    def manifest(self, reference: Reference | str) -> Document[Manifest | Index]:
        """A manifest or index; a digest in the reference decides, and is checked.

        Raises:
            ImageNotFoundError: there is none.
            DigestMismatchError: other bytes than the digest names.
            InvalidDocumentError: neither a manifest nor an index.
        """
        return self.document(*self.session.read(reference))

    def document(self, repository: str, name: str | Digest) -> Document[Manifest | Index]:
        """`manifest` by repository and tag or digest."""
        document = self._run(flows.get_manifest(repository, name))
        self.session.learn(repository, document)
        return document

    def tags(self, repository: str) -> tuple[str, ...]:
        """All tags of a repository, in the registry's order.

        Raises:
            ImageNotFoundError: there is no such repository.
        """
        return self._run(flows.list_tags(repository))

    def open_blob(self, repository: str, descriptor: Descriptor, *, why: str = "") -> BinaryIO:
        """The bytes of a blob, checked while they are read; closed by the caller.

        A broken connection is taken up again where it broke.

        Args:
            repository: where it is.
            descriptor: what its bytes must be; reading raises DigestMismatchError before the last
                of them come, if they are others.
            why: the reason, for the observer.

        Raises:
            ImageNotFoundError: there is no such blob.
        """
        inline = flows.inline_bytes(descriptor)
        if inline is not None:
            return io.BytesIO(inline)

        def fetch(offset: int, etag: str, delay: float) -> flows.BlobPart:
            flow = flows.get_blob(repository, descriptor, offset=offset, etag=etag, delay=delay)
            return self._run(flow)

        check = BlobCheck(descriptor, self.session.settings.policy)
        reader = BlobReader(check, fetch, self.session.transfer("pull", descriptor, why))
        self.session.note(repository, descriptor)
        return io.BufferedReader(reader, _BUFFER)

    def exists(self, repository: str, descriptor: Descriptor, *, push: bool = False) -> bool:
        """Whether a blob or manifest is there, with the right size.

        Args:
            repository: where.
            descriptor: which; its media type tells manifests from blobs.
            push: ask with the rights to push, which a repository yet to be made may want.
        """
        return self._run(flows.exists(repository, descriptor, push=push))

    def upload(
        self,
        repository: str,
        descriptor: Descriptor,
        open_source: Callable[[], BinaryIO],
        *,
        mount_from: str = "",
        why: str = "",
    ) -> Outcome:
        """Store a blob: mounted from another repository if one is known to have it, or uploaded.

        Args:
            repository: where to.
            descriptor: what the bytes are to be.
            open_source: gives them from the start; called again when an upload is begun again, and
                not at all when the blob is mounted.
            mount_from: a repository here that has it; if empty, one seen to have it is tried.
            why: the reason, for the observer.

        Raises:
            DigestMismatchError: the bytes are others; nothing is stored.
        """
        mount_from = mount_from or self.session.holder(descriptor, but=repository)
        progress = self.session.transfer("push", descriptor, why)
        source = UploadSource(descriptor, open_source, progress)
        try:
            flow = upload_blob(
                repository, source, self.session.settings.upload, mount_from=mount_from
            )
            outcome = self._run(flow)
        finally:
            source.close()
        if outcome == "mounted":
            self.session.mounted(descriptor, why)
        self.session.note(repository, descriptor)
        return outcome

    def put_manifest(self, repository: str, name: str, raw: bytes, media_type: str) -> None:
        """Store a manifest or index, as these very bytes.

        Args:
            repository: where to.
            name: a tag, or the digest of the bytes.
            raw: the document.
            media_type: of the document.

        Raises:
            DigestMismatchError: the registry stored something else.
        """
        self._run(flows.put_manifest(repository, name, raw, media_type))

    def _run(self, flow: Flow[T]) -> T:
        return drive(self.session.prepare(flow), self._send)

    def _send(self, call: Call) -> Reply:
        with self._lock:
            if self._transport is None:
                from imagekit.registry.transport import Transport  # noqa: PLC0415 - httpx is slow

                sleep = self.session.settings.sleep
                self._transport = Transport(ca=self._ca, sleep=sleep or time.sleep)
            transport = self._transport
        return transport.send(call)


class Registries:
    """The registries of one run, each made when first named. Threads may share it."""

    def __init__(
        self,
        *,
        insecure: Collection[str] = (),
        credentials: CredentialSource | None = None,
        ca: Path | None = None,
        observer: Observer = ignore_events,
        settings: Settings | None = None,
    ) -> None:
        """Prepare; see `Registry`.

        Args:
            insecure: hosts, as references have them, that plain HTTP may be used with.
            credentials: for all of them.
            ca: for all of them.
            observer: for all of them.
            settings: for all of them.
        """
        self._insecure = frozenset(insecure)
        self._credentials = credential_source(credentials)
        self._ca = ca
        self._observer = observer
        self._settings = settings
        self._registries: dict[str, Registry] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def at(self, host: str) -> Registry:
        """The registry of a host, the same one every time."""
        with self._lock:
            if host not in self._registries:
                self._registries[host] = Registry(
                    host,
                    insecure=host in self._insecure,
                    credentials=self._credentials,
                    ca=self._ca,
                    observer=self._observer,
                    settings=self._settings,
                )
            return self._registries[host]

    def close(self) -> None:
        """Close all connections to all of them."""
        with self._lock:
            registries, self._registries = tuple(self._registries.values()), {}
        for registry in registries:
            registry.close()


def credential_source(given: Credential | CredentialSource | None) -> CredentialSource:
    """What gives credentials: those stored if None is given, or always the one that is."""
    if given is None:
        return StoredCredentials()
    if not isinstance(given, Credential):
        return given
    credential = given
    return lambda _host, _repository: credential

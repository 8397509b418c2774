"""Registries for the event loop: `Registry` with other drivers."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

from imagekit.errors import AuthError
from imagekit.events import Observer, ignore_events
from imagekit.oci.descriptor import Descriptor
from imagekit.oci.document import Document
from imagekit.oci.manifest import Index, Manifest
from imagekit.oci.reference import Reference
from imagekit.registry import flows
from imagekit.registry.auth import Credential, CredentialSource
from imagekit.registry.calls import Call, Flow, Reply, T, adrive
from imagekit.registry.client import credential_source
from imagekit.registry.reader import AsyncBlobReader, BlobCheck
from imagekit.registry.session import Session, Settings
from imagekit.registry.uploads import Outcome, UploadSource, upload_blob

if TYPE_CHECKING:
    from imagekit.registry.atransport import AsyncTransport


class AsyncRegistry:
    """One registry, on one event loop; see `Registry`, whose methods these are."""

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
        """Prepare to talk to a registry; see `Registry`.

        Raises:
            UsageError: a host that plain HTTP is not allowed with.
        """
        self._ca = ca
        self._transport: AsyncTransport | None = None
        self._credentials = credential_source(credentials)
        self._looked_up: set[str] = set()
        self.session = Session(
            host,
            insecure=insecure,
            credentials=self._credentials,
            clock=time.monotonic,
            observer=observer,
            settings=settings or Settings(),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    async def resolve(self, reference: Reference | str) -> Descriptor:
        """See `Registry.resolve`."""
        repository, name = self.session.read(reference)
        return await self._run(repository, flows.resolve(repository, name))

    async def manifest(self, reference: Reference | str) -> Document[Manifest | Index]:
        """See `Registry.manifest`."""
        repository, name = self.session.read(reference)
        document = await self._run(repository, flows.get_manifest(repository, name))
        self.session.learn(repository, document)
        return document

    async def tags(self, repository: str) -> tuple[str, ...]:
        """See `Registry.tags`."""
        return await self._run(repository, flows.list_tags(repository))

    def open_blob(
        self, repository: str, descriptor: Descriptor, *, why: str = ""
    ) -> AsyncBlobReader:
        """The bytes of a blob, to be iterated over inside `async with`; see `Registry.open_blob`.

        Raises:
            ImageNotFoundError: on entering, there is no such blob.
        """

        async def fetch(offset: int, etag: str, delay: float) -> flows.BlobPart:
            flow = flows.get_blob(repository, descriptor, offset=offset, etag=etag, delay=delay)
            return await self._run(repository, flow)

        check = BlobCheck(descriptor, self.session.settings.policy)
        return AsyncBlobReader(check, fetch, self.session.transfer("pull", descriptor, why))

    async def exists(self, repository: str, descriptor: Descriptor, *, push: bool = False) -> bool:
        """See `Registry.exists`."""
        return await self._run(repository, flows.exists(repository, descriptor, push=push))

    async def upload(
        self,
        repository: str,
        descriptor: Descriptor,
        open_source: Callable[[], BinaryIO],
        *,
        mount_from: str = "",
        why: str = "",
    ) -> Outcome:
        """See `Registry.upload`; the source is opened and read in a thread."""
        mount_from = mount_from or self.session.holder(descriptor, but=repository)
        progress = self.session.transfer("push", descriptor, why)
        source = UploadSource(descriptor, open_source, progress)
        try:
            flow = upload_blob(
                repository, source, self.session.settings.upload, mount_from=mount_from
            )
            outcome = await self._run(repository, flow)
        finally:
            source.close()
        if outcome == "mounted":
            self.session.mounted(descriptor, why)
        self.session.note(repository, descriptor)
        return outcome

    async def put_manifest(self, repository: str, name: str, raw: bytes, media_type: str) -> None:
        """See `Registry.put_manifest`."""
        flow = flows.put_manifest(repository, name, raw, media_type)
        await self._run(repository, flow)

    async def _run(self, repository: str, flow: Flow[T]) -> T:
        import asyncio  # noqa: PLC0415 - slow, and there already on an event loop

        if repository not in self._looked_up:
            self._looked_up.add(repository)
            # Files and helpers block, so they are asked beforehand; what fails, and matters, fails
            # again when the registry wants it.
            with contextlib.suppress(AuthError):
                await asyncio.to_thread(self._credentials, self.session.host, repository)
        return await adrive(self.session.prepare(flow), self._send)

    async def _send(self, call: Call) -> Reply:
        if self._transport is None:
            from imagekit.registry.atransport import AsyncTransport  # noqa: PLC0415 - httpx is slow

            self._transport = AsyncTransport(ca=self._ca, sleep=self.session.settings.sleep)
        return await self._transport.send(call)

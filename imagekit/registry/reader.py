"""Reading a blob: checked as the bytes pass, taken up again where a connection broke.

Spec: security spec N-7, N-11; registry spec section 5.
"""

import io
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Final, Self, cast

from imagekit.errors import DigestMismatchError, RegistryError, UnreachableError
from imagekit.oci.descriptor import Descriptor
from imagekit.oci.digest import hasher
from imagekit.registry.calls import AsyncStream, Stream
from imagekit.registry.flows import BlobPart
from imagekit.registry.retry import RetryPolicy, wait_after

_PROGRESS: Final = 1 << 20
"""Bytes after which earlier failures no longer count."""


class BlobCheck:
    """What has come of a blob: offset, hash, and failures since the last progress."""

    def __init__(self, descriptor: Descriptor, policy: RetryPolicy) -> None:
        self.descriptor = descriptor
        self.offset = 0
        self.etag = ""
        self._skip = 0
        self._policy = policy
        self._hash = hasher(descriptor.digest.algorithm)
        self._failures = 0
        self._failed_at = 0

    @property
    def complete(self) -> bool:
        """Whether all bytes came, and were right."""
        return self.offset == self.descriptor.size

    def begin(self, part: BlobPart) -> None:
        """Go on with this part.

        Raises:
            RegistryError: it is not what was asked for.
        """
        self._skip = part.check(self.descriptor)
        self.etag = part.reply.header("etag")

    def accept(self, data: bytes) -> bytes:
        """The new ones of these bytes; the last ones only if all together are right.

        Raises:
            DigestMismatchError: they are not, or there are too many.
        """
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        self.offset += len(data)
        self._hash.update(data)
        if self.offset > self.descriptor.size:
            raise self._mismatch(f"more than {self.descriptor.size} bytes")
        if data and self.complete:
            self.check_digest()
        return data

    def check_digest(self) -> None:
        """Check what came, once it is complete.

        Raises:
            DigestMismatchError: other bytes.
        """
        got = f"{self.descriptor.digest.algorithm}:{self._hash.hexdigest()}"
        if got != str(self.descriptor.digest):
            raise self._mismatch(got)

    def failed(self, error: RegistryError) -> float:
        """Seconds to wait before going on from the offset.

        Raises:
            RegistryError: the error itself, if there is no sense in that.
        """
        if self.offset - self._failed_at >= _PROGRESS:
            self._failures = 0
        self._failures += 1
        self._failed_at = self.offset
        delay = wait_after(error, self._policy, self._failures)
        if delay is None:
            raise error
        return delay

    def cut_short(self) -> UnreachableError:
        """The error for a body that ended too early."""
        return UnreachableError(
            f"blob {self.descriptor.digest}: the connection ended after {self.offset} of "
            f"{self.descriptor.size} bytes"
        )

    def _mismatch(self, got: str) -> DigestMismatchError:
        return DigestMismatchError(
            f"blob: want {self.descriptor.digest} of {self.descriptor.size} bytes, got {got}",
            descriptor=self.descriptor,
        )


class BlobReader(io.RawIOBase):
    """A blob as a raw stream; reading raises DigestMismatchError before the last wrong bytes."""

    def __init__(
        self,
        check: BlobCheck,
        fetch: Callable[[int, str, float], BlobPart],
        progress: Callable[[int], None],
    ) -> None:
        """Begin to read.

        Args:
            check: of the blob.
            fetch: gives the part from an offset, with the ETag of the last part, after a delay.
            progress: told how many bytes have come.
        """
        self._stream: Stream | None = None
        self._check = check
        self._fetch = fetch
        self._progress = progress
        self._rest = memoryview(b"")
        self._open(0.0)

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: "memoryview[int]", /) -> int:  # type: ignore[override]  # typeshed has the wider Buffer
        """Read some bytes; 0 at the end."""
        while not self._rest:
            data = self._next()
            if data is None:
                return 0
            self._rest = memoryview(data)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        """Give up what was not read."""
        self._drop()
        super().close()

    def _next(self) -> bytes | None:
        """Bytes that are new, maybe none; None at the end."""
        try:
            data = next(self._chunks, None)
            if data is not None:
                fresh = self._check.accept(data)
                self._progress(self._check.offset)
                return fresh
            if not self._check.complete:
                raise self._check.cut_short()
        except UnreachableError as exc:
            self._open(self._check.failed(exc))
            return b""
        self._check.check_digest()
        return None

    def _open(self, delay: float) -> None:
        self._drop()
        part = self._fetch(self._check.offset, self._check.etag, delay)
        stream = cast("Stream", part.reply.stream)
        self._stream, self._chunks = stream, iter(stream)
        try:
            self._check.begin(part)
        except RegistryError:
            self._drop()
            raise

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()


class AsyncBlobReader:
    """A blob for the event loop: iterate for its bytes, as `async with` to close it."""

    def __init__(
        self,
        check: BlobCheck,
        fetch: Callable[[int, str, float], Awaitable[BlobPart]],
        progress: Callable[[int], None],
    ) -> None:
        """Prepare to read; see `BlobReader`."""
        self._check = check
        self._fetch = fetch
        self._progress = progress
        self._stream: AsyncStream | None = None

    async def __aenter__(self) -> Self:
        """Begin to read."""
        await self._open(0.0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give up what was not read."""
        await self._drop()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The bytes, in order; at most once."""
        while not self._check.complete or self._stream is not None:
            try:
                async for data in cast("AsyncStream", self._stream):
                    fresh = self._check.accept(data)
                    self._progress(self._check.offset)
                    if fresh:
                        yield fresh
                if not self._check.complete:
                    raise self._check.cut_short()
            except UnreachableError as exc:
                await self._open(self._check.failed(exc))
            else:
                self._check.check_digest()
                await self._drop()

    async def _open(self, delay: float) -> None:
        await self._drop()
        part = await self._fetch(self._check.offset, self._check.etag, delay)
        self._stream = cast("AsyncStream", part.reply.stream)
        try:
            self._check.begin(part)
        except RegistryError:
            await self._drop()
            raise

    async def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()

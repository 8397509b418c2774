"""Blob uploads: mount, whole, or in chunks; begun again where a registry loses the thread.

    POST uploads/ -> 201 mounted
                  -> 202 session -> PUT ?digest= with all bytes                    (whole)
                                 -> PATCH .. PATCH, then PUT ?digest= with none    (chunks)

Whole works everywhere, chunks survive a broken connection; each is tried when a registry refuses
the other. The registry's word about offsets is a hint: what counts is the digest of all bytes,
which is checked here as they pass and there at the end.

Spec: distribution-spec, Push; registry spec section 6.
"""

import io
import re
from collections.abc import Callable
from typing import BinaryIO, Final, Literal
from urllib.parse import urljoin

from attrs import Factory, evolve, field, frozen

from imagekit.errors import (
    DigestMismatchError,
    ImagekitError,
    RegistryError,
    UnreachableError,
)
from imagekit.oci.descriptor import Descriptor
from imagekit.oci.digest import hasher
from imagekit.registry.access import OCTETS
from imagekit.registry.calls import Call, Flow, Reply, redact_url
from imagekit.registry.flows import BytesBody, blob_exists, pull_scope, push_scope
from imagekit.registry.problems import error_of
from imagekit.registry.retry import RetryPolicy, wait_after

Outcome = Literal["mounted", "uploaded"]

_REFUSES_CHUNKS: Final = frozenset((400, 404, 405, 411, 413, 416, 501))
_RANGE: Final = re.compile(r"(?:bytes=)?0-(\d{1,19})")
_LOST: Final = "BLOB_UPLOAD_UNKNOWN"
_READ_SIZE: Final = 256 << 10


@frozen(kw_only=True)
class UploadSettings:
    """How blobs are cut.

    Attributes:
        chunks_above: blobs of more bytes are sent in chunks.
        chunk_size: bytes of a chunk; the registry may ask for larger ones.
        small_chunk_size: bytes of a chunk for a registry that refused a whole blob as too large.
        policy: for what fails on the way.
    """

    chunks_above: int = 64 << 20
    chunk_size: int = 32 << 20
    small_chunk_size: int = 4 << 20
    policy: RetryPolicy = Factory(RetryPolicy)


class UploadSource:
    """The bytes of one blob, read in any parts from the start on, and checked as they pass.

    Not for several threads at once. `progress` is told how far reading has come.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        open_source: Callable[[], BinaryIO],
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.descriptor = descriptor
        self._open_source = open_source
        self._progress = progress
        self._stream: BinaryIO | None = None
        self._position = 0
        self._hash = hasher(descriptor.digest.algorithm)

    def part(self, offset: int, size: int) -> "SourcePart":
        """Some of the bytes, as a body that can be opened again."""
        return SourcePart(self, offset, size)

    def seek(self, offset: int) -> None:
        """Go to an offset; going back means to open the source again."""
        if self._stream is None or self._position > offset:
            self.close()
            self._stream = self._open_source()
            self._position = 0
            self._hash = hasher(self.descriptor.digest.algorithm)
        while self._position < offset:
            self.read(min(_READ_SIZE, offset - self._position))

    def read(self, size: int) -> bytes:
        """Up to `size` bytes from here; never the last ones before all are checked.

        Raises:
            DigestMismatchError: the source is not what the descriptor says.
        """
        if self._stream is None:
            self.seek(self._position)
        stream = self._stream
        data = stream.read(size) if stream is not None else b""
        self._hash.update(data)
        self._position += len(data)
        if self._position == self.descriptor.size:
            self._check_end(stream)
        elif not data or self._position > self.descriptor.size:
            raise self._mismatch(f"ended after {self._position} bytes")
        if self._progress is not None:
            self._progress(self._position)
        return data

    def close(self) -> None:
        """Close what is open."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _check_end(self, stream: BinaryIO | None) -> None:
        if stream is not None and stream.read(1):
            raise self._mismatch(f"has more than {self.descriptor.size} bytes")
        got = f"{self.descriptor.digest.algorithm}:{self._hash.hexdigest()}"
        if got != str(self.descriptor.digest):
            raise self._mismatch(f"has the digest {got}")

    def _mismatch(self, got: str) -> DigestMismatchError:
        want = f"{self.descriptor.digest} of {self.descriptor.size} bytes"
        return DigestMismatchError(
            f"upload: want {want}, the source {got}", descriptor=self.descriptor
        )


@frozen
class SourcePart:
    """See `UploadSource.part`."""

    source: UploadSource
    offset: int
    size: int

    def open(self) -> BinaryIO:
        """See `Body`."""
        self.source.seek(self.offset)
        return io.BufferedReader(_PartReader(self.source, self.size), _READ_SIZE)


class _PartReader(io.RawIOBase):
    """Closing it leaves the source open, for the next part."""

    def __init__(self, source: UploadSource, size: int) -> None:
        self._source = source
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview[int]", /) -> int:  # type: ignore[override]  # typeshed has the wider Buffer
        data = self._source.read(min(len(buffer), self._left)) if self._left else b""
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)


@frozen(kw_only=True)
class _Session:
    """An upload under way; `location` is where its next request goes."""

    repository: str
    location: str = field(repr=redact_url)
    minimum_chunk: int = 0

    def call(self, method: str, url: str = "") -> Call:
        return Call(
            method=method,
            url=url or self.location,
            repository=self.repository,
            scopes=(push_scope(self.repository),),
            repeatable=False,
        )

    def moved(self, reply: Reply) -> "_Session":
        """The same with the newest Location."""
        location = reply.header("location")
        return evolve(self, location=urljoin(reply.url, location)) if location else self


def upload_blob(
    repository: str, source: UploadSource, settings: UploadSettings, *, mount_from: str = ""
) -> Flow[Outcome]:
    """Store a blob.

    Args:
        repository: where to.
        source: the bytes; not opened if the blob is mounted.
        settings: how.
        mount_from: a repository of the same registry that has the blob; empty if none is known.

    Raises:
        DigestMismatchError: the source has other bytes; nothing is stored.
        RegistryError: the registry refused, or lost the thread too often.
    """
    descriptor = source.descriptor
    session = yield from _mount(repository, descriptor, mount_from) if mount_from else _none()
    if isinstance(session, str):
        return "mounted"
    chunked = descriptor.size > settings.chunks_above
    chunk_size = settings.chunk_size if chunked else 0
    for tried in range(1, settings.policy.tries + 2):  # one more, for switching
        session = session or (yield from _start(repository, descriptor))
        error = yield from _send(session, source, chunk_size, settings.policy)
        if error is None:
            break
        if chunked == bool(chunk_size) and _other_way_may_work(error, chunked=chunked):
            chunk_size = 0 if chunked else settings.small_chunk_size
        else:
            delay = _session_wait(error, settings.policy, tried)
            if delay is None:
                yield from _abort(session)
                raise error
            # The answer may have been lost on its way back, the blob being there.
            scope = push_scope(repository)
            if (yield from blob_exists(repository, descriptor, scope, delay=delay)):
                break
        session = None
    return "uploaded"


def _send(
    session: "_Session", source: UploadSource, chunk_size: int, policy: RetryPolicy
) -> Flow[RegistryError | None]:
    """Send all bytes, whole if there is no chunk size; gives back what the registry objects to."""
    try:
        if chunk_size:
            yield from _send_chunks(session, source, chunk_size, policy)
        else:
            yield from _finish(session, source, source.part(0, source.descriptor.size))
    except RegistryError as exc:
        return exc
    except ImagekitError:
        yield from _abort(session)
        raise
    return None


def _none() -> Flow[None]:
    yield from ()


def _mount(
    repository: str, descriptor: Descriptor, mount_from: str
) -> Flow["_Session | Literal['mounted'] | None"]:
    """Ask for the blob of another repository: done, or a session to upload it, or neither."""
    path = f"/v2/{repository}/blobs/uploads/?mount={descriptor.digest}&from={mount_from}"
    call = Call(
        method="POST",
        url=path,
        body=BytesBody(b""),
        repository=repository,
        scopes=(push_scope(repository), pull_scope(mount_from)),
    )
    try:
        reply = yield call
    except UnreachableError:
        raise
    except RegistryError:
        return None  # whatever keeps us from the other repository, uploading needs only this one
    if reply.status == 201:
        return "mounted"
    return _session_of(repository, reply) if reply.status == 202 else None


def _start(repository: str, descriptor: Descriptor) -> Flow[_Session]:
    algorithm = descriptor.digest.algorithm
    query = "" if algorithm == "sha256" else f"?digest-algorithm={algorithm}"
    reply = yield Call(
        method="POST",
        url=f"/v2/{repository}/blobs/uploads/{query}",
        body=BytesBody(b""),
        repository=repository,
        scopes=(push_scope(repository),),
    )
    if reply.status != 202:
        raise error_of(reply, f"upload of {descriptor.digest} to {repository}")
    session = _session_of(repository, reply)
    if session is None:
        raise RegistryError(
            f"upload to {repository}: the answer says not where to send it",
            status=reply.status,
            code="upload",
        )
    return session


def _session_of(repository: str, reply: Reply) -> _Session | None:
    location = reply.header("location")
    if not location:
        return None
    minimum = reply.header("oci-chunk-min-length")
    return _Session(
        repository=repository,
        location=urljoin(reply.url, location),
        minimum_chunk=int(minimum[:12]) if minimum.isascii() and minimum.isdigit() else 0,
    )


def _finish(session: _Session, source: UploadSource, body: SourcePart | BytesBody) -> Flow[None]:
    """The PUT that closes a session; `body` is what has not been sent yet."""
    descriptor = source.descriptor
    separator = "&" if "?" in session.location else "?"
    call = session.call("PUT", f"{session.location}{separator}digest={descriptor.digest}")
    reply = yield evolve(call, headers=(OCTETS,), body=body)
    what = f"upload of {descriptor.digest}, {descriptor.size} bytes, to {session.repository}"
    if reply.status not in (200, 201, 204):
        raise error_of(reply, what)
    stated = reply.header("docker-content-digest")
    if stated and stated != str(descriptor.digest):
        raise DigestMismatchError(f"{what}: the registry stored {stated[:200]}")
    if not stated:
        scope = push_scope(session.repository)
        if not (yield from blob_exists(session.repository, descriptor, scope)):
            raise RegistryError(
                f"{what}: the registry took it but does not have it", code="upload"
            )


def _send_chunks(
    session: _Session, source: UploadSource, chunk_size: int, policy: RetryPolicy
) -> Flow[None]:
    size, offset, failures, trusting = source.descriptor.size, 0, 0, False
    chunk_size = max(chunk_size, session.minimum_chunk)
    while offset < size:
        end = min(offset + chunk_size, size)
        try:
            reply = yield evolve(
                session.call("PATCH"),
                headers=(OCTETS, ("content-range", f"{offset}-{end - 1}")),
                body=source.part(offset, end - offset),
            )
            if reply.status not in (200, 201, 202, 204):
                raise error_of(reply, f"upload of {source.descriptor.digest}, bytes from {offset}")
        except RegistryError as exc:
            failures += 1
            delay = _chunk_wait(exc, policy, failures, offset)
            if delay is None:
                raise
            session, offset = yield from _ask_offset(session, end, delay)
            continue
        session = session.moved(reply)
        stored = end if trusting else _stored(reply, end, unsaid=end)
        if stored <= offset:
            # Some registries state the same range for ever: believed once, then no more.
            trusting, stored = True, offset
        elif stored == end:
            failures = 0
        offset = stored
    yield from _finish(session, source, BytesBody(b""))


def _ask_offset(session: _Session, sent: int, delay: float) -> Flow[tuple[_Session, int]]:
    """After a failure: where the registry wants us to go on."""
    reply = yield evolve(session.call("GET"), delay=delay, repeatable=True)
    if reply.status not in (200, 202, 204):
        raise error_of(reply, f"upload to {session.repository}")
    return session.moved(reply), _stored(reply, sent, unsaid=0)


def _stored(reply: Reply, sent: int, *, unsaid: int) -> int:
    """How many bytes the registry says it has; `unsaid` if it says nothing, or only `0-0`."""
    stated = reply.header("range")
    if stated in ("", "0-0"):
        return unsaid
    match = _RANGE.fullmatch(stated)
    if match is None or int(match[1]) + 1 > sent:
        raise RegistryError(
            f"upload: sent {sent} bytes, the registry claims to have {stated[:80]!r}",
            status=reply.status,
            code="bad-range",
        )
    return int(match[1]) + 1


def _chunk_wait(
    error: RegistryError, policy: RetryPolicy, failures: int, offset: int
) -> float | None:
    if error.status == 416 and offset > 0 and failures <= 3:
        return 0.0
    return wait_after(error, policy, failures)


def _other_way_may_work(error: RegistryError, *, chunked: bool) -> bool:
    if _LOST in error.codes:
        return False
    return error.status in _REFUSES_CHUNKS if chunked else error.status == 413


def _session_wait(error: RegistryError, policy: RetryPolicy, tried: int) -> float | None:
    if _LOST in error.codes:
        return policy.delay(tried)
    return wait_after(error, policy, tried)


def _abort(session: _Session) -> Flow[None]:
    try:
        yield session.call("DELETE")
    except RegistryError:
        return  # registries clear away what is left over

"""Downloads over HTTP(S): conditional, resumed, checked; no credentials, few redirects.

A body that breaks off is continued where it did if the server can, and begun again if not. Bytes
go to the caller's file, and count only once all of them are there and the checksum is right.

Spec: RFC 9110 sections 13 (conditional requests) and 14 (ranges); security.md C-7.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Any, BinaryIO, Final
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
from attrs import frozen

from imagekit.errors import CancelledError, FetchError, RegistryError
from imagekit.fetch.reach import Reach
from imagekit.oci.digest import Digest
from imagekit.registry.calls import Call, redact_url
from imagekit.registry.transport import RateGuard, Timeouts, client_options, translating

MAX_REDIRECTS: Final = 5
_TRIES: Final = 4
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
_TRANSIENT: Final = frozenset((408, 425, 429, 500, 502, 503, 504))
Progress = Callable[[int, int | None], None]


@frozen(kw_only=True)
class Downloaded:
    """What is known of a file that was downloaded.

    Attributes:
        digest: SHA-256 of it.
        size: in bytes.
        mtime: of Last-Modified in seconds since the epoch; 0 where the server does not say.
        etag: what to ask with, the next time; empty if there was none.
        modified: likewise, the text of Last-Modified.
    """

    digest: Digest
    size: int
    mtime: int
    etag: str = ""
    modified: str = ""


@frozen(kw_only=True)
class _Job:
    """One download: where from, where to, and on what conditions."""

    url: str
    file: BinaryIO
    etag: str
    modified: str
    checksum: str
    progress: Progress


class Http:
    """Downloads files; connections are kept and shared by threads."""

    def __init__(
        self,
        reach: Reach,
        *,
        max_size: int,
        timeouts: Timeouts | None = None,
        cancelled: Callable[[], bool],
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._reach = reach
        self._max_size = max_size
        self._timeouts = timeouts or Timeouts()
        self._cancelled = cancelled
        self._sleep = sleep
        self._clients: dict[str, httpx.Client] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            clients, self._clients = tuple(self._clients.values()), {}
        for client in clients:
            client.close()

    def download(
        self,
        url: str,
        file: BinaryIO,
        *,
        etag: str = "",
        modified: str = "",
        checksum: str = "",
        progress: Progress = lambda _done, _total: None,
    ) -> Downloaded | None:
        """Download a file.

        Args:
            url: http or https, without a user name.
            file: empty and seekable; what it holds after a failure means nothing.
            etag: what the server called the version that the caller has; empty for none.
            modified: when that version was made, in the server's words.
            checksum: `algorithm:hex` that the body must have; empty for any.
            progress: told the bytes so far, and in all where that is known.

        Returns:
            What came, or None if the version that the caller has is still the latest.

        Raises:
            FetchError: `http-status` for an answer of 400 or more, `checksum-mismatch`,
                `too-large`, `redirect`, `insecure-url`, `address-refused`, `unreachable` and its
                kinds.
            CancelledError: `cancelled` said so.
        """
        parts = self._reach.check(url, pinned=bool(checksum))
        if "@" in parts.netloc:
            raise FetchError(
                f"{redact_url(url)}: a URL with a user name or password is not fetched",
                hint="what it gives would be in the image, and the password in its history",
                code="credentials",
            )
        job = _Job(
            url=url,
            file=file,
            etag=etag,
            modified=modified,
            checksum=checksum,
            progress=progress,
        )
        return _Download(self, job).run()

    # For `_Download`.

    def check_cancelled(self) -> None:
        """Raise if the caller has given up."""
        if self._cancelled():
            raise CancelledError("the build was cancelled")

    def wait(self, tried: int) -> None:
        """Wait before another try."""
        self._sleep(0.25 * 2**tried)
        self.check_cancelled()

    @property
    def max_size(self) -> int:
        """The most bytes of a body."""
        return self._max_size

    @property
    def timeouts(self) -> Timeouts:
        """How long anything may take."""
        return self._timeouts

    @contextmanager
    def open(self, job: _Job, headers: dict[str, str]) -> Iterator[httpx.Response]:
        """Ask, following redirects; the response is closed at the end of the block."""
        url = job.url
        for _ in range(MAX_REDIRECTS + 1):
            self.check_cancelled()
            response = self._send(url, headers, origin="" if url == job.url else job.url)
            try:
                if response.status_code not in _REDIRECTS:
                    yield response
                    return
                target = urljoin(url, response.headers.get("location", ""))
            finally:
                response.close()
            self._reach.check_redirect(url, target, origin=job.url, pinned=bool(job.checksum))
            if "@" in urlsplit(target).netloc:
                raise FetchError(
                    f"{redact_url(url)} redirects to a URL with a user name", code="redirect"
                )
            url = target
        raise FetchError(
            f"{redact_url(job.url)}: more than {MAX_REDIRECTS} redirects", code="redirect"
        )

    def _send(self, url: str, headers: dict[str, str], *, origin: str) -> httpx.Response:
        limits = self._timeouts
        timeout = httpx.Timeout(limits.idle, connect=limits.connect)
        client = self._client(urlsplit(url).scheme)
        with _plainly(url):
            request = client.build_request(
                "GET",
                url,
                headers=headers,
                timeout=timeout,
                extensions=self._guard(url, origin),
            )
            return client.send(request, stream=True, follow_redirects=False)

    def _client(self, scheme: str) -> httpx.Client:
        with self._lock:
            if scheme not in self._clients:
                options = client_options(scheme, None)
                # A connection is looked at when it is made, for the URL that it is made for.
                options["limits"] = httpx.Limits(max_keepalive_connections=0)
                self._clients[scheme] = httpx.Client(**options)
            return self._clients[scheme]

    def _guard(self, url: str, origin: str) -> dict[str, Any]:
        """What has httpx show each new connection; one to a proxy says nothing of the target."""
        parts = urlsplit(url)
        proxies = getproxies()
        if (parts.scheme in proxies or "all" in proxies) and not proxy_bypass(parts.netloc):
            return {}

        def trace(event: str, info: dict[str, Any]) -> None:
            if event != "connection.connect_tcp.complete":
                return
            stream = info["return_value"]
            peer = str(stream.get_extra_info("server_addr")[0]).partition("%")[0]
            try:
                self._reach.check_address(url, ip_address(peer), origin=origin)
            except FetchError:
                stream.close()
                raise

        return {"trace": trace}


class _Download:
    """One download over as many requests as it takes."""

    def __init__(self, http: Http, job: _Job) -> None:
        self._http = http
        self._job = job
        self._etag = ""
        self._modified = ""
        self._restart()

    def run(self) -> Downloaded | None:
        for tried in range(_TRIES):
            try:
                if not self._ask():
                    return None
            except FetchError as exc:
                transient = exc.status in _TRANSIENT or exc.code in {"unreachable", "timeout"}
                if not transient or tried == _TRIES - 1:
                    raise
                self._http.wait(tried)
            else:
                return self._checked()
        raise AssertionError(self._job.url)

    def _restart(self) -> None:
        algorithm = self._job.checksum.partition(":")[0] or "sha256"
        self._hash = hashlib.sha256()
        self._wanted_hash = hashlib.new(algorithm)
        self._size = 0
        self._job.file.seek(0)
        self._job.file.truncate()

    def _ask(self) -> bool:
        """Get the body, or the rest of it; False if the caller has it already."""
        headers: dict[str, str] = {}
        validator = self._validator()
        if self._size and validator:
            headers = {"range": f"bytes={self._size}-", "if-range": validator}
        elif not self._size:
            headers = self._conditions()
        with self._http.open(self._job, headers) as response:
            status = response.status_code
            if status == 304 and ("if-none-match" in headers or "if-modified-since" in headers):
                return False
            if status != 200 and not (status == 206 and "range" in headers):
                raise FetchError(
                    f"{redact_url(self._job.url)}: HTTP status {status}"
                    f" {response.reason_phrase}".rstrip(),
                    status=status,
                    code="http-status",
                )
            if status == 200:
                self._restart()
                self._etag = response.headers.get("etag", "")
                self._modified = response.headers.get("last-modified", "")
            elif not response.headers.get("content-range", "").startswith(f"bytes {self._size}-"):
                raise FetchError(
                    f"{redact_url(self._job.url)}: the server sent another part than asked for"
                )
            self._read(response)
        return True

    def _conditions(self) -> dict[str, str]:
        if self._job.etag:
            return {"if-none-match": self._job.etag}
        return {"if-modified-since": self._job.modified} if self._job.modified else {}

    def _validator(self) -> str:
        """What a server is asked with for the rest of just that version."""
        return self._etag if self._etag and not self._etag.startswith("W/") else self._modified

    def _read(self, response: httpx.Response) -> None:
        job, limit = self._job, self._http.max_size
        length = response.headers.get("content-length", "")
        total = self._size + int(length) if length.isdecimal() else None
        if total is not None and total > limit:
            self._too_large(limit)
        call = Call(method="GET", url=job.url)
        guard = RateGuard(call, self._http.timeouts)
        with _plainly(job.url):
            chunks = response.iter_raw()
            while True:
                began = time.monotonic()
                data = next(chunks, None)
                if data is None:
                    break
                self._http.check_cancelled()
                guard.count(len(data), time.monotonic() - began)
                self._size += len(data)
                if self._size > limit:
                    self._too_large(limit)
                self._hash.update(data)
                self._wanted_hash.update(data)
                job.file.write(data)
                job.progress(self._size, total)

    def _too_large(self, limit: int) -> None:
        raise FetchError(f"{redact_url(self._job.url)}: more than {limit} bytes", code="too-large")

    def _checked(self) -> Downloaded:
        job = self._job
        found = f"{self._wanted_hash.name}:{self._wanted_hash.hexdigest()}"
        if job.checksum and found != job.checksum:
            raise FetchError(
                f"{redact_url(job.url)}: want {job.checksum}, got {found}"
                f" after {self._size} bytes",
                hint="the file has changed, or the checksum is that of another",
                code="checksum-mismatch",
            )
        return Downloaded(
            digest=Digest("sha256", self._hash.hexdigest()),
            size=self._size,
            mtime=_seconds(self._modified),
            etag=self._etag,
            modified=self._modified,
        )


def _seconds(date: str) -> int:
    """The time of an HTTP date; 0 for what is none."""
    try:
        return max(0, int(parsedate_to_datetime(date).timestamp()))
    except (ValueError, TypeError, OverflowError):
        return 0


@contextmanager
def _plainly(url: str) -> Iterator[None]:
    """Turn what the transport raises into errors of fetching, without the frames of requests."""
    try:
        with translating(Call(method="GET", url=url)):
            yield
    except RegistryError as exc:
        code = exc.code if exc.code != "redirect" else "url-invalid"
        hint = exc.hint if code in {"unknown-host", "tls"} else ""
        raise FetchError(exc.message, hint=hint, code=code) from exc.__cause__

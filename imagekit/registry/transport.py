"""Sending calls over httpx; only this and `atransport` know it, and are imported at first use.

Redirects, credentials and tries are not left to httpx (see `access`, `auth`, `retry`); nor are
cookies, which nothing here keeps. Every failure leaves as an UnreachableError or RegistryError.

Spec: security spec N-1, N-3, N-6, N-10, N-12.
"""

import contextvars
import ipaddress
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
from attrs import frozen

from imagekit.errors import ImagekitError, RegistryError, StoreError, UnreachableError, UsageError
from imagekit.registry.calls import MAX_ERROR_BODY, Body, Call, Reply, redact_url
from imagekit.registry.realm import is_private

_SEND_SIZE: Final = 256 << 10
_LOOPBACK: Final = ("all://localhost", "all://127.0.0.1", "all://[::1]")
_HEADERS: Final = {"user-agent": "imagekit", "accept": "*/*", "accept-encoding": "identity"}
_quiet: Final = contextvars.ContextVar("imagekit_registry_quiet", default=False)


@frozen(kw_only=True)
class Timeouts:
    """In seconds.

    Attributes:
        connect: until a connection stands, TLS included.
        idle: between two arrivals of bytes, and until the first.
        commit: until an upload is acknowledged; storage behind a registry may have to move it.
        slow_after: how much waiting for a body makes the rate count.
        slow_rate: bytes a second that a body must reach by then.
    """

    connect: float = 10.0
    idle: float = 30.0
    commit: float = 300.0
    slow_after: float = 60.0
    slow_rate: float = 1024.0


class Transport:
    """Sends calls; connections are kept and shared by threads. Close it when done."""

    def __init__(
        self,
        *,
        ca: Path | None = None,
        timeouts: Timeouts | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Prepare to send.

        Args:
            ca: a file of certificates that are trusted besides the system's.
            timeouts: the defaults if None.
            sleep: waits for some seconds.
        """
        self._timeouts = timeouts or Timeouts()
        self._sleep = sleep
        self._ca = ca
        self._clients: dict[tuple[str, str], httpx.Client] = {}
        self._flights: dict[str, Future[Reply]] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            clients, self._clients = tuple(self._clients.values()), {}
        for client in clients:
            client.close()

    def send(self, call: Call) -> Reply:
        """Send a call, after its delay; equal shared calls that are under way are sent once.

        Raises:
            UnreachableError: there was no answer, or not all of it.
            RegistryError: the body is larger than the call's limit.
        """
        if call.delay:
            self._sleep(call.delay)
        if not call.shared:
            return self._send(call)
        with self._lock:
            flight = self._flights.get(call.shared)
            mine = flight is None
            if flight is None:
                flight = self._flights[call.shared] = Future()
        if not mine:
            return flight.result()
        try:
            flight.set_result(self._send(call))
        except BaseException as exc:
            flight.set_exception(exc)
            raise
        finally:
            with self._lock:
                del self._flights[call.shared]
        return flight.result()

    def _client(self, call: Call) -> httpx.Client:
        """The client for a reach: a connection that was made unguarded is never used guarded."""
        key = (call.reach, urlsplit(call.url).scheme)
        with self._lock:
            if key not in self._clients:
                self._clients[key] = httpx.Client(**client_options(key[1], self._ca))
            return self._clients[key]

    def _request(self, call: Call) -> httpx.Request:
        return self._client(call).build_request(
            call.method,
            call.url,
            content=None if call.body is None else _content(call.body),
            **request_options(call, self._timeouts, _check_connection),
        )

    def _send(self, call: Call) -> Reply:
        try:
            with translating(call):
                response = self._client(call).send(
                    self._request(call), stream=True, follow_redirects=False
                )
        except ImagekitError as exc:
            # The frames of httpx hold whole requests; reading the body may fail through them.
            raise exc.with_traceback(None) from exc.__cause__
        stream = _Stream(response, call, self._timeouts)
        if call.stream and response.status_code in (200, 206):
            return reply_of(response, call, stream=stream)
        try:
            return reply_of(response, call, body=_read(stream, response, call))
        finally:
            stream.close()


class _Stream:
    """See `Stream`."""

    def __init__(self, response: httpx.Response, call: Call, timeouts: Timeouts) -> None:
        self._response = response
        self._call = call
        self._rate = RateGuard(call, timeouts)

    def __iter__(self) -> Iterator[bytes]:
        chunks = self._response.iter_raw()
        while True:
            begin = time.monotonic()
            with translating(self._call):
                data = next(chunks, None)
            if data is None:
                return
            self._rate.count(len(data), time.monotonic() - begin)
            yield data

    def close(self) -> None:
        with translating(self._call):
            self._response.close()


class RateGuard:
    """Gives up on a body that comes so slowly that it holds us rather than feeds us."""

    def __init__(self, call: Call, timeouts: Timeouts) -> None:
        self._host = urlsplit(call.url).netloc
        self._timeouts = timeouts
        self._size = 0
        self._waited = 0.0

    def count(self, size: int, waited: float) -> None:
        """Count bytes and the seconds that they took to come.

        Raises:
            UnreachableError: too few bytes for the time.
        """
        self._size += size
        self._waited += waited
        if self._waited < self._timeouts.slow_after:
            return
        if self._size < self._timeouts.slow_rate * self._waited:
            rate = self._size / self._waited
            raise UnreachableError(
                f"{self._host}: too slow: {rate:.0f} bytes a second", code="timeout"
            )
        self._size, self._waited = 0, 0.0


def tls_context(ca: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or later, host names checked, the system's certificates and these.

    Raises:
        UsageError: the file cannot be read, or holds no certificates.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca is not None:
        try:
            context.load_verify_locations(cafile=ca)
        except OSError as exc:
            raise UsageError(f"{ca}: no certificates to read there: {exc}") from exc
    return context


def client_options(scheme: str, ca: Path | None) -> dict[str, Any]:
    """What a sync and an async client are made with.

    Reading the system's certificates takes longer than a request, so a client for plain HTTP is
    made without, and trusts none.
    """
    _silence()
    context = tls_context(ca) if scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return {
        "verify": context,
        "headers": _HEADERS,
        "cookies": CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=32),
        "mounts": dict.fromkeys(_LOOPBACK),  # as other clients do: no proxy for this machine
    }


def request_options(
    call: Call, timeouts: Timeouts, check: Callable[[str, dict[str, Any]], object]
) -> dict[str, Any]:
    """What a sync and an async request have in common; `check` sees connections come about."""
    headers = dict(call.headers)
    if call.body is not None:
        headers["content-length"] = str(call.body.size)
    if call.authorization is not None:
        headers["authorization"] = call.authorization.value
    read = timeouts.commit if call.method in ("PUT", "PATCH") else timeouts.idle
    timeout = httpx.Timeout(connect=timeouts.connect, read=read, write=timeouts.idle, pool=None)
    return {
        "headers": headers,
        "timeout": timeout,
        "extensions": {"trace": check} if _must_check(call) else {},
    }


def reply_of(
    response: httpx.Response,
    call: Call,
    *,
    body: bytes = b"",
    stream: Any = None,  # noqa: ANN401 - either kind
) -> Reply:
    """The answer as a value."""
    return Reply(
        status=response.status_code,
        url=call.url,
        headers=tuple((k.lower(), v) for k, v in response.headers.multi_items()),
        body=body,
        stream=stream,
    )


def body_limit(response: httpx.Response, call: Call) -> tuple[int, bool]:
    """The most bytes to read of a body, and whether more of them are an error."""
    if response.is_success:
        return call.limit, True
    return min(MAX_ERROR_BODY, call.limit), False


def too_large(call: Call) -> RegistryError:
    """The error for a body past its limit."""
    return RegistryError(
        f"{redact_url(call.url)}: the answer has more than {call.limit} bytes", code="too-large"
    )


def _must_check(call: Call) -> bool:
    """Whether the address connected to is to be checked: not if it is that of a proxy."""
    if call.reach == "any":
        return False
    parts = urlsplit(call.url)
    proxies = getproxies()
    proxied = parts.scheme in proxies or "all" in proxies
    return not proxied or bool(proxy_bypass(parts.netloc))


def check_address(stream: Any) -> None:  # noqa: ANN401 - httpcore's network stream
    """Check the peer of a new connection.

    Raises:
        UnreachableError: it is not on the public internet.
    """
    address = str(stream.get_extra_info("server_addr")[0]).partition("%")[0]
    if is_private(address) or not ipaddress.ip_address(address).is_global:
        raise UnreachableError(
            f"refused to talk to a token server at {address}: it is inside a private network",
            code="address-refused",
            hint="list it as a trusted realm if it is the registry's own",
        )


def _check_connection(event: str, info: dict[str, Any]) -> None:
    if event == "connection.connect_tcp.complete":
        stream = info["return_value"]
        try:
            check_address(stream)
        except UnreachableError:
            stream.close()
            raise


def open_body(body: Body) -> BinaryIO:
    """The bytes to send.

    Raises:
        StoreError: they cannot be read.
    """
    try:
        return body.open()
    except OSError as exc:
        raise StoreError(f"cannot read what is to be sent: {exc}") from exc


def read_body(stream: BinaryIO) -> bytes:
    """The next bytes to send.

    Raises:
        StoreError: they cannot be read.
    """
    try:
        return stream.read(_SEND_SIZE)
    except OSError as exc:
        raise StoreError(f"cannot read what is to be sent: {exc}") from exc


def _content(body: Body) -> bytes | Iterator[bytes]:
    return _pieces(body) if body.size else b""


def _pieces(body: Body) -> Iterator[bytes]:
    with open_body(body) as stream:
        while data := read_body(stream):
            yield data


def _read(stream: _Stream, response: httpx.Response, call: Call) -> bytes:
    limit, strict = body_limit(response, call)
    body = bytearray()
    for data in stream:
        body += data
        if len(body) > limit:
            if strict:
                raise too_large(call)
            break
    return bytes(body[:limit])


@contextmanager
def translating(call: Call) -> Iterator[None]:
    """Turn what httpx raises into our errors, and keep its loggers quiet."""
    token = _quiet.set(True)
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ssl.SSLError) as exc:
        raise _translated(exc, call) from _without_frames(exc)
    finally:
        _quiet.reset(token)


def _translated(exc: Exception, call: Call) -> RegistryError:
    host = urlsplit(call.url).netloc
    causes = tuple(_chain(exc))
    if isinstance(exc, httpx.TimeoutException):
        kind = "to connect" if isinstance(exc, httpx.ConnectTimeout) else "for an answer"
        return UnreachableError(f"{host}: timed out waiting {kind}", code="timeout")
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = cause.verify_message
            hint = "give the certificate of the registry's own authority, if it has one"
            return UnreachableError(f"{host}: certificate refused: {why}", code="tls", hint=hint)
        if isinstance(cause, ssl.SSLError):
            hint = "if it speaks plain HTTP, list it as insecure"
            why = (cause.reason or "failed").lower().replace("_", " ")
            return UnreachableError(f"{host}: TLS: {why}", code="tls", hint=hint)
        if isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN:
            hint = "check its spelling, and the network"
            return UnreachableError(f"{host}: no such host", code="unknown-host", hint=hint)
    if isinstance(exc, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return RegistryError(
            f"not a URL that can be asked: {redact_url(call.url)}", code="redirect"
        )
    hint = "check host and port, and that the registry runs; TLS on loopback needs https://"
    return UnreachableError(f"{host}: {_last_words(causes)}", hint=hint)


def _chain(exc: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = exc
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _last_words(causes: tuple[BaseException, ...]) -> str:
    for cause in reversed(causes):
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror[0].lower() + cause.strerror[1:]
    return next((str(c) for c in causes if str(c)), "the connection was lost")


def _without_frames(exc: Exception) -> Exception:
    """The error without the frames that hold requests: they show what must not be seen."""
    for link in _chain(exc):
        link.__traceback__ = None
    return exc


def _not_ours(record: logging.LogRecord) -> bool:
    del record
    return not _quiet.get()


def _silence() -> None:
    """Drop what httpx would log of our requests (whole URLs, headers), and of no others."""
    names = ("httpx", *(f"httpcore.{n}" for n in ("connection", "http11", "proxy", "socks")))
    for name in names:
        logging.getLogger(name).addFilter(_not_ours)

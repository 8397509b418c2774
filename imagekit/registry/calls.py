"""The values that every exchange with a registry is made of, and how one is run.

A flow is a generator that yields a `Call` and receives its `Reply`. It knows nothing of sockets,
threads or event loops: `drive` and `adrive` run it with whatever can send a call. What concerns
every exchange (tries, redirects, credentials) is an `Exchange`, put around a flow by `through`.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Any, BinaryIO, Final, Literal, Protocol, TypeVar
from urllib.parse import parse_qsl, urlsplit

from attrs import field, frozen

from imagekit.errors import ImagekitError
from imagekit.oci.document import MAX_DOCUMENT

T = TypeVar("T")

MAX_ERROR_BODY: Final = 64 << 10
"""The most bytes that are read of the body of an error (security spec N-6)."""
_PLAIN_PARAMETERS: Final = frozenset(
    ("digest", "from", "last", "mount", "n", "scope", "service", "artifactType")
)


@frozen
class Secret:
    """A string that no log, message or traceback shows."""

    value: str = field(repr=False)

    def __str__(self) -> str:
        return "***"


def redact_url(url: str) -> str:
    """The URL as people may see it: no user name, no password, no value of an unknown parameter.

    Signed URLs of storage services carry their credentials in parameters (security spec N-12).
    """
    try:
        parts = urlsplit(url)
        fields = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        return "(malformed URL)"
    shown = "&".join(f"{k}={v if k in _PLAIN_PARAMETERS else '***'}" for k, v in fields)
    host = parts.netloc.rpartition("@")[2]
    start = f"{parts.scheme}://{host}" if host else ""
    return f"{start}{parts.path}{'?' + shown if shown else ''}"


class Body(Protocol):
    """Bytes to send that can be opened again, for a request that is repeated."""

    @property
    def size(self) -> int:
        """How many bytes `open` gives."""

    def open(self) -> BinaryIO:
        """The bytes from the start; closed by the caller."""


class Stream(Protocol):
    """The body of an answer as it comes in; every step and `close` may block."""

    def __iter__(self) -> Iterator[bytes]:
        """The bytes in the order they come; UnreachableError when they cease to."""

    def close(self) -> None:
        """Give up what was not read."""


class AsyncStream(Protocol):
    """The same for the event loop."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The bytes in the order they come; UnreachableError when they cease to."""

    async def aclose(self) -> None:
        """Give up what was not read."""


Reach = Literal["any", "public"]
"""The addresses that a call may connect to; `public` leaves out all that are not global."""


@frozen(kw_only=True)
class Call:
    """One HTTP request.

    Attributes:
        url: absolute, or a path at the registry, which `redirecting` makes absolute.
        repository: whose credentials apply; empty where there is none.
        scopes: what a token must allow, as `repository:app:pull`.
        authorization: value of the Authorization header; only `authorised` sets it.
        delay: seconds to wait before sending.
        limit: the most bytes that the body of a success may have.
        stream: leave the body of a success unread, as `Reply.stream`.
        repeatable: whether sending it twice is as good as once.
        shared: calls of the same non-empty key that are under way at once are sent only once.
        reach: the addresses that it may connect to.
    """

    method: str
    url: str = field(repr=redact_url)
    headers: tuple[tuple[str, str], ...] = ()
    body: Body | None = None
    repository: str = ""
    scopes: tuple[str, ...] = ()
    authorization: Secret | None = None
    delay: float = 0.0
    limit: int = MAX_DOCUMENT
    stream: bool = False
    repeatable: bool = True
    shared: str = field(default="", repr=False)
    reach: Reach = "any"


@frozen(kw_only=True)
class Reply:
    """The answer to a call; names of headers are in lower case.

    Attributes:
        url: what was asked in the end, after redirects.
        body: empty for an answer that is streamed.
        stream: the unread body of a success, if the call asked for it; whoever takes it closes it.
    """

    status: int
    url: str = field(repr=redact_url)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)
    stream: Stream | AsyncStream | None = None

    def header(self, name: str) -> str:
        """The value of the first header of that name, stripped; empty if there is none."""
        return next((v.strip() for k, v in self.headers if k == name), "")

    def all_headers(self, name: str) -> tuple[str, ...]:
        """The values of all headers of that name."""
        return tuple(v for k, v in self.headers if k == name)

    @property
    def media_type(self) -> str:
        """Content-Type without its parameters, in lower case."""
        return self.header("content-type").partition(";")[0].strip().lower()

    def json(self) -> Any:  # noqa: ANN401 - JSON
        """The body as JSON; None if it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


Flow = Generator[Call, Reply, T]
"""An exchange that ends in a T."""

Exchange = Callable[[Call], Flow[Reply]]
"""How one call is answered: by none, one or several others."""


def through(flow: Flow[T], exchange: Exchange) -> Flow[T]:
    """The flow with each of its calls answered by way of `exchange`."""
    try:
        call = next(flow)
        while True:
            try:
                reply = yield from exchange(call)
            except ImagekitError as exc:
                call = flow.throw(exc)
            else:
                call = flow.send(reply)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        flow.close()


def drive(flow: Flow[T], send: Callable[[Call], Reply]) -> T:
    """Run a flow to its end; an error of `send` is raised inside the flow, which may go on."""
    try:
        call = next(flow)
        while True:
            try:
                reply = send(call)
            except ImagekitError as exc:
                call = flow.throw(exc)
            else:
                call = flow.send(reply)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        flow.close()


async def adrive(flow: Flow[T], send: Callable[[Call], Awaitable[Reply]]) -> T:
    """`drive` for the event loop."""
    try:
        call = next(flow)
        while True:
            try:
                reply = await send(call)
            except ImagekitError as exc:
                call = flow.throw(exc)
            else:
                call = flow.send(reply)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        flow.close()

"""A web server on loopback that answers as a test says, faults included."""

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import define, field, frozen

Handler = http.server.BaseHTTPRequestHandler


@frozen(kw_only=True)
class Page:
    """One answer.

    Attributes:
        cut: how many bytes of the body are sent before the connection is dropped; None for all.
        length: whether the answer says how long it is.
        wait: what the server waits for in the middle of the body.
    """

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(factory=dict)
    cut: int | None = None
    length: bool = True
    wait: threading.Event | None = None

    def send(self, handler: Handler) -> None:
        handler.send_response(self.status)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        if self.length:
            handler.send_header("Content-Length", str(len(self.body)))
        handler.end_headers()
        if self.wait is not None:
            handler.wfile.write(self.body[:1])
            self.wait.wait(60)
        handler.wfile.write(self.body[: self.cut])
        handler.close_connection = True


@define
class Web:
    """A running server.

    Attributes:
        url: of its root, without a slash at the end.
        pages: path -> what is answered: always the same, one after the other with the last one for
            good, or what a function makes of a request's headers.
        requests: (path, headers in lower case) of what was asked for.
    """

    url: str
    pages: dict[str, Page | list[Page] | Callable[[dict[str, str]], Page]] = field(factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(factory=list)

    def answer(self, handler: Handler) -> Page:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.requests.append((handler.path, headers))
        page = self.pages.get(handler.path, Page(status=404))
        if isinstance(page, list):
            return page.pop(0) if len(page) > 1 else page[0]
        return page if isinstance(page, Page) else page(headers)

    def asked(self, name: str) -> list[str]:
        """A header of every request that had it, in order."""
        return [headers[name] for _, headers in self.requests if name in headers]


@contextlib.contextmanager
def web_server() -> Iterator[Web]:
    """Run a server until the block ends."""

    class Answering(Handler):
        def do_GET(self) -> None:  # noqa: N802 - the server's name for it
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                web.answer(self).send(self)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        web = Web(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield web
        finally:
            server.shutdown()
            thread.join()


def versioned(body: bytes, etag: str) -> Callable[[dict[str, str]], Page]:
    """A page that knows its version, conditions and ranges."""

    def page(headers: dict[str, str]) -> Page:
        said = {"ETag": etag}
        if headers.get("if-none-match") == etag:
            return Page(status=304, headers=said)
        wanted = headers.get("range", "")
        if wanted and headers.get("if-range") == etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            part = f"bytes {start}-{len(body) - 1}/{len(body)}"
            return Page(status=206, headers={**said, "Content-Range": part}, body=body[start:])
        return Page(headers=said, body=body)

    return page

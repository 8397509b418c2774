"""A strict registry on loopback, in memory: what distribution-spec 1.1 allows, faults on demand.

It refuses what a lenient server would let pass: bodies without a length, chunks out of order,
uploads that do not go to the newest Location, manifests that name blobs which are not there. Every
request is kept in `requests`, with its headers, for tests to look at.
"""

import hashlib
import itertools
import json
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self
from urllib.parse import parse_qsl, urlsplit

from attrs import define, evolve, field, frozen

NAME = r"(?P<name>[a-z0-9]+(?:[._/-][a-z0-9]+)*)"
MEDIA_TYPE = re.compile(r"application/[a-z0-9.+-]+")
RANGE = re.compile(r"bytes=(\d+)-")
CONTENT_RANGE = re.compile(r"(\d+)-(\d+)")


class Request(NamedTuple):
    """One request as it came; names of headers in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def line(self) -> str:
        return f"{self.method} {self.target}"


@frozen
class Answer:
    """What is sent back; `length` is what Content-Length claims, if not the truth."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    length: int | None = None

    def having(self, **headers: str) -> "Answer":
        """The same with these headers (`_` for `-`) instead of those of the same name."""
        new = {k.replace("_", "-"): v for k, v in headers.items()}
        kept = tuple((k, v) for k, v in self.headers if k.lower() not in new)
        return evolve(self, headers=(*kept, *new.items()))


def error(status: int, code: str, message: str = "", **headers: str) -> Answer:
    body = json.dumps({"errors": [{"code": code, "message": message or code.lower()}]}).encode()
    return Answer(status, (("content-type", "application/json"),), body).having(**headers)


@define
class Fault:
    """Something that goes wrong with the first `times` requests whose line `on` matches.

    Attributes:
        on: a regular expression for `METHOD target`, searched from its start.
        instead: the answer that is given without looking at the request.
        change: makes another answer of the right one.
        cut: how many bytes of the answer's body are sent before the connection is lost; -1 loses
            the whole answer.
        cut_request: how many bytes of the request's body are read before the connection is lost.
        after: how many matching requests are let pass first.
    """

    on: str
    times: int = 1
    instead: Answer | None = None
    change: Callable[[Answer], Answer] | None = None
    cut: int | None = None
    cut_request: int | None = None
    after: int = 0

    def matches(self, line: str) -> bool:
        if not re.match(self.on, line) or self.times <= 0:
            return False
        if self.after:
            self.after -= 1
            return False
        self.times -= 1
        return True


class Guard(Protocol):
    """Who may do what; see `registry_auth`."""

    def check(self, request: Request, name: str, actions: set[str]) -> Answer | None: ...

    def may(self, request: Request, name: str, actions: set[str]) -> bool: ...

    def token(self, request: Request) -> Answer | None: ...


@define
class Upload:
    name: str
    data: bytearray = field(factory=bytearray)
    state: int = 0


class FakeRegistry:
    """The server; use it as a context manager."""

    def __init__(
        self,
        *,
        guard: Guard | None = None,
        tls: ssl.SSLContext | None = None,
        chunk_minimum: int = 0,
        page: int = 1_000,
    ) -> None:
        self.guard = guard
        self.chunk_minimum = chunk_minimum
        self.page = page
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.blobs: dict[str, dict[str, bytes]] = {}
        self.manifests: dict[str, dict[str, tuple[bytes, str]]] = {}
        self.uploads: dict[str, Upload] = {}
        self.files: dict[str, Answer] = {}
        self.lock = threading.RLock()
        self._ids = itertools.count(1)
        self._connections: set[socket.socket] = set()
        registry = self

        class Handler(_Handler):
            owner = registry

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.owner = self
        if tls is not None:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.scheme = "http" if tls is None else "https"
        self.port: int = self._server.server_address[1]
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"{self.scheme}://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        with self.lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
        self._server.server_close()

    @property
    def lines(self) -> list[str]:
        """`METHOD target` of every request so far."""
        return [request.line for request in self.requests]

    def fault(self, on: str, **what: Any) -> None:
        self.faults.append(Fault(on, **what))

    def add_blob(self, name: str, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs.setdefault(name, {})[digest] = data
        return digest

    def add_manifest(self, name: str, raw: bytes, media_type: str, tag: str = "") -> str:
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        for key in (digest, tag):
            if key:
                self.manifests.setdefault(name, {})[key] = (raw, media_type)
        return digest

    # One request, from its fault to its answer.

    def answer(self, request: Request) -> Answer:
        if self.guard is not None and (token := self.guard.token(request)) is not None:
            return token
        if request.path in self.files:
            return self.files[request.path]
        for pattern, handler in (
            (rf"/v2/{NAME}/manifests/(?P<ref>[^/]+)", self._manifest),
            (rf"/v2/{NAME}/blobs/uploads/(?P<ref>[^/]*)", self._upload),
            (rf"/v2/{NAME}/blobs/(?P<ref>[^/]+)", self._blob),
            (rf"/v2/{NAME}/tags/(?P<ref>list)", self._tags),
        ):
            if (match := re.fullmatch(pattern, request.path)) is not None:
                actions = {"pull"} if request.method in ("GET", "HEAD") else {"pull", "push"}
                if pattern.endswith("uploads/(?P<ref>[^/]*)"):
                    actions = {"pull", "push"}
                name = match["name"]
                refused = self.guard and self.guard.check(request, name, actions)
                return refused or handler(request, name, match["ref"])
        return Answer(404, (("content-type", "text/plain"),), b"404 page not found\n")

    def _manifest(self, request: Request, name: str, ref: str) -> Answer:
        known = self.manifests.setdefault(name, {})
        if request.method == "PUT":
            return self._put_manifest(request, name, ref)
        if request.method not in ("GET", "HEAD"):
            return error(405, "UNSUPPORTED")
        if ref not in known:
            return error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        raw, media_type = known[ref]
        if media_type not in request.headers.get("accept", ""):
            return error(404, "MANIFEST_UNKNOWN", "not in an accepted form")
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        headers = (("content-type", media_type), ("docker-content-digest", digest))
        return Answer(200, headers, raw)

    def _put_manifest(self, request: Request, name: str, ref: str) -> Answer:
        try:
            document = json.loads(request.body)
        except ValueError:
            return error(400, "MANIFEST_INVALID")
        media_type = request.headers.get("content-type", "")
        if document.get("mediaType", media_type) != media_type:
            return error(400, "MANIFEST_INVALID", "Content-Type is not mediaType")
        children = [d["digest"] for d in document.get("manifests", ())]
        blobs = [d["digest"] for d in document.get("layers", ())]
        if "config" in document:
            blobs.append(document["config"]["digest"])
        for digest in blobs:
            if digest not in self.blobs.get(name, {}):
                return error(400, "MANIFEST_BLOB_UNKNOWN", digest)
        for digest in children:
            if digest not in self.manifests.get(name, {}):
                return error(400, "MANIFEST_UNKNOWN", digest)
        digest = f"sha256:{hashlib.sha256(request.body).hexdigest()}"
        if ":" in ref and ref != digest:
            return error(400, "DIGEST_INVALID")
        self.add_manifest(name, request.body, media_type, "" if ":" in ref else ref)
        headers = (
            ("docker-content-digest", digest),
            ("location", f"/v2/{name}/manifests/{digest}"),
        )
        return Answer(201, headers)

    def _blob(self, request: Request, name: str, ref: str) -> Answer:
        data = self.blobs.get(name, {}).get(ref)
        if data is None:
            return error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        headers = (
            ("content-type", "application/octet-stream"),
            ("docker-content-digest", ref),
            ("etag", f'"{ref}"'),
        )
        if "range" not in request.headers:
            return Answer(200, headers, data)
        match = RANGE.fullmatch(request.headers["range"])
        if match is None or int(match[1]) >= len(data):
            return Answer(416, (("content-range", f"bytes */{len(data)}"),))
        start = int(match[1])
        extent = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return Answer(206, (*headers, ("content-range", extent)), data[start:])

    def _tags(self, request: Request, name: str, ref: str) -> Answer:
        del ref
        if name not in self.manifests:
            return error(404, "NAME_UNKNOWN")
        tags = sorted(t for t in self.manifests[name] if ":" not in t)
        last = request.query.get("last", "")
        rest = [t for t in tags if t > last]
        size = min(self.page, int(request.query.get("n", "100000")))
        body = json.dumps({"name": name, "tags": rest[:size]}).encode()
        answer = Answer(200, (("content-type", "application/json"),), body)
        if len(rest) <= size:
            return answer
        link = f'</v2/{name}/tags/list?n={size}&last={rest[size - 1]}>; rel="next"'
        return answer.having(link=link)

    def _upload(self, request: Request, name: str, ref: str) -> Answer:
        if not ref:
            return self._start(request, name) if request.method == "POST" else error(405, "X")
        upload = self.uploads.get(ref)
        if upload is None or upload.name != name:
            return error(404, "BLOB_UPLOAD_UNKNOWN")
        if request.method == "GET":
            return self._status(204, ref)
        if request.method == "DELETE":
            del self.uploads[ref]
            return Answer(204)
        if request.query.get("_state") != f"{upload.state}":
            return error(400, "BLOB_UPLOAD_INVALID", "not the newest Location")
        return self._receive(request, name, ref, upload)

    def _start(self, request: Request, name: str) -> Answer:
        source, digest = request.query.get("from"), request.query.get("mount")
        found = self.blobs.get(source or "", {}).get(digest or "")
        readable = self.guard is None or self.guard.may(request, source or "", {"pull"})
        if found is not None and digest is not None and readable:
            self.blobs.setdefault(name, {})[digest] = found
            return Answer(201, (("location", f"/v2/{name}/blobs/{digest}"),))
        ref = f"u{next(self._ids)}"
        self.uploads[ref] = Upload(name)
        answer = self._status(202, ref)
        if self.chunk_minimum:
            return answer.having(oci_chunk_min_length=str(self.chunk_minimum))
        return answer

    def _status(self, status: int, ref: str) -> Answer:
        upload = self.uploads[ref]
        location = f"/v2/{upload.name}/blobs/uploads/{ref}?_state={upload.state}"
        end = max(0, len(upload.data) - 1)
        return Answer(status, (("location", location), ("range", f"0-{end}")))

    def _receive(self, request: Request, name: str, ref: str, upload: Upload) -> Answer:
        octets = request.headers.get("content-type") == "application/octet-stream"
        if not octets and (request.body or request.method == "PATCH"):
            return error(400, "BLOB_UPLOAD_INVALID", "not octets")
        if request.method == "PATCH":
            return self._patch(request, ref, upload)
        data = bytes(upload.data) + request.body
        digest = request.query.get("digest", "")
        algorithm, _, wanted = digest.partition(":")
        del self.uploads[ref]
        known = algorithm in ("sha256", "sha512")
        if not known or hashlib.new(algorithm, data).hexdigest() != wanted:
            return error(400, "DIGEST_INVALID", "other bytes")
        self.blobs.setdefault(name, {})[digest] = data
        headers = (("location", f"/v2/{name}/blobs/{digest}"), ("docker-content-digest", digest))
        return Answer(201, headers)

    def _patch(self, request: Request, ref: str, upload: Upload) -> Answer:
        extent = CONTENT_RANGE.fullmatch(request.headers.get("content-range", ""))
        if extent is None or int(extent[2]) - int(extent[1]) + 1 != len(request.body):
            return error(400, "BLOB_UPLOAD_INVALID", "bad Content-Range")
        if int(extent[1]) != len(upload.data):
            return self._status(416, ref)
        upload.data += request.body
        upload.state += 1
        return self._status(202, ref)


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    owner: FakeRegistry

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        with self.owner.lock:
            self.owner._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        with self.owner.lock:
            self.owner._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections are broken on purpose, by either side."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    owner: FakeRegistry

    def handle_any(self) -> None:
        headers = {k.lower(): v for k, v in self.headers.items()}
        length = headers.get("content-length")
        line = f"{self.command} {self.path}"
        with self.owner.lock:
            fault = next((f for f in self.owner.faults if f.matches(line)), Fault(""))
        wanted = int(length or 0) if fault.cut_request is None else fault.cut_request
        body = self.rfile.read(wanted)
        request = Request(self.command, self.path, headers, body)
        with self.owner.lock:
            self.owner.requests.append(request)
            if fault.cut_request is not None:
                self.reset()
                return
            answer = self.strict(request, length) or fault.instead or self.owner.answer(request)
        self.send(answer if fault.change is None else fault.change(answer), fault.cut)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

    def strict(self, request: Request, length: str | None) -> Answer | None:
        """What no client may do."""
        if request.headers.get("accept-encoding") != "identity":
            return error(400, "UNSUPPORTED", "Accept-Encoding")
        if "cookie" in request.headers:
            return error(400, "UNSUPPORTED", "a cookie")
        if request.method in ("POST", "PUT", "PATCH") and length is None:
            return error(411, "SIZE_INVALID")
        return None

    def send(self, answer: Answer, cut: int | None) -> None:
        if cut == -1:
            self.reset()
            return
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if answer.status != 204:
            length = len(answer.body) if answer.length is None else answer.length
            self.send_header("content-length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body if cut is None else answer.body[:cut])
        self.wfile.flush()
        if cut is not None:
            self.reset()
        elif answer.length is not None:
            self.close_connection = True

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """The transcript is in `FakeRegistry.requests`."""

"""File-system functions of `imagekit.disk`, run where the ids of the sandbox are.

As root that is this process. In a user namespace it is a second process, started when it is first
needed, which forks for each call: a request is JSON with the caller's fds, and so is the answer.
"""

import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Final

from imagekit import errors
from imagekit.errors import ImagekitError, SandboxError
from imagekit.sandbox import wire
from imagekit.sandbox.base import Json

ALLOWED: Final = "imagekit.disk"


def resolve(target: str) -> Callable[..., Json]:
    """The function that `module:function` names.

    Raises:
        SandboxError: it is not one of `imagekit.disk`.
    """
    module, _, name = target.partition(":")
    inside = module == ALLOWED or module.startswith(f"{ALLOWED}.")
    if not inside or not name.isidentifier() or name.startswith("_"):
        raise SandboxError(f"{target} is not a function that the service may run")
    function = getattr(import_module(module), name, None)
    if not callable(function):
        raise SandboxError(f"{target} does not exist")
    return function  # type: ignore[no-any-return]  # getattr is Any


def invoke(target: str, args: Sequence[Json], fds: Sequence[int]) -> Json:
    """Call `target`; `fds` are given by keyword when there are any."""
    function = resolve(target)
    return function(*args, fds=list(fds)) if fds else function(*args)


class LocalService:
    """Calls in this process."""

    def call(self, target: str, /, *args: Json, fds: Sequence[int] = ()) -> Json:
        """See `Service.call`."""
        return invoke(target, args, fds)


class RemoteService:
    """Calls in a process of the sandbox's user namespace, by packets on `requests`."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._lock = threading.Lock()
        self._greeted = False

    def call(self, target: str, /, *args: Json, fds: Sequence[int] = ()) -> Json:
        """See `Service.call`."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs, self._lock:
                self._greet()
                wire.send_packet(self._requests, b"call", (theirs.fileno(), *fds))
            try:
                wire.send(ours, json.dumps([target, args]))
                answer = json.loads(str(wire.receive(ours)))
            except (EOFError, ConnectionError) as exc:
                raise SandboxError(f"the file-system service ended during {target}") from exc
        if "error" in answer:
            raise rebuild(answer["error"])
        return answer["result"]

    def _greet(self) -> None:
        if not self._greeted:
            wire.send_packet(self._requests, wire.encode([str(path) for path in sys.path]), ())
            self._greeted = True

    def close(self) -> None:
        """End the service; calls that still run end by themselves."""
        self._requests.close()


def describe(exc: Exception) -> Json:
    """An exception as JSON: class, message, and those attributes that are JSON too."""
    if isinstance(exc, OSError):
        name = exc.filename if isinstance(exc.filename, str) else None
        return {"class": "OSError", "errno": exc.errno, "text": exc.strerror, "file": name}
    fields = {key: value for key, value in vars(exc).items() if _is_json(value)}
    known = isinstance(exc, ImagekitError)
    return {
        "class": type(exc).__name__ if known else "",
        "message": str(exc) if known else repr(exc),
        "fields": fields if known else {},
    }


def _is_json(value: object) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def rebuild(error: dict[str, Any]) -> Exception:
    """The exception that `describe` described; an unknown class becomes a `SandboxError`."""
    if error["class"] == "OSError":
        number = error["errno"] or 0
        return OSError(number, error["text"] or os.strerror(number), error["file"])
    kind = getattr(errors, error["class"] or "SandboxError", SandboxError)
    if not (isinstance(kind, type) and issubclass(kind, ImagekitError)):
        kind = SandboxError
    exc: ImagekitError = kind.__new__(kind)
    Exception.__init__(exc, error["message"])
    exc.__dict__.update({"message": error["message"], "hint": "", "code": kind.default_code})
    exc.__dict__.update(error["fields"])
    return exc


def serve(requests: socket.socket) -> None:
    """Answer calls until the socket ends, each in a forked child; this process has no threads."""
    while True:
        data, fds = wire.receive_packet(requests)
        if not data:
            return
        if os.fork() == 0:
            code = 1
            try:
                requests.close()
                _answer(socket.socket(fileno=fds[0]), fds[1:])
                code = 0
            finally:
                os._exit(code)
        for fd in fds:
            os.close(fd)


def _answer(stream: socket.socket, fds: Sequence[int]) -> None:
    target, args = json.loads(str(wire.receive(stream)))
    try:
        answer = {"result": invoke(target, args, fds)}
        text = json.dumps(answer)
    except Exception as exc:  # noqa: BLE001 - crosses to the caller as what it is
        text = json.dumps({"error": describe(exc)})
    wire.send(stream, text)

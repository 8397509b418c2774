"""The embedded sandbox, the engine's side: one helper for a build, one stream for each step.

`NamespaceSandbox` starts its helper when it is made and waits for it when it is first used. A
step is a packet with the ends of its pipes; what is said about it goes over a stream of its own,
so any number of threads may run steps at once, and the death of this process ends them all.
"""

import os
import select
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from imagekit.errors import CancelledError, SandboxError
from imagekit.events import StreamName
from imagekit.sandbox import etcfiles, wire
from imagekit.sandbox.base import (
    BindMount,
    Cancellation,
    ExitStatus,
    FileMount,
    Mount,
    Output,
    Overlay,
    ProcessSpec,
    Service,
    TmpfsMount,
)
from imagekit.sandbox.launch import Helper
from imagekit.sandbox.request import AnyMount, Bind, File, RootFolders, Step, Tmpfs, pack
from imagekit.sandbox.service import LocalService, RemoteService

REASONS: Final = {
    "root": "running as root: namespaces without a user namespace",
    "rootless": "user namespace with the subordinate ids of this user",
    "single-uid": "user namespace with one id; owners other than root cannot exist in it",
}
_NETWORK: Final = "the default network is the host's"
_CHUNK: Final = 1 << 16


class NamespaceSandbox:
    """Isolates with namespaces, capabilities and seccomp; see the package for the three kinds.

    Args:
        rungs: which kinds to try, in order: of `root`, `rootless`, `single-uid`.
    """

    def __init__(self, rungs: Sequence[str]) -> None:
        self._rungs = tuple(rungs)
        self._lock = threading.Lock()
        self._ready = False
        self._failures: list[str] = []
        self._failed: SandboxError | None = None
        self._closed = False
        self._helper = Helper(self._rungs[0])
        self._streams: set[socket.socket] = set()
        self._overlay: dict[int, bool] = {}
        self._remote: RemoteService | None = None

    @property
    def name(self) -> str:
        """The rung that works, known when it is ready."""
        self.ready()
        return self._helper.rung

    @property
    def reason(self) -> str:
        """Why this rung, and what was wrong with better ones."""
        why = REASONS[self.name]
        return "; ".join((why, _NETWORK, *self._failures))

    @property
    def in_process(self) -> bool:
        """True as root: the sandbox has no more rights than this process."""
        return self._rungs[0] == "root"

    @property
    def service(self) -> Service:
        """File-system work with the ids of the sandbox."""
        if self.in_process:
            return LocalService()
        self.ready()
        with self._lock:
            if self._remote is None:
                self._remote = RemoteService(self._request_service())
            return self._remote

    def ready(self) -> None:
        """Wait for the helper's self-test; try the next rung if it fails."""
        with self._lock:
            self._check_open()
            if self._failed is not None:
                raise self._failed
            remaining = list(self._rungs[len(self._failures) + 1 :])
            while not self._ready:
                problem, hint = self._greeting()
                if not problem:
                    self._ready = True
                    return
                if not remaining:
                    self._failed = SandboxError(
                        "; ".join((f"sandbox {self._helper.rung}: {problem}", *self._failures)),
                        backend=self._helper.rung,
                        hint=hint,
                    )
                    raise self._failed
                self._failures.append(f"not {self._helper.rung}: {problem}")
                self._helper.close()
                self._helper = Helper(remaining.pop(0))

    def _greeting(self) -> tuple[str, str]:
        """What keeps the helper from working and what would help; empty if nothing does."""
        data = self._helper.control.recv(_CHUNK)
        match wire.decode(data) if data else None:
            case ["ready"]:
                return "", ""
            case ["error", str(problem), str(hint)]:
                return problem, hint
            case _:
                return f"the helper ended at once: {self._helper.complaints()[-400:]}", ""

    def _check_open(self) -> None:
        if self._closed:
            raise SandboxError("the sandbox is closed")

    def _send(self, word: bytes, fds: Sequence[int]) -> None:
        self.ready()
        try:
            with self._lock:
                self._check_open()
                wire.send_packet(self._helper.control, word, fds)
        except OSError as exc:
            raise self._broken() from exc

    def _broken(self) -> SandboxError:
        details = self._helper.complaints()
        return SandboxError(
            f"the sandbox helper ended{': ' + details[-400:] if details else ''}",
            backend=self._helper.rung,
        )

    def _request_service(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            wire.send_packet(self._helper.control, b"service", (theirs.fileno(),))
        return ours

    def supports_overlay(self, folder: str) -> bool:
        """Whether an overlay with its upper folder below `folder` works; asked once a device."""
        device = Path(folder).stat().st_dev
        if device not in self._overlay:
            self._overlay[device] = self._probe_overlay(folder)
        return self._overlay[device]

    def _probe_overlay(self, folder: str) -> bool:
        base = f"{folder}/.overlay-probe-{os.urandom(8).hex()}"
        Path(base).mkdir(mode=0o700)
        ours, theirs = socket.socketpair()
        try:
            with ours:
                with theirs:
                    self._send(b"overlay", (theirs.fileno(),))
                wire.send(ours, base)
                answer = wire.receive(ours)
        except (EOFError, ConnectionError) as exc:
            raise self._broken() from exc
        finally:
            Path(base).rmdir()
        return answer == ["yes"]

    def run(
        self, spec: ProcessSpec, *, output: Output, cancelled: Cancellation | None = None
    ) -> ExitStatus:
        """See `Sandbox.run`."""
        cancellation = cancelled or Cancellation()
        ours, theirs = socket.socketpair()
        pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(2)]
        readers = {reader: name for (reader, _), name in zip(pipes, _STREAMS, strict=True)}
        try:
            try:
                with theirs:
                    self._send(b"step", (theirs.fileno(), *(writer for _, writer in pipes)))
            finally:
                for _, writer in pipes:
                    os.close(writer)
            return self._converse(ours, spec, _Pump(readers, output), cancellation)
        finally:
            ours.close()
            for reader in readers:
                os.close(reader)

    def _converse(
        self,
        stream: socket.socket,
        spec: ProcessSpec,
        pump: "_Pump",
        cancellation: Cancellation,
    ) -> ExitStatus:
        with self._lock:
            self._check_open()
            self._streams.add(stream)
        unsubscribe = cancellation.subscribe(lambda: _hang_up(stream))
        try:
            wire.send(stream, pack(to_step(spec)))
            pump.until(stream)
            report = wire.receive(stream)
        except (EOFError, ConnectionError, wire.WireError) as exc:
            if cancellation.is_set() or self._closed:
                raise CancelledError("the step was cancelled") from exc
            raise self._broken() from exc
        except BaseException:
            _hang_up(stream)
            _await_end(stream)
            raise
        finally:
            unsubscribe()
            with self._lock:
                self._streams.discard(stream)
        if cancellation.is_set() or self._closed:
            raise CancelledError("the step was cancelled")
        return self._status(report)

    def _status(self, report: Any) -> ExitStatus:  # noqa: ANN401 - from the wire
        match report:
            case ["exit", int(code)]:
                return ExitStatus(code=code)
            case ["signal", int(number)]:
                return ExitStatus(signal=number)
            case ["error", str(code), str(message), str(hint)]:
                raise SandboxError(message, backend=self._helper.rung, hint=hint, code=code)
            case _:
                raise SandboxError(f"no answer of a helper: {report!r}", backend=self.name)

    def close(self) -> None:
        """Kill what still runs, and end the helpers."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for stream in self._streams:
                _hang_up(stream)
            if self._remote is not None:
                self._remote.close()
            self._helper.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


_STREAMS: Final[tuple[StreamName, StreamName]] = ("stdout", "stderr")


class _Pump:
    """Hands bytes from the pipes of a step to its observer while it runs."""

    def __init__(self, readers: dict[int, StreamName], output: Output) -> None:
        self.readers = readers
        self.output = output
        for reader in readers:
            os.set_blocking(reader, False)

    def until(self, stream: socket.socket) -> None:
        """Return when `stream` has an answer, after the last byte was handed on.

        The answer comes after every process of the step is gone, so what the pipes hold then is
        all; their end is not waited for, since a writer may have been sent elsewhere.
        """
        poller = select.poll()
        for fd in (stream.fileno(), *self.readers):
            poller.register(fd, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poller.poll()]
            for fd in ready:
                if fd in self.readers and not self._read(fd):
                    poller.unregister(fd)
            if stream.fileno() in ready:
                break
        for fd in self.readers:
            while self._read(fd):
                pass

    def _read(self, fd: int) -> bool:
        """Hand on one chunk; False at the end, or when there is nothing now."""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        if data:
            self.output(self.readers[fd], data)
        return bool(data)


def _hang_up(stream: socket.socket) -> None:
    """Tell the supervisor to kill the step; its answer still comes."""
    with suppress(OSError):  # it has ended by itself, and its stream with it
        stream.shutdown(socket.SHUT_WR)


def _await_end(stream: socket.socket) -> None:
    with suppress(EOFError, OSError, wire.WireError):  # another error is on its way
        wire.receive(stream)


def to_step(spec: ProcessSpec) -> Step:
    """The request for `spec`, with the generated files of /etc before its own mounts."""
    if isinstance(spec.root, Overlay):
        root = RootFolders(spec.root.lowers, spec.root.upper, spec.root.work)
    else:
        root = RootFolders((), spec.root.path, "")
    return Step(
        argv=spec.argv,
        env=spec.env,
        cwd=spec.cwd,
        user=spec.user,
        root=root,
        mounts=(*_etc(spec), *map(_mount, spec.mounts)),
        network=spec.network,
        hostname=spec.hostname,
        security=spec.security,
        ulimits=tuple((limit.name, limit.soft, limit.hard) for limit in spec.ulimits),
    )


def _mount(mount: Mount) -> AnyMount:
    match mount:
        case TmpfsMount():
            return Tmpfs(mount.target, mount.size or 0, mount.mode)
        case FileMount():
            return _file(mount.target, mount.content, mount)
        case BindMount():
            return Bind(
                target=mount.target,
                sources=(mount.source,) if isinstance(mount.source, str) else mount.source,
                merged=not isinstance(mount.source, str),
                subpath=mount.subpath,
                read_only=mount.read_only,
                writable_copy=mount.writable_copy,
            )


def _file(target: str, content: bytes, mount: FileMount) -> File:
    return File(
        target=target,
        content=content,
        mode=mount.mode,
        uid=mount.uid,
        gid=mount.gid,
        replace=False,
    )


def _etc(spec: ProcessSpec) -> tuple[File, ...]:
    try:
        host = Path("/etc/resolv.conf").read_text(encoding="utf-8", errors="replace")
    except OSError:
        host = ""  # a machine without resolvers
    texts = {
        "/etc/hosts": etcfiles.hosts(spec.hostname, spec.extra_hosts),
        "/etc/resolv.conf": etcfiles.resolv_conf(host, keep_loopback=spec.network != "none"),
        "/etc/hostname": f"{spec.hostname}\n",
    }
    return tuple(
        File(
            target=target,
            content=text.encode(),
            mode=0o644,
            uid=0,
            gid=0,
            replace=target == "/etc/hostname",  # Docker's builder has none where the root has none
        )
        for target, text in texts.items()
    )

"""The helper: a small process without threads that forks one supervisor for each step.

A program of its own that imports only the standard library: a threaded interpreter cannot be
forked safely, and starting one for every step costs too much. It first enters the user namespace
of its rung, then answers one-word packets on its control socket:

    step      fds: stream, stdout, stderr. The supervisor reads the step from the stream.
    overlay   fds: stream. Whether overlayfs takes the folder that the stream names.
    service   fds: socket. Become the file-system service of this user namespace.

Each answers on its own stream. The end of a stream is the wish to stop: whoever held the other end
is gone or has cancelled. The end of the control socket ends the helper.
"""

import _socket
import os
import select
import signal
import sys
from collections.abc import Callable
from typing import Final

from imagekit.sandbox import caps, idmap, process, rootfs, stubs, syscalls, wire
from imagekit.sandbox.failure import SetupError
from imagekit.sandbox.inroot import open_beneath
from imagekit.sandbox.request import unpack
from imagekit.sandbox.seccomp import program

_RUNGS: Final[dict[str, Callable[[], None]]] = {
    "root": lambda: None,
    "rootless": idmap.enter_with_ranges,
    "single-uid": idmap.enter_with_one,
}


def main(control_fd: int, rung: str, package_folder: str) -> None:
    """Run the helper until its control socket ends."""
    control = _socket.socket(fileno=control_fd)
    try:
        _RUNGS[rung]()
        around = _look_around(rung)
        _self_test()
    except (SetupError, OSError) as exc:
        hint = exc.hint if isinstance(exc, SetupError) else ""
        wire.send_packet(control, wire.encode(["error", str(exc), hint]), ())
        return
    wire.send_packet(control, wire.encode(["ready"]), ())
    filters = (program(syscalls.MACHINE), program(syscalls.MACHINE, restricted=True))
    around = around._replace(filters=filters)
    _reset_signals()
    _serve(control, around, package_folder)


def _reset_signals() -> None:
    """Forget what our caller ignores; supervisors are nobody's to wait for."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE}:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def _look_around(rung: str) -> process.Surroundings:
    if syscalls.MACHINE not in ("x86_64", "aarch64"):
        raise SetupError(f"no system call filter for {syscalls.MACHINE}")
    return process.Surroundings(
        user_namespace=rung != "root",
        single_id=rung == "single-uid",
        uid_map=idmap.read_text("/proc/self/uid_map"),
        gid_map=idmap.read_text("/proc/self/gid_map"),
        last_capability=caps.last_known(),
        filters=(b"", b""),
    )


def _self_test() -> None:
    """Make the namespaces and the mounts that every step needs, in a child.

    Raises:
        SetupError: one of them cannot be made.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        problem = ""
        try:
            _try_namespaces()
        except OSError as exc:
            problem = str(exc.strerror)
        os.write(writer, problem.encode())
        os._exit(0)
    os.close(writer)
    problem = os.read(reader, 4096).decode()
    os.close(reader)
    os.waitpid(child, 0)
    if problem:
        raise SetupError(
            problem,
            hint="in a container, allow it with `--privileged`, or with "
            "`--security-opt seccomp=unconfined --security-opt systempaths=unconfined`",
        )


def _try_namespaces() -> None:
    wanted = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
    syscalls.unshare(wanted | syscalls.CLONE_NEWPID)
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    tree = syscalls.new_mount("tmpfs", syscalls.MOUNT_ATTR_NODEV, {"mode": "0700"})
    syscalls.set_mount_attributes(tree, syscalls.MOUNT_ATTR_RDONLY, recursive=True)


def _serve(control: _socket.socket, around: process.Surroundings, package_folder: str) -> None:
    while True:
        data, fds = wire.receive_packet(control)
        if not data:
            return
        if os.fork() == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _dispatch(data, fds, around, package_folder)
        for fd in fds:
            os.close(fd)


def _dispatch(
    data: bytes, fds: list[int], around: process.Surroundings, package_folder: str
) -> None:
    code = 1
    try:
        match data:
            case b"step":
                supervise(_socket.socket(fileno=fds[0]), (fds[1], fds[2]), around)
            case b"overlay":
                _probe_overlay(_socket.socket(fileno=fds[0]), around)
            case b"service":
                _become_service(fds[0], package_folder)
            case _:
                raise SetupError(f"no such request: {data!r}")
        code = 0
    finally:
        os._exit(code)


def supervise(
    stream: _socket.socket, outputs: tuple[int, int], around: process.Surroundings
) -> None:
    """Run one step to its end, clean up after it, and report how it went on `stream`."""
    step = unpack(wire.receive(stream))
    try:
        upper = rootfs.open_host(step.root.upper, directory=True)
        work = os.open(step.root.work, os.O_RDONLY | os.O_DIRECTORY) if step.root.work else None
        syscalls.unshare(syscalls.CLONE_NEWPID)
    except (SetupError, OSError) as exc:
        code = exc.code if isinstance(exc, SetupError) else "sandbox"
        wire.send(stream, ["error", code, str(exc), ""])
        return
    ours, theirs = _socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        stream.close()
        process.run(step, around, theirs, outputs)
    theirs.close()
    for fd in outputs:
        os.close(fd)
    outcome = _Watch(child, stream, ours).wait()
    stubs.clean_up(upper, outcome.made)
    if work is not None:
        stubs.empty_folder(work)
    wire.send(stream, outcome.report)


class _Watch:
    """Waits for the end of pid 1, which the end of `stream` hastens."""

    def __init__(self, child: int, stream: _socket.socket, channel: _socket.socket) -> None:
        self.child = child
        self.stream = stream
        self.channel = channel
        self.made = stubs.Record((), ())
        self.report: wire.Value = None

    def wait(self) -> "_Watch":
        pidfd = os.pidfd_open(self.child)
        poller = select.poll()
        for fd in (pidfd, self.stream.fileno(), self.channel.fileno()):
            poller.register(fd, select.POLLIN)
        ended = False
        while not ended:
            ready = {fd for fd, _ in poller.poll()}
            if self.channel.fileno() in ready and not self._hear():
                poller.unregister(self.channel.fileno())
            if self.stream.fileno() in ready:
                poller.unregister(self.stream.fileno())
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            ended = pidfd in ready
        while self._hear():
            pass
        _, status = os.waitpid(self.child, 0)
        if self.report is None:
            code = os.waitstatus_to_exitcode(status)
            self.report = ["exit", code] if code >= 0 else ["signal", -code]
        return self

    def _hear(self) -> bool:
        """Take one message of pid 1; False at their end, which a successful exec brings."""
        try:
            message = wire.receive(self.channel)
        except (EOFError, ConnectionError):
            return False
        match message:
            case ["made", record]:
                self.made = stubs.unpack(record)
            case ["error", *_]:
                self.report = message
            case _:
                raise wire.WireError(f"no message of pid 1: {message!r}")
        return True


def _probe_overlay(stream: _socket.socket, around: process.Surroundings) -> None:
    """Answer whether a small overlay in a new, empty folder behaves; the folder is empty again."""
    base = os.open(str(wire.receive(stream)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _try_overlay(base, around)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    stubs.empty_folder(base)
    wire.send(stream, ["yes" if status == 0 else "no"])


def _try_overlay(base: int, around: process.Surroundings) -> None:
    """Mount one, remove a file of its lower folder, write a new one.

    Raises:
        OSError: one of these does not work.
    """
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    path = os.readlink(f"/proc/self/fd/{base}")  # noqa: PTH115 - pathlib costs 5 ms
    folders = []
    for name in ("lower", "upper", "work"):
        os.mkdir(name, 0o755, dir_fd=base)
        folders.append(rootfs.open_host(f"{path}/{name}", directory=True))
    os.close(os.open("lower/gone", os.O_CREAT | os.O_EXCL, dir_fd=base))
    staging = rootfs.Staging(path, user_namespace=around.user_namespace, devices=False)
    root = staging.overlay(folders[:1], folders[1], folders[2])
    os.unlink("gone", dir_fd=root)
    os.close(os.open("new", os.O_CREAT | os.O_EXCL, dir_fd=root))
    os.close(open_beneath(folders[1], "new"))


def _become_service(fd: int, package_folder: str) -> None:
    os.set_inheritable(fd, True)  # noqa: FBT003 - its only argument
    program_file = f"{os.path.dirname(__file__)}/service_main.py"  # noqa: PTH120 - pathlib costs 5 ms
    os.execve(  # noqa: S606 - our own program, by an absolute path
        sys.executable, [sys.executable, "-I", program_file, str(fd), package_folder], {}
    )

"""The sandbox protocol: what one command needs, and what comes back.

Decides the words in which an executor asks for a process; how it is isolated is up to the
back ends (`imagekit.sandbox.namespaces`). Paths on the host are absolute strings, so are those in
the root; both are decoded with 'surrogateescape', since names are bytes.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from attrs import field, frozen

from imagekit.events import StreamName

Network = Literal["default", "none", "host"]
Security = Literal["sandbox", "insecure", "restricted"]
Output = Callable[[StreamName, bytes], None]
Json = Any  # what `json` reads and writes; functions behind `Service.call` narrow it


@frozen(kw_only=True)
class Overlay:
    """A root made of layer folders; what the step changes is in `upper` afterwards.

    Attributes:
        lowers: host folders, topmost first; with none, `upper` itself is the root.
        upper: host folder that receives the changes, in overlayfs form (whiteouts are character
            devices 0:0; xattrs are `user.overlay.*` where the sandbox has a user namespace). They
            are not synced to the disk, and after a step that was cancelled or never started they
            are to be thrown away.
        work: empty host folder on the file system of `upper`; empty again afterwards.
    """

    lowers: tuple[str, ...]
    upper: str
    work: str


@frozen
class Folder:
    """A root that is a plain host folder; the step writes into it."""

    path: str


Root = Overlay | Folder


@frozen(kw_only=True)
class BindMount:
    """Files of the host, or of a stack of layer folders, seen at `target`.

    Attributes:
        source: a host path, or layer folders (topmost first) that are merged.
        target: absolute path in the root; made for the time of the step if it is missing.
        subpath: below `source`, resolved inside it when the step starts (never followed out).
        read_only: writes fail with EROFS. False and not `writable_copy`: writes reach the source
            (cache mounts).
        writable_copy: writes succeed and are gone with the step; `read_only` is not looked at.
    """

    source: str | tuple[str, ...]
    target: str
    subpath: str = ""
    read_only: bool = True
    writable_copy: bool = False


@frozen(kw_only=True)
class TmpfsMount:
    """An empty file system in memory; `size` in bytes, None for the default of the kernel."""

    target: str
    size: int | None = None
    mode: int = 0o1777


@frozen(kw_only=True)
class FileMount:
    """A read-only file that only the step sees; its bytes are never written to the host's disk."""

    target: str
    content: bytes = field(repr=False)
    mode: int = 0o400
    uid: int = 0
    gid: int = 0


Mount = BindMount | TmpfsMount | FileMount


@frozen(kw_only=True)
class Ulimit:
    """A resource limit by the kernel's name in lower case, such as `nofile`; -1 is unlimited."""

    name: str
    soft: int
    hard: int


@frozen(kw_only=True)
class ProcessSpec:
    """One command in one root.

    Attributes:
        argv: the command; a first word without `/` is looked for in PATH of `env`, in the root.
        env: pairs, exactly what the command sees; HOME (of the user) and HOSTNAME are added when
            they are not among them.
        cwd: absolute; made in the root (root-owned, 0755) if it is missing.
        user: as USER has it: "", "app", "1000", "app:staff", "1000:1000".
        mounts: in the order in which they are made.
        network: `default` is the host's network for now; `none` has a loopback that is up.
        extra_hosts: (name, address) pairs for /etc/hosts.
        security: `insecure` has all capabilities, no filter and no masks; `restricted` adds
            no_new_privs and denies the 32-bit socketcall. Whether `insecure` is allowed is for
            the executor to check.
        ulimits: beyond `core` 0 and `nofile` 1,048,576, which are always set.
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = "/"
    user: str = ""
    root: Root
    mounts: tuple[Mount, ...] = ()
    network: Network = "default"
    hostname: str = "imagekit"
    extra_hosts: tuple[tuple[str, str], ...] = ()
    security: Security = "sandbox"
    ulimits: tuple[Ulimit, ...] = ()


@frozen(kw_only=True)
class ExitStatus:
    """How the command ended: by itself with `code`, or by `signal`."""

    code: int | None = None
    signal: int | None = None

    @property
    def exit_code(self) -> int:
        """The code as a shell shows it: 128 + n for a process that signal n ended."""
        if self.signal is not None:
            return 128 + self.signal
        return 0 if self.code is None else self.code


class Cancellation:
    """A wish to stop, made once from any thread and heard at once by all who asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._event = threading.Event()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._next = 0

    def cancel(self) -> None:
        """Set it and call every callback in this thread; a second call does nothing."""
        with self._lock:
            if self._event.is_set():
                return
            self._event.set()
            callbacks = tuple(self._callbacks.values())
            self._callbacks.clear()
        for callback in callbacks:
            callback()

    def is_set(self) -> bool:
        """Whether `cancel` was called."""
        return self._event.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until `cancel` is called, at most `timeout` seconds; whether it was."""
        return self._event.wait(timeout)

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called on `cancel`, at once if that was before; returns an undo.

        The callback must be short and must not raise: it runs in the cancelling thread.
        """
        with self._lock:
            if not self._event.is_set():
                key = self._next
                self._next += 1
                self._callbacks[key] = callback
                return lambda: self._unsubscribe(key)
        callback()
        return lambda: None

    def _unsubscribe(self, key: int) -> None:
        with self._lock:
            self._callbacks.pop(key, None)


class Service(Protocol):
    """Functions of `imagekit.disk` run with the rights of a sandbox: its uids are theirs."""

    def call(self, target: str, /, *args: Json, fds: Sequence[int] = ()) -> Json:
        """The JSON result of `module:function` called with `args`.

        Args:
            target: such as `imagekit.disk.snapshot:extract`; only `imagekit.disk` is allowed.
            args: JSON values.
            fds: open files, duplicated for the call; given as keyword `fds` (a list of numbers)
                when there are any. They stay the caller's to close.

        Raises:
            ImagekitError: what the function raised, with class, message and data.
            OSError: what the function raised, with errno and file name.
            SandboxError: `target` is not allowed, or the service ended.
        """


class Sandbox(Protocol):
    """A way to isolate commands. Methods may be called from several threads at once."""

    @property
    def name(self) -> str:
        """`root`, `rootless` or `single-uid`; waits until the sandbox is ready."""

    @property
    def reason(self) -> str:
        """Why this one, for people; waits until the sandbox is ready."""

    @property
    def service(self) -> Service:
        """File-system work with the rights of the sandbox; in this process if these are ours."""

    @property
    def in_process(self) -> bool:
        """Whether `service` runs in this process, so that functions may be called directly."""

    def ready(self) -> None:
        """Wait until the self-test has passed.

        Raises:
            SandboxError: it has not; the hint names what would help.
        """

    def supports_overlay(self, folder: str) -> bool:
        """Whether `Overlay` roots work with `upper` and `work` below this host folder."""

    def run(
        self, spec: ProcessSpec, *, output: Output, cancelled: Cancellation | None = None
    ) -> ExitStatus:
        """Run one command to its end; every process it left is gone when this returns.

        Args:
            spec: what to run.
            output: called in this thread with bytes as they come; if it raises, the command is
                killed and the exception goes on.
            cancelled: kills the command when it is set.

        Returns:
            How the command ended; 127 when it was not found, 126 when it cannot be executed.

        Raises:
            CancelledError: `cancelled` was set before the command ended.
            SandboxError: the command was never started; codes `user-unknown`, `id-out-of-range`,
                `id-unmapped`, `bad-root`, `bad-mount`, `bad-cwd`, else `sandbox`.

        Spec: security.md, X-1 to X-17.
        """

    def close(self) -> None:
        """Kill what still runs and end the helpers; a second call does nothing."""

"""The life of a step's first process, from the fork to the command: mounts, identity, exec.

It is pid 1 of its pid namespace, so when it ends the kernel kills all that it left behind.
Nothing else runs in the namespace before the exec, and the helper's own program is a sealed copy
in memory, so there is nothing of the host to reach through /proc/1 or /proc/self/exe.

Spec: security.md X-1 to X-5, X-12 to X-14.
"""

import _socket
import errno
import fcntl
import os
import resource
import signal
import stat
from collections.abc import Sequence
from typing import Final, NamedTuple, NoReturn

from imagekit.sandbox import caps, idmap, kernelfs, rootfs, stubs, syscalls, users, wire
from imagekit.sandbox.failure import SetupError
from imagekit.sandbox.inroot import ensure
from imagekit.sandbox.request import Bind, Step

CANNOT_EXECUTE: Final = 126
NOT_FOUND: Final = 127
DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OPEN_FILES: Final = 1 << 20

_CHANNEL: Final = 3
_TTY_GROUP: Final = 5
_UMASK: Final = 0o022
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1
_LANDLOCK_MISSING: Final = (errno.ENOSYS, errno.EOPNOTSUPP, errno.E2BIG, errno.EINVAL)


class Surroundings(NamedTuple):
    """What the helper found out once, for all its steps.

    Attributes:
        user_namespace: the helper is in one.
        single_id: it has no id but root.
        uid_map: text of /proc/self/uid_map; `gid_map` likewise.
        last_capability: of the running kernel.
        filters: seccomp programs, without and with `restricted`.
    """

    user_namespace: bool
    single_id: bool
    uid_map: str
    gid_map: str
    last_capability: int
    filters: tuple[bytes, bytes]


def run(
    step: Step, around: Surroundings, channel: _socket.socket, streams: tuple[int, int]
) -> NoReturn:
    """Become the command; in a fresh pid namespace, in a process forked for it.

    What keeps it from being started is sent through `channel`, and so is the record of mount
    points.
    """
    code = CANNOT_EXECUTE
    for number, fd in zip((1, 2), streams, strict=True):
        os.dup2(fd, number)
    channel = _socket.socket(fileno=os.dup2(channel.detach(), _CHANNEL, inheritable=False))
    try:
        code = _start(step, around, channel)
    except SetupError as exc:
        wire.send(channel, ["error", exc.code, exc.message, exc.hint])
    except OSError as exc:
        wire.send(channel, ["error", "sandbox", f"setting up the step: {exc.strerror}", ""])
    except Exception as exc:  # noqa: BLE001 - the last place that can tell of it
        wire.send(channel, ["error", "sandbox", f"setting up the step: {exc!r}", ""])
    finally:
        os._exit(code)


def _start(step: Step, around: Surroundings, channel: _socket.socket) -> int:
    os.setsid()
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    os.umask(0)
    _enter_namespaces(step)
    account, made = _build_root(step, around)
    wire.send(channel, ["made", stubs.pack(made)])
    _own_streams(account)
    syscalls.close_range(_CHANNEL + 1)
    os.umask(_UMASK)
    try:
        _enter_folder(step.cwd)
        _set_limits(step)
        _reset_signals()
        _drop_privileges(step, account, around)
    except OSError as exc:
        raise SetupError(f"privileges of the step: {exc}") from exc
    return _execute(step, account)


def _enter_namespaces(step: Step) -> None:
    flags = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
    if step.network == "none":
        flags |= syscalls.CLONE_NEWNET
    syscalls.unshare(flags)
    try:
        syscalls.unshare(syscalls.CLONE_NEWCGROUP)
    except OSError as exc:
        if exc.errno != errno.EINVAL:  # a kernel without them
            raise
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    _socket.sethostname(step.hostname)
    if step.network == "none":
        _raise_loopback()


def _raise_loopback() -> None:
    with _Closing(_socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)) as sock:
        request = b"lo".ljust(16, b"\0") + bytes(24)
        flags = fcntl.ioctl(sock.fileno(), _SIOCGIFFLAGS, request)[16:18]
        up = int.from_bytes(flags, "little") | _IFF_UP
        request = b"lo".ljust(16, b"\0") + up.to_bytes(2, "little") + bytes(22)
        fcntl.ioctl(sock.fileno(), _SIOCSIFFLAGS, request)


class _Closing:
    """`with` for the bare sockets, which do not have it."""

    def __init__(self, sock: _socket.socket) -> None:
        self.sock = sock

    def __enter__(self) -> _socket.socket:
        return self.sock

    def __exit__(self, *exc: object) -> None:
        self.sock.close()


def _build_root(step: Step, around: Surroundings) -> tuple[users.Account, stubs.Record]:
    """Lay out the root and enter it; the account, and what was made for mounts."""
    opened = rootfs.OpenRoot(step.root)
    sources = [_open_sources(m) if isinstance(m, Bind) else () for m in step.mounts]
    devices = kernelfs.open_host_devices()
    host_sys = rootfs.open_host("/sys", directory=True)
    insecure = step.security == "insecure"
    staging = rootfs.Staging(
        step.root.upper, user_namespace=around.user_namespace, devices=insecure
    )
    root = opened.mount(staging)
    for name in ("proc", "sys", "dev"):
        os.close(rootfs.special_folder(root, name))
    proc = kernelfs.mount_proc(root)
    sys = kernelfs.mount_sys(root, host_sys)
    kernelfs.mount_dev(root, devices, tty_group=idmap.is_mapped(_TTY_GROUP, around.gid_map))
    if not insecure:
        kernelfs.mask(proc, sys, devices["null"], staging)
    mounter = rootfs.Mounter(root, opened.upper, staging)
    for mount, folders in zip(step.mounts, sources, strict=True):
        mounter.mount(mount, folders)
    account = _account(root, step.user, around)
    made = stubs.record(opened.upper, mounter.made)
    rootfs.enter(root)
    return account, made


def _open_sources(mount: Bind) -> Sequence[int]:
    return [rootfs.open_host(path, directory=mount.merged) for path in mount.sources]


def _account(root: int, user: str, around: Surroundings) -> users.Account:
    account = users.look_up(root, user)
    if not idmap.is_mapped(account.uid, around.uid_map):
        missing = f"user id {account.uid}"
    elif unmapped := [g for g in account.groups if not idmap.is_mapped(g, around.gid_map)]:
        missing = f"group id {unmapped[0]}"
    else:
        return account
    raise SetupError(
        f"{missing} does not exist in the user namespace of this sandbox",
        code="id-unmapped",
        hint="give the caller more ids in /etc/subuid and /etc/subgid, or run as root",
    )


def _own_streams(account: users.Account) -> None:
    """Stdin is the null device; the pipes become the command's, so that it may open them."""
    os.dup2(kernelfs.open_null(), 0)
    for number in (1, 2):
        if stat.S_ISFIFO(os.fstat(number).st_mode):
            os.fchown(number, account.uid, account.gid)


def _enter_folder(path: str) -> None:
    """Change to the working folder, made if missing, never outside (CVE-2024-21626)."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd, _ = ensure(root, path, "directory")
    except SetupError as exc:
        raise SetupError(exc.message, code="bad-cwd") from exc
    except OSError as exc:
        raise SetupError(f"working folder {path}: {exc.strerror}", code="bad-cwd") from exc
    finally:
        os.close(root)
    os.fchdir(fd)
    os.close(fd)
    if not os.getcwd().startswith("/"):  # noqa: PTH109 - "(unreachable)" is no path
        raise SetupError(f"working folder {path} is outside of the root", code="bad-cwd")


def _set_limits(step: Step) -> None:
    _limit("core", 0, 0)
    names = {name for name, _, _ in step.ulimits}
    if "nofile" not in names:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            _limit("nofile", OPEN_FILES, OPEN_FILES)
        except (OSError, ValueError):  # raising the hard limit needs a capability
            _limit("nofile", min(OPEN_FILES, hard), min(OPEN_FILES, hard))
    for name, soft, hard in step.ulimits:
        _limit(name, soft, hard)


def _limit(name: str, soft: int, hard: int) -> None:
    number = getattr(resource, f"RLIMIT_{name.upper()}", None)
    if not isinstance(number, int):
        raise SetupError(f"no such limit: {name}")
    resource.setrlimit(number, (soft, hard))


def _reset_signals() -> None:
    """Undo what a Python process ignores, and what is blocked."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _drop_privileges(step: Step, account: users.Account, around: Surroundings) -> None:
    insecure = step.security == "insecure"
    _leave_keyring()
    if step.network == "default" and not insecure:
        _scope_abstract_sockets()
    if not insecure:
        caps.drop_bounding_set(around.last_capability)
    if around.single_id or step.security == "restricted":
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    if not insecure:
        syscalls.set_seccomp_filter(around.filters[step.security == "restricted"])
    if not around.single_id:
        os.setgroups(account.groups)
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)
    if not insecure:
        caps.drop_rest(root=account.uid == 0)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)


def _leave_keyring() -> None:
    try:
        syscalls.new_session_keyring()
    except OSError as exc:
        if exc.errno not in (errno.ENOSYS, errno.EPERM, errno.EDQUOT):
            raise


def _scope_abstract_sockets() -> None:
    """The network namespace is the host's, so its abstract sockets need another barrier."""
    try:
        syscalls.scope_abstract_sockets()
    except OSError as exc:
        if exc.errno not in _LANDLOCK_MISSING:
            raise


def _execute(step: Step, account: users.Account) -> int:
    """Replace this process by the command; the exit code a shell would give if that fails."""
    env = {key: value for key, value in step.env if key}
    env.setdefault("HOME", account.home)
    if step.hostname:
        env.setdefault("HOSTNAME", step.hostname)
    name = step.argv[0]
    refused = None
    for path in _candidates(name, env.get("PATH", DEFAULT_PATH)):
        try:
            os.execve(path, list(step.argv), env)  # noqa: S606 - this is the point of it all
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as exc:
            refused = refused or exc
    reason = refused.strerror if refused else "not found in the root"
    os.write(2, f"exec: {name}: {reason}\n".encode("utf-8", "replace"))
    return CANNOT_EXECUTE if refused else NOT_FOUND


def _candidates(name: str, search: str) -> Sequence[str]:
    if "/" in name:
        return (name,)
    if not name:
        return ()
    return [f"{folder or '.'}/{name}" for folder in search.split(":")]

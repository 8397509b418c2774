"""The root of a step, built in its own mount namespace: overlay or folder, and mounts.

Everything is staged in a private tmpfs on top of the root's own folder, which nobody else sees and
which goes with the namespace. All host paths are opened before anything is mounted; the overlay is
given fds, so that no path needs escaping or is too long.

Spec: security.md X-1, X-8, X-10, X-11.
"""

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from imagekit.sandbox import syscalls
from imagekit.sandbox.failure import SetupError
from imagekit.sandbox.inroot import Kind, Made, ensure, open_in
from imagekit.sandbox.request import AnyMount, Bind, File, RootFolders, Tmpfs

_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_FORBIDDEN: Final = (syscalls.PROC_SUPER_MAGIC, syscalls.SYSFS_MAGIC)


class Staging:
    """The private tmpfs of one step and what is made in it."""

    def __init__(self, place: str, *, user_namespace: bool, devices: bool) -> None:
        self.user_namespace = user_namespace
        self.attributes = 0 if devices else syscalls.MOUNT_ATTR_NODEV
        tree = syscalls.new_mount("tmpfs", self.attributes, {"mode": "0700"})
        target = os.open(place, _DIRECTORY)
        syscalls.move_mount(tree, target)
        os.close(target)
        self.fd = tree
        self._count = 0
        self.empty = self.folder()

    def folder(self) -> int:
        """An fd of a new, empty folder (0755, root)."""
        name = self._name()
        os.mkdir(name, 0o755, dir_fd=self.fd)
        return os.open(name, _DIRECTORY, dir_fd=self.fd)

    def file(self, content: bytes, *, mode: int, uid: int = 0, gid: int = 0) -> int:
        """An O_PATH fd of a new file."""
        name = self._name()
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
            os.fchown(fd, uid, gid)
            os.fchmod(fd, mode)
        finally:
            os.close(fd)
        return os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=self.fd)

    def overlay(self, lowers: Sequence[int], upper: int | None, work: int | None) -> int:
        """An fd of the root of a new overlay, attached in here."""
        stack = list(lowers)
        if upper is None:
            stack.append(self.empty)  # overlayfs wants two layers
        options = ["lowerdir=" + ":".join(map(str, stack))]
        if upper is not None and work is not None:
            options += [f"upperdir={upper}", f"workdir={work}", "volatile"]
        if self.user_namespace:
            options.append("userxattr")
        else:
            options += ["redirect_dir=off", "metacopy=off", "index=off"]
        name = self._name()
        os.mkdir(name, 0o700, dir_fd=self.fd)
        flags = syscalls.MS_NODEV if self.attributes else 0
        target = f"{_fd_path(self.fd)}/{name}"
        os.chdir("/proc/self/fd")  # the kernel takes 4 KiB of options: bare numbers of 500 fds fit
        try:
            syscalls.mount("overlay", target, "overlay", flags, ",".join(options))
        finally:
            os.chdir("/")
        return os.open(name, _DIRECTORY, dir_fd=self.fd)

    def attach(self, tree: int) -> int:
        """An fd of the root of `tree`, a detached mount of a directory, attached in here."""
        target = self.folder()
        syscalls.move_mount(tree, target)
        os.close(target)
        return tree

    def _name(self) -> str:
        self._count += 1
        return str(self._count)


def _fd_path(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


def open_host(path: str, *, directory: bool) -> int:
    """An O_PATH fd of a host path that the executor named."""
    flags = _DIRECTORY if directory else os.O_PATH | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except OSError as exc:
        raise SetupError(f"{path}: {exc.strerror}", code="bad-mount") from exc


def clone(fd: int, attributes: int) -> int:
    """A detached bind of `fd` with MOUNT_ATTR_* added, submounts included where they must be."""
    try:
        tree = syscalls.clone_tree(fd)
    except OSError as exc:
        if exc.errno != errno.EINVAL:  # mounts of an outer namespace hide something below
            raise
        tree = syscalls.clone_tree(fd, recursive=True)
    if attributes:
        syscalls.set_mount_attributes(tree, attributes, recursive=True)
    return tree


class OpenRoot:
    """The host folders of a root, opened while they can be seen."""

    def __init__(self, folders: RootFolders) -> None:
        self.lowers = [open_host(path, directory=True) for path in folders.lowers]
        self.upper = open_host(folders.upper, directory=True)
        self.work = open_host(folders.work, directory=True) if folders.lowers else None

    def mount(self, staging: Staging) -> int:
        """An fd of the root, mounted in `staging`."""
        if not self.lowers:
            return staging.attach(clone(self.upper, staging.attributes))
        try:
            return staging.overlay(self.lowers, self.upper, self.work)
        except OSError as exc:
            raise SetupError(f"overlay: {exc.strerror}", code="bad-root") from exc


def special_folder(root: int, name: str) -> int:
    """An fd of /proc, /sys or /dev of the root, made if missing.

    Raises:
        SetupError: code `bad-root`; it is a link or no directory (CVE-2023-27561).
    """
    try:
        os.mkdir(name, 0o755, dir_fd=root)
    except FileExistsError:
        pass  # the usual case
    except OSError as exc:
        raise SetupError(f"/{name}: {exc.strerror}", code="bad-root") from exc
    try:
        return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
    except OSError as exc:
        raise SetupError(
            f"/{name} of the root is a link or no directory; nothing can be mounted there safely",
            code="bad-root",
        ) from exc


class Mounter:
    """Makes the caller's mounts in a root; `made` lists the mount points that were missing."""

    def __init__(self, root: int, upper: int, staging: Staging) -> None:
        self.root = root
        self.upper = upper
        self.staging = staging
        self.made: list[Made] = []

    def mount(self, mount: AnyMount, sources: Sequence[int]) -> None:
        """Make one mount; `sources` are the open folders of a bind."""
        try:
            if isinstance(mount, Tmpfs):
                options: dict[str, str | None] = {"mode": f"{mount.mode:o}"}
                if mount.size:
                    options["size"] = str(mount.size)
                attributes = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
                tree = syscalls.new_mount("tmpfs", attributes, options)
                self._attach(tree, mount.target, "directory")
            elif isinstance(mount, File):
                self._file(mount)
            else:
                self._bind(mount, sources)
        except OSError as exc:
            raise SetupError(f"mount at {mount.target}: {exc.strerror}", code="bad-mount") from exc

    def _file(self, mount: File) -> None:
        if mount.replace and not self._exists(mount.target):
            return
        fd = self.staging.file(mount.content, mode=mount.mode, uid=mount.uid, gid=mount.gid)
        attributes = (
            syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
        )
        tree = clone(fd, attributes)
        os.close(fd)
        self._attach(tree, mount.target, "file")

    def _exists(self, path: str) -> bool:
        try:
            os.close(open_in(self.root, path))
        except FileNotFoundError:
            return False
        return True

    def _bind(self, mount: Bind, sources: Sequence[int]) -> None:
        base = self.staging.overlay(sources, None, None) if mount.merged else sources[0]
        source = open_in(base, mount.subpath) if mount.subpath.strip("/") else os.dup(base)
        kind: Kind = "directory" if stat.S_ISDIR(os.fstat(source).st_mode) else "file"
        attributes = self.staging.attributes
        if mount.writable_copy:
            source = self._copy(source, kind)
        elif mount.read_only:
            attributes |= syscalls.MOUNT_ATTR_RDONLY
        tree = clone(source, attributes)
        os.close(source)
        self._attach(tree, mount.target, kind)

    def _copy(self, source: int, kind: Kind) -> int:
        """Something like `source` whose changes stay in the step's memory; takes over the fd."""
        try:
            if kind == "directory":
                upper, work = self.staging.folder(), self.staging.folder()
                _imitate(upper, os.fstat(source))
                return self.staging.overlay([source], upper, work)
            reader = os.open(_fd_path(source), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(reader, "rb") as file:  # noqa: PTH123 - an fd
                content = file.read()
            copy = self.staging.file(content, mode=0o600)
            _imitate(copy, os.fstat(source))
            return copy
        finally:
            os.close(source)

    def _attach(self, tree: int, target: str, kind: Kind) -> None:
        first = next((part for part in target.split("/") if part not in ("", ".")), "")
        if first in ("", "proc", "sys"):
            raise SetupError(f"nothing can be mounted at {target}", code="bad-mount")
        try:
            fd, made = ensure(self.root, target, kind, upper=self.upper)
        except SetupError as exc:
            raise SetupError(exc.message, code="bad-mount") from exc
        self.made += made
        try:
            if syscalls.filesystem_type(fd) in _FORBIDDEN:
                raise SetupError(f"{target} leads into /proc or /sys", code="bad-mount")
            syscalls.move_mount(tree, fd)
        finally:
            os.close(fd)
            os.close(tree)


def _imitate(fd: int, status: os.stat_result) -> None:
    """Give what `fd` has open the owner, if it exists here, and the mode of something else."""
    path = _fd_path(fd)
    with suppress(OSError):  # an id outside of the user namespace: it stays root's
        os.chown(path, status.st_uid, status.st_gid)
    os.chmod(path, stat.S_IMODE(status.st_mode))  # noqa: PTH101 - an fd


def enter(root: int) -> None:
    """Make `root` the root of this mount namespace and let go of the old one."""
    os.fchdir(root)
    syscalls.pivot_root(".", ".")
    syscalls.umount2(".", syscalls.MNT_DETACH)
    os.chdir("/")

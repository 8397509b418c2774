"""Run one command in a root file system, isolated from the machine it runs on.

`base` has the protocol and the values that cross it. The back end that ships (`namespaces`) needs
nothing installed: a small helper process starts once a build, and every step is a fork of it that
enters its own namespaces (user, mount, pid, ipc, uts, cgroup, network where asked for), lays out
mounts, drops privileges and becomes the command. It works as root, as a user with a range of
subordinate ids, and as a user with only one.
"""

from imagekit.sandbox.base import (
    BindMount,
    Cancellation,
    ExitStatus,
    FileMount,
    Folder,
    Mount,
    Overlay,
    ProcessSpec,
    Root,
    Sandbox,
    Service,
    TmpfsMount,
    Ulimit,
)

__all__ = [
    "BindMount",
    "Cancellation",
    "ExitStatus",
    "FileMount",
    "Folder",
    "Mount",
    "Overlay",
    "ProcessSpec",
    "Root",
    "Sandbox",
    "Service",
    "TmpfsMount",
    "Ulimit",
]

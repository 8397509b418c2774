"""A step as it crosses from the engine to its helper: plain tuples, no class of one side."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from imagekit.sandbox.wire import Value


class RootFolders(NamedTuple):
    """`work` is empty for a plain folder, which is then `upper`."""

    lowers: Sequence[str]
    upper: str
    work: str


class Bind(NamedTuple):
    """As `BindMount`; `merged` says that `sources` are layer folders, topmost first."""

    target: str
    sources: Sequence[str]
    merged: bool
    subpath: str
    read_only: bool
    writable_copy: bool


class Tmpfs(NamedTuple):
    """As `TmpfsMount`; `size` 0 is the kernel's default."""

    target: str
    size: int
    mode: int


class File(NamedTuple):
    """As `FileMount`; `replace` mounts only over a file that the root has."""

    target: str
    content: bytes
    mode: int
    uid: int
    gid: int
    replace: bool


AnyMount = Bind | Tmpfs | File
_KINDS: dict[str, type[AnyMount]] = {"bind": Bind, "tmpfs": Tmpfs, "file": File}
_NAMES = {kind: name for name, kind in _KINDS.items()}


class Step(NamedTuple):
    """As `ProcessSpec`, with the generated files of /etc among the mounts."""

    argv: Sequence[str]
    env: Sequence[tuple[str, str]]
    cwd: str
    user: str
    root: RootFolders
    mounts: Sequence[AnyMount]
    network: str
    hostname: str
    security: str
    ulimits: Sequence[tuple[str, int, int]]


def pack(step: Step) -> Value:
    """The step as one message."""
    mounts: list[Value] = [[_NAMES[type(mount)], *mount] for mount in step.mounts]
    return [*step._replace(mounts=())[:5], mounts, *step[6:]]


def unpack(message: Any) -> Step:  # noqa: ANN401 - what came over the wire
    """The step in a message that `pack` made."""
    argv, env, cwd, user, root, mounts, network, hostname, security, ulimits = message
    return Step(
        argv=argv,
        env=[(key, value) for key, value in env],
        cwd=cwd,
        user=user,
        root=RootFolders(*root),
        mounts=[_KINDS[kind](*fields) for kind, *fields in mounts],
        network=network,
        hostname=hostname,
        security=security,
        ulimits=[(name, soft, hard) for name, soft, hard in ulimits],
    )

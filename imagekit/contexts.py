"""The caller's side of a build: its Dockerfile, its folders, its machine.

Part of the doors: paths as the caller wrote them become open contexts here.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final, Self

from imagekit.disk.context import FolderContext, find_ignore
from imagekit.dockerfile.ignore import Matcher, parse_ignore
from imagekit.errors import ContextError, DockerfileError, UsageError
from imagekit.oci.platform import Platform
from imagekit.plan import NamedContext
from imagekit.store.local import Store

MAX_DOCKERFILE: Final = 1 << 20
"""The most bytes of a Dockerfile (security spec C-8)."""

_MACHINES: Final = {
    "x86_64": "amd64",
    "AMD64": "amd64",
    "aarch64": "arm64",
    "i686": "386",
    "i386": "386",
    "armv7l": "arm/v7",
    "armv6l": "arm/v6",
}


def host_platform() -> Platform:
    """The platform that steps run on: that of this machine's kernel, as Linux."""
    machine = os.uname().machine
    return Platform.parse(f"linux/{_MACHINES.get(machine, machine)}")


def find_dockerfile(
    context: Path, given: str | os.PathLike[str] | IO[bytes] | None
) -> tuple[str, bytes]:
    """The name of the Dockerfile, for messages and its ignore file, and its bytes.

    Raises:
        DockerfileError: it is not there, cannot be read or is too large.
    """
    if given is not None and not isinstance(given, str | os.PathLike):
        return "-", _limited(given.read(MAX_DOCKERFILE + 1), "-")
    candidates = [Path(given)] if given else [context / "Dockerfile", context / "dockerfile"]
    for path in candidates:
        try:
            with path.open("rb") as stream:
                return str(path), _limited(stream.read(MAX_DOCKERFILE + 1), str(path))
        except FileNotFoundError:
            continue
        except OSError as exc:
            raise DockerfileError(
                f"cannot read the Dockerfile {path}: {exc.strerror}", code="dockerfile-unreadable"
            ) from exc
    raise DockerfileError(
        f"no Dockerfile at {candidates[0]}",
        hint="name it with -f FILE, or give the folder that holds it as the context",
        code="dockerfile-not-found",
    )


def _limited(data: bytes, name: str) -> bytes:
    if len(data) > MAX_DOCKERFILE:
        raise DockerfileError(f"the Dockerfile {name} has more than {MAX_DOCKERFILE} bytes")
    return data


class Folders:
    """The open local contexts of a build, and what its named contexts stand for."""

    def __init__(
        self, folders: Mapping[str, FolderContext], named: Mapping[str, NamedContext]
    ) -> None:
        self.folders = folders
        self.named = named

    def close(self) -> None:
        """Close the folders; what was learnt of their content is kept."""
        for folder in self.folders.values():
            folder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_folders(
    context: Path, dockerfile: str, build_contexts: Mapping[str, str], store: Store
) -> Folders:
    """Open the build context and the named ones that are folders.

    Args:
        context: the main one.
        dockerfile: as `find_dockerfile` names it; its own ignore file counts before the context's.
        build_contexts: name -> source.
        store: remembers what files hold; its folder is part of no context.

    Raises:
        ContextError: a folder cannot be opened, or its ignore file is malformed.
        UsageError: a kind of context that is not supported.
    """
    named = {name: NamedContext.parse(name, source) for name, source in build_contexts.items()}
    for entry in named.values():
        if entry.kind in {"git", "http"}:
            raise UsageError(
                f"--build-context {entry.name}: {entry.kind} contexts are not supported yet",
                hint="fetch it into a folder first and name that",
            )
    folders: dict[str, FolderContext] = {}
    try:
        folders[""] = _open(context, "", None if dockerfile == "-" else Path(dockerfile), store)
        for entry in named.values():
            if entry.kind == "folder":
                folders[entry.name] = _open(Path(entry.location), entry.name, None, store)
    except BaseException:
        Folders(folders, named).close()
        raise
    return Folders(folders, named)


def _open(root: Path, name: str, dockerfile: Path | None, store: Store) -> FolderContext:
    if not root.is_dir():
        what = f"build context {name}" if name else "build context"
        raise ContextError(f"the {what} {root} is not a folder", hint="name a folder that exists")
    return FolderContext(
        root,
        name=name,
        ignore=_ignore(dockerfile, root),
        stat_cache=store.database,
        skip=[store.path],
    )


def _ignore(dockerfile: Path | None, root: Path) -> Matcher | None:
    found = find_ignore(dockerfile, root)
    if found is None:
        return None
    name, text = found
    try:
        patterns = parse_ignore(text)
        return Matcher(patterns) if patterns else None
    except ContextError as exc:
        raise ContextError(f"{name}: {exc.message}", hint=exc.hint, code=exc.code) from exc

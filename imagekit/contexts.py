"""The caller's side of a build: its Dockerfile, its contexts, its machine.

Part of the doors: what the caller wrote (a folder, an archive, a URL, an open file) becomes open
contexts here.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Self

from attrs import evolve, frozen

from imagekit.disk.context import FolderContext, find_ignore
from imagekit.dockerfile.gitref import parse_git_reference
from imagekit.dockerfile.ignore import Matcher, parse_ignore
from imagekit.errors import ContextError, DockerfileError, PathError, UsageError
from imagekit.executor.values import Context
from imagekit.layer.tree import FILE
from imagekit.oci.platform import Platform
from imagekit.plan import NamedContext
from imagekit.plan.files import checkout, download
from imagekit.plan.ops import Fetch
from imagekit.store.local import Store

if TYPE_CHECKING:
    from imagekit.executor.tarcontext import TarContext
    from imagekit.layer.tar import Stream

MAX_DOCKERFILE: Final = 1 << 20
"""The most bytes of a Dockerfile (security spec C-8)."""

ContextSource = str | os.PathLike[str] | IO[bytes]
"""A folder, an archive, a URL of one or of a repository, or an archive or Dockerfile to read."""

DockerfileSource = str | os.PathLike[str] | IO[bytes] | None
FetchContext = Callable[[Fetch], "TarContext"]

_KEEP_GIT_DIR: Final = "BUILDKIT_CONTEXT_KEEP_GIT_DIR"
_NAMES: Final = ("Dockerfile", "dockerfile")
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


@frozen(kw_only=True)
class Opened:
    """The open contexts of a build, what its named contexts stand for, and its Dockerfile.

    Attributes:
        given: the contexts that are here, by name; the main one has the empty name.
        named: what names stand for.
        filename: of the Dockerfile, for messages; `-` if it was read from an open file.
        text: its bytes.
    """

    given: Mapping[str, Context]
    named: Mapping[str, NamedContext]
    filename: str
    text: bytes

    def close(self) -> None:
        """Close the contexts; what was learnt of the content of folders is kept."""
        for context in self.given.values():
            context.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def fetched_context(
    source: ContextSource, build_args: Mapping[str, str] | None = None
) -> Fetch | None:
    """What has to be fetched for a context; None if it is here.

    Raises:
        UsageError: a repository whose query asks for what cannot be.
    """
    if not isinstance(source, str):
        return None
    git = parse_git_reference(source)
    if git is not None and not (git.looks_local and Path(source).exists()):
        op = checkout(git)
        keep = (build_args or {}).get(_KEEP_GIT_DIR, "") in {"1", "true"}
        return evolve(op, keep_git_dir=op.keep_git_dir or keep)
    if source.startswith(("http://", "https://")):
        return download(source)
    return None


def named_contexts(build_contexts: Mapping[str, str]) -> dict[str, NamedContext]:
    """What `--build-context NAME=SOURCE` says, by name.

    Raises:
        UsageError: a repository whose query asks for what cannot be.
    """
    named = {}
    for name, source in build_contexts.items():
        context = NamedContext.parse(name, source)
        if context.kind == "git" and fetched_context(source) is None:
            context = evolve(context, kind="folder")
        named[name] = context
    return named


class Opener:
    """Opens the contexts of one build."""

    def __init__(self, store: Store, fetch: FetchContext) -> None:
        """Prepare to open.

        Args:
            store: remembers what files hold, and has room for archives; its folder is part of no
                context.
            fetch: gets what URLs name.
        """
        self._store = store
        self._fetch = fetch

    def open(
        self,
        main: ContextSource,
        dockerfile: DockerfileSource,
        build_contexts: Mapping[str, str],
        build_args: Mapping[str, str],
    ) -> Opened:
        """Open the main context, find the Dockerfile, and open the named contexts that are here.

        Args:
            main: the main context.
            dockerfile: an open file or a path: of this machine if the main context is a folder,
                else in the context; its default names are looked for in any case in the context.
            build_contexts: name -> source.
            build_args: one says whether `.git` is part of a repository as a context.

        Raises:
            ContextError: a context cannot be opened, or its ignore file is malformed.
            DockerfileError: there is no Dockerfile, or it is too large.
            FetchError: what a URL names cannot be had.
            UsageError: Dockerfile and context both come from one stream.
        """
        given: dict[str, Context] = {}
        try:
            op = fetched_context(main, build_args)
            if op is not None:
                given[""] = fetched = self._fetch(op)
                filename, text = _in_context(fetched, dockerfile, alone=op.filename)
            elif not isinstance(main, str | os.PathLike):
                given[""], (filename, text) = self._stream(main, dockerfile)
            elif Path(main).is_file():
                given[""] = archive = self._archive(Path(main), "")
                filename, text = _in_context(archive, dockerfile)
            else:
                root = _existing(Path(main), "")
                filename, text = find_dockerfile(root, dockerfile)
                given[""] = self._folder(root, "", None if filename == "-" else Path(filename))
            named = named_contexts(build_contexts)
            for entry in named.values():
                if entry.kind == "folder":
                    given[entry.name] = self._local(Path(entry.location), entry.name)
        except BaseException:
            for context in given.values():
                context.close()
            raise
        return Opened(given=given, named=named, filename=filename, text=text)

    def _local(self, path: Path, name: str) -> Context:
        return self._archive(path, name) if path.is_file() else self._folder(path, name, None)

    def _folder(self, root: Path, name: str, dockerfile: Path | None) -> FolderContext:
        return FolderContext(
            _existing(root, name),
            name=name,
            ignore=_ignore(dockerfile, root),
            stat_cache=self._store.database,
            skip=[self._store.path],
        )

    def _archive(self, path: Path, name: str) -> "TarContext":
        from imagekit.executor.tarcontext import TarContext  # noqa: PLC0415 - few builds need it

        try:
            with path.open("rb") as file:
                found = self._read(file, name)
        except OSError as exc:
            raise ContextError(f"cannot read the context {path}: {exc.strerror}") from exc
        if not isinstance(found, TarContext):
            raise _no_folder(path, name)
        return found

    def _stream(
        self, stream: IO[bytes], dockerfile: DockerfileSource
    ) -> tuple["TarContext", tuple[str, bytes]]:
        """The context that an open file gives: its archive, or nothing beside its Dockerfile."""
        from imagekit.executor.tarcontext import TarContext, whole  # noqa: PLC0415 - see above

        if dockerfile is stream:
            raise UsageError(
                "both context and Dockerfile are to be read from standard input",
                hint="put the Dockerfile into the archive",
            )
        found = self._read(stream, "")
        if isinstance(found, TarContext):
            try:
                return found, _in_context(found, dockerfile)
            except BaseException:
                found.close()
                raise
        if dockerfile is not None:
            raise UsageError(
                "standard input holds no archive, and the Dockerfile is named beside it",
                hint="give a tar archive on standard input, or leave out -f",
            )
        text = _limited(whole(found, MAX_DOCKERFILE), "-")
        return TarContext.empty(), ("-", text)

    def _read(self, stream: "Stream", name: str) -> Any:  # noqa: ANN401 - imported late
        from imagekit.executor.tarcontext import read_archive  # noqa: PLC0415 - see above

        return read_archive(stream, folder=self._store.path / "temp", source=f"context:{name}")


def find_dockerfile(context: Path, given: DockerfileSource) -> tuple[str, bytes]:
    """The name of the Dockerfile, for messages and its ignore file, and its bytes.

    Raises:
        DockerfileError: it is not there, cannot be read or is too large.
    """
    if given is not None and not isinstance(given, str | os.PathLike):
        return "-", _limited(given.read(MAX_DOCKERFILE + 1), "-")
    candidates = [Path(given)] if given else [context / name for name in _NAMES]
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
    raise _no_dockerfile(str(candidates[0]))


def _in_context(
    context: "TarContext", given: DockerfileSource, *, alone: str = ""
) -> tuple[str, bytes]:
    """The same for a context that is no folder; `alone` names the one file of a download."""
    if given is not None and not isinstance(given, str | os.PathLike):
        return "-", _limited(given.read(MAX_DOCKERFILE + 1), "-")
    tree = context.scan()
    is_alone = bool(alone) and tree.list() == (alone,)
    names = [os.fspath(given)] if given else [*_NAMES, *([alone] if is_alone else [])]
    for name in names:
        try:
            entry = tree.resolve(name).entry
        except PathError as exc:
            raise DockerfileError(exc.message, code="dockerfile-unreadable") from exc
        if entry is not None and entry.kind == FILE:
            _check_size(entry.size, name)
            return name, b"".join(context.chunks(entry))
    raise _no_dockerfile(f"{names[0]} in the context")


def _limited(data: bytes, name: str) -> bytes:
    _check_size(len(data), name)
    return data


def _check_size(size: int, name: str) -> None:
    if size > MAX_DOCKERFILE:
        raise DockerfileError(f"the Dockerfile {name} has more than {MAX_DOCKERFILE} bytes")


def _no_dockerfile(where: str) -> DockerfileError:
    return DockerfileError(
        f"no Dockerfile at {where}",
        hint="name it with -f FILE, or give the folder that holds it as the context",
        code="dockerfile-not-found",
    )


def _existing(root: Path, name: str) -> Path:
    if not root.is_dir():
        raise _no_folder(root, name)
    return root


def _no_folder(path: Path, name: str) -> ContextError:
    what = f"build context {name}" if name else "build context"
    hint = "name a folder that exists"
    if path.exists():
        hint = "a context is a folder, a tar archive, or a URL of an archive or repository"
    return ContextError(f"the {what} {path} is not a folder", hint=hint)


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

"""COPY and ADD (dockerfile-semantics, 9 and 10)."""

import re
from typing import Final
from urllib.parse import unquote, urlsplit

from attrs import evolve

from imagekit.dockerfile import gopath
from imagekit.dockerfile.gitref import GitReference, parse_git_reference
from imagekit.dockerfile.instructions import Add, Copy, Heredoc
from imagekit.errors import InvalidDigestError, Span, UsageError
from imagekit.oci.digest import Digest
from imagekit.plan import goformat, ops, paths, rules
from imagekit.plan.state import ExpandedCommand, StageScope, StageState

_CLAUSE: Final = r"[ugoa]*(?:[-+=](?:[ugo]|[rwxXst]*))+"
_SYMBOLIC: Final = re.compile(rf"{_CLAUSE}(?:,{_CLAUSE})*")
_OCTAL: Final = re.compile(r"[0-7]+")
_HTTP: Final = ("http://", "https://")
UNNAMED: Final = "__unnamed__"
"""The name of a download whose URL has none."""


def lower_copy(
    scope: StageScope, state: StageState, done: ExpandedCommand, node: Copy | Add, *, name: str
) -> StageState:
    """The step of a COPY or ADD.

    Args:
        scope: of the stage.
        state: before the instruction.
        done: the instruction and the nodes that it reads.
        node: the instruction again, as what it is.
        name: of the step.

    Raises:
        DockerfileError: a URL in COPY, a bad mode or checksum, or a stage that comes later.
    """
    _check_mode(scope, node)
    _check_checksum(scope, node)
    reader = _Reader(scope, node, done)
    sources: tuple[ops.CopySource | ops.InlineFile, ...] = (
        *map(reader.source, node.sources),
        *map(_inline, node.heredocs),
    )
    dest = paths.from_windows(node.dest) if scope.platform.os == "windows" else node.dest
    op = ops.Copy(
        sources=sources,
        dest=paths.destination(state.workdir, dest),
        chown=node.chown,
        chmod=node.chmod,
        exclude=node.exclude,
        parents=isinstance(node, Copy) and node.parents,
        # With a mode, a linked copy is an ordinary one: so does BuildKit.
        link=node.link and not node.chmod,
        kind="add" if isinstance(node, Add) else "copy",
        epoch=scope.graph.epoch,
    )
    state = scope.step(state, done, op, reader.inputs, name=name)
    return state.with_history(f"{_history(node)} # buildkit", layer=True)


CONTEXT: Final = "context"
"""The name of the one file of a context that is no archive, as BuildKit has it."""


class _Reader:
    """Turns source arguments into sources, and collects the steps that they read."""

    def __init__(self, scope: StageScope, node: Copy | Add, done: ExpandedCommand) -> None:
        self._scope = scope
        self._node = node
        self._done = done
        self._positions: dict[int, int] = {}

    @property
    def inputs(self) -> tuple[int, ...]:
        """The steps that are read, behind the root."""
        return tuple(self._positions)

    def source(self, text: str) -> ops.CopySource:
        git = self._git(text)
        if git is not None:
            return self._repository(text, git)
        if text.startswith(_HTTP):
            return self._download(text)
        return self._files(text)

    def _git(self, text: str) -> GitReference | None:
        try:
            found = parse_git_reference(text)
        except UsageError as exc:
            self._scope.fail(self._node, exc.message, code=exc.code, word=text, cause=exc)
        return None if found is None or found.looks_local else found

    def _files(self, text: str) -> ops.CopySource:
        node = self._node
        self._check_ignored(text)
        if self._scope.platform.os == "windows":
            text = paths.from_windows(text)
        pattern = ""
        if isinstance(node, Copy) and node.parents:
            head, pivot, tail = text.partition("/./")
            text, pattern = (head, tail) if pivot else ("/", text)
            pattern = paths.clean(pattern).removeprefix("/")
        path = paths.clean(text)
        return ops.CopySource(
            input=self._input(self._tree()),
            path=path,
            wildcard=paths.is_pattern(path),
            pattern=pattern,
            required=bool(pattern) and not paths.is_pattern(path + pattern),
            unpack=isinstance(node, Add) and node.unpack is not False,
        )

    def _check_ignored(self, text: str) -> None:
        """Report a source of the context that its ignore file leaves out."""
        ignore = self._scope.checks.ignore
        # What is taken back may lie below a folder that is left out, so exceptions say nothing.
        if ignore is None or ignore.has_exceptions or self._done.sources:
            return
        path = gopath.clean(text)
        if ignore.excluded(path):
            verb = "Add" if isinstance(self._node, Add) else "Copy"
            self._scope.warn(
                self._node, rules.COPY_IGNORED_FILE, verb, goformat.quoted(path), word=text
            )

    def _tree(self) -> int:
        """The step of the context, or of the stage or image that `--from` names."""
        scope, node = self._scope, self._node
        index = self._done.sources[0] if self._done.sources else None
        if index is None:
            return context_step(scope)
        if is_later(scope, index) and isinstance(node, Copy):
            scope.fail(
                node,
                f"cannot copy from stage {node.from_!r}, it needs to be defined before current"
                f" stage {scope.node.name or scope.node.index!r}",
                code="stage-not-defined-yet",
                word=node.from_,
            )
        return scope.tree_of(index)

    def _download(self, url: str) -> ops.CopySource:
        node = self._remote(url, "a URL")
        checksum = node.checksum
        if checksum:
            try:
                Digest.parse(checksum)
            except InvalidDigestError as exc:
                self._scope.fail(
                    node, exc.message, code="checksum-invalid", word=checksum, cause=exc
                )
        filename = file_name(url)
        fetch = ops.Fetch(url=url, kind="http", filename=filename, checksum=checksum)
        return ops.CopySource(
            input=self._fetched(fetch), path=f"/{filename}", unpack=bool(node.unpack)
        )

    def _repository(self, text: str, git: GitReference) -> ops.CopySource:
        node = self._remote(text, "a git ref")
        if None not in (node.keep_git_dir, git.keep_git_dir) and (
            node.keep_git_dir != git.keep_git_dir
        ):
            self._scope.fail(
                node,
                "inconsistent keep-git-dir configuration",
                code="git-keep-conflict",
                word=text,
                hint="the flag and the URL's query say different things",
            )
        if node.checksum and git.checksum and node.checksum != git.checksum:
            self._scope.fail(
                node,
                f"checksum mismatch {node.checksum!r} != {git.checksum!r}",
                code="checksum-invalid",
                word=node.checksum,
            )
        fetch = checkout(git)
        fetch = evolve(
            fetch,
            checksum=fetch.checksum or node.checksum,
            keep_git_dir=fetch.keep_git_dir or bool(node.keep_git_dir),
        )
        return ops.CopySource(input=self._fetched(fetch), path="/")

    def _remote(self, text: str, what: str) -> Add:
        if isinstance(self._node, Copy):
            self._scope.fail(
                self._node,
                f"source can't be {what} for COPY",
                code="url-in-copy",
                word=text,
                hint="ADD takes it",
            )
        return self._node

    def _fetched(self, fetch: ops.Fetch) -> int:
        return self._input(fetch_step(self._scope, fetch, span=self._node.span))

    def _input(self, step: int) -> int:
        """The position of a step among the operation's inputs, the root being the first."""
        return self._positions.setdefault(step, len(self._positions) + 1)


def context_step(scope: StageScope, name: str = "") -> int:
    """The step that reads the build context, or a named folder."""
    label = f"[context {name}] load from client" if name else "[internal] load build context"
    return scope.steps.source(ops.Local(name), name=label, stage="", platform=scope.graph.platform)


def fetch_step(scope: StageScope, fetch: ops.Fetch, *, span: Span | None = None) -> int:
    """The step that downloads something; `span` is that of who reads it, if not the stage's."""
    return scope.steps.source(
        fetch,
        name=f"[internal] fetch {fetch.shown}",
        stage=scope.stage_name,
        platform=scope.graph.platform,
        span=span or scope.node.span,
    )


def checkout(git: GitReference) -> ops.Fetch:
    """The operation that checks out what a reference names."""
    return ops.Fetch(
        url=f"https://{git.remote}" if git.looks_local else git.remote,
        kind="git",
        checksum=git.checksum,
        ref=git.ref,
        subdir=git.subdir,
        submodules=git.submodules is not False,
        keep_git_dir=bool(git.keep_git_dir),
        commit_times=git.mtime == "commit",
    )


def download(url: str) -> ops.Fetch:
    """The operation that fetches a context: an archive for what is in it, or else one file."""
    return ops.Fetch(url=url, kind="http", filename=CONTEXT, unpack=True)


def is_later(scope: StageScope, index: int) -> bool:
    """Whether a node is a stage that is made after the present one, or that one."""
    node = scope.graph.nodes[index]
    return index >= scope.node.index and not node.implicit and not node.replaced


def file_name(url: str) -> str:
    """The name that a download gets: the last part of its path."""
    try:
        path = urlsplit(url).path
    except ValueError:
        return UNNAMED
    name = unquote(path, errors="surrogateescape").rstrip("/").rpartition("/")[2]
    return UNNAMED if name in {"", ".", ".."} else name


def _inline(heredoc: Heredoc) -> ops.InlineFile:
    return ops.InlineFile(
        name=heredoc.name, content=heredoc.content.encode("utf-8", "surrogateescape")
    )


def _history(node: Copy | Add) -> str:
    words = [node.keyword.upper()]
    if isinstance(node, Copy) and node.parents:
        words.append("--parents")
    if node.chown:
        words.append(f"--chown={node.chown}")
    if node.chmod:
        words.append(f"--chmod={node.chmod}")
    words += node.sources
    words += (f"<<{heredoc.name}" for heredoc in node.heredocs)
    return " ".join((*words, node.dest))


def _check_mode(scope: StageScope, node: Copy | Add) -> None:
    mode = node.chmod
    if not mode or (_OCTAL.fullmatch(mode) and len(mode) < 12 and int(mode, 8) <= 0o7777):
        return
    if _OCTAL.fullmatch(mode) or not _SYMBOLIC.fullmatch(mode):
        scope.fail(
            node,
            f"invalid chmod parameter: {mode!r}",
            code="chmod-invalid",
            word=mode,
            hint="write an octal mode up to 07777, or a symbolic one such as u+x,go=r",
        )


def _check_checksum(scope: StageScope, node: Copy | Add) -> None:
    if isinstance(node, Copy) or not node.checksum:
        return
    problem = ""
    if len(node.sources) != 1 or node.heredocs:
        problem = "checksum can't be specified for multiple sources"
    elif not node.sources[0].startswith(_HTTP) and not _is_repository(node.sources[0]):
        problem = "checksum requires HTTP(S) or Git sources"
    if problem:
        scope.fail(node, problem, code="checksum-invalid", word=node.checksum)


def _is_repository(text: str) -> bool:
    try:
        found = parse_git_reference(text)
    except UsageError:
        return True
    return found is not None and not found.looks_local

"""COPY, ADD and WORKDIR as changes to a tree, with no byte of content touched.

Decided here: where a source goes, what directories are made, what replaces what and what may not,
modes, owners and times. What a source argument names is `selection`'s; names of users are
`owner`'s, --chmod is `mode`'s, archives are `extract`'s.

Spec: dockerfile-semantics.md sections 9, 10 and 11; where rules meet, what BuildKit does.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from attrs import frozen

from imagekit.errors import BadWhiteoutError, PathError
from imagekit.layer.changes import Changes, diff
from imagekit.layer.draft import Draft
from imagekit.layer.extract import Archive, extract
from imagekit.layer.inodes import Inodes
from imagekit.layer.mode import Mode, parse_mode
from imagekit.layer.owner import MAX_DATABASE_SIZE, Databases, lookup_owner
from imagekit.layer.selection import Filter, Match, Patterns, Source, chosen, join
from imagekit.layer.tree import DIRECTORY, FILE, Directory, Entry, Tree, Where

WHITEOUT: Final = ".wh."
OPAQUE: Final = ".wh..wh..opq"


@frozen(kw_only=True)
class CopyOptions:
    """How to copy.

    Attributes:
        dest: absolute and cleaned, a trailing slash kept: it says that a directory is meant.
        chown: `user[:group]` as written, names to be looked up in the root; empty to keep.
        chmod: octal or symbolic, empty to keep.
        exclude: patterns as in .dockerignore, relative to each source.
        link: make the layer as if the root were empty.
    """

    dest: str
    chown: str = ""
    chmod: str = ""
    exclude: tuple[str, ...] = ()
    link: bool = False


@frozen(kw_only=True)
class Readers:
    """What copying asks of those who can read.

    Attributes:
        read_file: the content of a file of the root; asked for /etc/passwd and /etc/group alone.
        unpack: the members of a file if it is an archive with any, else None; asked for sources
            with `unpack` alone.
        patterns: what patterns mean.
    """

    read_file: Callable[[Entry], bytes]
    unpack: Callable[[Entry], Archive | None]
    patterns: Patterns


def copy(
    options: CopyOptions,
    sources: Sequence[Source],
    root: Tree | None,
    *,
    now: int,
    readers: Readers,
) -> Changes:
    """The layer that copies sources into a root file system.

    It holds what changed and its parent directories; a copy that changes nothing gives an empty
    one. Names that start with `.wh.` become whiteouts, as they would for any reader of the layer.

    Args:
        options: where to and how.
        sources: in order; later ones win.
        root: None if there is no file system yet, as at the start of a stage from scratch.
        now: the time of directories that are made.
        readers: for user names, archives and patterns.

    Raises:
        PathError: with a code: `source-not-found`, `copy-many-to-file` (a file
            where a directory must be, or the other way round), `user-unknown`, `chown-invalid`,
            `chmod-invalid`, `too-many-links`.
        ContextError: no well-formed pattern; code `pattern-invalid`.
        BadWhiteoutError: a name such as a bare `.wh.`.
    """
    base = Tree.EMPTY if root is None or options.link else root
    databases = None if root is None or options.link else _databases(root, readers.read_file)
    draft = Draft(base)
    copier = _Copier(
        draft,
        options.dest,
        owner=lookup_owner(options.chown, databases) if options.chown else None,
        mode=parse_mode(options.chmod) if options.chmod else None,
        now=now,
    )
    found = [chosen(source, options.exclude, readers.patterns) for source in sources]
    for source, named in zip(sources, found, strict=True):
        for match, rules in named:
            archive = None
            if source.unpack and match.entry.kind == FILE:
                archive = readers.unpack(match.entry)
            if archive is None:
                copier.copy(match, rules)
            else:
                copier.unpack(archive)
    return _with_whiteouts(diff(base, draft.tree(), directory_times=False))


def mkdir(
    root: Tree | None,
    path: str,
    owner: str = "",
    *,
    now: int,
    read_file: Callable[[Entry], bytes],
) -> Changes:
    """The layer that makes a directory and its missing parents, as WORKDIR does.

    Symlinks are followed inside the root, dangling ones too; what exists is left as it is.

    Args:
        root: None if there is no file system yet.
        path: absolute and cleaned.
        owner: `user[:group]` of what is made, names to be looked up in the root; empty is root.
        now: the time of what is made.
        read_file: the content of /etc/passwd or /etc/group of the root.

    Raises:
        PathError: a file is in the way, code `copy-many-to-file`; or as for `copy`.

    Spec: dockerfile-semantics.md section 11.
    """
    base = Tree.EMPTY if root is None else root
    databases = None if root is None else _databases(root, read_file)
    uid, gid = lookup_owner(owner, databases)
    draft = Draft(base)
    made = Entry(DIRECTORY, 0o755, uid, gid, now)
    make_directories(draft, draft.resolve(path).path, made)
    return diff(base, draft.tree(), directory_times=False)


def inline_file(name: str, content: bytes, *, mode: int, now: int, where: Where) -> Tree:
    """A tree of one file, for a file that stands in the Dockerfile itself.

    Raises:
        PathError: the name is no single path component; code `source-not-found`.
    """
    if name in ("", ".", "..") or "/" in name:
        raise PathError(
            f"/{name}: no such file or directory",
            path=name,
            hint="the name of a heredoc in COPY is the name of a file and holds no slash",
            code="source-not-found",
        )
    digest = hashlib.sha256(content).digest()
    entry = Entry(FILE, mode, mtime=now, size=len(content), digest=digest, where=where)
    return Tree(Directory(Entry(DIRECTORY, 0o755), {name: entry}))


def make_directories(draft: Draft, path: str, made: Entry) -> None:
    """Make what is missing of a path without symlinks.

    Raises:
        PathError: something on it is no directory; code `copy-many-to-file`.
    """
    at = ""
    for name in path.split("/") if path else ():
        at = join(at, name)
        there = draft.get(at)
        if there is None:
            draft.put(at, made)
        elif there.kind != DIRECTORY:
            raise PathError(f"/{at}: not a directory", path=at, code="copy-many-to-file")


def _databases(root: Tree, read_file: Callable[[Entry], bytes]) -> Databases:
    def read(path: str) -> bytes:
        entry = root.resolve(path).entry
        if entry is None or entry.kind != FILE:
            return b""
        if entry.size > MAX_DATABASE_SIZE:
            raise PathError(
                f"/{path}: {entry.size} bytes are too many to look a name up in",
                path=path,
                hint=f"at most {MAX_DATABASE_SIZE} bytes are read; use numbers instead of names",
                code="user-unknown",
            )
        return read_file(entry)

    return read


class _Copier:
    """Copies into a draft, one file or directory after the other."""

    def __init__(
        self,
        draft: Draft,
        dest: str,
        *,
        owner: tuple[int, int] | None,
        mode: Mode | None,
        now: int,
    ) -> None:
        self._draft = draft
        self._dest = dest
        self._owner = owner
        self._mode = mode
        self._now = now
        self._inodes = Inodes()

    def copy(self, match: Match, rules: Filter) -> None:
        """Copy a file, or what is chosen of the contents of a directory."""
        self._inodes = Inodes()
        head, _, name = self._dest.rpartition("/")
        self._make_directories(self._draft.resolve(head if name else self._dest).path)
        dest = self._draft.resolve(self._dest)
        if isinstance(match.node, Directory):
            if dest.entry is None:
                self._make_directories(dest.path)
            elif dest.entry.kind != DIRECTORY:
                raise _not_a_directory(dest.path)
            self._merge(match.node, dest.path, rules)
            return
        path = dest.path
        if dest.entry is not None and dest.entry.kind == DIRECTORY:
            path = join(path, match.path.rpartition("/")[2])
        self._make_directories(path.rpartition("/")[0])
        self._put_file(path, match.node)

    def unpack(self, archive: Archive) -> None:
        """Extract an archive into the destination, which is or becomes a directory."""
        dest = self._draft.resolve(self._dest).path
        uid, gid = self._owner or (0, 0)
        make_directories(self._draft, dest, Entry(DIRECTORY, 0o755, uid, gid, self._now))
        extract(self._draft, dest, archive, owner=self._owner, now=self._now)

    def _make_directories(self, path: str) -> None:
        mode = 0o755 if self._mode is None else self._mode.of_made_directories
        uid, gid = self._owner or (0, 0)
        make_directories(self._draft, path, Entry(DIRECTORY, mode, uid, gid, self._now))

    def _merge(self, top: Directory, dest: str, rules: Filter) -> None:
        for path, entry, whole in rules.select(top):
            target = join(dest, path)
            if entry.kind == DIRECTORY:
                # With --parents, of what exists only the mode is changed.
                self._merge_directory(target, entry, whole=whole and rules.include is None)
            else:
                self._put_file(target, entry)

    def _merge_directory(self, path: str, entry: Entry, *, whole: bool) -> None:
        there = self._draft.get(path)
        if there is None:
            self._draft.put(path, self._dressed(path, entry))
        elif there.kind != DIRECTORY:
            raise _not_a_directory(path)
        elif whole:
            xattrs = tuple(sorted({**dict(there.xattrs), **dict(entry.xattrs)}.items()))
            self._draft.put(path, self._dressed(path, entry)._replace(xattrs=xattrs))
        else:
            self._draft.put(path, there._replace(mode=entry.mode))

    def _put_file(self, path: str, entry: Entry) -> None:
        head, _, name = path.rpartition("/")
        if isinstance(self._draft.directory(head).children.get(name), Directory):
            raise PathError(
                f"cannot replace directory /{path} with a file",
                path=path,
                code="copy-many-to-file",
            )
        self._draft.put(path, self._dressed(path, entry))

    def _dressed(self, path: str, entry: Entry) -> Entry:
        """A copy of an entry, with the owner, mode and inode that it gets."""
        if self._owner is None and self._mode is None and not entry.inode:
            return entry
        uid, gid = self._owner or (entry.uid, entry.gid)
        mode = entry.mode if self._mode is None else self._mode.of(entry)
        inode = self._inodes.of(path, entry) if entry.inode else 0
        return entry._replace(mode=mode, uid=uid, gid=gid, inode=inode)


def _not_a_directory(path: str) -> PathError:
    return PathError(f"cannot copy to non-directory: /{path}", path=path, code="copy-many-to-file")


def _with_whiteouts(changes: Changes) -> Changes:
    """The changes, with files whose name is a whiteout marker taken for what they say."""
    markers = [path for path in changes.entries if WHITEOUT in path]
    markers = [path for path in markers if path.rpartition("/")[2].startswith(WHITEOUT)]
    if not markers:
        return changes
    hidden, opaque = set(changes.whiteouts), set(changes.opaque)
    for path in markers:
        head, _, name = path.rpartition("/")
        hides = name.removeprefix(WHITEOUT)
        if name == OPAQUE:
            opaque.add(head)
        elif changes.entries[path].kind == DIRECTORY or not _can_hide(hides):
            raise BadWhiteoutError(
                f"/{path}: a name that in a layer would be a whiteout, and of nothing",
                path=path,
                hint="names that start with .wh. are markers in image layers",
            )
        else:
            hidden.add(join(head, hides))
    entries = _without(changes.entries.items(), frozenset(markers))
    return Changes(entries=entries, whiteouts=frozenset(hidden), opaque=frozenset(opaque))


def _can_hide(name: str) -> bool:
    return name not in ("", ".", "..") and not name.startswith(WHITEOUT)


def _without(entries: Iterable[tuple[str, Entry]], markers: frozenset[str]) -> dict[str, Entry]:
    return {path: entry for path, entry in entries if path not in markers}

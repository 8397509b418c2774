"""Contexts of a build: scanned once, and read only where a step reads them."""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol, runtime_checkable

from imagekit.disk.problems import SPECIAL, special_file
from imagekit.dockerfile.ignore import Matcher, go_match
from imagekit.errors import PathError, UsageError
from imagekit.executor.values import Context
from imagekit.layer.content_digest import Complete, content_digest, tree_digest
from imagekit.layer.draft import Draft
from imagekit.layer.selection import Filter, Patterns, Source, chosen, join
from imagekit.layer.tree import DIRECTORY, FILE, SYMLINK, Directory, Entry, Tree, find
from imagekit.oci.digest import Digest
from imagekit.plan.ops import BindMount, Copy, CopySource

PATTERNS: Final = Patterns(matcher=Matcher, matches=go_match)
"""What patterns in COPY and ADD mean."""


MUCH: Final = 16 << 20
"""From so many bytes on it matters that files are read but once."""


@runtime_checkable
class Unread(Protocol):
    """A context whose files can be packed before they were digested (`FolderContext`)."""

    @property
    def source(self) -> str:
        """What the `where` of its files names."""

    @property
    def is_known(self) -> bool:
        """Whether, after a scan, there is nothing left to digest."""

    def unknown_size(self, paths: Iterable[str]) -> int:
        """How many bytes of these files nobody has read yet."""

    def learn(self, found: Iterable[tuple[str, bytes, tuple[tuple[str, bytes], ...]]]) -> None:
        """Note digests and attributes of files that were read elsewhere."""


class Contexts:
    """The contexts that a build was given, by name; the main one has the empty name."""

    def __init__(self, given: Mapping[str, Context]) -> None:
        self._given = dict(given)
        self._trees: dict[str, Tree] = {}
        self._digests: dict[tuple[str, Copy, int], Digest] = {}
        self._files: dict[tuple[str, Copy, int], Sequence[str]] = {}
        self._lock = threading.Lock()

    def context(self, name: str) -> Context:
        """The context of that name.

        Raises:
            UsageError: none was given.
        """
        if name not in self._given:
            raise UsageError(
                f"no build context named {name!r}" if name else "this build has no context",
                hint=f"give it with --build-context {name}=FOLDER" if name else "name a folder",
            )
        return self._given[name]

    def tree(self, name: str) -> Tree:
        """What is in it, with the digests that were read so far."""
        with self._lock:
            found = self._trees.get(name)
        return self.context(name).scan() if found is None else found

    def tree_for(self, name: str, real_paths: Sequence[str]) -> Tree:
        """The same, with digests for these files read or taken from the stat cache."""
        context = self.context(name)
        with self._lock:
            tree = self._trees.get(name) or context.scan()
            entries = [(path, tree.get(path)) for path in real_paths]
            missing = [(p, e) for p, e in entries if e is not None and not _known(p, e)]
            if missing:
                draft = Draft(tree)
                found = context.digest([entry for _, entry in missing])
                for (path, _), entry in zip(missing, found, strict=True):
                    draft.put(path, entry)
                tree = draft.tree()
            self._trees[name] = tree
            return tree

    def copy_digest(self, name: str, op: Copy, position: int) -> Digest:
        """The digest of what a copy reads of this context, its input at a position."""
        key = (name, op, position)
        found = self._digests.get(key)
        if found is None:
            context = self.context(name)
            found = copy_content(
                op, position, self.tree(name), lambda entry: context.digest([entry])[0]
            )
            self._digests[key] = found
        return found

    def files_of(self, name: str, op: Copy, position: int) -> Sequence[str]:
        """Where the files are that a copy reads of this context, links resolved."""
        key = (name, op, position)
        found = self._files.get(key)
        if found is None:
            tree = self.tree(name)
            found = [
                path
                for source in op.sources
                if isinstance(source, CopySource) and source.input == position
                for path in selected_files(as_source(source, tree), op)
            ]
            self._files[key] = found
        return found

    def is_unread(self, name: str, op: Copy, position: int) -> bool:
        """Whether a copy reads much of a context that nobody has digested yet."""
        context = self.context(name)
        if op.kind != "copy" or not isinstance(context, Unread):
            return False
        self.tree(name)
        if context.is_known:
            return False
        return context.unknown_size(self.files_of(name, op, position)) >= MUCH

    def learn(self, name: str, packed: Iterable[tuple[Entry, Entry]]) -> None:
        """Take digests and attributes from what was packed of a context.

        Args:
            name: of the context.
            packed: entries as they were copied, and as they are in the layer.
        """
        context = self.context(name)
        if isinstance(context, Unread):
            context.learn(
                (str(copied.where.at), written.digest, written.xattrs)
                for copied, written in packed
                if copied.where is not None and copied.where.source == context.source
            )

    def mount_digest(self, name: str, mounts: Sequence[BindMount]) -> Digest:
        """The digest of what bind mounts show of this context."""
        paths = [path for mount in mounts for path in self.files_below(name, mount.source)]
        return mounts_content(mounts, self.tree_for(name, paths))

    def files_below(self, name: str, source: str) -> list[str]:
        """Where the files are at and below a path of a context, links resolved."""
        tree = self.tree(name)
        found = tree.resolve(source)
        node = find(tree.root, found.path)
        if not isinstance(node, Directory):
            return [found.path]
        return [
            join(found.path, path)
            for path, entry, _ in Filter().select(node)
            if entry.kind == FILE
        ]

    def close(self) -> None:
        """Close all of them, keeping what was learnt."""
        for context in self._given.values():
            context.close()


def as_source(source: CopySource, tree: Tree) -> Source:
    """A source argument of a plan as trees know it."""
    return Source(
        tree=tree,
        path=source.path,
        wildcard=source.wildcard,
        pattern=source.pattern,
        required=source.required,
        unpack=source.unpack,
    )


def selected_files(source: Source, op: Copy) -> Iterator[str]:
    """Where the files are that a copy reads, links resolved."""
    for match, rules in chosen(source, op.exclude, PATTERNS):
        if not isinstance(match.node, Directory):
            yield match.real
            continue
        for path, entry, _ in rules.select(match.node):
            if entry.kind != DIRECTORY:
                yield join(match.real, path)


def copy_content(op: Copy, position: int, tree: Tree, complete: Complete | None = None) -> Digest:
    """The digest of what a copy reads of a tree, its input at a position.

    Args:
        op: the copy.
        position: of the input.
        tree: that input.
        complete: gives digests that the tree does not have.
    """
    digests = [
        content_digest(
            as_source(source, tree), patterns=PATTERNS, exclude=op.exclude, complete=complete
        )
        for source in op.sources
        if isinstance(source, CopySource) and source.input == position
    ]
    return Digest.of("\n".join(["copied", *map(str, digests)]).encode())


def mounts_content(mounts: Sequence[BindMount], tree: Tree) -> Digest:
    """The digest of what bind mounts show of a tree.

    Raises:
        PathError: one shows what is not there.
    """
    digests = []
    for mount in mounts:
        found = tree.resolve(mount.source)
        node = find(tree.root, found.path)
        if node is None:
            raise PathError(
                f"{mount.source}: not found", path=mount.source, code="source-not-found"
            )
        digests.append(str(tree_digest(node)))
    return Digest.of("\n".join(["mounted", *digests]).encode())


def refuse_special(tree: Tree, paths: Iterable[str]) -> None:
    """Check that these are files and links.

    Raises:
        ContextError: one is a device, a pipe or a socket.
    """
    for path in paths:
        entry = tree.get(path)
        if entry is not None and entry.kind in SPECIAL:
            raise special_file(entry, path)


def _known(path: str, entry: Entry) -> bool:
    if entry.kind in SPECIAL:
        raise special_file(entry, path)
    return entry.kind in (DIRECTORY, SYMLINK) or bool(entry.digest)

"""Layers laid out as folders for RUN, and what a command changed there as a layer again.

A layer has one folder, which all stacks that it occurs in share; only where its tar leaves out
parent directories, whose metadata then comes from below, does the folder belong to one stack.
What a step leaves in the upper folder of its overlay becomes the folder of its layer as it is; it
too belongs to one stack if it holds more than its layer, such as files that were copied up.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, Final, cast

from attrs import evolve, frozen

from imagekit.disk.snapshot import FolderReader, Form, Workbench, settle, stands_alone
from imagekit.errors import StoreError
from imagekit.executor.layers import LayerContents, Layers
from imagekit.executor.values import Context, Layer
from imagekit.layer.changes import Changes
from imagekit.layer.selection import Filter, join
from imagekit.layer.tar import Contents
from imagekit.layer.tree import FILE, IMPLIED, Directory, Entry, Tree, Where, find
from imagekit.oci.digest import chain_id
from imagekit.sandbox.base import Folder, Overlay, Root, Sandbox
from imagekit.store.files import storing

_CHUNK: Final = 1 << 20
_PRIVATE_COPIES: Final = 64
_OVERLAY_LAYERS: Final = 499
"""Overlayfs takes 500 lower folders, one of which the sandbox may add."""


@frozen(kw_only=True)
class Writable:
    """A root that a step may write to; `commit` makes a layer of what it changed."""

    root: Root
    commit: Callable[[], Layer]


class Snapshots:
    """The laid-out layers of a store, for one sandbox; methods may be called from any thread."""

    def __init__(self, layers: Layers, sandbox: Sandbox) -> None:
        self._layers = layers
        self._store = layers.store
        self._sandbox = sandbox
        rootless = sandbox.name != "root"
        form = Form(
            userxattr=rootless, single_id=sandbox.name == "single-uid", devices=not rootless
        )
        self._bench = Workbench(None if sandbox.in_process else sandbox.service.call, form)
        self._suffix = ("u" if rootless else "") + ("s" if form.single_id else "")
        self._lock = threading.Lock()
        self._known: dict[str, str] = {}

    # Layer folders.

    def folders(self, stack: Sequence[Layer]) -> tuple[str, ...]:
        """The folders of a stack, topmost first, as overlayfs takes them."""
        found = []
        for height in range(len(stack), 0, -1):
            folder = self._folder(stack[:height])
            if folder:
                found.append(folder)
        return tuple(found)

    def _folder(self, stack: Sequence[Layer]) -> str:
        """The folder of the topmost layer; empty if the layer is."""
        chain = self._stacked(stack)
        with self._lock:
            if chain in self._known:
                return self._known[chain]
        alone = self._alone(stack[-1])
        path = self._store.snapshot(alone) or self._store.snapshot(chain)
        folder = str(path) if path is not None else self._make(stack, alone, chain)
        with self._lock:
            return self._known.setdefault(chain, folder)

    def _alone(self, layer: Layer) -> str:
        return f"l{self._suffix}-{layer.diff_id}".replace(":", "-")

    def _stacked(self, stack: Sequence[Layer]) -> str:
        return f"c{self._suffix}-{chain_id(layer.diff_id for layer in stack)}".replace(":", "-")

    @storing("cannot lay out a layer")
    def _make(self, stack: Sequence[Layer], alone: str, chain: str) -> str:
        layer, lower = stack[-1], self._layers.tree(stack[:-1])
        changes = self._layers.changes(layer, lower)
        settled = _without_root(settle(changes, lower))
        if not settled.entries and not settled.whiteouts:
            return ""
        name = alone if stands_alone(changes, settled) else chain
        with self._store.lock(f"snapshot {name}"):
            path = self._store.snapshot(name)
            if path is not None:
                return str(path)
            with self._store.new_snapshot(name, remove=self._bench.remove) as pending:
                self._extract(layer, settled, pending.path, self._bench)
                return str(pending.commit())

    def _extract(self, layer: Layer, changes: Changes, dest: Path, bench: Workbench) -> None:
        size = self._layers.index(layer).size
        placed, foreign = _with_foreign(changes, layer, size)
        contents = LayerContents(self._layers)
        try:
            with self._layers.open_stream(layer) as tar:
                bench.extract(placed, _stream(_tar_then(tar, foreign, contents)), dest)
        finally:
            contents.close()

    # Roots of steps.

    @contextmanager
    def writable(self, stack: Sequence[Layer]) -> Iterator[Writable]:
        """A root of these layers that a step may change; gone at the end of the block."""
        with self._store.temp_folder(remove=self._bench.remove) as temp:
            if len(stack) <= _OVERLAY_LAYERS and self._sandbox.supports_overlay(str(temp)):
                yield self._overlay(stack, temp)
            else:
                yield self._plain(stack, temp)

    @storing("cannot lay out the root of a step")
    def _overlay(self, stack: Sequence[Layer], temp: Path) -> Writable:
        lower = self._layers.tree(stack)
        upper, work = temp / "upper", temp / "work"
        self._bench.make_upper(upper, lower.get("") or IMPLIED)
        work.mkdir(mode=0o700)
        root = Overlay(lowers=self.folders(stack), upper=str(upper), work=str(work))

        @storing("cannot keep what a step made")
        def commit() -> Layer:
            found = self._bench.scan_upper(upper)
            layer, changes = self._write(
                upper, lambda reader: self._bench.compare(found, lower, reader)
            )
            if not found.skipped and (changes.entries or changes.whiteouts):
                exact = _is_exactly(found.changes, changes)
                stacked = self._stacked((*stack, layer))
                self._keep(self._alone(layer) if exact else stacked, upper)
            return layer

        return Writable(root=root, commit=commit)

    @storing("cannot lay out the root of a step")
    def _plain(self, stack: Sequence[Layer], temp: Path) -> Writable:
        lower = self._layers.tree(stack)
        folder = temp / "root"
        self._bench.make_upper(folder, lower.get("") or IMPLIED)
        flat = self._bench.flat()
        for height in range(1, len(stack) + 1):
            below = self._layers.tree(stack[: height - 1])
            changes = settle(self._layers.changes(stack[height - 1], below), below)
            self._extract(stack[height - 1], changes, folder, flat)
        before = self._bench.record(folder)

        @storing("cannot keep what a step made")
        def commit() -> Layer:
            found = self._bench.scan_folder(folder, before)
            layer, _ = self._write(
                folder, lambda reader: self._bench.compare(found, lower, reader)
            )
            return layer

        return Writable(root=Folder(str(folder)), commit=commit)

    def _write(
        self, folder: Path, compare: Callable[[FolderReader], Changes]
    ) -> tuple[Layer, Changes]:
        reader = self._bench.reader(folder)
        try:
            changes = compare(reader)
            return self._layers.write(changes, reader), changes
        finally:
            reader.close()

    def _keep(self, name: str, upper: Path) -> None:
        """Make the upper folder of a step that of its layer: it need not be laid out again."""
        with self._store.lock(f"snapshot {name}"):
            if self._store.snapshot(name) is not None:
                return
            self._bench.flat().make_upper(upper, IMPLIED)  # only what is ours can be moved
            with self._store.new_snapshot(name, remove=self._bench.remove) as pending:
                pending.path.rmdir()
                upper.rename(pending.path)
                pending.commit()

    # Folders that are no layers.

    @contextmanager
    def laid_out(self, tree: Tree, source: str, context: Context) -> Iterator[str]:
        """A part of a context as a folder, at its place below the root of that folder."""
        with self._store.temp_folder(remove=self._bench.remove) as temp:
            root = temp / "root"
            self._bench.make_upper(root, IMPLIED)
            self._fill(tree, source, context, root, keep_path=True)
            yield str(root)

    @storing("cannot make the folder of a cache mount")
    def cache_folder(
        self, name: str, root: Entry, fill: Callable[[Path], None] = lambda _: None
    ) -> Path:
        """The folder of a cache mount; if it is not there, one that `fill` has filled."""
        path = self._store.caches / f"{name}{self._suffix}"
        with self._store.lock(f"make cache {path.name}"):
            if not path.exists():
                new = path.with_suffix(".new")  # beside it: `root` may be somebody else's
                if new.exists():  # left by a process that was killed
                    self._bench.remove(new)
                self._bench.make_upper(new, root)
                fill(new)
                new.rename(path)
        return path

    @contextmanager
    def private_cache(self, name: str) -> Iterator[str]:
        """The name of a copy of a cache that nobody else is using."""
        for number in range(_PRIVATE_COPIES):
            copy = f"{name}-{number}" if number else name
            hold: AbstractContextManager[None] = self._store.lock(f"cache {copy}", timeout_s=0)
            try:
                hold.__enter__()
            except StoreError as exc:
                if exc.code != "lock-timeout":
                    raise
                continue
            try:
                yield copy
            finally:
                hold.__exit__(None, None, None)
            return
        raise StoreError(f"{_PRIVATE_COPIES} copies of a private cache are in use")

    def fill(self, path: Path, stack: Sequence[Layer], source: str) -> None:
        """Copy a folder of a stack into one on the disk."""
        contents = LayerContents(self._layers)
        try:
            self._fill(self._layers.tree(stack), source, contents, path, keep_path=False)
        finally:
            contents.close()

    def fill_from(self, path: Path, tree: Tree, source: str, contents: Contents) -> None:
        """Copy a folder of a tree into one on the disk."""
        self._fill(tree, source, contents, path, keep_path=False)

    @storing("cannot lay out what a step mounts")
    def _fill(
        self, tree: Tree, source: str, contents: Contents, dest: Path, *, keep_path: bool
    ) -> None:
        found = tree.resolve(source)
        node = find(tree.root, found.path)
        prefix = found.path if keep_path else ""
        entries: dict[str, Entry] = {}
        if isinstance(node, Directory):
            entries.update({join(prefix, p): e for p, e, _ in Filter().select(node)})
        elif node is not None:
            entries[found.path] = node
        parent = prefix if isinstance(node, Directory) else prefix.rpartition("/")[0]
        while parent:
            entries[parent] = tree.get(parent) or IMPLIED
            parent = parent.rpartition("/")[0]
        placed, stream = in_stream(entries, contents)
        self._bench.flat().extract(Changes(entries=placed), stream, dest)


def _without_root(changes: Changes) -> Changes:
    """The changes but for the metadata of the root, which a step's upper folder has."""
    return evolve(changes, entries={path: e for path, e in changes.entries.items() if path})


def _is_exactly(upper: Changes, layer: Changes) -> bool:
    """Whether an upper folder looks the same over any stack that its layer may come to lie on."""
    return (
        not upper.opaque
        and upper.entries.keys() == layer.entries.keys()
        and upper.whiteouts == layer.whiteouts
    )


def in_stream(entries: dict[str, Entry], contents: Contents) -> tuple[dict[str, Entry], BinaryIO]:
    """Entries as `disk.extract` takes them, and the stream that their places are in."""
    placed, files = _placed(entries, 0)
    return placed, _stream(_contents(files, contents))


def _with_foreign(changes: Changes, layer: Layer, size: int) -> tuple[Changes, list[Entry]]:
    """The changes with files that another layer holds placed after the end of this one's tar."""
    source = str(layer.diff_id)
    elsewhere = {
        path: entry
        for path, entry in changes.entries.items()
        if entry.kind == FILE and (entry.where is None or entry.where.source != source)
    }
    if not elsewhere:
        return changes, []
    placed, foreign = _placed(elsewhere, size)
    return evolve(changes, entries={**changes.entries, **placed}), foreign


def _placed(entries: dict[str, Entry], start: int) -> tuple[dict[str, Entry], list[Entry]]:
    """Entries as they lie in a stream of their contents, and the files in its order.

    Names of one file share a place, and the number that says so.
    """
    placed: dict[str, Entry] = {}
    files: list[Entry] = []
    shared: dict[tuple[str, int], Entry] = {}
    at = start
    for path, entry in entries.items():
        if entry.kind != FILE:
            placed[path] = entry
            continue
        key = ("" if entry.where is None else entry.where.source, entry.inode)
        if entry.inode and key in shared:
            placed[path] = shared[key]
            continue
        inode = len(shared) + 1 if entry.inode else 0
        placed[path] = entry._replace(where=Where("stream", at), inode=inode)
        if inode:
            shared[key] = placed[path]
        files.append(entry)
        at += entry.size
    return placed, files


def _contents(files: Sequence[Entry], contents: Contents) -> Iterator[bytes]:
    for entry in files:
        data = contents.read_small(entry)
        if data is None:
            yield from contents.chunks(entry)
        else:
            yield data


def _tar_then(tar: BinaryIO, foreign: Sequence[Entry], contents: Contents) -> Iterator[bytes]:
    while data := tar.read(_CHUNK):
        yield data
    yield from _contents(foreign, contents)


class _Pieces:
    """Pieces as a stream."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def read(self, size: int = -1, /) -> bytes:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = memoryview(piece)
        data = bytes(self._rest if size < 0 else self._rest[:size])
        self._rest = self._rest[len(data) :]
        return data


def _stream(pieces: Iterator[bytes]) -> BinaryIO:
    return cast("BinaryIO", _Pieces(pieces))

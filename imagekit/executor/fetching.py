"""Downloads and checkouts, kept as layers: what ADD and contexts read of URLs.

What was fetched is an uncompressed layer of the store, so whatever reads layers reads it: copies,
mounts, contexts. It is found again by what it is: a file by its URL, if the server says that it
has not changed; a checkout by its commit. So an unchanged source is a cache hit for all that reads
it, and costs one small request.

Spec: dockerfile-semantics.md section 10; security.md C-1, C-7.
"""

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

from imagekit.disk.context import FolderContext
from imagekit.disk.paths import remove_tree
from imagekit.errors import FetchError
from imagekit.events import Observer, Transfer, ignore_events
from imagekit.executor.cache import decode_layer, encode_layer
from imagekit.executor.contents import Spool
from imagekit.executor.layers import Layers
from imagekit.executor.tarcontext import TarContext, read_archive
from imagekit.executor.values import Downloaded, Downloads, Layer
from imagekit.layer.changes import Changes, diff
from imagekit.layer.draft import Draft
from imagekit.layer.tree import DIRECTORY, FILE, Directory, Entry, Tree, Where, find
from imagekit.oci.digest import Digest
from imagekit.plan.ops import Fetch
from imagekit.store.database import CacheRecord
from imagekit.store.files import storing

_SCOPE: Final = "fetch"
_MODE: Final = 0o600
_EVERY_S: Final = 0.25


class Fetches:
    """Fetches for one build; methods may be called from any thread."""

    def __init__(
        self,
        layers: Layers,
        downloads: Downloads,
        *,
        observer: Observer = ignore_events,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._layers = layers
        self._store = layers.store
        self._downloads = downloads
        self._observer = observer
        self._clock = clock

    def fetch(self, op: Fetch) -> Layer:
        """What an operation fetches, as a layer that is in the store.

        Raises:
            FetchError: it cannot be had, or is not what its checksum says.
            PathError: the repository has no such folder; code `source-not-found`.
            BadArchiveError: the archive that is to be unpacked is damaged.
        """
        return self._file(op) if op.kind == "http" else self._repository(op)

    def context(self, op: Fetch) -> TarContext:
        """The same as a build context; the caller closes it."""
        layer = self.fetch(op)
        file = self._store.open(layer.descriptor)
        return TarContext(str(layer.diff_id), self._layers.tree((layer,)), file)

    # Files.

    def _file(self, op: Fetch) -> Layer:
        key = _key("download", op.url, op.filename, str(op.unpack))
        with self._store.lock(f"fetch {key}"):
            known = self._known(key)
            if known is not None and op.checksum and known["body"] == op.checksum:
                return self._layer(known)
            ask = known if known is not None and not op.checksum else {}
            with self._temporary() as body:
                found = self._downloads.download(
                    op.url,
                    body,
                    etag=ask.get("etag", ""),
                    modified=ask.get("modified", ""),
                    checksum=op.checksum,
                    progress=self._progress(op),
                )
                if found is None:
                    return self._layer(ask)
                body.flush()
                layer = self._keep_file(op, found, body)
            self._save(
                key,
                layer,
                body=str(found.digest),
                etag=found.etag,
                modified=found.modified,
            )
            return layer

    def _keep_file(self, op: Fetch, found: Downloaded, body: BinaryIO) -> Layer:
        if op.unpack:
            body.seek(0)
            archive = read_archive(
                body, folder=self._store.path / "temp", source="archive", clock=self._clock
            )
            if isinstance(archive, TarContext):
                try:
                    return self._layers.keep(diff(Tree.EMPTY, archive.scan()), archive)
                finally:
                    archive.close()
        if not op.filename or "/" in op.filename or "\0" in op.filename:
            raise FetchError(f"{op.url}: {op.filename!r} is no name of a file", code="url-invalid")
        entry = Entry(
            FILE,
            _MODE,
            mtime=found.mtime,
            size=found.size,
            digest=bytes.fromhex(found.digest.hex),
            where=Where("download", 0),
        )
        return self._layers.keep(Changes(entries={op.filename: entry}), Spool(body))

    def _temporary(self) -> BinaryIO:
        folder = self._store.path / "temp"
        with storing("cannot make a temporary file"):
            return tempfile.TemporaryFile(dir=folder, prefix="download-")

    def _progress(self, op: Fetch) -> Callable[[int, int | None], None]:
        """Tells how far a download is, now and then."""
        told = 0.0

        def progress(done: int, total: int | None) -> None:
            nonlocal told
            now = time.monotonic()
            if now - told >= _EVERY_S or done == total:
                told = now
                self._observer(
                    Transfer(
                        direction="pull", name=op.shown, why="it is added", done=done, total=total
                    )
                )

        return progress

    # Repositories.

    def _repository(self, op: Fetch) -> Layer:
        commit = self._downloads.commit(op.url, op.ref, pinned=bool(op.checksum))
        if op.checksum and not commit.startswith(op.checksum.lower()):
            raise FetchError(
                f"{op.shown}: want commit {op.checksum}, {op.ref or 'HEAD'} is {commit}",
                code="checksum-mismatch",
            )
        key = _key(
            "checkout",
            op.url,
            commit,
            op.subdir,
            str(op.submodules),
            f"{op.keep_git_dir} {op.ref if op.keep_git_dir else ''}",
            str(op.commit_times),
        )
        with self._store.lock(f"fetch {key}"):
            known = self._known(key)
            if known is not None:
                return self._layer(known)
            with self._store.temp_folder(remove=remove_tree) as folder:
                layer = self._check_out(op, commit, folder)
            self._save(key, layer, commit=commit)
        self._observer(
            Transfer(
                direction="pull",
                name=f"{op.shown}#{commit[:12]}",
                why="it is checked out",
                done=layer.descriptor.size,
                total=layer.descriptor.size,
            )
        )
        return layer

    def _check_out(self, op: Fetch, commit: str, folder: Path) -> Layer:
        seconds = self._downloads.checkout(
            op.url,
            op.ref,
            commit,
            folder,
            submodules=op.submodules,
            keep_git_dir=op.keep_git_dir,
        )
        with FolderContext(folder / "tree", name="checkout") as context:
            tree = _without_links_to_git(context.scan(), keep=op.keep_git_dir)
            tree = _subdirectory(tree, op)
            tree = _with_content(tree, context, seconds if op.commit_times else None)
            return self._layers.keep(diff(Tree.EMPTY, tree), context)

    # Records.

    def _known(self, key: str) -> Mapping[str, Any] | None:
        """What a record says, if the layer that it names is still here."""
        record = self._store.database.records([key]).get(key)
        if record is None:
            return None
        layer = decode_layer(record.result["layer"])
        if layer is None or not self._store.exists(layer.descriptor):
            return None
        self._store.database.touch_records([key])
        known: Mapping[str, Any] = record.result
        return known

    def _layer(self, known: Mapping[str, Any]) -> Layer:
        layer = decode_layer(known["layer"])
        if layer is None:
            raise AssertionError(known)
        return layer

    def _save(self, key: str, layer: Layer, **facts: str) -> None:
        result = {"layer": encode_layer(layer), **facts}
        self._store.database.put_record(CacheRecord(key=key, scope=_SCOPE, result=result))


def _key(*words: str) -> str:
    text = "\0".join(("fetch 1", *words))
    return str(Digest.of(text.encode("utf-8", "surrogateescape")))


def _without_links_to_git(tree: Tree, *, keep: bool) -> Tree:
    """The tree without the `.git` files of submodules, which name folders of this machine."""
    gone = [p for p, e in tree.walk() if e.kind == FILE and p.rpartition("/")[2] == ".git"]
    if keep or not gone:
        return tree
    draft = Draft(tree)
    for path in gone:
        draft.remove(path)
    return draft.tree()


def _subdirectory(tree: Tree, op: Fetch) -> Tree:
    """The folder of a repository that is wanted, links resolved inside the repository."""
    found = tree.resolve(op.subdir) if op.subdir else None
    if found is None:
        return tree
    node = find(tree.root, found.path) if found.entry is not None else None
    if not isinstance(node, Directory):
        _no_folder(op)
    return Tree(node)


def _no_folder(op: Fetch) -> NoReturn:
    raise FetchError(
        f"{op.shown} has no folder {op.subdir} at {op.ref or 'its default branch'}",
        code="source-not-found",
    )


def _with_content(tree: Tree, context: FolderContext, seconds: int | None) -> Tree:
    """The tree with the digests of all files, and perhaps all of one time."""
    draft = Draft(tree)
    paths = [(path, entry) for path, entry in tree.walk() if entry.kind != DIRECTORY]
    digested = context.digest([entry for _, entry in paths])
    entries = [(path, entry) for (path, _), entry in zip(paths, digested, strict=True)]
    if seconds is not None:
        folders = [(path, entry) for path, entry in tree.walk() if entry.kind == DIRECTORY]
        entries = [(p, e._replace(mtime=seconds)) for p, e in (*folders, *entries)]
    draft.put_all(entries)
    return draft.tree()

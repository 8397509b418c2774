"""Snapshots: layers laid out in folders, and layers made of what changed there.

`Workbench` is what an executor uses. Where the sandbox's ids are this process's, it calls
`extract`, `collect` and `contents` directly; else it calls the functions below it in the sandbox's
helper process: arguments and results are JSON, bulk data passes through descriptors, and file
contents through a socket on which they are asked for one by one.
"""

import contextlib
import io
import os
import shutil
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from attrs import evolve

from imagekit.disk import collect, stats
from imagekit.disk.collect import Found, Table, compare, source_of
from imagekit.disk.contents import FolderContents, FolderFiles, place
from imagekit.disk.extract import Form, extract, settle, stands_alone
from imagekit.disk.paths import remove_tree
from imagekit.errors import LayerError
from imagekit.layer.changes import Changes
from imagekit.layer.index import LayerIndex, decode_index, encode_index
from imagekit.layer.tree import FILE, Entry, Tree, Where
from imagekit.oci.digest import Digest

__all__ = ["FolderReader", "Form", "Found", "Workbench", "settle", "stands_alone"]

SMALL: Final = 1 << 20
CHUNK: Final = 1 << 20
_NO_DIGEST: Final = bytes(32)
_NAMELESS: Final = Digest.of(b"")
_REQUEST: Final = struct.Struct("<BI")
_REPLY: Final = struct.Struct("<Bq")
_CONTENT, _DIGEST = 0, 1

Call = Callable[..., Any]
"""`Service.call` of a sandbox: (target, *JSON arguments, fds=descriptors) -> JSON."""


class FolderReader(Protocol):
    """The contents of a folder: `layer.tar.Contents`, and digests; to be closed."""

    def read_small(self, entry: Entry) -> bytes | None:
        """See `Contents`."""

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """See `Contents`."""

    def digests(self, entries: Sequence[Entry]) -> list[bytes]:
        """The SHA-256 of each file."""

    def close(self) -> None:
        """Give it back; a second call does nothing."""


class Workbench:
    """Snapshots in this process, or with the rights of a sandbox's helper."""

    def __init__(self, call: Call | None, form: Form) -> None:
        """Say where and how to work.

        Args:
            call: of the sandbox's service; None to work in this process.
            form: how layers are laid out and read back.
        """
        self._call = call
        self.form = form

    def flat(self) -> "Workbench":
        """The same for plain roots: layers are laid onto what is there."""
        return Workbench(self._call, evolve(self.form, overlay=False))

    def extract(self, changes: Changes, stream: BinaryIO, dest: Path) -> tuple[str, ...]:
        """Lay out a layer that `settle` has prepared; see `extract.extract`.

        The `at` of every file is an offset in the stream; where the content of some files is not
        in the layer, the caller appends it to the stream.
        """
        if self._call is None:
            return extract(changes, stream, dest, self.form)
        call = self._call
        with _memory_file(encode_changes(changes)) as index, _pumped(stream) as content:
            fds = [index, content]
            notes = call(f"{__name__}:extract_layer", str(dest), self.form.to_json(), fds=fds)
        return tuple(notes)

    def scan_upper(self, upper: Path) -> Found:
        """What is in the upper folder of an overlay; see `collect.scan_upper`."""
        if self._call is None:
            return collect.scan_upper(upper, self.form)
        return self._scan("scan_upper", upper)

    def record(self, folder: Path) -> dict[str, stats.Known]:
        """How everything below a plain root looks now; see `collect.record_folder`."""
        if self._call is None:
            return collect.record_folder(folder)
        with _memory_file() as out:
            self._call(f"{__name__}:record_folder", str(folder), fds=[out])
            return stats.decode(_read_all(out))

    def scan_folder(self, folder: Path, before: Table) -> Found:
        """What looks different below a plain root; see `collect.scan_folder`."""
        if self._call is None:
            return collect.scan_folder(folder, before, self.form)
        with _memory_file(stats.encode(before)) as table:
            return self._scan("scan_folder", folder, table)

    def _scan(self, function: str, folder: Path, *fds: int) -> Found:
        if self._call is None:
            raise LayerError("there is no helper to scan with")
        with _memory_file() as out:
            options = self.form.to_json()
            target = f"{__name__}:{function}"
            skipped = self._call(target, str(folder), options, fds=[*fds, out])
            changes = decode_changes(_read_all(out), source_of(folder))
        return Found(changes=changes, skipped=tuple(skipped))

    def compare(self, found: Found, lower: Tree, reader: FolderReader) -> Changes:
        """The layer that makes what was found of the tree below; see `collect.compare`."""
        single_id = self.form.single_id
        return compare(found.changes, lower, reader.digests, single_id=single_id)

    def reader(self, folder: Path) -> FolderReader:
        """The contents of a folder; for one thread, and to be closed."""
        return FolderContents(folder) if self._call is None else _Served(self._call, folder)

    def make_upper(self, path: Path, root: Entry) -> None:
        """An empty folder that gives a mounted root its metadata, as the upper one does."""
        path.mkdir(mode=0o700, exist_ok=True)
        self.extract(Changes(entries={"": root}), io.BytesIO(), path)

    def remove(self, path: Path) -> None:
        """Remove a folder and all below it."""
        if self._call is None:
            remove_tree(path)
        else:
            self._call(f"{__name__}:remove", str(path))


# What a helper process is asked to do.


def extract_layer(dest: str, form: Mapping[str, Any], *, fds: Sequence[int]) -> list[str]:
    """`extract`: the changes come as a file, the content as a stream; both stay open."""
    index, content = fds
    changes = decode_changes(_read_all(index), "")
    with open(content, "rb", buffering=CHUNK, closefd=False) as stream:
        return list(extract(changes, stream, Path(dest), Form.from_json(form)))


def scan_upper(upper: str, form: Mapping[str, Any], *, fds: Sequence[int]) -> list[str]:
    """`collect.scan_upper`: changes to a file, what was skipped as the result."""
    found = collect.scan_upper(Path(upper), Form.from_json(form))
    _write_all(fds[0], encode_changes(found.changes))
    return list(found.skipped)


def record_folder(folder: str, *, fds: Sequence[int]) -> None:
    """`collect.record_folder`: the table to a file."""
    _write_all(fds[0], stats.encode(collect.record_folder(Path(folder))))


def scan_folder(folder: str, form: Mapping[str, Any], *, fds: Sequence[int]) -> list[str]:
    """`collect.scan_folder`: the table from a file, changes to one, what was skipped back."""
    table, out = fds
    before = stats.decode(_read_all(table))
    found = collect.scan_folder(Path(folder), before, Form.from_json(form))
    _write_all(out, encode_changes(found.changes))
    return list(found.skipped)


def serve_files(folder: str, *, fds: Sequence[int]) -> None:
    """Answer requests for contents and digests of files until the socket ends."""
    with (
        socket.socket(fileno=os.dup(fds[0])) as link,
        FolderFiles(Path(folder)) as files,
        link.makefile("rb") as requests,
        io.BufferedWriter(link.makefile("wb", buffering=0), CHUNK) as replies,
    ):
        while head := requests.read(_REQUEST.size):
            what, length = _REQUEST.unpack(head)
            path = os.fsdecode(requests.read(length))
            try:
                _serve(files, what, path, replies)
            except (OSError, LayerError) as exc:
                message = str(exc).encode("utf-8", "surrogateescape")
                replies.write(_REPLY.pack(1, len(message)) + message)
            replies.flush()


def remove(path: str) -> None:
    """`remove_tree`."""
    remove_tree(path)


def _serve(files: FolderFiles, what: int, path: str, replies: "io.BufferedWriter[Any]") -> None:
    if what == _DIGEST:
        replies.write(_REPLY.pack(0, 32) + files.digest(path))
        return
    with open(files.open(path), "rb", buffering=0) as file:  # noqa: PTH123 - from a descriptor
        left = os.fstat(file.fileno()).st_size
        replies.write(_REPLY.pack(0, left))
        while left:
            data = file.read(min(left, CHUNK)) or bytes(min(left, CHUNK))
            replies.write(data)
            left -= len(data)


class _Served:
    """A folder that only the helper may read: it is asked for one file after the other."""

    def __init__(self, call: Call, folder: Path) -> None:
        self._link, theirs = socket.socketpair()
        self._in = self._link.makefile("rb", buffering=CHUNK)
        self._thread = threading.Thread(target=self._run, args=(call, folder, theirs), daemon=True)
        self._error: Exception | None = None
        self._thread.start()

    def _run(self, call: Call, folder: Path, theirs: socket.socket) -> None:
        with theirs:
            try:
                call(f"{__name__}:serve_files", str(folder), fds=[theirs.fileno()])
            except Exception as exc:  # noqa: BLE001 - raised in the thread that asks
                self._error = exc

    def close(self) -> None:
        """See `FolderReader`."""
        self._in.close()
        self._link.close()
        self._thread.join()

    def _ask(self, what: int, path: str) -> int:
        name = os.fsencode(path)
        try:
            self._link.sendall(_REQUEST.pack(what, len(name)) + name)
            head = self._in.read(_REPLY.size)
        except OSError as exc:
            raise self._lost(path) from exc
        if len(head) < _REPLY.size:
            raise self._lost(path)
        failed, size = _REPLY.unpack(head)
        if failed:
            message = self._in.read(size).decode("utf-8", "replace")
            raise LayerError(f"cannot read /{path} after the step: {message}", path=path)
        return int(size)

    def _lost(self, path: str) -> Exception:
        return self._error or LayerError(f"/{path}: the helper that reads it ended", path=path)

    def read_small(self, entry: Entry) -> bytes | None:
        """See `Contents`."""
        if entry.size >= SMALL:
            return None
        data: bytes = self._in.read(self._ask(_CONTENT, place(entry)))
        return data

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """See `Contents`."""
        path = place(entry)
        left = self._ask(_CONTENT, path)
        while left:
            data = self._in.read(min(left, CHUNK))
            if not data:
                raise self._lost(path)
            left -= len(data)
            yield data

    def digests(self, entries: Sequence[Entry]) -> list[bytes]:
        """See `FolderReader`."""
        return [self._in.read(self._ask(_DIGEST, place(entry))) for entry in entries]


# Bulk data between processes.


def encode_changes(changes: Changes) -> bytes:
    """Changes as bytes, in the form of a layer index; where files are in a folder is left out."""
    entries = {
        path: entry._replace(
            digest=entry.digest or _NO_DIGEST,
            where=entry.where if _has_offset(entry) else None,
        )
        if entry.kind == FILE
        else entry
        for path, entry in changes.entries.items()
    }
    bare = evolve(changes, entries=entries)
    return encode_index(LayerIndex(diff_id=_NAMELESS, size=0, changes=bare))


def decode_changes(data: bytes, source: str) -> Changes:
    """What `encode_changes` was given; files without an offset are at their path in `source`."""
    changes = decode_index(data).changes
    entries = {
        path: entry._replace(
            digest=b"" if entry.digest == _NO_DIGEST else entry.digest,
            where=entry.where or Where(source, path),
        )
        if entry.kind == FILE
        else entry
        for path, entry in changes.entries.items()
    }
    return evolve(changes, entries=entries)


def _has_offset(entry: Entry) -> bool:
    return entry.where is not None and isinstance(entry.where.at, int)


@contextlib.contextmanager
def _memory_file(data: bytes = b"") -> Iterator[int]:
    fd = os.memfd_create("imagekit", os.MFD_CLOEXEC)
    try:
        _write_all(fd, data)
        yield fd
    finally:
        os.close(fd)


def _read_all(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    parts = []
    at = 0
    while at < size:
        parts.append(os.pread(fd, size - at, at))
        at += len(parts[-1])
    return b"".join(parts)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


@contextlib.contextmanager
def _pumped(stream: BinaryIO) -> Iterator[int]:
    """A descriptor from which a stream can be read; a thread fills it.

    Raises:
        Exception: what reading the stream raised, unless the block raises something else.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    failed: list[Exception] = []

    def pump() -> None:
        try:
            with open(writer, "wb", buffering=0) as out:  # noqa: PTH123 - from a descriptor
                shutil.copyfileobj(stream, out, CHUNK)
        except BrokenPipeError:
            return  # the reader has what it needs
        except Exception as exc:  # noqa: BLE001 - raised in the thread that waits
            failed.append(exc)

    thread = threading.Thread(target=pump, daemon=True)
    thread.start()
    try:
        yield reader
    finally:
        os.close(reader)
        thread.join()
        if failed:
            raise failed[0]  # the cause of whatever the block may have raised

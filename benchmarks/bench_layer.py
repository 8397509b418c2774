"""How fast layers are packed and read, as ratios to what the machine can do at all.

    python benchmarks/bench_layer.py [FILES] [FOLDER...]

The sample is FILES (20,000) files from system folders, up to 250 MB. The floor is the work that
nobody can avoid: walk the sample and read and SHA-256 every file once in one thread, while another
compresses the same bytes; no headers, no digests of the results, no writing. Each figure is the
best of five, taken in turns within one run.
"""

import hashlib
import io
import os
import queue
import resource
import shutil
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from isal import isal_zlib

from imagekit.layer.changes import Changes
from imagekit.layer.compress import BLOCK_SIZE, LayerSink, codec
from imagekit.layer.decompress import BlockReader, Decompressor
from imagekit.layer.index import LayerIndex, decode_index, encode_index
from imagekit.layer.tar import read_layer, write_layer
from imagekit.layer.tree import DIRECTORY, FILE, SYMLINK, Entry, Where

ROUNDS = 5
TOTAL = 250 << 20
FOLDERS = ("/usr/share", "/usr/lib")


def make_sample(target: Path, files: int, folders: list[str]) -> tuple[int, int]:
    """Copy a mix of system files; their number and size."""
    count = size = 0
    for share, folder in enumerate(folders, 1):
        for parent, names, entries in os.walk(folder):
            names.sort()
            room = files * share // len(folders), TOTAL * share // len(folders)
            for name in sorted(entries):
                source = Path(parent, name)
                status = source.lstat()
                if not stat.S_ISREG(status.st_mode) or status.st_size > TOTAL // 10:
                    continue
                if count >= room[0] or size + status.st_size > room[1]:
                    break
                copy = target / parent.lstrip("/") / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copy)
                count, size = count + 1, size + status.st_size
    return count, size


class Files:
    """The contents of a folder."""

    def read_small(self, entry: Entry) -> bytes | None:
        """See `Contents`."""
        handle = os.open(self._path(entry), os.O_RDONLY | os.O_NOFOLLOW)
        try:
            return os.read(handle, entry.size + 1)
        finally:
            os.close(handle)

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """See `Contents`."""
        with open(self._path(entry), "rb", buffering=0) as file:  # noqa: PTH123
            while chunk := file.read(BLOCK_SIZE):
                yield chunk

    def _path(self, entry: Entry) -> str:
        return entry.where.at if entry.where and isinstance(entry.where.at, str) else ""


def walk(root: str) -> Changes:
    """The folder as changes, with no content read."""
    entries: dict[str, Entry] = {}
    start = len(root) + 1
    todo = [root]
    while todo:
        with os.scandir(todo.pop()) as found:
            for item in found:
                status = item.stat(follow_symlinks=False)
                path, mode = item.path, status.st_mode
                mtime = int(status.st_mtime)
                if stat.S_ISREG(mode):
                    entry = Entry(
                        FILE, mode & 0o7777, 0, 0, mtime, status.st_size, "", b"", Where("", path)
                    )
                elif stat.S_ISDIR(mode):
                    entry = Entry(DIRECTORY, mode & 0o7777, 0, 0, mtime)
                    todo.append(path)
                else:
                    entry = Entry(SYMLINK, 0o777, 0, 0, mtime, link=os.readlink(path))  # noqa: PTH115
                entries[path[start:]] = entry
    return Changes(entries=entries)


def floor(root: str) -> None:
    """Walk, read and hash in this thread; compress the same bytes in another."""
    blocks: queue.Queue[bytes | None] = queue.Queue(4)

    def compress() -> None:
        while (block := blocks.get()) is not None:
            isal_zlib.compress(block, 2, -15)

    thread = threading.Thread(target=compress)
    thread.start()
    parts: list[bytes] = []
    size = 0
    for parent, _, names in os.walk(root):
        for name in names:
            with open(f"{parent}/{name}", "rb") as file:  # noqa: PTH123
                data = file.read()
            hashlib.sha256(data).digest()
            parts.append(data)
            size += len(data)
            if size >= BLOCK_SIZE:
                blocks.put(b"".join(parts))
                parts, size = [], 0
    blocks.put(b"".join(parts))
    blocks.put(None)
    thread.join()


def pack(root: str, out: Path, compression: str = "gzip") -> LayerIndex:
    """All that packing a folder is, to a blob on disk and its index."""
    changes = walk(root)
    chosen = codec("zstd" if compression == "zstd" else "gzip")
    with out.open("wb", buffering=0) as raw, LayerSink(raw, chosen) as sink:
        index = write_layer(changes, Files(), sink)
        return LayerIndex(
            diff_id=index.diff_id, size=index.size, changes=index.changes, blob=sink.result
        )


def best(jobs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The best time of each job in seconds; jobs take turns, so that noise hits all alike."""
    times: dict[str, float] = dict.fromkeys(jobs, float("inf"))
    for _ in range(ROUNDS):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            times[name] = min(times[name], time.perf_counter() - start)
    return times


def main() -> None:
    files = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    folders = sys.argv[2:] or list(FOLDERS)
    with tempfile.TemporaryDirectory(prefix="imagekit-bench-") as name:
        root, out = Path(name, "root"), Path(name, "blob")
        count, size = make_sample(root, files, folders)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        index = pack(str(root), out)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        blob = index.blob
        if blob is None:
            raise RuntimeError("no blob")
        stored = encode_index(index)

        def read() -> LayerIndex:
            with out.open("rb") as raw:
                return read_layer(
                    Decompressor(raw, "gzip", digest=blob.digest, diff_id=blob.diff_id),
                    diff_id=blob.diff_id,
                )

        def unpack_only() -> None:
            with out.open("rb") as raw:
                stream = Decompressor(raw, "gzip")
                while stream.read(BLOCK_SIZE):
                    pass

        def read_at_random() -> None:
            with out.open("rb") as raw:
                reader = BlockReader(raw, blob)
                for entry in list(index.changes.entries.values())[:: max(1, count // 100)]:
                    if entry.where and isinstance(entry.where.at, int):
                        reader.read(entry.where.at, entry.size)

        tar = io.BytesIO()
        with out.open("rb") as raw:
            tar.write(Decompressor(raw, "gzip").read())
        times = best(
            {
                "floor": lambda: floor(str(root)),
                "pack gzip": lambda: pack(str(root), out),
                "walk": lambda: walk(str(root)),
                "read gzip": read,
                "gunzip": unpack_only,
                "read tar": lambda: (tar.seek(0), read_layer(tar, diff_id=blob.diff_id)),
                "encode index": lambda: encode_index(index),
                "decode index": lambda: decode_index(stored),
                "100 random files": read_at_random,
            }
        )
    print(f"{count} files, {size / 1e6:.0f} MB -> {blob.size / 1e6:.0f} MB, index {len(stored)} B")
    for job, seconds in times.items():
        each = seconds / count * 1e6
        print(f"{job:18} {seconds:7.3f} s  {seconds / times['floor']:6.2f}  {each:7.1f} us/file")
    print(f"peak memory {peak / 1024:.0f} MiB, {(peak - before) / 1024:.0f} MiB of it for packing")


if __name__ == "__main__":
    main()

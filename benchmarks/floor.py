"""The floor below packing a folder: what nobody can avoid, as a program of its own.

    python benchmarks/floor.py FOLDER

Walks the folder, reads and SHA-256s every file once in one thread; compresses the same bytes with
isal's level 2 in another. No headers, no digests of the results, no writing.
"""

import hashlib
import os
import queue
import sys
import threading
from collections.abc import Iterator

from isal import isal_zlib

BLOCK = 1 << 20
LEVEL = 2


def main(root: str) -> None:
    blocks: queue.Queue[bytes | None] = queue.Queue(4)
    compressor = threading.Thread(target=_compress, args=(blocks,))
    compressor.start()
    parts: list[bytes] = []
    size = 0
    for data in _files(root):
        parts.append(data)
        size += len(data)
        if size >= BLOCK:
            blocks.put(b"".join(parts))
            parts, size = [], 0
    blocks.put(b"".join(parts))
    blocks.put(None)
    compressor.join()


def _compress(blocks: queue.Queue[bytes | None]) -> None:
    stream = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, -15)
    while (block := blocks.get()) is not None:
        stream.compress(block)
    stream.flush()


def _files(root: str) -> Iterator[bytes]:
    todo = [root]
    while todo:
        with os.scandir(todo.pop()) as found:
            for item in found:
                if item.is_dir(follow_symlinks=False):
                    todo.append(item.path)
                elif item.is_file(follow_symlinks=False):
                    handle = os.open(item.path, os.O_RDONLY)
                    try:
                        data = os.read(handle, item.stat().st_size + 1)
                    finally:
                        os.close(handle)
                    hashlib.sha256(data).digest()
                    yield data


if __name__ == "__main__":
    main(sys.argv[1])

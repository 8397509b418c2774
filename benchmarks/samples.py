"""What the benchmarks read: real files, taken once from this machine and kept in a cache folder.

The folder is IMAGEKIT_BENCH_CACHE, else `imagekit-benchmarks` in the user's cache folder. It takes
about 5.5 GB and may be removed at any time. A sample is made beside its final name and renamed, so
that what is there is whole.
"""

import hashlib
import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDERS = ("/usr/share", "/usr/lib")
BLOCK = 1 << 20

TREE_FILES = 20_000
TREE_BYTES = 250_000_000
_REAL_FILES = 15_000
_REAL_BYTES = 225_000_000
_LARGEST = 8_000_000


def cache_folder() -> Path:
    """Where samples are kept; it is made if it is not there."""
    named = os.environ.get("IMAGEKIT_BENCH_CACHE")
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(named) if named else user / "imagekit-benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def source_tree() -> Path:
    """A folder of 20,000 files and 250 MB: whole system folders, filled up with small files."""
    target = cache_folder() / "tree"
    if target.exists():
        return target
    made = _fresh(target)
    count = size = 0
    for folder in _system_folders():
        for source, status in _regular_files(folder):
            if count >= _REAL_FILES or size + status.st_size > _REAL_BYTES:
                continue
            copy = made / str(source).lstrip("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
            count, size = count + 1, size + status.st_size
        if count >= _REAL_FILES or size > 0.99 * _REAL_BYTES:
            break
    _fill(made, TREE_FILES - count, TREE_BYTES - size)
    made.rename(target)
    return target


def large_file(size: int) -> Path:
    """A folder with one file of that many bytes, half random and half text, with no holes."""
    target = cache_folder() / f"large-{size}"
    if target.exists():
        return target
    made = _fresh(target)
    noise = random.Random(size)
    blocks = [noise.randbytes(BLOCK // 2) + _text(noise, BLOCK // 2) for _ in range(8)]
    with (made / "data").open("wb", buffering=0) as file:
        for number in range(size // BLOCK):
            mark = number.to_bytes(8, "little")  # no two blocks are the same
            file.write(mark + blocks[number % len(blocks)][len(mark) :])
    made.rename(target)
    return target


def embedded_base() -> Path:
    """The OCI layout that fixtures/base/make.py makes, with one image tagged `latest`."""
    target = cache_folder() / "base"
    script = REPOSITORY / "fixtures" / "base" / "make.py"
    subprocess.run([sys.executable, script, target], check=True, stdout=subprocess.DEVNULL)
    return target


def _fresh(target: Path) -> Path:
    made = target.with_name(f"{target.name}.part")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    return made


def _system_folders() -> list[str]:
    """All folders below FOLDERS in an order that mixes them and is the same every time."""
    found = [parent for top in FOLDERS for parent, _, _ in os.walk(top)]
    return sorted(found, key=lambda f: hashlib.sha256(os.fsencode(f)).digest())


def _regular_files(folder: str) -> Iterator[tuple[Path, os.stat_result]]:
    for name in sorted(os.listdir(folder)):  # noqa: PTH208 - names, not paths
        path = Path(folder, name)
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_size <= _LARGEST:
            yield path, status


def _fill(root: Path, files: int, size: int) -> None:
    """Add small files of text, 50 a folder, so that their sizes sum up."""
    noise = random.Random(files)
    for number in range(files):
        share = size // (files - number)
        length = share if number == files - 1 else noise.randint(share // 2, share + share // 2)
        folder = root / "src" / f"package{number // 50}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"module{number % 50}.txt").write_bytes(_text(noise, length))
        size -= length


def _text(noise: random.Random, size: int) -> bytes:
    words = [noise.randbytes(noise.randint(1, 5)).hex() for _ in range(500)]
    lines = (" ".join(noise.choices(words, k=10)) for _ in range(size // 60 + 20))
    text = "\n".join(lines).encode()
    return (text * (size // len(text) + 1))[:size]

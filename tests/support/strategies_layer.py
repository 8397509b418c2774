"""Hypothesis strategies for layers."""

import hashlib

from hypothesis import strategies as st

from imagekit.layer.changes import Changes
from imagekit.layer.index import implied_directories
from imagekit.layer.tree import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    SYMLINK,
    Entry,
    Where,
)
from tests.support.tars import Memory

NAMES = (
    st.one_of(
        st.sampled_from(["a", "b", "a-b", "é", "n" * 60, "m" * 101, "\udcff", "a\nb", "-x", " "]),
        st.binary(min_size=1, max_size=8).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
    )
    .filter(lambda name: "/" not in name and "\0" not in name)
    .filter(lambda name: name not in {".", ".."} and not name.startswith(".wh."))
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
IDS = st.sampled_from([0, 1, 1000, 0o7777777, 0o10000000, 2**32 - 2])
TIMES = st.sampled_from([0, 1, 1_700_000_000, 2**33 - 1, -1, -(2**33)])
XATTRS = st.dictionaries(
    st.sampled_from(["user.a", "user.é", "security.capability"]),
    st.binary(max_size=20),
    max_size=2,
).map(lambda values: tuple(sorted(values.items())))
CONTENTS = st.sampled_from([b"", b"x", b"y" * 511, b"z" * 512, b"w" * 513, b"v" * 100_000])


@st.composite
def changes(draw: st.DrawFn) -> tuple[Changes, Memory]:
    """Changes as `write_layer` gives them back, and the contents of their files."""
    memory = Memory()
    entries: dict[str, Entry] = {}
    for path in sorted(draw(st.sets(PATHS, max_size=12))):
        if not _below_file(path, entries):
            entries[path] = draw(_entry(memory))
    if draw(st.booleans()):
        entries[""] = Entry(DIRECTORY, 0o755)
    free = [p for p in draw(st.sets(PATHS, max_size=4)) if not _below_file(p, entries)]
    folders = [path for path, entry in entries.items() if entry.kind == DIRECTORY]
    return (
        Changes(
            entries=entries,
            whiteouts=frozenset(free),
            opaque=frozenset(draw(st.sets(st.sampled_from(folders)))) if folders else frozenset(),
            implied=implied_directories(entries),
        ),
        memory,
    )


def _below_file(path: str, entries: dict[str, Entry]) -> bool:
    parent = path.rpartition("/")[0]
    while parent:
        entry = entries.get(parent)
        if entry is not None and entry.kind != DIRECTORY:
            return True
        parent = parent.rpartition("/")[0]
    return False


@st.composite
def _entry(draw: st.DrawFn, memory: Memory) -> Entry:
    kind = draw(
        st.sampled_from([FILE, FILE, FILE, DIRECTORY, DIRECTORY, SYMLINK, CHARACTER, FIFO])
    )
    bare = Entry(
        kind,
        draw(st.sampled_from([0o644, 0o755, 0o4755, 0o1777, 0])),
        draw(IDS),
        draw(IDS),
        draw(TIMES),
        xattrs=draw(XATTRS),
    )
    if kind == FILE:
        content = draw(CONTENTS)
        key = hashlib.sha256(content).hexdigest()
        memory.contents[key] = content
        return bare._replace(
            size=len(content),
            where=Where("memory", key),
            inode=draw(st.sampled_from([0, 0, 1, 2])),
        )
    if kind == SYMLINK:
        return bare._replace(mode=0o777, link=draw(st.sampled_from(["a", "/b/../c", "é" * 60])))
    if kind == CHARACTER:
        kind = draw(st.sampled_from([CHARACTER, BLOCK]))
        return bare._replace(kind=kind, device=draw(st.sampled_from([(1, 3), (8, 0xFFFFF)])))
    return bare

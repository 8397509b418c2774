"""Cache keys: every input of a step is in them, and nothing else is."""

from typing import Any

import attrs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from imagekit.oci.digest import Digest
from imagekit.oci.platform import Platform
from imagekit.plan.key import KeyRecord, cache_key
from imagekit.plan.ops import (
    BindMount,
    CacheMount,
    Copy,
    CopySource,
    Exec,
    Fetch,
    InlineFile,
    Mkdir,
    Op,
    ScriptMount,
    SecretMount,
    SshMount,
    TmpfsMount,
)

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
PARENTS = (Digest.of(b"root"), Digest.of(b"input"))

TEXT = st.sampled_from(["", "a", "b", "ab", "1:a", "a\n", "é", "\udcff"])
PATH = st.sampled_from(["/", "/a", "/b", "/a/b"])
SMALL = st.integers(0, 2)
EPOCH = st.none() | SMALL
MODE = st.sampled_from([0o644, 0o755])

SOURCES = st.builds(
    CopySource,
    input=SMALL,
    path=PATH,
    wildcard=st.booleans(),
    pattern=TEXT,
    unpack=st.booleans(),
) | st.builds(InlineFile, name=TEXT, content=st.binary(max_size=2), mode=MODE)
COPIES = st.builds(
    Copy,
    sources=st.lists(SOURCES, min_size=1, max_size=2).map(tuple),
    dest=PATH,
    chown=TEXT,
    chmod=TEXT,
    exclude=st.lists(TEXT, max_size=2).map(tuple),
    parents=st.booleans(),
    link=st.booleans(),
    kind=st.sampled_from(["copy", "add"]),
)
MOUNTS = st.one_of(
    st.builds(BindMount, target=PATH, input=SMALL, source=PATH, read_only=st.booleans()),
    st.builds(CacheMount, target=PATH, id=st.just("c"), uid=SMALL, gid=SMALL, mode=MODE),
    st.builds(TmpfsMount, target=PATH, size=SMALL),
    st.builds(SecretMount, id=TEXT, target=PATH, env=TEXT, uid=SMALL, mode=MODE),
    st.builds(SshMount, id=TEXT, target=PATH, uid=SMALL),
    st.builds(ScriptMount, target=PATH, content=st.binary(max_size=2)),
)
EXECS = st.builds(
    Exec,
    argv=st.lists(TEXT, min_size=1, max_size=3).map(tuple),
    env=st.lists(st.tuples(TEXT, TEXT), max_size=2).map(tuple),
    cwd=PATH,
    user=TEXT,
    mounts=st.lists(MOUNTS, max_size=2).map(tuple),
    network=st.sampled_from(["default", "none", "host"]),
    security=st.sampled_from(["sandbox", "insecure"]),
    hostname=TEXT,
    extra_hosts=st.lists(st.tuples(TEXT, TEXT), max_size=1).map(tuple),
    ulimits=st.lists(st.tuples(TEXT, SMALL, SMALL), max_size=1).map(tuple),
    shm_size=SMALL,
)
OPS = st.one_of(
    COPIES,
    EXECS,
    st.builds(Mkdir, path=PATH, owner=TEXT, epoch=EPOCH),
    st.builds(Fetch, url=TEXT, kind=st.sampled_from(["http", "git"]), ref=TEXT, subdir=TEXT),
)


def key(op: Op, platform: Platform = AMD64, parents: tuple[Digest, ...] = PARENTS) -> Digest:
    return cache_key(op, platform, parents).key()


@given(OPS, OPS)
def test_different_operations_have_different_keys(first: Op, second: Op) -> None:
    assert (key(first) == key(second)) == (first == second)


@given(st.lists(st.tuples(TEXT, TEXT), max_size=3), st.lists(st.tuples(TEXT, TEXT), max_size=3))
def test_no_two_records_have_the_same_bytes(
    first: list[tuple[str, str]], second: list[tuple[str, str]]
) -> None:
    keys = [KeyRecord(tuple(fields)).key() for fields in (first, second)]
    assert (keys[0] == keys[1]) == (first == second)


RUN = Exec(
    argv=("/bin/sh", "-c", "make"),
    env=(("A", "1"),),
    mounts=(
        SecretMount(id="token", target="/run/secrets/token"),
        CacheMount(target="/cache", id="one"),
    ),
)


@pytest.mark.parametrize(
    "change",
    [
        {"proxy_env": (("http_proxy", "http://proxy.example"),)},
        {"mounts": (RUN.mounts[0], CacheMount(target="/cache", id="two"))},
        {"mounts": (RUN.mounts[0], CacheMount(target="/cache", id="one", sharing="locked"))},
        {"mounts": (attrs.evolve(RUN.mounts[0], required=True), RUN.mounts[1])},
    ],
)
def test_proxies_and_the_ids_of_caches_do_not_count(change: dict[str, Any]) -> None:
    assert key(attrs.evolve(RUN, **change)) == key(RUN)


def test_names_of_secrets_count() -> None:
    other = (SecretMount(id="other", target="/run/secrets/token"), RUN.mounts[1])
    assert key(attrs.evolve(RUN, mounts=other)) != key(RUN)


def test_the_order_of_the_environment_counts() -> None:
    two = attrs.evolve(RUN, env=(("A", "1"), ("B", "2")))
    assert key(two) != key(attrs.evolve(RUN, env=(("B", "2"), ("A", "1"))))


@given(EXECS)
def test_the_platform_counts_for_what_runs(op: Exec) -> None:
    assert key(op, AMD64) != key(op, ARM64)
    assert key(op, Platform("linux", "x86_64")) == key(op, AMD64)


@given(COPIES)
def test_the_platform_does_not_count_for_files(op: Copy) -> None:
    assert key(op, AMD64) == key(op, ARM64)


@given(OPS, st.integers(0, 1))
def test_every_input_counts_but_the_root_of_a_linked_copy(op: Op, position: int) -> None:
    changed = list(PARENTS)
    changed[position] = Digest.of(b"changed")
    counts = position > 0 or not (isinstance(op, Copy) and op.link)
    assert (key(op, parents=tuple(changed)) != key(op)) == counts


@given(COPIES, SMALL)
def test_the_epoch_counts_for_what_a_copy_makes_itself(op: Copy, epoch: int) -> None:
    assume(any(isinstance(source, InlineFile) for source in op.sources))
    assert key(attrs.evolve(op, epoch=epoch)) != key(op)


CHANGES: dict[str, Any] = {
    "sources": (CopySource(input=1, path="/changed"),),
    "exclude": ("changed",),
    "argv": ("changed",),
    "env": (("CHANGED", "1"),),
    "mounts": (TmpfsMount(target="/changed"),),
    "devices": ("changed",),
    "extra_hosts": (("changed", "192.0.2.1"),),
    "ulimits": (("nofile", 1, 1),),
    "shm_size": 7,
}
SIMPLE = [
    Copy(sources=(InlineFile(name="a", content=b""),), dest="/"),
    Exec(argv=("true",)),
    Mkdir(path="/a"),
    Fetch(url="https://example.com/a", kind="http"),
]
FIELDS = [(op, field.name) for op in SIMPLE for field in attrs.fields(type(op))]


@pytest.mark.parametrize(("op", "name"), FIELDS, ids=lambda v: v if isinstance(v, str) else "")
def test_every_field_of_an_operation_counts(op: Any, name: str) -> None:
    match getattr(op, name):
        case bool() as flag:
            value: object = not flag
        case str():
            value = "changed"
        case None:
            value = 7
        case _:
            value = CHANGES.get(name, (("CHANGED", "1"),))
    counts = name != "proxy_env"
    assert (key(attrs.evolve(op, **{name: value})) != key(op)) is counts

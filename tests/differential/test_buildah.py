"""Small builds that buildah does, too: the tree and the config of both are compared.

The cases and the differences between the two, each with its reason, are in
`fixtures/differential/buildah.toml`.
"""

import io
import os
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import imagekit
from tests.support.configs import compare_configs
from tests.support.embedded import make_embedded_base
from tests.support.flatten import Allowed, Difference, compare, flatten
from tests.support.layout import Image, Layout
from tests.support.referees import Storage, restate
from tests.support.tools import FIXTURES, need, need_root, run

CASES = tomllib.loads((FIXTURES / "differential" / "buildah.toml").read_text("utf-8"))["case"]
TIME = 1_000_000_000
IN_EVERY_RUN = tuple(
    Allowed(path, "missing", "buildah leaves the empty file that it bound the machine's over")
    for path in ("etc/hosts", "etc/hostname", "etc/resolv.conf")
)


class Bench(NamedTuple):
    """What the builds share: folders, the base in two forms, and a store."""

    folder: Path
    base: Path
    storage: Storage


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    need("buildah", "skopeo")
    need_root()
    folder = tmp_path_factory.mktemp("differential")
    base = make_embedded_base(folder / "base")
    with Storage.temporary() as storage:
        storage.load(base, "latest", "busybox")
        yield Bench(folder, base, storage)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_buildah_makes_the_same_image(case: dict[str, Any], bench: Bench) -> None:
    work = bench.folder / case["name"]
    write_context(work / "context", case.get("context", {}))
    (work / "Dockerfile").write_text(case["dockerfile"].lstrip("\n"))
    ours, theirs = built_by_imagekit(case, work, bench), built_by_buildah(case, work, bench)
    allowed = [Allowed(**row) for row in case.get("differences", ())]
    runs = "\nRUN" in case["dockerfile"]
    found = compare(flatten(ours), flatten(theirs), times=not runs)
    found += compare_configs(ours, theirs)
    expect_explained(found, allowed, IN_EVERY_RUN if runs else ())


def expect_explained(
    found: list[Difference], allowed: list[Allowed], common: tuple[Allowed, ...]
) -> None:
    """Each difference has a row of the table, and each row of the case is still needed."""
    rows = (*allowed, *common)
    left = [str(d) for d in found if not any(row.covers(d) for row in rows)]
    assert not left, "\n".join(left)
    assert [row for row in allowed if not any(row.covers(d) for d in found)] == []


def built_by_imagekit(case: dict[str, Any], work: Path, bench: Bench) -> Image:
    imagekit.build(
        work / "context",
        dockerfile=work / "Dockerfile",
        target=case.get("target"),
        build_args=case.get("build_args", {}),
        build_contexts={"busybox": f"oci-layout://{bench.base}"},
        output=f"oci:{work / 'ours'}",
        store=bench.folder / "store",
    )
    return Layout(work / "ours").image()


def built_by_buildah(case: dict[str, Any], work: Path, bench: Bench) -> Image:
    flags = bench.storage.flags()
    command = ["buildah", *flags, "bud", "--isolation", "chroot", "--quiet", "--format", "docker"]
    command += ["--layers=false", "--tag", "result", "--file", str(work / "Dockerfile")]
    command += ["--build-context", "busybox=docker-image://localhost/busybox"]
    command += [
        f"--build-arg={name}={value}" for name, value in case.get("build_args", {}).items()
    ]
    command += ["--target", case["target"]] if "target" in case else []
    run([*command, work / "context"])
    run(["buildah", *flags, "push", "--quiet", "localhost/result", f"dir:{work / 'docker'}"])
    restate(work / "docker", work / "theirs")
    return Layout(work / "theirs").image()


def write_context(folder: Path, files: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    for name, entry in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        given = {"text": entry} if isinstance(entry, str) else entry
        if name.endswith("/"):
            path.mkdir()
        elif "link" in given:
            path.symlink_to(given["link"])
        elif "hard" in given:
            path.hardlink_to(folder / given["hard"])
        else:
            path.write_bytes(archive(given) if "tar" in given else given["text"].encode())
            path.chmod(int(given.get("mode", "0644"), 8))
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
        os.utime(path, (TIME, TIME), follow_symlinks=False)


def archive(given: dict[str, Any]) -> bytes:
    """A tar of files, compressed as asked for."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f"w:{given.get('z', '')}") as tar:
        for name, text in given["tar"].items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uid, member.gid = len(text), TIME + 5, 3, 4
            tar.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()

"""The embedded base: reproducible, valid, and a system that runs."""

import sys
from pathlib import Path

import pytest

from tests.support.embedded import make_embedded_base
from tests.support.flatten import flatten
from tests.support.layout import Layout
from tests.support.referees import RUNTIMES, prepare_bundle, run_bundle, umoci_unpack
from tests.support.schemas import schema_problems
from tests.support.tools import FIXTURES, ToolError, run

MAKE = FIXTURES / "base" / "make.py"


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_two_makes_give_the_same_bytes(embedded_base: Path, tmp_path: Path) -> None:
    assert files(make_embedded_base(tmp_path / "again")) == files(embedded_base)


def test_a_make_replaces_an_earlier_layout(embedded_base: Path, tmp_path: Path) -> None:
    layout = make_embedded_base(tmp_path / "base")
    (layout / "blobs" / "sha256" / "stale").write_bytes(b"")
    make_embedded_base(layout)
    assert files(layout) == files(embedded_base)


@pytest.mark.usefixtures("embedded_base")
def test_a_folder_that_is_no_layout_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(ToolError, match="exists and is no OCI image layout"):
        run([sys.executable, MAKE, tmp_path])
    assert files(tmp_path) == {"precious": b""}


@pytest.mark.usefixtures("embedded_base")
def test_a_platform_that_the_binary_is_not_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="the busybox binary is not for linux/s390x"):
        run([sys.executable, MAKE, tmp_path / "base", "--platform", "linux/s390x"])
    assert not (tmp_path / "base").exists()


def test_documents_match_the_schemas(embedded_base: Path) -> None:
    assert schema_problems(Layout(embedded_base)) == []


def test_the_tree_has_what_a_build_expects(embedded_base: Path) -> None:
    tree = flatten(Layout(embedded_base).image())
    assert tree["tmp"].inode.mode == 0o1777
    assert tree["var/run"].inode.target == "/run"
    assert tree["bin/sh"].number == tree["bin/busybox"].number
    assert {"etc/passwd", "etc/group", "root", "usr/bin/env"} <= tree.keys()
    assert all(node.inode.owner == (0, 0) for node in tree.values())


def test_the_licence_is_noted(embedded_base: Path) -> None:
    image = Layout(embedded_base).image()
    assert image.config["config"]["Labels"]["org.opencontainers.image.licenses"] == "GPL-2.0-only"
    assert "usr/share/doc/busybox/LICENSE" in flatten(image)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_runtimes_run_it(runtime: str, embedded_base: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    umoci_unpack(embedded_base, "latest", bundle)
    prepare_bundle(bundle, [], ["sh", "-c", "id -un && echo $PATH"])
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert run_bundle(runtime, bundle, tmp_path / "state").stdout == f"root\n{path}\n"

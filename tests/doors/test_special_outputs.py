"""Outputs to devices, pipes and links, and images that would be dangerous as files."""

import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from imagekit.errors import OutputError
from tests.support.building import Project
from tests.support.tools import need_root

FILE = "FROM scratch\nCOPY a /a\n"


@pytest.fixture
def files(project: Project) -> Project:
    return project.write({"a": "content"})


def test_a_pipe_is_written_to(files: Project, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    reader.start()
    files.build(FILE, output=f"type=tar,dest={pipe}")
    reader.join(timeout=60)
    assert b"content" in got[0]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_device_stays_a_device(files: Project, tmp_path: Path) -> None:
    need_root()
    null = tmp_path / "null"
    os.mknod(null, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    files.build(FILE, output=f"type=tar,dest={null}")
    assert stat.S_ISCHR(null.stat().st_mode)


def test_a_link_stays_and_its_target_is_written(files: Project, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("target.tar")
    files.build(FILE, output=f"type=tar,dest={link}")
    assert link.is_symlink()
    assert b"content" in (tmp_path / "target.tar").read_bytes()


def test_a_folder_gets_no_devices_and_no_rights_of_others(
    busybox: Project, tmp_path: Path
) -> None:
    need_root()
    out = tmp_path / "out"
    busybox.build(
        """FROM busybox
        RUN mknod -m 666 /disk b 8 0 && mkdir /d && echo 1 > /d/f && echo 2 > /d/mine
        RUN chown 5:5 /d/f && chmod 6755 /d/f && chmod 4755 /d/mine
        """,
        output=f"type=local,dest={out}",
    )
    assert not (out / "disk").exists()
    assert stat.S_IMODE((out / "d/f").stat().st_mode) == 0o755
    assert stat.S_IMODE((out / "d/mine").stat().st_mode) == 0o4755


def test_a_layout_folder_on_a_full_disk_is_not_left_half_written(
    files: Project, tmp_path: Path
) -> None:
    need_root()
    files.write({"large": os.urandom(3 << 20)})
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", place], check=True)
    try:
        with pytest.raises(OutputError, match="No space left on device"):
            files.build("FROM scratch\nCOPY large /\n", output=f"oci:{place}/image")
        assert list(place.iterdir()) == []
    finally:
        subprocess.run(["umount", place], check=True)
    assert files.build("FROM scratch\nCOPY large /\n", output=f"oci:{tmp_path}/image").cached

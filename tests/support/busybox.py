"""A root file system of busybox, for tests that run commands."""

import shutil
from pathlib import Path

import pytest

APPLETS = (
    "cat chmod chown cp echo env false grep head id ifconfig kill ln ls mkdir mknod mount mv nc "
    "printf ps pwd readlink rm rmdir sed setsid sh sleep sort stat su sync tail test touch tr "
    "true umount uname wc"
).split()
PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n"
GROUP = "root:x:0:\nwheel:x:10:app,other\napp:x:1001:\nstaff:x:50:app\n"


def make_root(path: Path, *, bare: bool = False) -> Path:
    """A root with busybox in /bin; `bare` has nothing else. Skips the test without busybox."""
    busybox = shutil.which("busybox", path="/bin:/usr/bin")
    if busybox is None:
        pytest.skip("busybox is not installed")
    (path / "bin").mkdir(parents=True)
    shutil.copy(busybox, path / "bin" / "busybox")
    for applet in APPLETS:
        (path / "bin" / applet).symlink_to("busybox")
    if not bare:
        for name in ("proc", "sys", "dev", "run", "tmp", "root", "etc"):
            (path / name).mkdir()
        (path / "etc" / "passwd").write_text(PASSWD)
        (path / "etc" / "group").write_text(GROUP)
        (path / "etc" / "hosts").write_text("")
        (path / "etc" / "resolv.conf").write_text("")
    return path

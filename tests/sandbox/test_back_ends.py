"""The behaviour files beside this one, run again by an ordinary user without privileges."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
FILES = ("test_process.py", "test_isolation.py", "test_mounts.py", "test_probes.py", "test_ids.py")
USER = 1000


def _user_name() -> str:
    import pwd  # noqa: PLC0415

    try:
        return pwd.getpwuid(USER).pw_name
    except KeyError:
        return str(USER)


def _command(name: str, base: Path) -> list[str]:
    drop = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--"]
    if name == "single-uid":
        return drop
    ranges = base / "ranges"
    ranges.write_text(f"{_user_name()}:100000:65536\n")
    script = (
        f"mount --bind {ranges} /etc/subuid && mount --bind {ranges} /etc/subgid && " + 'exec "$@"'
    )
    return ["unshare", "--mount", "--", "sh", "-c", script, "sh", *drop]


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder that the ordinary user can reach and owns; those of pytest are root's alone."""
    with tempfile.TemporaryDirectory(prefix="imagekit-user-") as folder:
        if os.geteuid() == 0:
            os.chown(folder, USER, USER)
        yield Path(folder)


@pytest.mark.parametrize("name", ["rootless", "single-uid"])
def test_all_behaviour_holds_without_root(name: str, tmp_path: Path, base: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    for tool in ("setpriv", "unshare", "newuidmap"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    for file in ("/etc/subuid", "/etc/subgid"):
        if not Path(file).exists():
            pytest.skip(f"{file} does not exist, so nothing can be mounted over it")
    command = _command(name, tmp_path)
    reach = subprocess.run([*command, sys.executable, "-c", "import attrs, pytest"], check=False)
    if reach.returncode != 0:
        pytest.skip("an ordinary user cannot run this Python")
    result = subprocess.run(
        [
            *(*command, sys.executable, "-m", "pytest", "-q"),
            *("-p", "no:cacheprovider", "-p", "no:hypothesispytest"),
            f"--basetemp={base}/t",
            *(str(HERE / file) for file in FILES if (HERE / file).exists()),
        ],
        cwd=HERE.parent.parent,
        env=os.environ
        | {"IMAGEKIT_TEST_SANDBOX": name, "HOME": str(base), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]

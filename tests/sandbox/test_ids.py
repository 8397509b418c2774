from pathlib import Path
from typing import Any

import pytest

from imagekit.errors import SandboxError

REMOVE = "imagekit.disk.snapshot:remove"


def test_files_of_other_users_are_theirs_on_the_disk(box: Any) -> None:
    if box.sandbox.name == "single-uid":
        pytest.skip("a single id has no other user")
    result = box.run("echo x > /f; chown 7:8 /f; chmod 600 /f; mkdir -m 700 /d; chown 9 /d")
    owner = (result.upper / "f").stat().st_uid
    assert owner == (7 if box.sandbox.name == "root" else 100_006)
    box.sandbox.service.call(REMOVE, str(result.upper))
    assert not result.upper.exists()


def test_a_single_id_cannot_give_files_away(box: Any) -> None:
    if box.sandbox.name != "single-uid":
        pytest.skip("there are other ids")
    result = box.run("echo x > /f; chown 7 /f")
    assert result.code != 0
    assert "Invalid argument" in result.err


def test_errors_of_the_service_are_typed(box: Any, tmp_path: Path) -> None:
    with pytest.raises(SandboxError):
        box.sandbox.service.call("os:getpid")
    with pytest.raises(TypeError if box.sandbox.in_process else SandboxError):
        box.sandbox.service.call(REMOVE, str(tmp_path), "too", "many")

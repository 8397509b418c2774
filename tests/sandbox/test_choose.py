import subprocess
import sys
import time
from pathlib import Path

import pytest

from imagekit.errors import SandboxError
from imagekit.sandbox import Cancellation
from imagekit.sandbox import choose as module
from imagekit.sandbox.choose import choose

PACKAGE = Path(module.__file__).parent
LIGHT = {"httpx", "rich", "attr", "attrs", "json", "pathlib", "subprocess", "threading", "asyncio"}


def test_an_unknown_name_is_an_error_that_lists_the_others() -> None:
    with pytest.raises(SandboxError) as info:
        choose("docker")
    assert "rootless" in info.value.hint


def test_other_systems_are_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SandboxError, match="darwin"):
        choose()


def test_root_without_the_rights_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_is_privileged", lambda: False)
    with pytest.raises(SandboxError, match="CAP_SYS_ADMIN"):
        choose("root")


def test_a_rung_that_fails_is_followed_by_the_next_and_told() -> None:
    from imagekit.sandbox.namespaces import NamespaceSandbox  # noqa: PLC0415

    with NamespaceSandbox(("nonsense", "single-uid")) as sandbox:
        assert sandbox.name == "single-uid"
        assert "nonsense" in sandbox.reason


def test_no_rung_at_all_is_an_error() -> None:
    from imagekit.sandbox.namespaces import NamespaceSandbox  # noqa: PLC0415

    with NamespaceSandbox(("nonsense",)) as sandbox:
        for _ in range(2):
            with pytest.raises(SandboxError, match="nonsense"):
                sandbox.ready()


def test_the_helper_imports_only_what_is_light() -> None:
    code = (
        f"import sys; Module = type(sys)\n"
        f"for name, path in (('imagekit', {str(PACKAGE.parent)!r}),"
        f" ('imagekit.sandbox', {str(PACKAGE)!r})):\n"
        "    shell = Module(name); shell.__path__ = [path]; sys.modules[name] = shell\n"
        "import imagekit.sandbox.helper; print(*sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert not LIGHT & set(result.stdout.split())


def test_making_a_sandbox_does_not_wait_for_it() -> None:
    started = time.perf_counter()
    with choose() as sandbox:
        made = time.perf_counter() - started
        sandbox.ready()
        ready = time.perf_counter() - started
    assert made < ready


def test_a_cancellation_is_heard_once_by_all() -> None:
    cancellation = Cancellation()
    heard: list[str] = []
    cancellation.subscribe(lambda: heard.append("a"))
    undo = cancellation.subscribe(lambda: heard.append("b"))
    undo()
    assert not cancellation.wait(0)
    cancellation.cancel()
    cancellation.cancel()
    cancellation.subscribe(lambda: heard.append("late"))()
    assert heard == ["a", "late"]
    assert cancellation.is_set()

import sys
import types

import pytest

from imagekit import errors
from imagekit.errors import ImagekitError, LayerError, RegistryError, SandboxError
from imagekit.sandbox.service import LocalService, describe, rebuild, resolve


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    made = types.ModuleType("imagekit.disk.probe")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


def test_functions_of_disk_are_called(module: types.ModuleType) -> None:
    module.add = lambda a, b: a + b
    assert LocalService().call("imagekit.disk.probe:add", 1, 2) == 3


def test_descriptors_are_given_by_keyword(module: types.ModuleType) -> None:
    module.count = lambda *, fds: len(fds)
    assert LocalService().call("imagekit.disk.probe:count", fds=(0, 1)) == 2


@pytest.mark.parametrize(
    "target",
    [
        "os:system",
        "imagekit.sandbox.service:serve",
        "imagekit.diskette:x",
        "imagekit.disk.probe:_private",
        "imagekit.disk.probe:a.b",
        "imagekit.disk.probe:",
        "imagekit.disk.probe",
        "imagekit.disk.probe:missing",
    ],
)
@pytest.mark.usefixtures("module")
def test_nothing_else_can_be_called(target: str) -> None:
    with pytest.raises(SandboxError):
        resolve(target)


@pytest.mark.parametrize(
    "exc",
    [
        LayerError("bad", path="a/b", hint="try", code="c"),
        RegistryError("no", status=404, codes=("X",)),
        errors.NotFoundError("gone", descriptor="d"),
    ],
)
def test_typed_errors_cross(exc: ImagekitError) -> None:
    back = rebuild(describe(exc))
    assert type(back) is type(exc)
    assert str(back) == str(exc)
    assert {k: v for k, v in vars(back).items() if k != "codes"} == {
        k: v for k, v in vars(exc).items() if k != "codes"
    }


def test_system_errors_cross() -> None:
    back = rebuild(describe(FileNotFoundError(2, "No such file", "/x")))
    assert isinstance(back, FileNotFoundError)
    assert back.filename == "/x"


def test_other_errors_become_sandbox_errors() -> None:
    back = rebuild(describe(ValueError("odd")))
    assert isinstance(back, SandboxError)
    assert "odd" in str(back)

"""That CI tests what users install."""

import importlib.metadata
import os
from pathlib import Path

import pytest

import imagekit

PACKAGE = Path(imagekit.__file__).parent

pytestmark = pytest.mark.skipif(
    os.environ.get("IMAGEKIT_EXPECT_INSTALLED") != "1",
    reason="a checkout is under test (IMAGEKIT_EXPECT_INSTALLED=1 asks for the installed wheel)",
)


def test_the_installed_package_is_under_test() -> None:
    assert PACKAGE.parent.name == "site-packages"


def test_the_wheel_ships_every_file_with_its_types_and_licence() -> None:
    files = importlib.metadata.files("imagekit")
    assert files is not None
    names = {str(file) for file in files}
    assert "imagekit/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    shipped = {str(path.relative_to(PACKAGE.parent)) for path in PACKAGE.rglob("*.py")}
    assert shipped <= names

"""The embedded base, made by the program that users run."""

import sys
from pathlib import Path

import pytest

from tests.support.tools import FIXTURES, need, run

NO_BUSYBOX = "no static busybox"


def make_embedded_base(layout: Path) -> Path:
    """Write the embedded base to `layout`; skips without a static busybox."""
    need("busybox")
    done = run([sys.executable, FIXTURES / "base" / "make.py", layout], expect=None)
    if NO_BUSYBOX in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return layout

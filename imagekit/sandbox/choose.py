"""Which sandbox: the strongest that works here, or the one that was asked for.

Spec: security.md section 4, X-14.
"""

import os
import sys
from pathlib import Path
from typing import Final

from imagekit.errors import SandboxError, UsageError
from imagekit.sandbox.namespaces import NamespaceSandbox

NAMES: Final = ("auto", "root", "rootless", "single-uid")
_CAP_SYS_ADMIN: Final = 21


def check_name(preference: str) -> None:
    """Say early that a name is not known.

    Raises:
        UsageError: it is not.
    """
    if preference not in NAMES:
        raise UsageError(f"no sandbox is called {preference!r}", hint=f"one of {', '.join(NAMES)}")


def choose(preference: str = "auto") -> NamespaceSandbox:
    """A sandbox whose helper is starting; it is tested when it is first used, or by `ready`.

    `auto` takes `root` for a process with CAP_SYS_ADMIN and otherwise the first of `rootless` and
    `single-uid` whose self-test passes.

    Raises:
        SandboxError: the name is unknown, the system is not Linux, or `root` is asked for without
            the rights. Other reasons come from `ready`, with what would help as the hint.
    """
    if sys.platform != "linux":
        raise SandboxError(
            f"RUN needs Linux, this is {sys.platform}",
            backend=preference,
            hint="build on Linux or in a Linux virtual machine; steps without RUN work here",
        )
    if preference not in NAMES:
        raise SandboxError(
            f"no sandbox is called {preference!r}",
            backend=preference,
            hint=f"one of {', '.join(NAMES)}",
        )
    privileged = _is_privileged()
    if preference == "root" and not privileged:
        raise SandboxError(
            "sandbox root: this process has no CAP_SYS_ADMIN",
            backend="root",
            hint="run as root, or use the sandbox `rootless`",
        )
    if preference != "auto":
        return NamespaceSandbox((preference,))
    return NamespaceSandbox(("root",) if privileged else ("rootless", "single-uid"))


def _is_privileged() -> bool:
    """Whether this process is root with the right to mount."""
    if os.geteuid() != 0:
        return False
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    line = next((line for line in status.splitlines() if line.startswith("CapEff:")), "CapEff: 0")
    return bool(int(line.split()[1], 16) >> _CAP_SYS_ADMIN & 1)

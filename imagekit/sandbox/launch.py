"""Starting the helper: from a sealed copy of the interpreter, with nothing of our environment.

The interpreter is executed from memory, so that a step which gets hold of the helper's program (an
image whose command is `/proc/self/exe`) finds nothing of the host to overwrite (CVE-2019-5736).

Spec: security.md X-3.
"""

import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

from imagekit.errors import SandboxError

_PACKAGE = Path(__file__).resolve().parent.parent
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_MFD_EXEC = 0x10  # Linux 6.3; older kernels make every memfd executable and refuse the flag
_CHUNK = 1 << 30


class Helper:
    """A running helper process and its control socket; `close` ends both, once."""

    def __init__(self, rung: str) -> None:
        self.rung = rung
        self._closed = False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control = ours
        self._complaints = os.memfd_create("imagekit-helper-stderr")
        program = _sealed_interpreter()
        try:
            self._process = _start(rung, theirs.fileno(), program, self._complaints)
        except OSError as exc:
            ours.close()
            os.close(self._complaints)
            raise SandboxError(
                f"the sandbox helper cannot be started: {exc.strerror}",
                backend=rung,
                hint="vm.memfd_noexec must not be 2",
            ) from exc
        finally:
            theirs.close()
            os.close(program)

    def complaints(self) -> str:
        """What it wrote to its standard error, for a message after it broke."""
        return os.pread(self._complaints, 4096, 0).decode("utf-8", "replace").strip()

    def close(self) -> None:
        """End it; its steps end with their own streams."""
        if self._closed:
            return
        self._closed = True
        self.control.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._complaints)


def _start(rung: str, control: int, program: int, stderr: int) -> subprocess.Popen[bytes]:
    main = str(_PACKAGE / "sandbox" / "helper_main.py")
    arguments = [str(control), str(program), rung, str(_PACKAGE)]
    return subprocess.Popen(  # noqa: S603 - our own program, by absolute paths
        [sys.executable, "-I", "-S", main, *arguments],
        executable=f"/proc/self/fd/{program}",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        cwd="/",
        env=_environment(),
        pass_fds=(control, program),
        start_new_session=True,
    )


def _environment() -> dict[str, str]:
    """Only what a copy of the interpreter needs to find its shared library, if it has one."""
    with Path("/proc/self/maps").open(encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            path = line.split(maxsplit=5)[-1].rstrip("\n")
            if "/libpython" in path:
                return {"LD_LIBRARY_PATH": str(Path(path).parent)}
    return {}


def _sealed_interpreter() -> int:
    """An fd of a copy of the running interpreter that nobody can change."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        copy = os.memfd_create("imagekit-helper", flags | _MFD_EXEC)
    except OSError:
        copy = os.memfd_create("imagekit-helper", flags)
    source = os.open("/proc/self/exe", os.O_RDONLY | os.O_CLOEXEC)
    try:
        while os.sendfile(copy, source, None, _CHUNK):
            pass
        fcntl.fcntl(copy, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(copy)
        raise
    finally:
        os.close(source)
    return copy

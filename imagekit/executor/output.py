"""What a command writes: passed on as it comes, secrets masked, capped, its tail kept."""

import base64
import threading
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote_from_bytes

from imagekit.events import Observer, StepInfo, StepLog, StreamName

TAIL: Final = 16 << 10
"""How many of the last bytes are kept for the error of a step that fails."""

CAP: Final = 64 << 20
"""After so many bytes of one step, more is counted and thrown away (security spec X-16)."""

_MASK: Final = b"****"
_MASKED_FROM: Final = 8
_LINES: Final = 25


class Log:
    """The output of one step."""

    def __init__(self, observer: Observer, step: StepInfo, secrets: Iterable[bytes] = ()) -> None:
        self._observer = observer
        self._step = step
        self._patterns = tuple(_spellings(secrets))
        self._overlap = max((len(p) for p in self._patterns), default=1) - 1
        self._held: dict[StreamName, bytes] = {}
        self._tail = bytearray()
        self._size = 0
        self._lock = threading.Lock()

    def write(self, stream: StreamName, data: bytes) -> None:
        """Take bytes that the command wrote; what may be the start of a secret is held back."""
        with self._lock:
            data = self._masked(self._held.pop(stream, b"") + data)
            if self._overlap:
                keep = self._open_end(data)
                self._held[stream], data = data[len(data) - keep :], data[: len(data) - keep]
            self._pass_on(stream, data)

    def close(self) -> None:
        """Pass on what was held back."""
        with self._lock:
            for stream, data in self._held.items():
                self._pass_on(stream, data)
            self._held.clear()

    @property
    def tail(self) -> str:
        """The last lines, as text."""
        lines = bytes(self._tail).decode(errors="replace").splitlines()[-_LINES:]
        if self._size > CAP:
            lines.append(f"[{self._size - CAP} bytes of output are not shown]")
        return "\n".join(lines)

    def _pass_on(self, stream: StreamName, data: bytes) -> None:
        if not data:
            return
        shown = data[: max(0, CAP - self._size)]
        self._size += len(data)
        self._tail += data
        del self._tail[:-TAIL]
        if shown:
            self._observer(StepLog(step=self._step, stream=stream, data=shown))

    def _masked(self, data: bytes) -> bytes:
        for pattern in self._patterns:
            data = data.replace(pattern, _MASK)
        return data

    def _open_end(self, data: bytes) -> int:
        """How many bytes at the end could be the start of a secret."""
        for size in range(min(self._overlap, len(data)), 0, -1):
            end = data[-size:]
            if any(pattern.startswith(end) for pattern in self._patterns):
                return size
        return 0


def _spellings(secrets: Iterable[bytes]) -> Iterable[bytes]:
    """Secrets of 8 bytes and more as they are, in base64 and as in a URL (security spec P-2)."""
    found = set()
    for secret in secrets:
        bare = secret.strip()  # what a program prints; a line end after it is the program's own
        for text in {secret, bare}:
            if len(bare) >= _MASKED_FROM:
                found |= {bare, base64.b64encode(text), quote_from_bytes(text).encode()}
    return sorted(found, key=len, reverse=True)

"""Observers that show a build to a person or a program.

`plain` writes a line an event, in the manner of `docker buildx --progress=plain`; `tty` redraws
the steps that run; `rawjson` writes one JSON object an event; `quiet` writes nothing. `auto` is
`tty` on a terminal and `plain` elsewhere. Bytes that came from a build are escaped before they
are shown.
"""

import json
import re
import threading
import time
from typing import Final, Protocol, TextIO

from attrs import asdict

from imagekit.errors import UsageError
from imagekit.events import (
    BuildFinished,
    BuildStarted,
    Event,
    SandboxChosen,
    StepCached,
    StepFailed,
    StepFinished,
    StepInfo,
    StepLog,
    StepStarted,
    Transfer,
    Warned,
)

MODES: Final = ("auto", "plain", "tty", "rawjson", "quiet")
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def escape_control(text: str) -> str:
    r"""The text with colours dropped and other control characters shown as `\\x1b` (C-10)."""
    return _CONTROL.sub(lambda m: f"\\x{ord(m[0]):02x}", _COLOUR.sub("", text))


class Progress(Protocol):
    """An observer that has to be closed."""

    def __call__(self, event: Event) -> None:
        """Show one event."""

    def close(self) -> None:
        """Restore the terminal and write what is left."""


def progress(mode: str, stream: TextIO) -> Progress:
    """The observer of this name, writing to `stream`.

    Raises:
        UsageError: no such mode; the message lists those there are.
    """
    if mode not in MODES:
        raise UsageError(f"unknown progress mode {mode!r}", hint=f"use one of {', '.join(MODES)}")
    if mode == "auto":
        mode = "tty" if stream.isatty() else "plain"
    match mode:
        case "tty":
            from imagekit.terminal import TerminalProgress  # noqa: PLC0415 - rich takes 35 ms

            return TerminalProgress(stream)
        case "plain":
            return PlainProgress(stream)
        case "rawjson":
            return JsonProgress(stream)
        case _:
            return QuietProgress()


class QuietProgress:
    """Shows nothing."""

    def __call__(self, event: Event) -> None:
        """See `Progress`."""

    def close(self) -> None:
        """See `Progress`."""


class LineSplitter:
    """Turns the bytes of a step into whole lines, ready to be shown."""

    def __init__(self) -> None:
        self._rest: dict[tuple[int, str], bytes] = {}

    def feed(self, event: StepLog) -> list[str]:
        r"""The lines that these bytes complete; `\\r` ends a line as well."""
        key = (event.step.id, event.stream)
        data = self._rest.pop(key, b"") + event.data
        lines = re.split(rb"\r\n|\n|\r(?!$)", data)
        rest = lines.pop()
        if len(rest) > 8192:
            lines.append(rest)
            rest = b""
        if rest:
            self._rest[key] = rest
        return [escape_control(line.decode(errors="replace")) for line in lines]

    def flush(self, step: StepInfo) -> list[str]:
        """What is left of a step that ended in the middle of a line."""
        rests = [self._rest.pop((step.id, stream), b"") for stream in ("stdout", "stderr")]
        return [
            escape_control(rest.decode(errors="replace").rstrip("\r")) for rest in rests if rest
        ]


def size_text(size: int) -> str:
    """A number of bytes for people: `12.3MB`."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f}{unit}" if unit == "B" else f"{value:.1f}{unit}"
        value /= 1000
    raise AssertionError("unreachable")


class PlainProgress:
    """A line an event."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._lines = LineSplitter()
        self._started: dict[int, float] = {}

    def __call__(self, event: Event) -> None:
        """See `Progress`."""
        with self._lock:
            for line in self._show(event):
                self._stream.write(line + "\n")
            self._stream.flush()

    def _show(self, event: Event) -> list[str]:  # noqa: C901, PLR0911 - one case an event
        match event:
            case StepStarted(step=step):
                self._started[step.id] = event.at
                return ["", f"#{step.id} {escape_control(step.name)}"]
            case StepCached(step=step):
                return ["", f"#{step.id} {escape_control(step.name)}", f"#{step.id} CACHED"]
            case StepLog(step=step):
                return self._log(step, self._lines.feed(event))
            case StepFinished(step=step):
                size = f", layer {size_text(event.layer_size)}" if event.layer_size else ""
                done = f"#{step.id} DONE {event.seconds:.1f}s{size}"
                return [*self._log(step, self._lines.flush(step)), done]
            case StepFailed(step=step):
                failed = f"#{step.id} ERROR {event.seconds:.1f}s: {escape_control(event.message)}"
                return [*self._log(step, self._lines.flush(step)), failed]
            case SandboxChosen():
                return [f"# RUN steps are isolated by: {event.backend} ({event.reason})"]
            case Warned():
                place = f" (line {event.span.line})" if event.span else ""
                shown = map(escape_control, event.excerpt.split("\n") if event.excerpt else ())
                head = f"# WARNING {event.code}: {escape_control(event.message)}{place}"
                return [head, *(f"# {line}" for line in shown)]
            case Transfer():
                return self._transfer(event)
            case BuildFinished():
                return ["", f"# built in {event.seconds:.1f}s"]
            case BuildStarted():
                return []

    def _transfer(self, event: Transfer) -> list[str]:
        if event.done != event.total or event.direction == "export":
            return []
        why = f" ({event.why})" if event.why else ""
        moved = "mounted" if event.direction == "mount" else f"{event.direction}ed"
        return [f"# {moved} {event.name} {size_text(event.done)}{why}"]

    def _log(self, step: StepInfo, lines: list[str]) -> list[str]:
        at = time.monotonic() - self._started.get(step.id, time.monotonic())
        return [f"#{step.id} {at:.3f} {line}" for line in lines]

    def close(self) -> None:
        """See `Progress`."""


class JsonProgress:
    """One JSON object an event: `{"event": "StepStarted", ...}`; log bytes are text."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """See `Progress`."""
        fields = asdict(event)
        if isinstance(event, StepLog):
            fields["data"] = event.data.decode(errors="replace")
        with self._lock:
            self._stream.write(json.dumps({"event": type(event).__name__, **fields}) + "\n")
            self._stream.flush()

    def close(self) -> None:
        """See `Progress`."""

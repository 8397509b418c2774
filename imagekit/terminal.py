"""Progress on a terminal: steps that run are redrawn, steps that ended stay.

Apart from the other observers because it needs rich, which takes 35 ms to import.
"""

import threading
import time
from typing import Final, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

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
from imagekit.progress import LineSplitter, escape_control, size_text


class TerminalProgress:
    """Redraws the steps that run, with the last lines of their output; keeps those that ended."""

    LOG_LINES: Final = 5

    def __init__(self, stream: TextIO) -> None:

        self._console = Console(file=stream, highlight=False, soft_wrap=False)
        self._lock = threading.Lock()
        self._lines = LineSplitter()
        self._running: dict[int, tuple[StepInfo, float, list[str]]] = {}
        self._transfers: dict[str, Transfer] = {}
        self._began = time.monotonic()
        self._total = self._done = 0
        self._live = Live(
            console=self._console, refresh_per_second=8, transient=True, get_renderable=self._draw
        )
        self._live.start()

    def _draw(self) -> Group:

        now = time.monotonic()
        head = f"[+] Building {now - self._began:.1f}s ({self._done}/{self._total})"
        rows = [Text(head, style="bold")]
        for step, at, lines in list(self._running.values()):
            rows.append(self._row("=>", step.name, f"{now - at:.1f}s", "cyan"))
            rows.extend(
                Text(f" => => {line}"[: self._console.width - 1], style="dim") for line in lines
            )
        for transfer in list(self._transfers.values()):
            total = f" / {size_text(transfer.total)}" if transfer.total else ""
            amount = f"{size_text(transfer.done)}{total}"
            rows.append(self._row("=>", f"{transfer.direction} {transfer.name}", amount, "blue"))
        return Group(*rows)

    def _row(self, arrow: str, name: str, right: str, style: str) -> Text:
        room = max(10, self._console.width - len(arrow) - len(right) - 4)
        name = escape_control(name).replace("\n", " ")
        name = name if len(name) <= room else name[: room - 1] + "\N{HORIZONTAL ELLIPSIS}"
        return Text(f" {arrow} {name:<{room}} {right}", style=style, no_wrap=True)

    def __call__(self, event: Event) -> None:
        """See `Progress`."""
        with self._lock:
            self._take(event)

    def _take(self, event: Event) -> None:  # noqa: C901, PLR0912 - one case an event
        match event:
            case BuildStarted():
                self._total = len(event.steps)
            case StepStarted(step=step):
                self._running[step.id] = (step, event.at, [])
            case StepCached(step=step):
                self._keep("=>", f"CACHED {step.name}", "", "blue")
            case StepLog(step=step):
                if step.id in self._running:
                    lines = self._running[step.id][2]
                    lines.extend(self._lines.feed(event))
                    del lines[: -self.LOG_LINES]
            case StepFinished(step=step):
                self._running.pop(step.id, None)
                self._keep("=>", step.name, f"{event.seconds:.1f}s", "green")
            case StepFailed(step=step):
                self._running.pop(step.id, None)
                self._keep("=>", f"ERROR {step.name}", f"{event.seconds:.1f}s", "bold red")
            case Transfer() if event.done == event.total:
                self._transfers.pop(event.name, None)
            case Transfer():
                self._transfers[event.name] = event
            case Warned():
                self._keep("!!", f"{event.code}: {event.message}", "", "yellow")
                for line in event.excerpt.split("\n") if event.excerpt else ():
                    self._keep("  ", line, "", "dim")
            case BuildFinished():
                head = f"[+] Built in {event.seconds:.1f}s ({self._done}/{self._total})"
                self._console.print(head, style="bold")
            case SandboxChosen():
                pass

    def _keep(self, arrow: str, name: str, right: str, style: str) -> None:
        self._done += arrow == "=>"
        self._console.print(self._row(arrow, name, right, style))

    def close(self) -> None:
        """See `Progress`."""
        self._live.stop()

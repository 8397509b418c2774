"""What a person sees: plain and JSON lines, a terminal; control bytes are never passed on."""

import io
import json
import os
import pty
import threading
from typing import TextIO

import pytest

from imagekit.errors import Span, UsageError
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
from imagekit.progress import escape_control, progress, size_text
from tests.support.building import Project
from tests.support.commands import Command

ONE = StepInfo(id=1, name="[1/2] FROM base", span=Span(1, 1))
TWO = StepInfo(id=2, name="[2/2] RUN make\x1b[2J", span=Span(2, 2))
EVIL = b"\x1b]0;title\x07\x1b[31mred\x1b[0m\x9b2J \xe2\x80\xae\x08ok\n"

EVENTS: list[Event] = [
    BuildStarted(steps=(ONE, TWO)),
    StepCached(step=ONE),
    SandboxChosen(backend="root", reason="running as root"),
    Transfer(direction="pull", name="layer", why="its files are read", done=5, total=10),
    Transfer(direction="pull", name="layer", why="its files are read", done=10, total=10),
    StepStarted(step=TWO, at=1.0),
    StepLog(step=TWO, stream="stdout", data=b"first line\nsecond "),
    StepLog(step=TWO, stream="stderr", data=b"warning\n"),
    StepLog(step=TWO, stream="stdout", data=b"line\r\n50%\r100%\r\n"),
    StepLog(step=TWO, stream="stdout", data=EVIL),
    StepLog(step=TWO, stream="stdout", data=b"no end"),
    StepFinished(step=TWO, at=2.5, seconds=1.5, layer_size=1_234_567),
    Warned(code="Lint", message="not\x1b[1m as meant", span=Span(3, 3)),
    BuildFinished(at=3.0, seconds=2.0),
]
FAILURE: list[Event] = [
    StepStarted(step=TWO, at=1.0),
    StepLog(step=TWO, stream="stdout", data=b"last words"),
    StepFailed(step=TWO, at=2.0, seconds=1.0, message="exit\x07 code 1"),
]


def shown(mode: str, events: list[Event]) -> str:
    stream = io.StringIO()
    observer = progress(mode, stream)
    for event in events:
        observer(event)
    observer.close()
    return stream.getvalue()


def controls(text: str) -> set[str]:
    return {
        c for c in text if (c < " " and c not in "\n\t") or "\x7f" <= c < "\xa0" or c == "\u202e"
    }


def test_plain_shows_every_step_and_line() -> None:
    text = shown("plain", EVENTS)
    lines = text.splitlines()
    assert "#1 [1/2] FROM base" in lines
    assert "#1 CACHED" in lines
    assert "# pulled layer 10B (its files are read)" in lines
    assert "#2 DONE 1.5s, layer 1.2MB" in lines
    assert text.index("first line") < text.index("second line") < text.index("no end")
    assert "warning" in text
    assert "50%" in text
    assert "100%" in text
    assert "# WARNING Lint: not as meant (line 3)" in lines
    assert lines[-1] == "# built in 2.0s"


def test_plain_passes_no_control_bytes_on() -> None:
    text = shown("plain", EVENTS + FAILURE)
    assert controls(text) == set()
    assert r"\x1b]0;title\x07red" in text
    assert "RUN make\\x1b[2J" in text


def test_a_failure_is_shown_after_what_was_written_last() -> None:
    text = shown("plain", FAILURE)
    assert text.index("last words") < text.index("#2 ERROR 1.0s: exit\\x07 code 1")


def test_json_has_one_object_an_event() -> None:
    rows = [json.loads(line) for line in shown("rawjson", EVENTS).splitlines()]
    assert [row["event"] for row in rows] == [type(event).__name__ for event in EVENTS]
    first = rows[0]["steps"][0]
    assert (first["id"], first["name"], first["span"]["line"]) == (1, "[1/2] FROM base", 1)
    assert rows[6]["data"] == "first line\nsecond "
    assert controls(shown("rawjson", EVENTS)) == set()


def test_quiet_shows_nothing() -> None:
    assert shown("quiet", EVENTS + FAILURE) == ""


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown progress mode 'loud'") as caught:
        progress("loud", io.StringIO())
    assert "plain" in caught.value.hint


def test_elsewhere_than_on_a_terminal_auto_is_plain() -> None:
    assert "#1 CACHED" in shown("auto", EVENTS)


def on_terminal(events: list[Event]) -> str:
    """What a terminal gets in the mode `auto`."""
    master, slave = pty.openpty()
    data = bytearray()

    def read() -> None:
        while True:
            try:
                more = os.read(master, 65536)
            except OSError:
                return
            if not more:
                return
            data.extend(more)

    reader = threading.Thread(target=read)
    reader.start()
    stream: TextIO
    with open(slave, "w", encoding="utf-8") as stream:  # noqa: PTH123 - a descriptor
        observer = progress("auto", stream)
        for event in events:
            observer(event)
        observer.close()
    reader.join(timeout=30)
    os.close(master)
    return data.decode()


def test_a_terminal_keeps_steps_that_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    text = on_terminal(EVENTS)
    assert "CACHED [1/2] FROM base" in text
    assert "RUN make" in text
    assert "Built in 2.0s (2/2)" in text
    assert "Lint: not as meant" in text
    assert "\x1b[?25h" in text  # the cursor is shown again


def test_a_terminal_gets_no_control_bytes_of_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    text = on_terminal(EVENTS + FAILURE)
    for bad in ("\x1b]0;", "\x07", "\x1b[2J", "\x9b", "\u202e", "\x08"):
        assert bad not in text
    assert "ERROR" in text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain é \t\n", "plain é \t\n"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b[2Jclear", r"\x1b[2Jclear"),
        ("\x00\x07\x7f\x9b", r"\x00\x07\x7f\x9b"),
        ("a\u202eb\u2066c", r"a\x202eb\x2066c"),
        ("\x1b[31\x1b[0mm", r"\x1b[31m"),
    ],
)
def test_control_characters_are_escaped(text: str, escaped: str) -> None:
    assert escape_control(text) == escaped


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1_000, "1.0kB"),
        (1_500_000, "1.5MB"),
        (2_000_000_000_000, "2000.0GB"),
    ],
)
def test_sizes_are_for_people(size: int, text: str) -> None:
    assert size_text(size) == text


def test_the_command_line_shows_progress_on_standard_error_only(command: Command) -> None:
    command.project.write({"a": "a"}).dockerfile("FROM scratch\nCOPY a /\n")
    plain = command.build("--progress=plain")
    assert (plain.code, plain.out) == (0, "")
    assert "COPY a /" in plain.err
    again = command.build("--progress=rawjson")
    kinds = [json.loads(line)["event"] for line in again.lines]
    assert kinds[0] == "BuildStarted"
    assert kinds[-1] == "BuildFinished"


def test_names_of_files_are_escaped_in_errors(project: Project) -> None:
    project.dockerfile('FROM scratch\nCOPY ["a\\u001b[2J\\u0007", "/"]\n')
    said = Command(project).build()
    assert said.code == 1
    assert "\x1b" not in said.err
    assert "\x07" not in said.err

"""The command line: a thin door on `imagekit.api` and `imagekit.language`.

    build.py       build
    images.py      inspect, push, pull, prune
    language.py    parse, plan, check, pin

Exit codes: 0 done, 1 the build, transfer or check failed, 2 the command line is wrong, 130
interrupted. Results go to standard output, everything else to standard error. A command's module
is imported when that command is given.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import FrameType
from typing import Final, NoReturn

from imagekit.errors import (
    CancelledError,
    DockerfileError,
    ImagekitError,
    InvalidPlatformError,
    InvalidReferenceError,
    StepFailedError,
    UsageError,
)
from imagekit.progress import escape_control

_EXIT_FAILED: Final = 1
_EXIT_USAGE: Final = 2
_EXIT_INTERRUPTED: Final = 130

_COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "build": ("build", "Build an image from a Dockerfile."),
    "inspect": ("images", "Show an image as JSON."),
    "push": ("images", "Push an image to a registry."),
    "pull": ("images", "Fetch an image from a registry into the store."),
    "prune": ("images", "Remove what no image needs from the store."),
    "parse": ("language", "Show the instructions of a Dockerfile."),
    "plan": ("language", "Show what a build would do; nothing runs."),
    "check": ("language", "Run build checks on a Dockerfile, and mend it."),
    "pin": ("language", "Give the images of a Dockerfile their digests."),
}
"""Command -> the module that has it, and what it does."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code and writes errors to standard error."""
    words = sys.argv[1:] if argv is None else argv
    parser = _parser(words)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        arguments, unknown = parser.parse_known_args(words)
        if unknown:
            raise _unknown_option(unknown[0], arguments.options)
        run: Callable[[argparse.Namespace], int] = arguments.run
        return run(arguments)
    except (UsageError, InvalidPlatformError, InvalidReferenceError) as exc:
        _report(exc)
        return _EXIT_USAGE
    except (CancelledError, KeyboardInterrupt):
        sys.stderr.write("imagekit: interrupted\n")
        return _EXIT_INTERRUPTED
    except ImagekitError as exc:
        _report(exc)
        return _EXIT_FAILED
    except BrokenPipeError:
        sys.stderr.close()  # nobody reads: nothing is left to say, and Python must not try
        return _EXIT_FAILED


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    """Turn SIGTERM into what Ctrl-C does, so that everything is cleaned up."""
    del signum, frame
    raise KeyboardInterrupt


def _unknown_option(word: str, known: Sequence[str]) -> UsageError:
    from difflib import get_close_matches  # noqa: PLC0415 - only for a mistake

    if not word.startswith("-"):
        return UsageError(f"too many arguments: {word!r}", hint="options stand before them")
    close = get_close_matches(word.partition("=")[0], known, n=1)
    hint = f"did you mean {close[0]}?" if close else "see --help"
    return UsageError(f"unknown option {word!r}", hint=hint)


def _report(error: ImagekitError) -> None:
    lines = _told(error)
    others = error.others if isinstance(error, DockerfileError) else ()
    for other in others:
        lines += ["", *_told(other)]
    if others:
        lines += ["", f"{len(others) + 1} errors"]
    shown = (escape_control(line) for text in lines for line in text.split("\n"))
    sys.stderr.write("\n".join(shown) + "\n")


def _told(error: ImagekitError) -> list[str]:
    """The lines that say what went wrong, where, and what to try."""
    lines = []
    if isinstance(error, StepFailedError) and error.log_tail:
        lines += [f"--- the last output of {error.step}", error.log_tail.rstrip("\n"), "---"]
    if isinstance(error, DockerfileError) and error.span is not None:
        lines += [f"{error.place}: error: {error.message}", error.excerpt()]
    else:
        lines.append(f"imagekit: error: {error.message}")
    lines += [f"note: {note}" for note in getattr(error, "__notes__", ())]
    if error.hint:
        lines.append(f"hint: {error.hint}")
    return [line for line in lines if line]


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the command line, with the options of the command that is given."""
    parser = argparse.ArgumentParser(
        prog="imagekit",
        description="Build OCI images from Dockerfiles without a daemon.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    given = next((word for word in words if not word.startswith("-")), "")
    for name, (module, summary) in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        if name == given:
            add_command = getattr(import_module(f"imagekit.cli.{module}"), f"add_{name}")
            command.set_defaults(run=add_command(command))
            command.set_defaults(options=command._option_string_actions.keys())  # noqa: SLF001
    return parser


def _version() -> str:
    from imagekit import __version__  # noqa: PLC0415 - computed only when asked for

    return f"imagekit {__version__}"


if __name__ == "__main__":
    sys.exit(main())

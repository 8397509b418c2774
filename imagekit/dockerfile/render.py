"""Typed instructions to Dockerfile text, one logical line with its heredocs below.

What comes out is the plainest way to write an instruction; whoever wants to keep how an author
wrote it edits the author's text instead (`printer`). Words stand in instructions as they are
written, quotes and variables included, so here they are only put side by side. Not everything that
a value can hold can be written: the caller reads the text again and compares.
"""

import json
from collections.abc import Iterable, Sequence
from typing import assert_never

from imagekit.dockerfile.instructions import (
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Heredoc,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from imagekit.dockerfile.words import BLANKS

_UNITS = ((10**9, "s"), (10**6, "ms"), (10**3, "us"))


def render_line(instruction: Instruction, escape: str) -> str:
    """Return the logical line of an instruction.

    Args:
        instruction: `span`, `text`, `comments` and `flags` are not looked at.
        escape: the escape character in force.
    """
    word = instruction.word or instruction.keyword.upper()
    flags = [_quoted_flag(name, value, escape) for name, value in _flags(instruction)]
    arguments = _arguments(instruction, word)
    # What looks like a flag and is none stands behind a `--`.
    end = "--" if arguments.startswith("--") else ""
    return " ".join(filter(None, (word, *flags, end, arguments)))


def render_heredocs(instruction: Instruction) -> str:
    """Return the bodies below an instruction with their terminators, each line ended."""
    if isinstance(instruction, Onbuild):
        _, line_end, below = instruction.expression.partition("\n")
        return f"{below}{line_end}"
    if not isinstance(instruction, Run | Copy | Add):
        return ""
    return "".join(f"{h.content}{h.name}\n" for h in instruction.heredocs)


def _arguments(  # noqa: C901, PLR0911, PLR0912 - a case an instruction
    instruction: Instruction, word: str
) -> str:
    match instruction:
        case From(image=image):
            name = from_name(instruction)
            as_ = "as" if word.islower() else "AS"
            return f"{image} {as_} {name}" if name else image
        case Arg(pairs=pairs):
            return " ".join(p.key if p.value is None else f"{p.key}={p.value}" for p in pairs)
        case Env(pairs=pairs) | Label(pairs=pairs):
            return " ".join(f"{p.key}{' ' if p.legacy else '='}{p.value}" for p in pairs)
        case Copy() | Add():
            announced = [announce(heredoc) for heredoc in instruction.heredocs]
            return _paths([*instruction.sources, *announced, instruction.dest])
        case Run(argv=argv) | Cmd(argv=argv) | Entrypoint(argv=argv):
            return " ".join(argv) if instruction.shell_form else _json(argv)
        case Shell(argv=argv):
            return _json(argv)
        case Workdir(path=text) | User(user=text) | Stopsignal(signal=text):
            return text
        case Maintainer(maintainer=text):
            return text
        case Onbuild(expression=text):
            return text.partition("\n")[0]
        case Volume(paths=paths):
            return _paths(paths)
        case Expose(ports=ports):
            return " ".join(ports)
        case Healthcheck(test=test):
            return _test(test)
        case _:
            assert_never(instruction)


def from_name(instruction: From) -> str:
    """Return the name of a stage as it is to be written: in its own case if that is known."""
    is_same = instruction.written_name.lower() == instruction.name
    return instruction.written_name if is_same else instruction.name


def announce(heredoc: Heredoc) -> str:
    """Return the word that announces a heredoc."""
    name = heredoc.name if heredoc.expand else f'"{heredoc.name}"'
    return f"{heredoc.fd or ''}<<{'-' if heredoc.chomp else ''}{name}"


def _test(test: Sequence[str]) -> str:
    kind, *command = test or ("NONE",)
    match kind:
        case "NONE":
            return "NONE"
        case "CMD-SHELL":
            return f"CMD {' '.join(command)}"
        case _:
            return f"{kind} {_json(command)}"


def _paths(words: Sequence[str]) -> str:
    """Return words that blanks separate, or in JSON form where that would change them."""
    is_plain = all(word and not set(word) & set(BLANKS) for word in words)
    return " ".join(words) if is_plain and not words[0].startswith("[") else _json(words)


def _json(words: Iterable[str]) -> str:
    return json.dumps(list(words), ensure_ascii=False)


def _flags(instruction: Instruction) -> Iterable[tuple[str, str]]:
    """The flags of an instruction that are not at their default: names and `=value` or nothing."""
    match instruction:
        case From():
            yield from _texts(platform=instruction.platform)
        case Copy():
            yield from _texts(
                from_=instruction.from_, chown=instruction.chown, chmod=instruction.chmod
            )
            yield from _switches(link=instruction.link, parents=instruction.parents)
            yield from (("exclude", f"={pattern}") for pattern in instruction.exclude)
        case Add():
            yield from _texts(
                chown=instruction.chown, chmod=instruction.chmod, checksum=instruction.checksum
            )
            yield from _switches(link=instruction.link or None)
            yield from _switches(keep_git_dir=instruction.keep_git_dir, unpack=instruction.unpack)
            yield from (("exclude", f"={pattern}") for pattern in instruction.exclude)
        case Run():
            yield from (("mount", f"={mount}") for mount in instruction.mounts)
            yield from _texts(
                network=_unless(instruction.network, "default"),
                security=_unless(instruction.security, "sandbox"),
            )
            yield from (("device", f"={device}") for device in instruction.devices)
        case Healthcheck():
            yield from _texts(
                interval=_duration(instruction.interval_ns),
                timeout=_duration(instruction.timeout_ns),
                start_period=_duration(instruction.start_period_ns),
                start_interval=_duration(instruction.start_interval_ns),
                retries=_unless(str(instruction.retries), "0"),
            )
        case _:
            return


def _texts(**flags: str) -> Iterable[tuple[str, str]]:
    return ((_flag_name(name), f"={value}") for name, value in flags.items() if value)


def _switches(**flags: bool | None) -> Iterable[tuple[str, str]]:
    """Those that are on, bare, and those that are off where that is not the default."""
    for name, value in flags.items():
        if value:
            yield _flag_name(name), ""
        elif value is False and name not in ("link", "parents"):
            yield _flag_name(name), "=false"


def _flag_name(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _unless(value: str, default: str) -> str:
    return "" if value == default else value


def _duration(nanoseconds: int) -> str:
    if not nanoseconds:
        return ""
    for scale, unit in _UNITS:
        if nanoseconds % scale == 0:
            return f"{nanoseconds // scale}{unit}"
    return f"{nanoseconds}ns"


def _quoted_flag(name: str, value: str, escape: str) -> str:
    special = {escape, '"', "'"}
    if value.isascii() and not special.union(BLANKS) & set(value):
        return f"--{name}{value}"
    # BuildKit reads flags by bytes, and some in the midst of a character look like blanks.
    inner = "".join(escape + char if char in (escape, '"') else char for char in value)
    return f'--{name}="{inner[1:]}"'

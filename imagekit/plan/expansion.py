"""Which words of which instruction are expanded (dockerfile-semantics, 8).

Every instruction comes out in its own class. ARG stays as written, since each of its names sees
those before it: `settings` evaluates them one by one.
"""

from typing import assert_never

from attrs import evolve

from imagekit.dockerfile.instructions import (
    Add,
    Arg,
    Cmd,
    Command,
    Copy,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Heredoc,
    KeyValue,
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
from imagekit.dockerfile.words import expand_words
from imagekit.errors import ExpansionError
from imagekit.plan.mounts import MountError, MountOptions, parse_mount
from imagekit.plan.stages import LinkedCommand
from imagekit.plan.state import ExpandedCommand, StageScope, StageState


def expand_command(scope: StageScope, state: StageState, linked: LinkedCommand) -> ExpandedCommand:
    """An instruction as it is meant in `state`.

    Raises:
        ExpansionError: a word that cannot be expanded.
        DockerfileError: a mount that is wrong.
    """
    command = linked.command
    mounts = _mounts(scope, state, command) if isinstance(command, Run) else ()
    return ExpandedCommand(
        command=_expanded(scope, state, command),
        mounts=mounts,
        sources=linked.sources,
        trigger=linked.trigger,
    )


def _expanded(  # noqa: C901, PLR0911 - the one table of what is expanded
    scope: StageScope, state: StageState, command: Command
) -> Command:
    def word(text: str) -> str:
        return scope.expand(state, command, text)

    def words(texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(word, texts))

    def pairs(of: tuple[KeyValue, ...]) -> tuple[KeyValue, ...]:
        return tuple(evolve(p, key=word(p.key), value=word(p.value)) for p in of)

    match command:
        case Env() | Label():
            return evolve(command, pairs=pairs(command.pairs))
        case Copy():
            return evolve(
                command,
                chown=word(command.chown),
                chmod=word(command.chmod),
                sources=words(command.sources),
                dest=word(command.dest),
                heredocs=_bodies(scope, state, command),
            )
        case Add():
            return evolve(
                command,
                chown=word(command.chown),
                chmod=word(command.chmod),
                checksum=word(command.checksum),
                sources=words(command.sources),
                dest=word(command.dest),
                heredocs=_bodies(scope, state, command),
            )
        case User():
            return evolve(command, user=word(command.user))
        case Workdir():
            return evolve(command, path=word(command.path))
        case Volume():
            return evolve(command, paths=words(command.paths))
        case Expose():
            return evolve(command, ports=_ports(scope, state, command))
        case Stopsignal():
            return evolve(command, signal=word(command.signal))
        case Arg() | Run() | Cmd() | Entrypoint() | Shell():
            return command
        case Healthcheck() | Onbuild() | Maintainer():
            return command
        case _:
            assert_never(command)


def _bodies(scope: StageScope, state: StageState, command: Copy | Add) -> tuple[Heredoc, ...]:
    """The heredocs with what their files will hold."""
    return tuple(
        evolve(
            heredoc,
            content=scope.expand(state, command, heredoc.body, body=True)
            if heredoc.expand
            else heredoc.body,
            chomp=False,
        )
        for heredoc in command.heredocs
    )


def _ports(scope: StageScope, state: StageState, command: Expose) -> tuple[str, ...]:
    ports: list[str] = []
    for port in command.ports:
        try:
            ports += expand_words(port, state.env, escape=scope.graph.file.escape)
        except ExpansionError as exc:
            raise scope.placed(command, port, exc) from exc
    return tuple(ports)


def _mounts(scope: StageScope, state: StageState, command: Run) -> tuple[MountOptions, ...]:
    mounts = []
    for text in command.mounts:
        try:
            mount = parse_mount(text, lambda word: scope.expand(state, command, word))
        except MountError as exc:
            scope.fail(command, exc.message, code=exc.code, word=text, hint=exc.hint, cause=exc)
        mounts.append(mount)
    return tuple(mounts)

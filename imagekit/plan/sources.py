"""Variables in `COPY --from` and `RUN --mount from=`, which BuildKit does not have.

Asked for with `expand_from`: which stages a build needs then depends on arguments. What a name
sees is the global scope and, over it, the ARGs of its stage, and of the stages that this one is
based on, as far as they stand above the instruction. ENV does not count: the variables of a base
image are not known before the stages are, and what only sometimes holds would mislead.
"""

from collections.abc import Mapping
from functools import partial

from attrs import evolve

from imagekit.dockerfile.flags import split_csv
from imagekit.dockerfile.grammar import GrammarError
from imagekit.dockerfile.instructions import Arg, Command, Copy, Dockerfile, Run, Stage
from imagekit.dockerfile.words import expand
from imagekit.errors import ExpansionError
from imagekit.plan.arguments import Arguments, declare
from imagekit.plan.places import fail, pinpoint


def with_sources(file: Dockerfile, arguments: Arguments) -> Dockerfile:
    """The file with the names of `--from` and `from=` expanded.

    Raises:
        ExpansionError: a name that cannot be expanded.
        DockerfileError: a name of which nothing remains (`from-variable`).
    """
    scopes: dict[str, Mapping[str, str]] = {}
    stages = []
    for stage in file.stages:
        base = _base(file, stage, arguments.scope)
        scope = dict(scopes.get(base, arguments.scope))
        commands = []
        for command in stage.commands:
            if isinstance(command, Arg):
                declare(file, command, scope, arguments.given, arguments.scope)
            commands.append(_expanded(file, command, scope))
        stages.append(evolve(stage, commands=tuple(commands)))
        if stage.name:
            scopes[stage.name] = scope
    return evolve(file, stages=tuple(stages))


def _base(file: Dockerfile, stage: Stage, scope: Mapping[str, str]) -> str:
    try:
        return expand(stage.base, scope, escape=file.escape).result
    except ExpansionError:
        return ""  # An error of its own, where the stages are linked.


def _expanded(file: Dockerfile, command: Command, scope: Mapping[str, str]) -> Command:
    match command:
        case Copy() if "$" in command.from_:
            return evolve(command, from_=_name(file, command, command.from_, scope))
        case Run() if any("$" in mount for mount in command.mounts):
            name = partial(_name, file, command, scope=scope)
            mounts = []
            for mount in command.mounts:
                try:
                    fields = split_csv(mount)
                except GrammarError:
                    mounts.append(mount)  # An error of its own, where mounts are read.
                    continue
                pairs = [field.partition("=") for field in fields]
                mounts.append(
                    ",".join(
                        _csv(f"{key}={name(value)}" if key.lower() == "from" and value else field)
                        for field, (key, _, value) in zip(fields, pairs, strict=True)
                    )
                )
            return evolve(command, mounts=tuple(mounts))
        case _:
            return command


def _csv(field: str) -> str:
    quoted = field.replace('"', '""')
    return f'"{quoted}"' if quoted != field or "," in field else field


def _name(file: Dockerfile, command: Copy | Run, word: str, scope: Mapping[str, str]) -> str:
    try:
        done = expand(word, scope, escape=file.escape)
    except ExpansionError as exc:
        raise ExpansionError(
            exc.message,
            span=pinpoint(file, command.span, word),
            filename=file.filename,
            source=file.source,
            hint=exc.hint,
        ) from exc
    if not done.result:
        fail(
            file,
            f"nothing remains of the name {word}",
            code="from-variable",
            span=command.span,
            word=word,
            hint="declare the variable with ARG, in this stage or above the first FROM",
        )
    return done.result

"""The global scope: what FROM sees, and what ARG without a default takes.

It holds the platform arguments, which are always there, and the ARGs above the first FROM. A build
argument overrides both. SOURCE_DATE_EPOCH is read here too, since it holds for the whole build.
"""

from collections.abc import Mapping
from typing import Final

from attrs import frozen

from imagekit.dockerfile.instructions import Add, Arg, Dockerfile, Stage
from imagekit.dockerfile.words import expand
from imagekit.errors import ExpansionError
from imagekit.oci.platform import Platform
from imagekit.plan.contexts import NamedContext, short_name
from imagekit.plan.places import fail

EPOCH: Final = "SOURCE_DATE_EPOCH"
_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")


@frozen(kw_only=True)
class Arguments:
    """The arguments of one build.

    Attributes:
        given: build arguments of the caller, without an SOURCE_DATE_EPOCH that has no number.
        scope: what FROM sees and what an ARG without default may take.
        epoch: SOURCE_DATE_EPOCH in seconds, or None.
        epoch_of: where the caller has to find the time if the value is no number: `context`, the
            name of a named context, or the URL of a stage that is one remote ADD; empty if there
            is nothing to find.
    """

    given: Mapping[str, str]
    scope: Mapping[str, str]
    epoch: int | None = None
    epoch_of: str = ""


def platform_arguments(build: Platform, target: Platform, stage: str) -> dict[str, str]:
    """The arguments that every build has."""
    return {
        "BUILDPLATFORM": str(build),
        "BUILDOS": build.os,
        "BUILDOSVERSION": build.os_version,
        "BUILDARCH": build.architecture,
        "BUILDVARIANT": build.variant,
        "TARGETPLATFORM": str(target),
        "TARGETOS": target.os,
        "TARGETOSVERSION": target.os_version,
        "TARGETARCH": target.architecture,
        "TARGETVARIANT": target.variant,
        "TARGETSTAGE": stage or "default",
    }


def proxy_environment(given: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The proxies among the build arguments, each in upper and in lower case."""
    found = {name.upper(): given[name] for name in sorted(given) if name.upper() in _PROXIES}
    values = [(name, found[name]) for name in _PROXIES if found.get(name)]
    return tuple(pair for name, v in values for pair in ((name, v), (name.lower(), v)))


def read_arguments(
    file: Dockerfile,
    given: Mapping[str, str],
    predefined: Mapping[str, str],
    contexts: Mapping[str, NamedContext],
) -> Arguments:
    """Evaluate the ARGs above the first FROM, each seeing those before it.

    Raises:
        ExpansionError: a default that cannot be expanded.
        DockerfileError: a SOURCE_DATE_EPOCH that is neither a number nor has a time.
    """
    overridden = {name: given.get(name, value) for name, value in predefined.items()}
    scope = declare_all(file, overridden, given)
    value = given.get(EPOCH, scope.get(EPOCH, ""))
    if not value:
        return Arguments(given=given, scope=scope)
    if value.removeprefix("-").removeprefix("+").isdecimal() and value.isascii():
        # Written back as a number, so that `+5` and `5` are one in every key.
        return Arguments(
            given=_replaced(given, str(int(value))),
            scope=_replaced(scope, str(int(value))),
            epoch=int(value),
        )
    place = _place_of_time(file, value, scope, given, contexts)
    return Arguments(given=_without(given), scope=_without(scope), epoch_of=place)


def declare_all(
    file: Dockerfile, predefined: Mapping[str, str], given: Mapping[str, str]
) -> dict[str, str]:
    """The global scope: the predefined arguments and the ARGs above the first FROM.

    Raises:
        ExpansionError: a default that cannot be expanded.
    """
    scope = dict(predefined)
    for arg in file.global_args:
        declare(file, arg, scope, given)
    return scope


def declare(
    file: Dockerfile,
    arg: Arg,
    scope: dict[str, str],
    given: Mapping[str, str],
    outer: Mapping[str, str] | None = None,
) -> None:
    """Add what an ARG declares to a scope; `outer` has values for names without a default.

    Raises:
        ExpansionError: a default that cannot be expanded.
    """
    for pair in arg.pairs:
        value = given.get(pair.key)
        if value is None and pair.value is not None:
            value = expand_at(file, arg, pair.value, scope)
        elif value is None and outer is not None:
            value = outer.get(pair.key)
        if value is not None:
            # A later declaration is a later variable, as in a stage.
            scope.pop(pair.key, None)
            scope[pair.key] = value


def expand_at(file: Dockerfile, at: Arg | Add, word: str, scope: Mapping[str, str]) -> str:
    """`word` of the instruction `at`, expanded.

    Raises:
        ExpansionError: with its place.
    """
    try:
        return expand(word, scope, escape=file.escape).result
    except ExpansionError as exc:
        raise ExpansionError(
            exc.message, span=at.span, filename=file.filename, source=file.source, hint=exc.hint
        ) from exc


def _place_of_time(
    file: Dockerfile,
    value: str,
    scope: Mapping[str, str],
    given: Mapping[str, str],
    contexts: Mapping[str, NamedContext],
) -> str:
    if value == "context" or short_name(value) in contexts:
        return value
    stages = [stage for stage in file.stages if stage.name and stage.name == value.lower()]
    if not stages:
        fail(
            file,
            f"invalid SOURCE_DATE_EPOCH: {value}",
            code="date-invalid",
            hint="give seconds since 1970, or `context`, or the name of a stage or named context",
        )
    return _remote_add(file, stages[0], _without(scope), given)


def _remote_add(
    file: Dockerfile, stage: Stage, scope: dict[str, str], given: Mapping[str, str]
) -> str:
    """The URL that a stage of `FROM scratch`, ARGs and one remote ADD names."""
    source = ""
    reason = "" if stage.base == "scratch" else "must use FROM scratch"
    for command in stage.commands:
        match command:
            case Arg():
                declare(file, command, scope, given)
            case Add(sources=(word,), heredocs=()) if not source:
                source = expand_at(file, command, word, scope)
            case Add():
                reason = reason or "must contain exactly one remote ADD"
            case _:
                keyword = command.keyword.upper()
                reason = reason or f"must hold nothing but ARG and one ADD, not {keyword}"
    if not source.startswith(("http://", "https://", "git@", "git://", "ssh://")):
        reason = reason or "must contain exactly one remote ADD"
    if reason:
        fail(
            file,
            f"the stage {stage.name!r} that SOURCE_DATE_EPOCH names {reason}",
            code="date-invalid",
            span=stage.span,
        )
    return source


def _without(values: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in values.items() if name != EPOCH}


def _replaced(values: Mapping[str, str], value: str) -> dict[str, str]:
    return {name: value if name == EPOCH else old for name, old in values.items()}

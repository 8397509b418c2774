"""Instructions that set the config (dockerfile-semantics, 7 and 11).

WORKDIR also makes its folder.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from attrs import evolve

from imagekit.dockerfile.instructions import (
    Arg,
    ArgPair,
    Cmd,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    KeyValue,
    Label,
    Maintainer,
    Onbuild,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from imagekit.oci import config as oci
from imagekit.plan import goformat, paths, rules
from imagekit.plan.goformat import quoted
from imagekit.plan.lint import is_secret
from imagekit.plan.ops import Mkdir
from imagekit.plan.state import (
    NOT_IN_ENVIRONMENT,
    ArgValue,
    Change,
    ExpandedCommand,
    StageScope,
    StageState,
)

_SHELLS: Final[dict[str, tuple[str, ...]]] = {"windows": ("cmd", "/S", "/C")}
_DEFAULT_SHELL: Final = ("/bin/sh", "-c")
_PROTOCOLS: Final = ("tcp", "udp", "sctp")
_RANGE: Final = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")
_MAX_PORT: Final = 65535
_SIGNALS: Final = frozenset(
    "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT RTMAX RTMIN"
    " SEGV STKFLT STOP SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ".split()
).union(
    (f"RTMIN+{n}" for n in range(1, 16)),
    (f"RTMAX-{n}" for n in range(1, 15)),
)


def with_shell(image: oci.ImageConfig, argv: tuple[str, ...]) -> tuple[str, ...]:
    """The arguments that give `argv` to the stage's shell, as one text."""
    shell = image.config.shell or _SHELLS.get(image.platform.os, _DEFAULT_SHELL)
    return (*shell, " ".join(argv))


def lower_arg(scope: StageScope, state: StageState, arg: Arg) -> StageState:
    """ARG: an environment of the steps below, not of the image."""
    texts = []
    for pair in arg.pairs:
        if is_secret(pair.key):
            scope.warn(
                arg, rules.SECRETS_USED_IN_ARG_OR_ENV, "ARG", quoted(pair.key), word=pair.key
            )
        # Each name sees those before it on the same line.
        value = _arg_value(scope, state, arg, pair)
        if value is not None and pair.key not in NOT_IN_ENVIRONMENT:
            state = state.with_variables([(pair.key, value)])
        state = state.with_args(ArgValue(pair.key, value))
        texts.append(pair.key if value is None else f"{pair.key}={value}")
    return state.with_history(f"ARG {' '.join(texts)}")


def _arg_value(scope: StageScope, state: StageState, arg: Arg, pair: ArgPair) -> str | None:
    """The caller's value, else the default, else that of the global scope."""
    arguments = scope.graph.arguments
    if pair.key in arguments.given:
        return arguments.given[pair.key]
    if pair.value is not None:
        return scope.expand(state, arg, pair.value)
    return arguments.scope.get(pair.key)


def lower_env(scope: StageScope, state: StageState, env: Env) -> StageState:
    """ENV: variables of the steps below and of the image, where each keeps its old place."""
    for pair in env.pairs:
        _check_format(scope, env, pair)
        if is_secret(pair.key):
            scope.warn(
                env, rules.SECRETS_USED_IN_ARG_OR_ENV, "ENV", quoted(pair.key), word=pair.key
            )
    state = state.with_changes(*(Change("env", pair.key, pair.value) for pair in env.pairs))
    state = state.with_variables((pair.key, pair.value) for pair in env.pairs)
    return state.with_history(f"ENV {_pairs(env.pairs)}")


def lower_label(scope: StageScope, state: StageState, label: Label) -> StageState:
    """LABEL: later ones win."""
    for pair in label.pairs:
        _check_format(scope, label, pair)
    state = state.with_changes(*(Change("label", pair.key, pair.value) for pair in label.pairs))
    return state.with_history(f"LABEL {_pairs(label.pairs)}")


def _check_format(scope: StageScope, node: Env | Label, pair: KeyValue) -> None:
    if pair.legacy:
        scope.warn(node, rules.LEGACY_KEY_VALUE_FORMAT, node.word)


def _once(
    scope: StageScope, state: StageState, node: Cmd | Entrypoint | Healthcheck
) -> StageState:
    """Note an instruction of which only the last in a stage counts."""
    former = state.seen.get(node.keyword)
    if former is not None:
        scope.checks.report(
            rules.MULTIPLE_INSTRUCTIONS_DISALLOWED,
            node.word,
            span=former,
            comments=node.comments,
        )
    return evolve(state, seen={**state.seen, node.keyword: node.span})


def _argv(scope: StageScope, state: StageState, node: Cmd | Entrypoint) -> tuple[str, ...]:
    """What the config gets: the shell form with the shell in front."""
    if not node.shell_form:
        return node.argv
    if not state.image.config.shell:
        scope.warn(node, rules.JSON_ARGS_RECOMMENDED, node.word)
    return with_shell(state.image, node.argv)


def lower_cmd(scope: StageScope, state: StageState, cmd: Cmd) -> StageState:
    """CMD; `ArgsEscaped` is what Docker writes with it."""
    state = _once(scope, state, cmd)
    argv = _argv(scope, state, cmd)
    config = evolve(state.image.config, cmd=argv, args_escaped=True)
    return state.with_config(config).with_history(f"CMD {goformat.quoted_list(argv)}")


def lower_entrypoint(scope: StageScope, state: StageState, entrypoint: Entrypoint) -> StageState:
    """ENTRYPOINT; a CMD that this stage did not set itself is cleared."""
    state = _once(scope, state, entrypoint)
    argv = _argv(scope, state, entrypoint)
    config = evolve(state.image.config, entrypoint=argv)
    if Cmd.keyword not in state.seen:
        config = evolve(config, cmd=None)
    text = f"ENTRYPOINT {goformat.quoted_list(argv)}"
    return state.with_config(config).with_history(text)


def lower_shell(state: StageState, shell: Shell) -> StageState:
    """SHELL."""
    config = evolve(state.image.config, shell=shell.argv)
    return state.with_config(config).with_history(f"SHELL {goformat.plain_list(shell.argv)}")


def lower_healthcheck(scope: StageScope, state: StageState, node: Healthcheck) -> StageState:
    """HEALTHCHECK: all of an inherited one is replaced."""
    state = _once(scope, state, node)
    health = oci.Healthcheck(
        test=node.test,
        interval=node.interval_ns,
        timeout=node.timeout_ns,
        start_period=node.start_period_ns,
        start_interval=node.start_interval_ns,
        retries=node.retries,
    )
    config = evolve(state.image.config, healthcheck=health)
    text = f"HEALTHCHECK {goformat.healthcheck(health)}"
    return state.with_config(config).with_history(text)


def lower_user(state: StageState, node: User) -> StageState:
    """USER: as written; the name is looked up by the steps that need it."""
    config = evolve(state.image.config, user=node.user)
    return state.with_config(config).with_history(f"USER {node.user}")


def lower_volume(scope: StageScope, state: StageState, volume: Volume) -> StageState:
    """VOLUME.

    Raises:
        DockerfileError: an empty path.
    """
    if "" in volume.paths:
        scope.fail(
            volume,
            "VOLUME specified can not be an empty string",
            code="volume-empty",
            hint="a variable in it may have no value",
        )
    state = state.with_changes(*(Change("volume", path) for path in volume.paths))
    return state.with_history(f"VOLUME {goformat.plain_list(volume.paths)}")


def lower_expose(scope: StageScope, state: StageState, expose: Expose) -> StageState:
    """EXPOSE.

    Raises:
        DockerfileError: no port, or one out of range.
    """
    ports: list[str] = []
    for text in expose.ports:
        try:
            ports += _ports(scope, expose, text)
        except ValueError as exc:
            scope.fail(
                expose,
                f"invalid port: {text!r}: {exc}",
                code="port-invalid",
                word=text,
                hint="write 80, 80/udp or 8000-8010/tcp",
                cause=exc,
            )
    state = state.with_changes(*(Change("port", port) for port in ports))
    return state.with_history(f"EXPOSE {goformat.plain_list(ports)}")


def lower_stopsignal(scope: StageScope, state: StageState, node: Stopsignal) -> StageState:
    """STOPSIGNAL: stored as written.

    Raises:
        DockerfileError: no signal of that name or number.
    """
    name = node.signal.upper().removeprefix("SIG")
    number = int(name) if name.isascii() and name.isdecimal() and len(name) < 9 else 0
    if name not in _SIGNALS and number == 0:
        scope.fail(
            node,
            f"invalid signal: {node.signal}",
            code="signal-invalid",
            word=node.signal,
            hint="write a name such as SIGTERM or a number",
        )
    config = evolve(state.image.config, stop_signal=node.signal)
    return state.with_config(config).with_history(f"STOPSIGNAL {node.signal}")


def lower_onbuild(state: StageState, node: Onbuild) -> StageState:
    """ONBUILD: kept for children, without a line of history."""
    return state.with_changes(Change("on_build", node.expression))


def lower_maintainer(state: StageState, node: Maintainer) -> StageState:
    """MAINTAINER: the author of the image."""
    state = evolve(state, image=evolve(state.image, author=node.maintainer))
    return state.with_history(f"MAINTAINER {node.maintainer}")


def lower_workdir(
    scope: StageScope, state: StageState, done: ExpandedCommand, node: Workdir, *, name: str
) -> StageState:
    """WORKDIR: a layer even if the folder exists, but none for the root."""
    _check_workdir(scope, state, node)
    state = evolve(state, has_workdir=True)
    state = state.in_folder(node.path, scope.platform.os)
    has_layer = state.workdir != "/"
    if has_layer:
        op = Mkdir(path=paths.clean(state.workdir), owner=state.user, epoch=scope.graph.epoch)
        state = scope.step(state, done, op, name=name)
    return state.with_history(f"WORKDIR {state.workdir}", layer=has_layer)


def _check_workdir(scope: StageScope, state: StageState, node: Workdir) -> None:
    """Report a first WORKDIR that continues that of the base image, which may change."""
    is_windows = scope.platform.os == "windows"
    path = paths.from_windows(node.path) if is_windows else node.path
    if not state.has_workdir and not path.startswith("/"):
        scope.warn(node, rules.WORKDIR_RELATIVE_PATH, quoted(node.path), word=node.path)


def _pairs(pairs: Iterable[KeyValue]) -> str:
    return " ".join(f"{p.key}={p.value}" for p in pairs)


def _ports(scope: StageScope, node: Expose, text: str) -> Iterator[str]:
    """`port/protocol` for each port of `[[ip:]host:]port[-port][/protocol]`."""
    *host, container = text.rsplit(":", 2)
    port, _, protocol = container.partition("/")
    written, protocol = protocol, protocol.lower() or "tcp"
    if not port:
        raise ValueError("no port specified")
    if protocol not in _PROTOCOLS:
        raise ValueError(f"invalid proto: {protocol}")
    if written != written.lower():
        scope.warn(node, rules.EXPOSE_PROTO_CASING, text, word=text)
    if any(host):
        scope.warn(node, rules.EXPOSE_INVALID_FORMAT, text, word=text)
    first, last = _range("containerPort", port)
    if host and host[-1]:
        host_first, host_last = _range("hostPort", host[-1])
        if host_last - host_first != last - first != 0:
            raise ValueError(f"invalid ranges for container and host ports: {port}, {host[-1]}")
    if len(host) == 2 and host[0] and not _is_address(host[0]):
        raise ValueError(f"invalid IP address: {host[0]}")
    for number in range(first, last + 1):
        yield f"{number}/{protocol}"


def _range(what: str, text: str) -> tuple[int, int]:
    match = _RANGE.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if not first <= last <= _MAX_PORT:
        raise ValueError(f"invalid {what}: {text}")
    return first, last


def _is_address(text: str) -> bool:
    from ipaddress import ip_address  # noqa: PLC0415 - a form that hardly anyone writes

    try:
        ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True

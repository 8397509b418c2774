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
from imagekit.plan import goformat, paths
from imagekit.plan.ops import Mkdir
from imagekit.plan.state import ArgValue, ExpandedCommand, StageScope, StageState

_NOT_IN_ENVIRONMENT: Final = frozenset({"BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"})
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
    values, texts = [], []
    # Each name sees those before it on the same line; `seen` is of this loop alone.
    seen = dict(state.env)
    for pair in arg.pairs:
        value = _arg_value(scope, evolve(state, env=seen), arg, pair)
        if value is not None and pair.key not in _NOT_IN_ENVIRONMENT:
            seen.pop(pair.key, None)
            seen[pair.key] = value
        values.append(ArgValue(pair.key, value))
        texts.append(pair.key if value is None else f"{pair.key}={value}")
    state = evolve(state, env=seen, args=(*state.args, *values))
    return state.with_history(f"ARG {' '.join(texts)}")


def _arg_value(scope: StageScope, state: StageState, arg: Arg, pair: ArgPair) -> str | None:
    """The caller's value, else the default, else that of the global scope."""
    arguments = scope.graph.arguments
    if pair.key in arguments.given:
        return arguments.given[pair.key]
    if pair.value is not None:
        return scope.expand(state, arg, pair.value)
    return arguments.scope.get(pair.key)


def lower_env(state: StageState, env: Env) -> StageState:
    """ENV: variables of the steps below and of the image, where each keeps its old place."""
    config = state.image.config
    variables = dict(config.env) | {pair.key: pair.value for pair in env.pairs}
    state = state.with_config(evolve(config, env=tuple(variables.items())))
    state = state.with_variables((pair.key, pair.value) for pair in env.pairs)
    return state.with_history(f"ENV {_pairs(env.pairs)}")


def lower_label(state: StageState, label: Label) -> StageState:
    """LABEL: later ones win."""
    config = state.image.config
    labels = {**dict(config.labels), **{p.key: p.value for p in label.pairs}}
    config = evolve(config, labels=tuple(labels.items()))
    return state.with_config(config).with_history(f"LABEL {_pairs(label.pairs)}")


def lower_cmd(state: StageState, cmd: Cmd) -> StageState:
    """CMD; `ArgsEscaped` is what Docker writes with it."""
    argv = with_shell(state.image, cmd.argv) if cmd.shell_form else cmd.argv
    config = evolve(state.image.config, cmd=argv, args_escaped=True)
    state = evolve(state.with_config(config), has_cmd=True)
    return state.with_history(f"CMD {goformat.quoted_list(argv)}")


def lower_entrypoint(state: StageState, entrypoint: Entrypoint) -> StageState:
    """ENTRYPOINT; a CMD that this stage did not set itself is cleared."""
    shell_form = entrypoint.shell_form
    argv = with_shell(state.image, entrypoint.argv) if shell_form else entrypoint.argv
    config = evolve(state.image.config, entrypoint=argv)
    if not state.has_cmd:
        config = evolve(config, cmd=None)
    text = f"ENTRYPOINT {goformat.quoted_list(argv)}"
    return state.with_config(config).with_history(text)


def lower_shell(state: StageState, shell: Shell) -> StageState:
    """SHELL."""
    config = evolve(state.image.config, shell=shell.argv)
    return state.with_config(config).with_history(f"SHELL {goformat.plain_list(shell.argv)}")


def lower_healthcheck(state: StageState, node: Healthcheck) -> StageState:
    """HEALTHCHECK: all of an inherited one is replaced."""
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
    config = state.image.config
    volumes = tuple(dict.fromkeys((*config.volumes, *volume.paths)))
    text = f"VOLUME {goformat.plain_list(volume.paths)}"
    return state.with_config(evolve(config, volumes=volumes)).with_history(text)


def lower_expose(scope: StageScope, state: StageState, expose: Expose) -> StageState:
    """EXPOSE.

    Raises:
        DockerfileError: no port, or one out of range.
    """
    ports: list[str] = []
    for text in expose.ports:
        try:
            ports += _ports(text)
        except ValueError as exc:
            scope.fail(
                expose,
                f"invalid port: {text!r}: {exc}",
                code="port-invalid",
                word=text,
                hint="write 80, 80/udp or 8000-8010/tcp",
                cause=exc,
            )
    config = state.image.config
    exposed = tuple(dict.fromkeys((*config.exposed_ports, *ports)))
    text = f"EXPOSE {goformat.plain_list(ports)}"
    return state.with_config(evolve(config, exposed_ports=exposed)).with_history(text)


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
    config = state.image.config
    return state.with_config(evolve(config, on_build=(*config.on_build, node.expression)))


def lower_maintainer(state: StageState, node: Maintainer) -> StageState:
    """MAINTAINER: the author of the image."""
    state = evolve(state, image=evolve(state.image, author=node.maintainer))
    return state.with_history(f"MAINTAINER {node.maintainer}")


def lower_workdir(
    scope: StageScope, state: StageState, done: ExpandedCommand, node: Workdir, *, name: str
) -> StageState:
    """WORKDIR: a layer even if the folder exists, but none for the root."""
    state = state.in_folder(node.path, scope.platform.os)
    has_layer = state.workdir != "/"
    if has_layer:
        op = Mkdir(path=paths.clean(state.workdir), owner=state.user, epoch=scope.graph.epoch)
        state = scope.step(state, done, op, name=name)
    return state.with_history(f"WORKDIR {state.workdir}", layer=has_layer)


def _pairs(pairs: Iterable[KeyValue]) -> str:
    return " ".join(f"{p.key}={p.value}" for p in pairs)


def _ports(text: str) -> Iterator[str]:
    """`port/protocol` for each port of `[[ip:]host:]port[-port][/protocol]`."""
    *host, container = text.rsplit(":", 2)
    port, _, protocol = container.partition("/")
    protocol = protocol.lower() or "tcp"
    if not port:
        raise ValueError("no port specified")
    if protocol not in _PROTOCOLS:
        raise ValueError(f"invalid proto: {protocol}")
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

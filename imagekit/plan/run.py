"""RUN (dockerfile-semantics, 4 and 12)."""

import re
from typing import Final, Literal, cast

from imagekit.dockerfile.instructions import Run
from imagekit.dockerfile.words import expand_words
from imagekit.errors import ExpansionError
from imagekit.plan import ops, paths
from imagekit.plan.arguments import proxy_environment
from imagekit.plan.files import context_step, is_later
from imagekit.plan.mounts import MountOptions
from imagekit.plan.settings import with_shell
from imagekit.plan.state import ExpandedCommand, StageScope, StageState

_PIPES: Final = "/dev/pipes"
_SECRETS: Final = "/run/secrets"
_AGENTS: Final = "/run/buildkit/ssh_agent"
_AGENT_VARIABLE: Final = "SSH_AUTH_SOCK"
_HOSTNAME: Final = "BUILDKIT_SANDBOX_HOSTNAME"
_HEREDOC_WORD: Final = re.compile(r"[0-9]*<<-?\s*([^<]*)")


def lower_run(
    scope: StageScope, state: StageState, done: ExpandedCommand, node: Run, *, name: str
) -> StageState:
    """The step of a RUN.

    Raises:
        DockerfileError: a mount of the root or of a later stage, or a device.
    """
    if node.devices:
        scope.fail(
            node,
            "RUN --device is not supported",
            code="other",
            word="--device",
            hint="devices need a daemon that has been given them",
        )
    words, script = _command(scope, node)
    argv = with_shell(state.image, words) if node.shell_form else words
    mounts = _Mounts(scope, state, done, node)
    given = scope.graph.arguments.given
    op = ops.Exec(
        argv=argv,
        env=mounts.environment(),
        proxy_env=proxy_environment(given),
        cwd=paths.clean(state.workdir),
        user=state.user,
        mounts=(*mounts.found, *((script,) if script else ())),
        network=cast(Literal["default", "none", "host"], node.network),
        security=cast(Literal["sandbox", "insecure"], node.security),
        hostname=given.get(_HOSTNAME, ""),
    )
    if _is_script(node):
        name = f"{name} ({_summary(node.heredocs[0].content)})"
    history = f"RUN {_history(state, argv)} # buildkit"
    state = scope.step(state, done, op, mounts.inputs, name=name)
    return state.with_history(history, layer=True)


def hidden_variables(done: ExpandedCommand) -> frozenset[str]:
    """The variables whose values are secrets in a RUN."""
    return frozenset(mount.env for mount in done.mounts if mount.type == "secret" and mount.env)


def _command(scope: StageScope, node: Run) -> tuple[tuple[str, ...], ops.ScriptMount | None]:
    """What is run, and the script that it needs, if any."""
    if not node.heredocs:
        return node.argv, None
    if not _is_script(node):
        # The shell reads the bodies itself, so it gets them as they stand.
        bodies = "".join(f"\n{h.content}{h.name}" for h in node.heredocs)
        return (f"{' '.join(node.argv)}{bodies}",), None
    heredoc = node.heredocs[0]
    if scope.platform.os == "windows" or not heredoc.body.startswith("#!"):
        return (heredoc.body,), None
    target = f"{_PIPES}/{heredoc.name}"
    content = heredoc.body.encode("utf-8", "surrogateescape")
    return (target,), ops.ScriptMount(target=target, content=content)


def _is_script(node: Run) -> bool:
    """Whether a heredoc is all that stands on the line."""
    match = _HEREDOC_WORD.fullmatch(node.argv[0]) if len(node.heredocs) == 1 else None
    if match is None:
        return False
    try:
        return len(expand_words(match[1], {}, skip_unset=True)) == 1
    except ExpansionError:
        return False


def _summary(body: str) -> str:
    lines = body.strip().splitlines() or [""]
    return f"{lines[0]}..." if len(lines) > 1 else lines[0]


def _history(state: StageState, argv: tuple[str, ...]) -> str:
    values = {arg.name: arg.value for arg in state.args}
    pairs = [f"{name}={state.env.get(name, value or '')}" for name, value in values.items()]
    count = [f"|{len(pairs)}"] if pairs else []
    return " ".join((*count, *pairs, *argv))


class _Mounts:
    """The mounts of a RUN, and the steps whose trees they show."""

    def __init__(
        self, scope: StageScope, state: StageState, done: ExpandedCommand, node: Run
    ) -> None:
        self._scope = scope
        self._state = state
        self._node = node
        self._agent = ""
        self._agents = 0
        self._positions: dict[int, int] = {}
        self.found: list[ops.Mount] = []
        for mount, source in zip(done.mounts, done.sources, strict=True):
            self.found.append(self._mount(mount, source))

    @property
    def inputs(self) -> tuple[int, ...]:
        """The steps whose trees are shown, behind the root."""
        return tuple(self._positions)

    def environment(self) -> tuple[tuple[str, str], ...]:
        """The stage's variables, and where to find an SSH agent."""
        env = tuple(self._state.env.items())
        if self._agent and _AGENT_VARIABLE not in self._state.env:
            return (*env, (_AGENT_VARIABLE, self._agent))
        return env

    def _mount(self, mount: MountOptions, source: int) -> ops.Mount:
        match mount.type:
            case "bind":
                return ops.BindMount(
                    target=self._target(mount),
                    input=self._input(self._tree(mount, source)),
                    source=paths.clean(mount.source),
                    read_only=mount.read_only,
                )
            case "cache":
                return self._cache(mount, source)
            case "tmpfs":
                return ops.TmpfsMount(target=self._target(mount), size=mount.size)
            case "secret":
                return _secret(mount)
            case "ssh":
                return self._ssh(mount)

    def _cache(self, mount: MountOptions, source: int) -> ops.CacheMount:
        is_empty = self._scope.graph.nodes[source].is_empty
        owned = paths.clean(mount.source) == "/"
        return ops.CacheMount(
            target=self._target(mount),
            id=mount.id,
            sharing=mount.sharing or "shared",
            input=None if is_empty else self._input(self._tree(mount, source)),
            source=paths.clean(mount.source),
            read_only=mount.read_only,
            uid=(mount.uid or 0) if owned else 0,
            gid=(mount.gid or 0) if owned else 0,
            mode=mount.mode if owned and mount.mode is not None else 0o755,
        )

    def _ssh(self, mount: MountOptions) -> ops.SshMount:
        target = mount.target or f"{_AGENTS}.{self._agents}"
        self._agents += 1
        self._agent = self._agent or target
        return ops.SshMount(
            id=mount.id or "default",
            target=paths.clean(target),
            required=mount.required,
            uid=mount.uid or 0,
            gid=mount.gid or 0,
            mode=0o600 if mount.mode is None else mount.mode,
        )

    def _target(self, mount: MountOptions) -> str:
        target = paths.absolute(self._state.workdir, mount.target)
        if target == "/":
            self._scope.fail(
                self._node,
                f"invalid mount target {mount.target!r}",
                code="mount-invalid",
                word=mount.target,
                hint="give target= a folder below /",
            )
        return target

    def _tree(self, mount: MountOptions, source: int) -> int:
        if not mount.from_:
            return context_step(self._scope)
        if is_later(self._scope, source):
            self._scope.fail(
                self._node,
                f"cannot mount from stage {mount.from_!r} to {mount.target!r}, stage needs to be"
                " defined before current command",
                code="stage-not-defined-yet",
                word=mount.from_,
            )
        return self._scope.tree_of(source)

    def _input(self, step: int) -> int:
        return self._positions.setdefault(step, len(self._positions) + 1)


def _secret(mount: MountOptions) -> ops.SecretMount:
    identity = mount.id or mount.source or mount.target.rstrip("/").rpartition("/")[2]
    target = mount.target
    if not target and not mount.env:
        target = f"{_SECRETS}/{identity.rstrip('/').rpartition('/')[2]}"
    return ops.SecretMount(
        id=identity,
        target=paths.clean(target) if target else "",
        env=mount.env,
        required=mount.required,
        uid=mount.uid or 0,
        gid=mount.gid or 0,
        mode=0o400 if mount.mode is None else mount.mode,
    )

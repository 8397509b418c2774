"""What changes from one instruction of a stage to the next, and what does not."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Final, Literal, NamedTuple, NoReturn

from attrs import evolve, field, frozen

from imagekit.dockerfile.instructions import Command, Run
from imagekit.dockerfile.words import expand
from imagekit.errors import ExpansionError, Span
from imagekit.oci.config import ContainerConfig, History, ImageConfig
from imagekit.oci.platform import Platform
from imagekit.plan import paths, rules
from imagekit.plan.checks import Checks
from imagekit.plan.growing import Log, Variables
from imagekit.plan.mounts import MountOptions
from imagekit.plan.ops import Op
from imagekit.plan.places import fail, pinpoint
from imagekit.plan.rules import Rule
from imagekit.plan.stages import StageGraph, StageNode
from imagekit.plan.steps import Steps

HISTORY_COMMENT: Final = "buildkit.dockerfile.v0"
"""As Docker writes it: other tools know by it that the history was not made by `docker commit`."""

EXPORTER_COMMENT: Final = "buildkit.exporter.image.v0"
"""The comment of lines that no instruction gave."""

NOT_IN_ENVIRONMENT: Final = frozenset({"BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"})
"""Arguments that no step sees."""

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@frozen
class ArgValue:
    """A declared argument; None is one without any value."""

    name: str
    value: str | None


@frozen(kw_only=True)
class ExpandedCommand:
    """An instruction with its words expanded, in its own class.

    Attributes:
        command: RUN, CMD, ENTRYPOINT and what else is not expanded stand as in the file.
        mounts: those of a RUN, expanded.
        sources: the nodes that it reads, as in `LinkedCommand`.
        trigger: it comes from an ONBUILD of the base.
    """

    command: Command
    mounts: tuple[MountOptions, ...] = ()
    sources: tuple[int, ...] = ()
    trigger: bool = False


class Change(NamedTuple):
    """One more variable, label, volume, port or trigger of an image's config."""

    kind: Literal["env", "label", "volume", "port", "on_build"]
    name: str
    value: str = ""


@frozen(kw_only=True)
class StageState:
    """A stage between two of its instructions.

    Attributes:
        image: the config so far.
        env: what words and RUN see: the config's variables and the ARGs, the latest last.
        args: declared so far, those of the base stage first.
        declared: the same by name.
        changes: to the config that `settled` makes: what a stage may have thousands of.
        history: new lines of it that `settled` adds.
        workdir: with `/` on every platform.
        root: the step that gives the file system.
        number: of the last step that progress counts.
        seen: where the last CMD, ENTRYPOINT and HEALTHCHECK of this stage stand, by keyword.
        has_workdir: a WORKDIR stood in this stage or one that it is based on.
    """

    image: ImageConfig
    env: Variables = field(factory=Variables)
    args: Log[ArgValue] = field(factory=Log)
    declared: Variables = field(factory=Variables)
    changes: Log[Change] = field(factory=Log)
    history: Log[History] = field(factory=Log)
    workdir: str = "/"
    root: int = -1
    number: int = 0
    seen: Mapping[str, Span] = field(factory=dict)
    has_workdir: bool = False

    @property
    def user(self) -> str:
        """As written after USER."""
        return self.image.config.user

    def with_variables(self, pairs: Iterable[tuple[str, str]]) -> "StageState":
        """The same with variables set, one after the other; each becomes the last."""
        return evolve(self, env=self.env.plus(pairs))

    def with_args(self, *args: ArgValue) -> "StageState":
        """The same with more arguments declared."""
        declared = self.declared.plus((arg.name, arg.value or "") for arg in args)
        return evolve(self, args=self.args.plus(*args), declared=declared)

    def with_config(self, config: ContainerConfig) -> "StageState":
        """The same with another container config."""
        return evolve(self, image=evolve(self.image, config=config))

    def with_changes(self, *changes: Change) -> "StageState":
        """The same with changes noted that `settled` makes."""
        return evolve(self, changes=self.changes.plus(*changes))

    def with_history(self, text: str, *, layer: bool = False) -> "StageState":
        """The same with one more line of history."""
        line = History(created_by=text, comment=HISTORY_COMMENT, empty_layer=not layer)
        return evolve(self, history=self.history.plus(line))

    def settled(self) -> "StageState":
        """The same with the image up to date."""
        config = self.image.config
        env, labels = dict(config.env), dict(config.labels)
        volumes, ports = dict.fromkeys(config.volumes), dict.fromkeys(config.exposed_ports)
        on_build = [*config.on_build]
        for kind, name, value in self.changes:
            match kind:
                case "env":
                    env[name] = value
                case "label":
                    labels[name] = value
                case "volume":
                    volumes[name] = None
                case "port":
                    ports[name] = None
                case "on_build":
                    on_build.append(name)
        config = evolve(
            config,
            env=tuple(env.items()),
            labels=tuple(labels.items()),
            volumes=tuple(volumes),
            exposed_ports=tuple(ports),
            on_build=tuple(on_build),
        )
        history = (*self.image.history, *self.history)
        image = evolve(self.image, config=config, history=history)
        return evolve(self, image=image, changes=Log(), history=Log())

    def in_folder(self, path: str, os: str) -> "StageState":
        """The same after WORKDIR `path`."""
        is_windows = os == "windows"
        folder = paths.workdir(self.workdir, paths.from_windows(path) if is_windows else path)
        written = paths.to_windows(folder) if is_windows else folder
        config = evolve(self.image.config, working_dir=written)
        return evolve(self.with_config(config), workdir=folder)


@frozen(kw_only=True)
class StageScope:
    """What is the same for all instructions of a stage.

    Attributes:
        label: of the stage in step names; empty when the file has only one.
        total: how many steps progress counts.
        tree_of: the step that gives the file system of another node.
        checks: where build checks report.
    """

    graph: StageGraph
    node: StageNode
    platform: Platform
    steps: Steps
    label: str = ""
    total: int = 0
    tree_of: Callable[[int], int]
    checks: Checks

    def expand(self, state: StageState, command: Command, word: str, *, body: bool = False) -> str:
        """`word` of an instruction with the variables of the stage.

        Args:
            state: before the instruction.
            command: for the place of errors.
            word: as written.
            body: it is the body of a heredoc: quotes are plain and the escape is a backslash.

        Raises:
            ExpansionError: with its place.
        """
        escape = "\\" if body else self.graph.file.escape
        try:
            done = expand(word, state.env, escape=escape, skip_quotes=body)
        except ExpansionError as exc:
            self._check_unset(state, command, exc.unmatched)
            raise self.placed(command, word, exc) from exc
        if done.unmatched:
            self._check_unset(state, command, done.unmatched)
        return done.result

    def warn(self, command: Command, rule: Rule, *details: str, word: str = "") -> None:
        """Report a build check at an instruction; `word` is the part of it that is meant."""
        self.checks.report(rule, *details, span=command.span, comments=command.comments, word=word)

    def _check_unset(self, state: StageState, command: Command, names: tuple[str, ...]) -> None:
        """Report variables that are neither set nor declared."""
        for name in names:
            if name not in state.declared and name not in NOT_IN_ENVIRONMENT:
                near = self.checks.suggestion(name, state.env, sign="$")
                self.warn(command, rules.UNDEFINED_VAR, name, near, word=f"${name}")

    def placed(self, command: Command, word: str, error: ExpansionError) -> ExpansionError:
        """`error` with its place in the file."""
        file = self.graph.file
        return ExpansionError(
            f"failed to process {word!r}: {error.message}",
            span=pinpoint(file, command.span, word),
            filename=file.filename,
            source=file.source,
            hint=error.hint,
        )

    def fail(
        self,
        command: Command,
        message: str,
        *,
        code: str,
        word: str = "",
        hint: str = "",
        cause: BaseException | None = None,
    ) -> NoReturn:
        """Raise a `DockerfileError` at an instruction."""
        file = self.graph.file
        fail(file, message, code=code, span=command.span, word=word, hint=hint, cause=cause)

    def step(
        self,
        state: StageState,
        done: ExpandedCommand,
        op: Op,
        inputs: tuple[int, ...] = (),
        *,
        name: str,
    ) -> StageState:
        """The state after a step that changes the root file system.

        Args:
            state: before it.
            done: the instruction.
            op: the operation; its root is the first input.
            inputs: the others.
            name: the instruction as progress shows it.
        """
        numbered = evolve(state, number=state.number + 1)
        text = f"ONBUILD {name}" if done.trigger else name
        root = self.steps.add(
            op,
            (state.root, *inputs),
            name=self.numbered(numbered.number, text),
            stage=self.stage_name,
            platform=self.platform,
            span=done.command.span,
        )
        return evolve(numbered, root=root)

    def numbered(self, number: int, text: str) -> str:
        """`[stage 2/4] text`, as progress shows it."""
        label = f"{self.label} " if self.label else ""
        return f"[{label}{number:>{len(str(self.total))}}/{self.total}] {text}"

    @property
    def stage_name(self) -> str:
        """The stage's name, or its number."""
        return self.node.name or str(self.node.index)

    def step_text(self, state: StageState, command: Command, *, hidden: frozenset[str]) -> str:
        """The instruction's text with variables put in, for people.

        Args:
            state: whose variables.
            command: the instruction as written.
            hidden: variables whose values are shown as asterisks.
        """
        text, keyword = command.text.strip(), command.word or command.keyword
        rest = text[len(keyword) :]
        env: Mapping[str, str] = state.env
        if hidden:
            env = {k: "****" if k in hidden else v for k, v in state.env.items()}
        is_run = isinstance(command, Run)
        # A name for people: text that only the shell understands is shown as it stands.
        with suppress(ExpansionError):
            rest = expand(
                rest, env, escape=self.graph.file.escape, raw_quotes=is_run, skip_unset=is_run
            ).result
        return keyword.upper() + rest

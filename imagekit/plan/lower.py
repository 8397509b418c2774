"""From stages to a plan: a fold over the instructions of each stage that the target needs."""

from collections.abc import Mapping
from typing import Final, assert_never

from attrs import evolve, frozen

from imagekit.dockerfile.gitref import read_git_reference
from imagekit.dockerfile.instructions import (
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
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
from imagekit.dockerfile.lines import printable
from imagekit.errors import PlanError
from imagekit.oci.config import ContainerConfig, History, ImageConfig
from imagekit.oci.platform import Platform
from imagekit.plan import ops, rules, settings
from imagekit.plan.bases import BaseRequest, ResolvedBase
from imagekit.plan.checks import Checks, as_warnings
from imagekit.plan.contexts import NamedContext
from imagekit.plan.expansion import expand_command
from imagekit.plan.files import checkout, context_step, download, fetch_step, lower_copy
from imagekit.plan.goformat import quoted
from imagekit.plan.run import hidden_variables, lower_run
from imagekit.plan.stages import SCRATCH, StageGraph, StageNode, missing_bases, with_triggers
from imagekit.plan.state import (
    DEFAULT_PATH,
    EXPORTER_COMMENT,
    ArgValue,
    ExpandedCommand,
    StageScope,
    StageState,
)
from imagekit.plan.steps import Steps

_COUNTED: Final = (Run, Copy, Add, Workdir)


@frozen(kw_only=True)
class StageResult:
    """How a stage ended, for whoever wants to explain a plan.

    Attributes:
        node: the stage, with the ONBUILD triggers of its base among its commands.
        reached: the target needs it; nothing below is known of a stage that it does not, unless
            all stages were asked for.
        platform: of its root file system.
        commands: its instructions, triggers first, expanded.
        state: after the last instruction; None for what is not made, and for images that only
            a `--from` names.
    """

    node: StageNode
    reached: bool
    platform: Platform
    commands: tuple[ExpandedCommand, ...] = ()
    state: StageState | None = None

    @property
    def args(self) -> tuple[ArgValue, ...]:
        """The declared arguments with their values."""
        return tuple(self.state.args) if self.state else ()


@frozen(kw_only=True)
class Trace:
    """A plan and how it came about."""

    plan: ops.Plan
    stages: tuple[StageResult, ...]


def lower(
    graph: StageGraph,
    bases: Mapping[BaseRequest, ResolvedBase],
    *,
    labels: Mapping[str, str] | None = None,
    checks: Checks | None = None,
) -> ops.Plan:
    """The plan that builds the target of a graph.

    Args:
        graph: of `stage_graph`.
        bases: all that `missing_bases` asked for.
        labels: set on the image after all instructions.
        checks: where build checks report, those of the graph done; None takes those of the
            graph and goes on. `Plan.warnings` has all that were found.

    Raises:
        DockerfileError: an instruction that cannot be carried out as it is written, or findings
            of checks that were asked to be errors.
        PlanError: a base is missing.

    Spec: dockerfile-semantics, 6 to 12, 14 and 16.
    """
    return trace(graph, bases, labels=labels, checks=checks).plan


def trace(
    graph: StageGraph,
    bases: Mapping[BaseRequest, ResolvedBase],
    *,
    labels: Mapping[str, str] | None = None,
    checks: Checks | None = None,
) -> Trace:
    """The same as `lower`, with how each stage ended."""
    missing = missing_bases(graph, bases)
    if missing:
        raise PlanError(f"bases are not resolved: {', '.join(sorted(map(str, missing)))}")
    if checks is None:
        checks = Checks(graph.options, found=graph.findings)
    return _Lowering(with_triggers(graph, bases), bases, checks).run(labels or {})


class _Lowering:
    """Lowers the stages of one graph, each after those that it needs."""

    def __init__(
        self, graph: StageGraph, bases: Mapping[BaseRequest, ResolvedBase], checks: Checks
    ) -> None:
        self._graph = graph
        self._bases = bases
        self._checks = checks
        self._steps = Steps()
        self._states: dict[int, StageState] = {}
        self._trees: dict[int, int] = {}

    def run(self, labels: Mapping[str, str]) -> Trace:
        self._check_bases()
        reached, made = self._graph.reached, self._graph.made
        results = [
            self._result(node, reached=node.index in reached, made=node.index in made)
            for node in self._graph.nodes
        ]
        file = self._graph.file
        self._checks.refuse(filename=file.filename)
        target = self._graph.target
        final = _with_labels(self._states[target], labels)
        results[target] = evolve(results[target], state=final)
        final = self._with_missing_history(final)
        steps = self._steps.needed_by(final.root)
        base = self._base_image(self._graph.nodes[target])
        config = self._final_config(final.image)
        plan = ops.Plan(
            steps=steps,
            result=len(steps) - 1,
            config=config,
            base_history=len(base.history),
            platform=config.platform,
            epoch=self._graph.epoch,
            filename=file.filename,
            source=file.source,
            warnings=as_warnings(
                self._checks.found, source=printable(file.source), filename=file.filename
            ),
        )
        return Trace(plan=plan, stages=tuple(results))

    def _check_bases(self) -> None:
        """Report base images of another platform than the one that was asked for."""
        for index in sorted(self._graph.made):
            node = self._graph.nodes[index]
            request = self._graph.request(node)
            if request is None or node.context is not None:
                continue
            config = self._bases[request].config
            wanted, found = request.platform, config.platform
            same = (wanted.os, wanted.architecture) == (found.os, found.architecture)
            if not same and _has_layers(config):
                self._checks.report(
                    rules.INVALID_BASE_IMAGE_PLATFORM,
                    node.asked,
                    quoted(str(found.normalised())),
                    quoted(str(wanted.normalised())),
                    span=node.span,
                    comments=node.comments,
                    word=node.asked,
                )

    def _result(self, node: StageNode, *, reached: bool, made: bool) -> StageResult:
        platform = self._graph.platform_of(node)
        if node.implicit or not made:
            return StageResult(node=node, reached=reached, platform=platform)
        scope = self._scope(node)
        state = self._start(scope)
        commands = []
        for linked in node.commands:
            done = expand_command(scope, state, linked)
            state = lower_one(scope, state, done)
            commands.append(done)
        state = state.settled()
        self._states[node.index] = state
        return StageResult(
            node=node,
            reached=reached,
            platform=platform,
            commands=tuple(commands),
            state=state,
        )

    def _scope(self, node: StageNode) -> StageScope:
        counted = sum(isinstance(linked.command, _COUNTED) for linked in node.commands)
        has_base = node.parent is None and node.base != SCRATCH
        is_only = len(self._graph.nodes) == 1
        return StageScope(
            graph=self._graph,
            node=node,
            platform=self._graph.platform_of(node),
            steps=self._steps,
            label="" if is_only else node.label,
            total=counted + has_base,
            tree_of=self._tree_of,
            checks=self._checks,
        )

    def _start(self, scope: StageScope) -> StageState:
        """The state at the FROM of a stage."""
        node = scope.node
        if node.parent is not None:
            state = evolve(self._states[node.parent], number=0, seen={})
            config = evolve(state.image.config, on_build=())
            state = state.with_config(config)
        else:
            image = self._base_image(node)
            number = int(self._graph.request(node) is not None)
            root = self._root_of(scope)
            state = StageState(image=image, root=root, number=number)
        return _with_base_settings(scope, state)

    def _base_image(self, node: StageNode) -> ImageConfig:
        """The config that a stage starts from, without what only the base itself has."""
        node = self._graph.nodes[node.first]
        request = self._graph.request(node)
        if request is None:
            platform = self._graph.platform_of(node)
            return ImageConfig(platform=platform, config=ContainerConfig(working_dir="/"))
        base = self._bases[request].config
        on_build = () if not node.replaced else base.config.on_build
        return evolve(
            base,
            created="",
            diff_ids=(),
            extra={},
            config=evolve(base.config, on_build=on_build, extra={}),
        )

    def _root_of(self, scope: StageScope) -> int:
        """The step of the file system that a stage starts from."""
        node = scope.node
        tree = self._tree_of(node.index)
        if node.context is None or self._graph.request(node) is not None:
            return tree
        # A folder is no root file system: its files become the first layer, and that has no
        # line of history here. `_with_missing_history` adds one.
        empty = self._empty(node)
        return self._steps.add(
            ops.Copy(sources=(ops.CopySource(input=1, path="/"),), dest="/"),
            (empty, tree),
            name=f"[internal] FROM {node.context.name}",
            stage=scope.stage_name,
            platform=scope.platform,
            span=node.span,
        )

    def _tree_of(self, index: int) -> int:
        """The step of the tree that COPY and mounts see in a node."""
        node = self._graph.nodes[index]
        if index in self._states and not node.replaced:
            return self._states[index].root
        if index not in self._trees:
            self._trees[index] = self._base_step(node)
        return self._trees[index]

    def _base_step(self, node: StageNode) -> int:
        request = self._graph.request(node)
        if request is not None:
            return self._image_step(node, request)
        if node.context is not None:
            return self._context_step(node, node.context)
        return self._empty(node)

    def _image_step(self, node: StageNode, request: BaseRequest) -> int:
        base = self._bases[request]
        platform = self._graph.platform_of(node)
        if not _has_layers(base.config):
            return self._empty(node)
        scope = self._scope(node)
        return self._steps.source(
            ops.Base(
                reference=str(request),
                origin=base.origin,
                platform=platform,
                manifest=base.manifest,
                layers=base.layers,
                diff_ids=base.config.diff_ids,
            ),
            name=f"FROM {request}" if node.implicit else scope.numbered(1, f"FROM {request}"),
            stage=scope.stage_name,
            platform=platform,
            span=node.span,
        )

    def _context_step(self, node: StageNode, context: NamedContext) -> int:
        scope = self._scope(node)
        if context.kind == "git":
            return fetch_step(scope, checkout(read_git_reference(context.location)))
        if context.kind == "http":
            return fetch_step(scope, download(context.location))
        return context_step(scope, context.name)

    def _empty(self, node: StageNode) -> int:
        platform = self._graph.platform_of(node)
        return self._steps.source(
            ops.Base(reference="", platform=platform),
            name="FROM scratch",
            stage=node.name or str(node.index),
            platform=platform,
            span=node.span,
        )

    def _with_missing_history(self, state: StageState) -> StageState:
        """One more line if the first layer is a folder's, so that each layer has one.

        BuildKit's exporter finds out late that a line is missing and adds it at the end, with
        its name of the last layer. Tools that compare histories expect that.
        """
        node = self._graph.nodes[self._graph.target]
        node = self._graph.nodes[node.first]
        if node.context is None or self._graph.request(node) is not None:
            return state
        line = History(created_by=self._steps.describe(state.root), comment=EXPORTER_COMMENT)
        return evolve(state, image=evolve(state.image, history=(*state.image.history, line)))

    def _final_config(self, image: ImageConfig) -> ImageConfig:
        if self._graph.keep_platform:
            return evolve(image, platform=image.platform.normalised())
        wanted, of_base = self._graph.platform, image.platform
        same = (wanted.os, wanted.architecture) == (of_base.os, of_base.architecture)
        platform = Platform(
            wanted.os,
            wanted.architecture,
            wanted.variant or (of_base.variant if same else ""),
            wanted.os_version or (of_base.os_version if same else ""),
            wanted.os_features or of_base.os_features,
        )
        return evolve(image, platform=platform.normalised())


def lower_one(  # noqa: C901, PLR0911, PLR0912 - the one match, a line an instruction
    scope: StageScope, state: StageState, done: ExpandedCommand
) -> StageState:
    """The state of a stage after one more instruction.

    Raises:
        DockerfileError: it cannot be carried out as it is written.
    """
    node = done.command
    match node:
        case Arg():
            return settings.lower_arg(scope, state, node)
        case Env():
            return settings.lower_env(scope, state, node)
        case Label():
            return settings.lower_label(scope, state, node)
        case Copy() | Add():
            return lower_copy(scope, state, done, node, name=_name(scope, state, done))
        case Run():
            return lower_run(scope, state, done, node, name=_name(scope, state, done))
        case Cmd():
            return settings.lower_cmd(scope, state, node)
        case Entrypoint():
            return settings.lower_entrypoint(scope, state, node)
        case Shell():
            return settings.lower_shell(state, node)
        case Workdir():
            name = _name(scope, state, done)
            return settings.lower_workdir(scope, state, done, node, name=name)
        case User():
            return settings.lower_user(state, node)
        case Volume():
            return settings.lower_volume(scope, state, node)
        case Expose():
            return settings.lower_expose(scope, state, node)
        case Stopsignal():
            return settings.lower_stopsignal(scope, state, node)
        case Healthcheck():
            return settings.lower_healthcheck(scope, state, node)
        case Onbuild():
            return settings.lower_onbuild(state, node)
        case Maintainer():
            return settings.lower_maintainer(state, node)
        case _:
            assert_never(node)


def _has_layers(image: ImageConfig) -> bool:
    """Whether there is anything in an image; old ones only say so in their history."""
    return bool(image.diff_ids) or any(not line.empty_layer for line in image.history)


def _name(scope: StageScope, state: StageState, done: ExpandedCommand) -> str:
    return scope.step_text(state, done.command, hidden=hidden_variables(done))


def _with_labels(state: StageState, labels: Mapping[str, str]) -> StageState:
    config = state.image.config
    merged = {**dict(config.labels), **dict(sorted(labels.items()))}
    return state.with_config(evolve(config, labels=tuple(merged.items())))


def _with_base_settings(scope: StageScope, state: StageState) -> StageState:
    """The state with what the config of its base says, PATH always set."""
    config = state.image.config
    if "PATH" not in dict(config.env) and scope.platform.os != "windows":
        env = (*config.env, ("PATH", DEFAULT_PATH))
        state = state.with_config(evolve(config, env=env))
    state = state.with_variables(state.image.config.env)
    if state.image.config.working_dir:
        state = state.in_folder(state.image.config.working_dir, scope.platform.os)
    return state

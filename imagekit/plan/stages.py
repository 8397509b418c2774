"""The stage graph: what each stage starts from and reads, and what of it the target needs.

A node is a stage of the file, or an image that only a `--from` or `from=` names (implicit). Edges
are bases and sources. Nodes of the file keep their index; implicit ones follow in the order in
which they are met. ONBUILD triggers are not in the file: `with_triggers` adds those of the base
images that are known so far, and with them perhaps new edges.

What no path from the target reaches is neither resolved nor expanded, so errors in there stay
unseen, but for cycles, platforms, names of bases and numbers of stages.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NoReturn

from attrs import evolve, field, frozen

from imagekit.dockerfile.instructions import Command, Copy, Dockerfile, Onbuild, Run, Stage
from imagekit.dockerfile.parser import parse_onbuild
from imagekit.dockerfile.words import Expansion, expand
from imagekit.errors import (
    ExpansionError,
    InvalidPlatformError,
    InvalidReferenceError,
    Span,
    StageCycleError,
    UnknownStageError,
)
from imagekit.oci.platform import Platform
from imagekit.oci.reference import Reference
from imagekit.plan.arguments import Arguments, platform_arguments, read_arguments
from imagekit.plan.bases import BaseRequest, ResolvedBase
from imagekit.plan.checks import CheckOptions, Checks, Finding
from imagekit.plan.contexts import NamedContext, find_context, short_name
from imagekit.plan.lint import (
    check_arguments,
    check_defaults,
    check_platform,
    check_stages,
    checks_of,
)
from imagekit.plan.mounts import MountError, mount_source
from imagekit.plan.places import did_you_mean, fail, pinpoint
from imagekit.plan.sources import with_sources

SCRATCH: Final = "scratch"
MAX_NODES: Final = 10_000
"""Stages and images of one file; more is an attack or an accident."""


@frozen(kw_only=True)
class LinkedCommand:
    """An instruction and the nodes that it reads.

    Attributes:
        sources: for COPY the node of `--from`, if any; for RUN one a mount, an empty node where
            that has no `from`.
        trigger: it comes from an ONBUILD of the base.
    """

    command: Command
    sources: tuple[int, ...] = ()
    trigger: bool = False


@frozen(kw_only=True)
class StageNode:
    """A stage, or an image that one names.

    Attributes:
        index: its position among the nodes.
        name: lower case; empty for stages without one and implicit nodes.
        base: what it starts from, expanded: `scratch`, a canonical reference, or as written when
            it is a stage (`parent`).
        parent: the node that it is based on.
        first: where the chain of its bases begins: the node that has the image, perhaps itself.
        platform: of `--platform`, or None.
        span: its FROM, or the instruction that names the image.
        asked: the base as it is expanded, before it became a reference.
        comments: the lines right above its FROM.
        implicit: it is no stage of the file.
        context: the named context that replaces the stage or its base.
        replaced: that context is in the place of the whole stage.
    """

    index: int
    name: str = ""
    base: str
    parent: int | None = None
    first: int
    platform: Platform | None = None
    span: Span
    asked: str = ""
    comments: tuple[str, ...] = ()
    commands: tuple[LinkedCommand, ...] = ()
    implicit: bool = False
    context: NamedContext | None = None
    replaced: bool = False

    @property
    def label(self) -> str:
        """The name in progress: that of the stage, or its number."""
        return self.name or f"stage-{self.index}"

    @property
    def is_empty(self) -> bool:
        """Whether it holds nothing, whatever else is known."""
        return self.implicit and self.base == SCRATCH and self.context is None

    @property
    def edges(self) -> Iterator[int]:
        """The nodes that it needs, its base first; some may come twice."""
        if self.parent is not None:
            yield self.parent
        yield from self.sources

    @property
    def sources(self) -> Iterator[int]:
        """The nodes that its instructions read."""
        for linked in self.commands:
            yield from linked.sources


@frozen(kw_only=True)
class StageGraph:
    """A file's stages for one target and platform, before any base image is known.

    Attributes:
        nodes: stages in file order, then implicit nodes.
        target: position of what is to be built.
        arguments: build arguments and the global scope.
        platform: that the result is for.
        keep_platform: no platform was asked for, so the result has that of its base.
        contexts: named contexts by `short_name`.
        triggered: nodes whose ONBUILD triggers are in `commands`.
        all_stages: stages that the target does not need are made, too, as checks want it.
        options: which build checks run.
        findings: of the checks that need no base image.
    """

    file: Dockerfile = field(repr=False)
    nodes: tuple[StageNode, ...]
    target: int
    names: Mapping[str, int]
    arguments: Arguments
    platform: Platform
    keep_platform: bool = False
    contexts: Mapping[str, NamedContext] = field(factory=dict)
    triggered: frozenset[int] = frozenset()
    all_stages: bool = False
    options: CheckOptions = field(factory=CheckOptions)
    findings: tuple[Finding, ...] = field(default=(), repr=False)

    @property
    def epoch(self) -> int | None:
        """SOURCE_DATE_EPOCH in seconds, or None."""
        return self.arguments.epoch

    @property
    def reached(self) -> frozenset[int]:
        """The nodes that the target needs, itself among them."""
        seen: set[int] = set()
        queue = [self.target]
        while queue:
            index = queue.pop()
            if index not in seen:
                seen.add(index)
                queue += self.nodes[index].edges
        return frozenset(seen)

    @property
    def made(self) -> frozenset[int]:
        """The nodes that a plan is made of: those that are reached, or all."""
        return frozenset(range(len(self.nodes))) if self.all_stages else self.reached

    def platform_of(self, node: StageNode) -> Platform:
        """The platform of a node's root: that of its base stage, its own, or the target's."""
        return self.nodes[node.first].platform or self.platform

    def request(self, node: StageNode) -> BaseRequest | None:
        """The image that a node starts from; None for scratch, stages and other contexts."""
        if node.parent is not None:
            return None
        platform = node.platform or self.platform
        if node.context is not None:
            match node.context.kind:
                case "image":
                    name = Reference.parse(node.context.location).with_default_tag()
                    return BaseRequest(reference=name, platform=platform)
                case "layout":
                    name = Reference.parse(short_name(node.context.name).partition("::")[0])
                    return BaseRequest(
                        reference=name.with_default_tag(),
                        platform=platform,
                        layout=node.context.location,
                    )
                case _:
                    return None
        if node.base == SCRATCH:
            return None
        return BaseRequest(reference=Reference.parse(node.base), platform=platform)


def stage_graph(  # noqa: PLR0913 - what stages depend on, all by name
    file: Dockerfile,
    *,
    build_args: Mapping[str, str],
    build: Platform,
    target: Platform | None = None,
    stage: str | None = None,
    contexts: Mapping[str, NamedContext] | None = None,
    all_stages: bool = False,
    checks: Checks | None = None,
    expand_from: bool = False,
) -> StageGraph:
    """The stages of `file`, linked, with the target looked up.

    Args:
        file: as parsed.
        build_args: of the caller; those that no ARG declares change nothing.
        build: the platform that steps run on.
        target: that the image is for; None is `build`, and the image then keeps the platform of
            its base.
        stage: the name of the target stage in any case; None or empty is the last.
        contexts: named contexts by name.
        all_stages: look at stages that the target does not need, too.
        checks: where build checks report, those of the text done (`lint.parse_checked`); None
            does them here. They are in the graph either way.
        expand_from: variables in the names of COPY `--from` and RUN `from=` have a meaning, which
            they do not have in BuildKit (`sources`).

    Raises:
        DockerfileError: no stage, a blank or malformed base, a bad platform, a `--from` number
            that no stage has, or variables in `--from`.
        StageCycleError: stages that read each other.
        UnknownStageError: no stage of that name.

    Spec: dockerfile-semantics, 6 and 7.
    """
    named = {short_name(name): c for name, c in sorted((contexts or {}).items())}
    wanted = target or build
    if checks is None:
        checks = checks_of(file, build_args)
    if not file.stages:
        fail(file, "the file has no stage to build", code="no-stages")
    predefined = platform_arguments(build, wanted, stage or file.stages[-1].name)
    check_stages(checks, file)
    check_defaults(checks, file, {k: build_args.get(k, v) for k, v in predefined.items()})
    arguments = read_arguments(file, build_args, predefined, named)
    if expand_from:
        file = with_sources(file, arguments)
    linker = _Linker(file, named, wanted, checks)
    for each in file.stages:
        linker.add_stage(each, arguments.scope)
    found = _find_target(file, linker, stage)
    for node in tuple(linker.nodes):
        linked = linker.link((command, False) for command in file.stages[node.index].commands)
        linker.nodes[node.index] = evolve(node, commands=() if node.replaced else linked)
    _refuse_cycles(file, linker.nodes)
    linker.resolve_names()
    return StageGraph(
        file=file,
        nodes=tuple(linker.nodes),
        target=found,
        names=linker.names,
        arguments=arguments,
        platform=wanted,
        keep_platform=target is None,
        contexts=named,
        all_stages=all_stages,
        options=checks.options,
        findings=checks.found,
    )


def with_triggers(graph: StageGraph, known: Mapping[BaseRequest, ResolvedBase]) -> StageGraph:
    """The graph with the ONBUILD triggers of all reached bases that are known.

    Raises:
        DockerfileError: a trigger that is no instruction, or may not be one.
    """
    while True:
        pending = [
            (index, triggers)
            for index in sorted(graph.reached - graph.triggered)
            if (triggers := _triggers(graph, graph.nodes[index], known)) is not None
        ]
        if not pending:
            return graph
        linker = _Linker(graph.file, graph.contexts, graph.platform, Checks())
        linker.nodes, linker.names = list(graph.nodes), dict(graph.names)
        for index, triggers in pending:
            node = linker.nodes[index]
            parsed = [(_parse_trigger(graph.file, text, node.span), True) for text in triggers]
            commands = linker.link(parsed) + node.commands
            linker.nodes[index] = evolve(node, commands=commands)
        linker.resolve_names()
        graph = evolve(
            graph,
            nodes=tuple(linker.nodes),
            triggered=graph.triggered.union(index for index, _ in pending),
        )


def missing_bases(
    graph: StageGraph, known: Mapping[BaseRequest, ResolvedBase]
) -> frozenset[BaseRequest]:
    """The images that have to be resolved next; ask again with them until there are none.

    Raises:
        DockerfileError: a trigger of a known base that is no instruction.
    """
    graph = with_triggers(graph, known)
    requests = (graph.request(graph.nodes[index]) for index in graph.made)
    return frozenset(r for r in requests if r is not None and r not in known)


def _triggers(
    graph: StageGraph, node: StageNode, known: Mapping[BaseRequest, ResolvedBase]
) -> tuple[str, ...] | None:
    """The ONBUILD texts of what a node is based on; None while that is not known."""
    if node.implicit or node.replaced:
        return ()
    if node.parent is not None:
        linked = graph.nodes[node.parent].commands
        return tuple(c.command.expression for c in linked if isinstance(c.command, Onbuild))
    request = graph.request(node)
    if request is None:
        return ()
    return known[request].config.config.on_build if request in known else None


def _parse_trigger(file: Dockerfile, text: str, span: Span) -> Command:
    return parse_onbuild(text, filename=file.filename, span=span, source=file.source)


def _find_target(file: Dockerfile, linker: "_Linker", stage: str | None) -> int:
    if not stage:
        return len(linker.nodes) - 1
    found = linker.names.get(stage.lower())
    if found is None:
        known = sorted(linker.names)
        raise UnknownStageError(
            f"target stage {stage!r} could not be found",
            filename=file.filename,
            hint=did_you_mean(stage, known) or f"stages with a name: {', '.join(known) or 'none'}",
        )
    return found


def _refuse_cycles(file: Dockerfile, nodes: list[StageNode]) -> None:
    """Raise if stages read each other; a base can only be an earlier stage."""
    done: set[int] = set()
    for start in nodes:
        path: dict[int, Span] = {}
        stack = [] if start.index in done else [(start.index, _reads(start))]
        done.add(start.index)
        while stack:
            index, reads = stack[-1]
            step = next(reads, None)
            if step is None:
                stack.pop()
                path.pop(index, None)
                continue
            path[index], source = step
            if source in path:
                raise StageCycleError(
                    f"circular dependency detected on stage: {start.label}",
                    spans=tuple(path.values()),
                    filename=file.filename,
                    source=file.source,
                    hint="a stage can only read what was made before it",
                )
            if source not in done:
                done.add(source)
                stack.append((source, _reads(nodes[source])))


def _reads(node: StageNode) -> Iterator[tuple[Span, int]]:
    for linked in node.commands:
        for source in linked.sources:
            yield linked.command.span, source


class _Linker:
    """Collects nodes, and finds the one that a `--from` means."""

    def __init__(
        self,
        file: Dockerfile,
        contexts: Mapping[str, NamedContext],
        platform: Platform,
        checks: Checks,
    ) -> None:
        self._file = file
        self._contexts = contexts
        self._platform = platform
        self._checks = checks
        self.nodes: list[StageNode] = []
        self.names: dict[str, int] = {}

    def add_stage(self, stage: Stage, scope: Mapping[str, str]) -> None:
        """Add a stage of the file, its base and platform expanded."""
        base = self._expand(stage, stage.base, scope).result
        if not base:
            self._fail(
                stage.span,
                f"base name ({stage.base}) should not be blank",
                code="base-name-blank",
                word=stage.base,
                hint="an ARG above the first FROM gives it a default",
            )
        platform = self._platform_of(stage, scope)
        context = find_context(self._contexts, stage.name, platform or self._platform)
        index = len(self.nodes)
        parent = None if context else self.names.get(base)
        node = StageNode(
            index=index,
            name=stage.name,
            base=base,
            parent=parent,
            first=index if parent is None else self.nodes[parent].first,
            platform=platform,
            span=stage.span,
            asked=base,
            comments=stage.from_.comments,
            context=context,
            replaced=context is not None,
        )
        self._append(node)
        if stage.name:
            self.names[stage.name] = node.index

    def link(self, commands: Iterable[tuple[Command, bool]]) -> tuple[LinkedCommand, ...]:
        """Instructions, each with whether it is a trigger, and the nodes that they read."""
        return tuple(
            LinkedCommand(command=command, sources=self._sources(command), trigger=trigger)
            for command, trigger in commands
        )

    def resolve_names(self) -> None:
        """Make references of the bases that are images, and put named contexts in their place."""
        for node in self.nodes:
            if node.parent is None and not node.replaced and node.base != SCRATCH:
                self.nodes[node.index] = self._resolved(node)

    def _resolved(self, node: StageNode) -> StageNode:
        try:
            reference = str(Reference.parse(node.base).with_default_tag())
        except InvalidReferenceError as exc:
            near = did_you_mean(node.base, self.names)
            self._fail(
                node.span,
                f"failed to parse stage name {node.base!r}: {exc.message}",
                code="reference-invalid",
                word=node.base,
                hint=near or exc.hint,
                cause=exc,
            )
        wanted = node.platform or self._platform
        context = find_context(self._contexts, reference, wanted)
        return evolve(node, base=reference, context=context)

    def _sources(self, command: Command) -> tuple[int, ...]:
        match command:
            case Copy() if command.from_:
                return (self._copied_from(command),)
            case Run() if command.mounts:
                return tuple(self._mounted_from(command, mount) for mount in command.mounts)
        return ()

    def _copied_from(self, command: Copy) -> int:
        name = command.from_
        try:
            constant = expand(name, {}, escape=self._file.escape).result == name
        except ExpansionError as exc:
            self._fail(command.span, exc.message, code="expansion", word=name, cause=exc)
        if not constant:
            self._fail(
                command.span,
                f"variable expansion is not supported for --from: {name}",
                code="from-variable",
                word=name,
                hint="give it a stage of its own (FROM and a global ARG), or use --expand-from",
            )
        number = name.removeprefix("-").removeprefix("+")
        if not (number.isascii() and number.isdecimal()):
            return self._named(name, command.span)
        index = int(name)
        if not 0 <= index < len(self.nodes):
            self._fail(
                command.span,
                f"invalid stage index {index}",
                code="stage-index-invalid",
                word=name,
                hint=f"stages are numbered from 0 to {len(self._file.stages) - 1}",
            )
        return index

    def _mounted_from(self, command: Run, mount: str) -> int:
        try:
            # Without `from` it may yet be a cache that starts empty: its type can be a variable.
            name = mount_source(mount) or SCRATCH
        except MountError as exc:
            self._fail(command.span, exc.message, code=exc.code, word=mount, cause=exc)
        return self._named(name, command.span)

    def _named(self, name: str, span: Span) -> int:
        """The stage of that name, or a new node for the image of that name."""
        found = self.names.get(name.lower())
        if found is None:
            found = len(self.nodes)
            self._append(
                StageNode(
                    index=found, first=found, base=name, asked=name, span=span, implicit=True
                )
            )
        return found

    def _append(self, node: StageNode) -> None:
        if len(self.nodes) >= MAX_NODES:
            self._fail(node.span, f"more than {MAX_NODES} stages and images", code="other")
        self.nodes.append(node)

    def _platform_of(self, stage: Stage, scope: Mapping[str, str]) -> Platform | None:
        if not stage.platform:
            return None
        expanded = self._expand(stage, stage.platform, scope)
        check_platform(self._checks, stage, expanded, scope)
        text = expanded.result
        if not text:
            self._fail(
                stage.span,
                f"empty platform value from expression {stage.platform}",
                code="platform-invalid",
                word=stage.platform,
                hint=did_you_mean(stage.platform.strip("${}"), scope),
            )
        try:
            return Platform.parse(text)
        except InvalidPlatformError as exc:
            self._fail(
                stage.span,
                f"failed to parse platform {stage.platform}: {exc.message}",
                code="platform-invalid",
                word=stage.platform,
                hint=exc.hint,
                cause=exc,
            )

    def _expand(self, stage: Stage, word: str, scope: Mapping[str, str]) -> Expansion:
        try:
            done = expand(word, scope, escape=self._file.escape)
        except ExpansionError as exc:
            check_arguments(self._checks, self._file, stage, exc.unmatched, scope)
            raise ExpansionError(
                exc.message,
                span=pinpoint(self._file, stage.span, word),
                filename=self._file.filename,
                source=self._file.source,
                hint=exc.hint,
            ) from exc
        check_arguments(self._checks, self._file, stage, done.unmatched, scope)
        return done

    def _fail(
        self,
        span: Span,
        message: str,
        *,
        code: str,
        word: str = "",
        hint: str = "",
        cause: BaseException | None = None,
    ) -> NoReturn:
        fail(self._file, message, code=code, span=span, word=word, hint=hint, cause=cause)

"""What a build can be asked for: its arguments, secrets and targets.

The documents have the shape of BuildKit's subrequests `frontend.outline` and `frontend.targets`,
which `docker buildx build --call=outline,format=json` and `--call=targets` print.
"""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from imagekit.dockerfile.instructions import Arg, Dockerfile
from imagekit.dockerfile.lines import printable
from imagekit.dockerfile.words import expand
from imagekit.errors import ExpansionError, Span
from imagekit.plan.lower import StageResult, Trace
from imagekit.plan.report import location
from imagekit.plan.stages import StageGraph
from imagekit.plan.state import ExpandedCommand


@frozen(kw_only=True)
class OutlineArg:
    """A build argument: its value in this build, and what the comment above says about it."""

    name: str
    value: str = ""
    description: str = ""
    span: Span


@frozen(kw_only=True)
class OutlineSecret:
    """A secret or an SSH agent that some RUN asks for."""

    name: str
    required: bool = False
    span: Span


@frozen(kw_only=True)
class Outline:
    """What the build of one target takes.

    Attributes:
        name: of the target stage; empty if it has none.
        description: the comment above its FROM.
        args: by line.
        secrets: by line.
        ssh: by line.
        expand_from: variables in `--from` are expanded, which BuildKit does not do.
        source: the text of the file.
    """

    name: str
    description: str = ""
    args: tuple[OutlineArg, ...] = ()
    secrets: tuple[OutlineSecret, ...] = ()
    ssh: tuple[OutlineSecret, ...] = ()
    expand_from: bool = False
    source: str = field(default="", repr=False)

    def to_json(self) -> dict[str, Any]:
        """The outline in BuildKit's shape; `expandFrom` is there only if it is so."""
        parts = {
            "name": self.name,
            "description": self.description,
            "args": [_arg(arg) for arg in self.args],
            "secrets": [_secret(secret) for secret in self.secrets],
            "ssh": [_secret(secret) for secret in self.ssh],
            "expandFrom": self.expand_from,
            "sources": [_encoded(self.source)],
        }
        return {name: part for name, part in parts.items() if part}

    def to_text(self) -> str:
        """The outline for people, as BuildKit prints it."""
        blocks = []
        if self.name or self.description:
            head = [("TARGET:", self.name or "(default)")]
            head += [("DESCRIPTION:", self.description)] if self.description else []
            blocks.append(table(head, gap=1))
        if self.args:
            rows = [(arg.name, arg.value, arg.description) for arg in self.args]
            blocks.append(table([("BUILD ARG", "VALUE", "DESCRIPTION"), *rows]))
        for title, secrets in (("SECRET", self.secrets), ("SSH", self.ssh)):
            if secrets:
                rows2 = [(s.name, "true" if s.required else "") for s in secrets]
                blocks.append(table([(title, "REQUIRED"), *rows2]))
        if self.expand_from:
            blocks.append("Variables in COPY --from and RUN --mount from= are expanded.\n")
        return "".join(f"{block}\n" for block in blocks)


@frozen(kw_only=True)
class Target:
    """A stage that can be built; its base and platform as written."""

    name: str
    description: str = ""
    is_default: bool = False
    base: str
    platform: str = ""
    span: Span


@frozen(kw_only=True)
class Targets:
    """The stages of a file, in its order; `source` is its text."""

    targets: tuple[Target, ...]
    source: str = field(default="", repr=False)

    def to_json(self) -> dict[str, Any]:
        """The list in BuildKit's shape."""
        return {
            "targets": [_target(target) for target in self.targets],
            "sources": [_encoded(self.source)],
        }

    def to_text(self) -> str:
        """The list for people, as BuildKit prints it."""
        rows = [("TARGET", "DESCRIPTION")]
        for target in self.targets:
            marks = [target.name, "(default)" if target.is_default else ""]
            rows.append((" ".join(filter(None, marks)), target.description))
        return table(rows)


def targets_of(file: Dockerfile) -> Targets:
    """The stages that can be asked for with `--target`."""
    last = len(file.stages) - 1
    return Targets(
        targets=tuple(
            Target(
                name=stage.name,
                description=printable(stage.doc),
                is_default=stage.index == last,
                base=printable(stage.base),
                platform=printable(stage.platform),
                span=stage.span,
            )
            for stage in file.stages
        ),
        source=file.source,
    )


def outline_of(graph: StageGraph, trace: Trace, *, expand_from: bool = False) -> Outline:
    """What the target of a graph takes.

    Args:
        graph: of the file.
        trace: how it was lowered.
        expand_from: whether the graph was made so.
    """
    target = graph.nodes[graph.target]
    stage = graph.file.stages[target.index]
    found = _Reading(graph, trace)
    found.visit(graph.target)
    return Outline(
        name=target.name,
        description=printable(stage.doc),
        args=_by_line(found.args.values()),
        secrets=_by_line(found.secrets.values()),
        ssh=_by_line(found.ssh.values()),
        expand_from=expand_from,
        source=graph.file.source,
    )


class _Reading:
    """Collects what the stages take that a target needs; the nearest to the target wins."""

    def __init__(self, graph: StageGraph, trace: Trace) -> None:
        self._graph = graph
        self._results: Mapping[int, StageResult] = {r.node.index: r for r in trace.stages}
        self._globals = dict(self._global_args())
        self._seen: set[int] = set()
        self.args: dict[str, OutlineArg] = {}
        self.secrets: dict[str, OutlineSecret] = {}
        self.ssh: dict[str, OutlineSecret] = {}

    def visit(self, target: int) -> None:
        """Add what a node and all that it reads take."""
        queue = [target]
        while queue:
            index = queue.pop(0)
            if index not in self._seen:
                self._seen.add(index)
                self._add(index)
                queue += self._graph.nodes[index].edges

    def _add(self, index: int) -> None:
        result = self._results[index]
        if result.node.implicit or result.node.replaced:
            return
        stage = self._graph.file.stages[index]
        for word in (stage.base, stage.platform):
            self._use(_names(word, self._graph))
        values = {arg.name: arg.value for arg in result.args}
        own: dict[str, OutlineArg] = {}
        for done in result.commands:
            self._add_mounts(done)
            if isinstance(done.command, Arg):
                for pair in done.command.pairs:
                    given = pair.key in self._graph.arguments.given
                    is_inherited = pair.value is None and not given
                    if is_inherited and pair.key in self._graph.arguments.scope:
                        self._use([pair.key])
                        continue
                    own[pair.key] = OutlineArg(
                        name=printable(pair.key),
                        value=printable(values.get(pair.key) or ""),
                        description=printable(pair.doc),
                        span=done.command.span,
                    )
            for flag in done.command.flags:
                self._use(_names(flag, self._graph))
        for name, arg in own.items():
            self.args.setdefault(name, arg)

    def _add_mounts(self, done: ExpandedCommand) -> None:
        span = done.command.span
        for mount in done.mounts:
            if mount.type == "secret":
                name = mount.source or mount.id or mount.target.rstrip("/").rpartition("/")[2]
                found = self.secrets
            elif mount.type == "ssh":
                name, found = mount.id or "default", self.ssh
            else:
                continue
            secret = OutlineSecret(name=printable(name), required=mount.required, span=span)
            found.setdefault(name, secret)

    def _use(self, names: Iterable[str]) -> None:
        """Add global arguments, and those that their defaults are made of."""
        queue = [*names]
        while queue:
            name = queue.pop()
            if name in self._globals and name not in self.args:
                arg, word = self._globals[name]
                self.args[name] = arg
                queue += _names(word, self._graph)

    def _global_args(self) -> Iterator[tuple[str, tuple[OutlineArg, str]]]:
        for instruction in self._graph.file.global_args:
            for pair in instruction.pairs:
                arg = OutlineArg(
                    name=printable(pair.key),
                    value=printable(self._graph.arguments.scope.get(pair.key, "")),
                    description=printable(pair.doc),
                    span=instruction.span,
                )
                yield pair.key, (arg, pair.value or "")


def _names(word: str, graph: StageGraph) -> tuple[str, ...]:
    """The variables that a word asks for."""
    if "$" not in word:
        return ()
    try:
        done = expand(word, graph.arguments.scope, escape=graph.file.escape)
    except ExpansionError:
        return ()  # A flag of which only a part is a word.
    return (*done.matched, *done.unmatched)


def _by_line(found: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(sorted(found, key=lambda each: each.span.line))


def _arg(arg: OutlineArg) -> dict[str, Any]:
    document = {"name": arg.name, "description": arg.description, "value": arg.value}
    return {
        **{name: value for name, value in document.items() if value or name == "name"},
        "location": location([arg.span]),
    }


def _secret(secret: OutlineSecret) -> dict[str, Any]:
    required = {"required": True} if secret.required else {}
    return {"name": secret.name, **required, "location": location([secret.span])}


def _target(target: Target) -> dict[str, Any]:
    document = {
        "name": target.name,
        "default": target.is_default,
        "description": target.description,
        "base": target.base,
        "platform": target.platform,
    }
    kept = {name: value for name, value in document.items() if value}
    return {**kept, "location": location([target.span])}


def _encoded(source: str) -> str:
    return base64.b64encode(source.encode("utf-8", "surrogateescape")).decode()


def table(rows: Sequence[Sequence[str]], *, gap: int = 3) -> str:
    """Rows in columns of equal width, the last as wide as its text."""
    widths = [max(len(cell) for cell in column) + gap for column in zip(*rows, strict=True)]
    lines = (
        "".join(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)) + row[-1]
        for row in rows
    )
    return "".join(f"{line}\n" for line in lines)

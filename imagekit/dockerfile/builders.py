"""A `Node` to its instruction: one builder a keyword, each with its own rules."""

import re
from collections.abc import Callable
from typing import TypeAlias, TypedDict

from attrs import evolve

from imagekit.dockerfile.flags import (
    Flags,
    check_device,
    check_mount,
    nearest,
    read_duration,
    read_flags,
    read_retries,
)
from imagekit.dockerfile.grammar import KEYWORDS, GrammarError, heredoc_of
from imagekit.dockerfile.instructions import (
    Add,
    Arg,
    ArgPair,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Heredoc,
    Instruction,
    KeyValue,
    Label,
    Maintainer,
    Node,
    Onbuild,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from imagekit.dockerfile.words import BLANKS
from imagekit.errors import ExpansionError, Span

_STAGE_NAME = re.compile(r"[a-z][a-z0-9\-_.]*")
_ONBUILD = re.compile(r"[\t\n\f\r ]*ONBUILD[\t\n\f\r ]*", re.IGNORECASE)
_NETWORKS = ("default", "none", "host")
_SECURITIES = ("sandbox", "insecure")


class UnknownInstructionError(GrammarError):
    """A keyword that is none; `hint` names the nearest one."""

    def __init__(self, word: str) -> None:
        super().__init__(f"unknown instruction {word}", "unknown-instruction", word)
        near = nearest(word.lower(), KEYWORDS)
        self.hint = f"did you mean {near.upper()}?" if near else ""


class _Shared(TypedDict):
    span: Span
    text: str
    word: str
    comments: tuple[str, ...]
    flags: tuple[str, ...]


_Builder: TypeAlias = Callable[[Node, _Shared], Instruction]


def build(node: Node, span: Span, *, expand_from: bool = False) -> Instruction:
    """Return the typed instruction of a node.

    Args:
        node: as the grammar read it.
        span: its place.
        expand_from: the `from` of a mount may hold variables.

    Raises:
        GrammarError: what is wrong with it; the code is one of the classes of errors that
            the README of the conformance cases lists.
    """
    builder = _BUILDERS.get(node.cmd)
    if builder is None:
        raise UnknownInstructionError(node.word)
    shared = _Shared(
        span=span,
        text=node.original,
        word=node.word,
        comments=node.comments,
        flags=node.flags,
    )
    if expand_from and node.cmd == Run.keyword:
        return _run(node, shared, expand_from=True)
    return builder(node, shared)


def doc_comment(comments: tuple[str, ...], name: str) -> str:
    """Return what the first comment that starts with the name says about it."""
    if name:
        for comment in comments:
            if comment.startswith(name + " "):
                return comment[len(name) + 1 :].strip(BLANKS)
    return ""


def _flags(node: Node) -> Flags:
    return read_flags(node.cmd, node.flags)


def _one(node: Node, *, checks_flags: bool = True) -> str:
    if len(node.args) != 1:
        raise GrammarError(
            f"{node.cmd.upper()} requires exactly one argument", "needs-one-argument", node.word
        )
    if checks_flags:
        _flags(node)
    return node.args[0]


def _some(node: Node) -> tuple[str, ...]:
    if not node.args:
        raise GrammarError(
            f"{node.cmd.upper()} requires at least one argument",
            "needs-one-argument",
            node.word,
        )
    return node.args


def _from(node: Node, shared: _Shared) -> From:
    args = node.args
    written = ""
    if len(args) == 3 and args[1].lower() == "as":
        written = args[2]
        if not _STAGE_NAME.fullmatch(written.lower()):
            raise GrammarError(
                f"{written} cannot name a stage: it needs a letter first, then letters, "
                "digits, '-', '_' and '.'",
                "stage-name-invalid",
                written,
            )
    elif len(args) != 1:
        raise GrammarError("FROM is written IMAGE or IMAGE AS NAME", "from-arguments", node.word)
    return From(
        image=args[0],
        name=written.lower(),
        written_name=written,
        platform=_flags(node).text("platform"),
        **shared,
    )


def _arg(node: Node, shared: _Shared) -> Arg:
    pairs: list[ArgPair] = []
    for word in _some(node):
        key, equals, value = word.partition("=")
        if equals and not key:
            raise GrammarError("ARG has a blank name", "blank-name", word)
        pairs.append(
            ArgPair(key=key, value=value if equals else None, doc=doc_comment(node.comments, key))
        )
    return Arg(pairs=tuple(pairs), **shared)


def _key_values(node: Node) -> tuple[KeyValue, ...]:
    _flags(node)
    args = _some(node)
    if "" in args[::3]:
        raise GrammarError(f"{node.cmd.upper()} has a blank name", "blank-name", node.word)
    return tuple(
        KeyValue(key=key, value=value, legacy=not sign)
        for key, value, sign in zip(args[::3], args[1::3], args[2::3], strict=True)
    )


def _env(node: Node, shared: _Shared) -> Env:
    return Env(pairs=_key_values(node), **shared)


def _label(node: Node, shared: _Shared) -> Label:
    return Label(pairs=_key_values(node), **shared)


def _announced(word: str) -> Heredoc | None:
    try:
        return heredoc_of(word)
    except ExpansionError:
        return None  # A path, then, which fails where it is expanded.


def _paths(node: Node) -> tuple[tuple[str, ...], tuple[Heredoc, ...], str]:
    """Return the sources, the heredocs among them and the destination."""
    bodies = {heredoc.name: heredoc for heredoc in node.heredocs}
    sources: list[str] = []
    heredocs: list[Heredoc] = []
    for word in node.args[:-1]:
        found = _announced(word)
        if found is None:
            sources.append(word)
        else:
            body = bodies.get(found.name)
            heredocs.append(evolve(found, content=body.content if body else ""))
    dest = node.args[-1]
    if _announced(dest) is not None:
        raise GrammarError(
            f"{node.cmd.upper()} cannot copy into a heredoc", "heredoc-as-destination", dest
        )
    return tuple(sources), tuple(heredocs), dest


def _two(node: Node) -> None:
    if len(node.args) < 2:
        raise GrammarError(
            f"{node.cmd.upper()} requires a source and a destination",
            "needs-two-arguments",
            node.word,
        )


def _copy(node: Node, shared: _Shared) -> Copy:
    _two(node)
    flags = _flags(node)
    sources, heredocs, dest = _paths(node)
    return Copy(
        sources=sources,
        heredocs=heredocs,
        dest=dest,
        from_=flags.text("from"),
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.flag("link"),
        parents=flags.flag("parents"),
        exclude=flags.list("exclude"),
        **shared,
    )


def _add(node: Node, shared: _Shared) -> Add:
    _two(node)
    flags = _flags(node)
    sources, heredocs, dest = _paths(node)
    return Add(
        sources=sources,
        heredocs=heredocs,
        dest=dest,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.flag("link"),
        exclude=flags.list("exclude"),
        checksum=flags.text("checksum"),
        keep_git_dir=flags.bools.get("keep-git-dir"),
        unpack=flags.bools.get("unpack"),
        **shared,
    )


def _run(node: Node, shared: _Shared, *, expand_from: bool = False) -> Run:
    flags = _flags(node)
    network = flags.text("network") or "default"
    security = flags.text("security") or "sandbox"
    for device in flags.list("device"):
        check_device(device)
    for mount in flags.list("mount"):
        check_mount(mount, expand_from=expand_from)
    if network not in _NETWORKS:
        raise GrammarError(
            f"the network is {network}, it can be {', '.join(_NETWORKS)}",
            "network-invalid",
            f"--network={network}",
        )
    if security not in _SECURITIES:
        raise GrammarError(
            f"the security is {security}, it can be {', '.join(_SECURITIES)}",
            "security-invalid",
            f"--security={security}",
        )
    return Run(
        argv=node.args,
        shell_form=not node.json,
        heredocs=node.heredocs,
        mounts=flags.list("mount"),
        network=network,
        security=security,
        devices=flags.list("device"),
        **shared,
    )


def _cmd(node: Node, shared: _Shared) -> Cmd:
    _flags(node)
    return Cmd(argv=node.args, shell_form=not node.json, **shared)


def _entrypoint(node: Node, shared: _Shared) -> Entrypoint:
    _flags(node)
    return Entrypoint(argv=node.args, shell_form=not node.json, **shared)


def _shell(node: Node, shared: _Shared) -> Shell:
    _flags(node)
    _some(node)
    if not node.json:
        raise GrammarError(
            'SHELL is written in JSON form, as in SHELL ["/bin/bash", "-c"]',
            "json-required",
            node.args[0],
        )
    return Shell(argv=node.args, **shared)


def _workdir(node: Node, shared: _Shared) -> Workdir:
    return Workdir(path=_one(node), **shared)


def _user(node: Node, shared: _Shared) -> User:
    return User(user=_one(node), **shared)


def _stopsignal(node: Node, shared: _Shared) -> Stopsignal:
    # Like ARG, it drops flags that it does not know.
    return Stopsignal(signal=_one(node, checks_flags=False), **shared)


def _maintainer(node: Node, shared: _Shared) -> Maintainer:
    return Maintainer(maintainer=_one(node), **shared)


def _volume(node: Node, shared: _Shared) -> Volume:
    _some(node)
    _flags(node)
    paths = tuple(path.strip(BLANKS) for path in node.args)
    if "" in paths:
        raise GrammarError("VOLUME has an empty path", "volume-empty", node.word)
    return Volume(paths=paths, **shared)


def _expose(node: Node, shared: _Shared) -> Expose:
    _some(node)
    _flags(node)
    return Expose(ports=tuple(sorted(node.args)), **shared)


def _healthcheck(node: Node, shared: _Shared) -> Healthcheck:
    kind, *args = _some(node)
    kind = kind.upper()
    if kind == "NONE":
        if args:
            raise GrammarError(
                "HEALTHCHECK NONE takes no arguments", "healthcheck-invalid", args[0]
            )
        return Healthcheck(test=("NONE",), **shared)
    flags = _flags(node)
    if kind != "CMD":
        raise GrammarError(
            f"HEALTHCHECK is followed by NONE or CMD, not {node.args[0]}",
            "healthcheck-invalid",
            node.args[0],
        )
    if not args:
        raise GrammarError("HEALTHCHECK CMD lacks a command", "healthcheck-invalid", node.args[0])
    return Healthcheck(
        test=("CMD" if node.json else "CMD-SHELL", *args),
        interval_ns=read_duration(flags.text("interval")),
        timeout_ns=read_duration(flags.text("timeout")),
        start_period_ns=read_duration(flags.text("start-period")),
        start_interval_ns=read_duration(flags.text("start-interval")),
        retries=read_retries(flags.text("retries")),
        **shared,
    )


def _onbuild(node: Node, shared: _Shared) -> Onbuild:
    if node.sub is None:
        raise GrammarError(
            "ONBUILD requires at least one argument", "needs-one-argument", node.word
        )
    _flags(node)
    trigger = node.sub.cmd.upper()
    if trigger in ("ONBUILD", "MAINTAINER", "FROM"):
        raise GrammarError(
            f"{trigger} cannot be an ONBUILD trigger", "onbuild-forbidden", node.sub.word
        )
    expression = _ONBUILD.sub("", node.original, count=1)
    for heredoc in node.heredocs:
        expression += f"\n{heredoc.content}{heredoc.name}"
    return Onbuild(expression=expression, **shared)


_BUILDERS: dict[str, _Builder] = {
    "add": _add,
    "arg": _arg,
    "cmd": _cmd,
    "copy": _copy,
    "entrypoint": _entrypoint,
    "env": _env,
    "expose": _expose,
    "from": _from,
    "healthcheck": _healthcheck,
    "label": _label,
    "maintainer": _maintainer,
    "onbuild": _onbuild,
    "run": _run,
    "shell": _shell,
    "stopsignal": _stopsignal,
    "user": _user,
    "volume": _volume,
    "workdir": _workdir,
}

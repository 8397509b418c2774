"""Build checks of a Dockerfile's text, its stages and its FROM lines (dockerfile-semantics, 17).

Checks that need the state of a stage stand with the instructions, in `settings`, `files` and
`state`. The order is that of BuildKit, so that a file that turns out to be wrong still has the
findings that come before the error.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from imagekit.dockerfile.ignore import Matcher
from imagekit.dockerfile.instructions import Dockerfile, Located, Node, Stage
from imagekit.dockerfile.lines import decode, printable
from imagekit.dockerfile.parser import build_file, parse_tree
from imagekit.dockerfile.words import Expansion, expand
from imagekit.errors import (
    DockerfileSyntaxError,
    ExpansionError,
    InvalidPlatformError,
    InvalidReferenceError,
    Span,
)
from imagekit.oci.platform import Platform
from imagekit.oci.reference import Reference
from imagekit.plan import rules
from imagekit.plan.arguments import declare_all
from imagekit.plan.checks import Checks, options_of
from imagekit.plan.goformat import quoted

_RESERVED: Final = frozenset({"scratch", "context"})
_SECRET: Final = re.compile(
    r"(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)",
    re.IGNORECASE,
)
_NO_SECRET: Final = re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)


def open_checks(
    text: str | bytes,
    build_args: Mapping[str, str],
    *,
    filename: str = "Dockerfile",
    ignore: Matcher | None = None,
) -> Checks:
    """Where the findings of a file go, with the options that it asks for.

    Args:
        text: of the Dockerfile; it need not be well formed.
        build_args: of the caller; BUILDKIT_DOCKERFILE_CHECK holds options, too.
        filename: for errors.
        ignore: the patterns of the context's ignore file, if there is one.

    Raises:
        DockerfileError: the options are not well formed.
    """
    options = options_of(decode(text, filename), build_args, filename=filename)
    return Checks(options, ignore=ignore)


def parse_checked(
    text: str | bytes, checks: Checks, *, filename: str = "Dockerfile", expand_from: bool = False
) -> Dockerfile:
    """The same as `parse`, with what the checks of the text find.

    Raises:
        DockerfileSyntaxError: as `parse`; the checks above the error are done.
    """
    tree = parse_tree(text, filename=filename)
    for warning in tree.warnings:
        checks.report(rules.NO_EMPTY_CONTINUATION, span=warning.span)
    try:
        file = build_file(tree, expand_from=expand_from)
    except DockerfileSyntaxError as exc:
        wrong = exc.span.line if exc.span else 0
        for node in tree.nodes:
            if node.start <= wrong:
                _check_node(checks, node, is_valid=node.start < wrong)
        raise
    for node in tree.nodes:
        _check_node(checks, node, is_valid=True)
    return file


def checks_of(file: Dockerfile, build_args: Mapping[str, str]) -> Checks:
    """The checks of a file that is parsed already.

    Raises:
        DockerfileError: its options are not well formed.
    """
    checks = open_checks(file.source, build_args, filename=file.filename)
    for warning in file.warnings:
        checks.report(rules.NO_EMPTY_CONTINUATION, span=warning.span)
    for node in file.nodes:
        _check_node(checks, node, is_valid=True)
    return checks


def _check_node(checks: Checks, node: Node, *, is_valid: bool) -> None:
    """Check one instruction; of one that is not valid only what BuildKit sees before it fails."""
    span = Span(node.start, node.end, node.column)
    if node.cmd == "maintainer":
        checks.report(rules.MAINTAINER_DEPRECATED, span=span, comments=node.comments)
    elif node.cmd == "from":
        _check_from(checks, node, span)
        if is_valid and len(node.args) == 3:
            _check_description(checks, node, span, [node.args[2].lower()])
    elif node.cmd == "arg" and is_valid:
        names = [printable(word).partition("=")[0] for word in node.args]
        _check_description(checks, node, span, names)


def _check_from(checks: Checks, node: Node, span: Span) -> None:
    if len(node.args) == 3 and node.args[2] != node.args[2].lower():
        name = node.args[2]
        checks.report(rules.STAGE_NAME_CASING, name, span=span, comments=node.comments, word=name)
    if len(node.args) < 3:
        return
    as_ = node.args[1]
    # A keyword of mixed case is no measure: another rule is about that.
    mixed = node.word not in (node.word.lower(), node.word.upper())
    same = as_ == (as_.lower() if node.word == node.word.lower() else as_.upper())
    if not (mixed or same):
        checks.report(
            rules.FROM_AS_CASING, as_, node.word, span=span, comments=node.comments, word=as_
        )


def _check_description(checks: Checks, node: Node, span: Span, names: list[str]) -> None:
    if not node.comments or node.comments[-1].partition(" ")[0] in names:
        return
    name = names[0] if len(names) == 1 else "<arg_key>"
    checks.report(
        rules.INVALID_DEFINITION_DESCRIPTION,
        node.cmd.upper(),
        name,
        span=span,
        comments=node.comments,
    )


def check_stages(checks: Checks, file: Dockerfile) -> None:
    """Check the names of the stages and how the keywords are written."""
    names: set[str] = set()
    for stage in file.stages:
        if stage.name in _RESERVED:
            _report(checks, rules.RESERVED_STAGE_NAME, stage, quoted(stage.name))
        if stage.name and stage.name in names:
            _report(checks, rules.DUPLICATE_STAGE_NAME, stage, quoted(stage.name))
        names.add(stage.name)
    _check_casing(checks, file)


def _check_casing(checks: Checks, file: Dockerfile) -> None:
    commands: list[Located] = []
    for stage in file.stages:
        commands += (stage.from_, *stage.commands)
    words = [command.word for command in commands]
    lower = sum(word == word.lower() for word in words)
    upper = sum(word == word.upper() for word in words)
    for command in commands:
        right = command.word.lower() if lower > upper else command.word.upper()
        if command.word != right:
            checks.report(
                rules.CONSISTENT_INSTRUCTION_CASING,
                command.word,
                "lowercase" if lower > upper else "uppercase",
                span=command.span,
                comments=command.comments,
                word=command.word,
            )


def check_defaults(checks: Checks, file: Dockerfile, predefined: Mapping[str, str]) -> None:
    """Check that each base has a name without any build argument.

    Args:
        checks: where findings go.
        file: whose stages.
        predefined: the platform arguments.
    """
    try:
        scope = declare_all(file, predefined, {})
        for stage in file.stages:
            name = expand(stage.base, scope, escape=file.escape).result
            if not _is_reference(name):
                _report(checks, rules.INVALID_DEFAULT_ARG_IN_FROM, stage, stage.base)
    except ExpansionError:
        # Whether that is an error shows where the arguments are read with their values.
        return


def _is_reference(name: str) -> bool:
    try:
        Reference.parse(name)
    except InvalidReferenceError:
        return False
    return True


def check_arguments(
    checks: Checks, file: Dockerfile, stage: Stage, names: Iterable[str], scope: Iterable[str]
) -> None:
    """Check that the names that a FROM asks for and does not get are declared at least.

    Args:
        checks: where findings go.
        file: whose global ARGs declare names.
        stage: of the FROM.
        names: that have no value.
        scope: those that have one.
    """
    unset = tuple(names)
    if not unset:
        return
    declared = [pair.key for arg in file.global_args for pair in arg.pairs]
    known = dict.fromkeys((*declared, *scope))
    for name in unset:
        if name not in known:
            near = checks.suggestion(name, known)
            _report(checks, rules.UNDEFINED_ARG_IN_FROM, stage, name, near)


def check_platform(
    checks: Checks, stage: Stage, expanded: Expansion, scope: Mapping[str, str]
) -> None:
    """Check the `--platform` of a FROM: neither a constant nor what is the default anyway."""
    if expanded.matched == ("TARGETPLATFORM",) and not expanded.unmatched:
        if expanded.result == scope["TARGETPLATFORM"]:
            _report(checks, rules.REDUNDANT_TARGET_PLATFORM, stage, stage.platform)
        return
    if expanded.matched or expanded.unmatched:
        return
    try:
        platform = Platform.parse(expanded.result)
    except InvalidPlatformError:
        return  # An error of its own, where the platform is used.
    # A name such as `build-arm64` says that the constant is meant.
    if platform.os not in stage.name and platform.architecture not in stage.name:
        _report(checks, rules.FROM_PLATFORM_FLAG_CONST_DISALLOWED, stage, quoted(expanded.result))


def _report(checks: Checks, rule: rules.Rule, stage: Stage, *details: str) -> None:
    from_ = stage.from_
    checks.report(rule, *details, span=from_.span, comments=from_.comments)


def is_secret(name: str) -> bool:
    """Whether a variable of that name seems to hold a secret."""
    return bool(_SECRET.search(name)) and not _NO_SECRET.search(name)

"""Collecting what build checks find, and the options that say which of them run.

`# check=skip=A,B;error=true;experimental=all` above everything else holds for the file, the build
argument BUILDKIT_DOCKERFILE_CHECK instead of it, and a comment of the same form right above an
instruction for that instruction, `error` left out.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from attrs import frozen

from imagekit.dockerfile.directives import check_directive
from imagekit.dockerfile.ignore import Matcher
from imagekit.dockerfile.lines import printable, with_variable, with_word
from imagekit.dockerfile.words import BLANKS
from imagekit.errors import DockerfileError, Span, UsageError, excerpt
from imagekit.events import Warned
from imagekit.plan.goformat import quoted
from imagekit.plan.rules import Rule
from imagekit.plan.spelling import similar

CHECK_ARG: Final = "BUILDKIT_DOCKERFILE_CHECK"
"""The build argument that stands in for the file's own options."""

_COMMENT: Final = re.compile(r"[\t\n\f\r ]*check[\t\n\f\r ]*=[\t\n\f\r ]*(\S.*)", re.IGNORECASE)
_MAX_SUGGESTIONS: Final = 100
"""How many of a file's findings name a similar variable: whoever has more has no typing error."""

_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})


@frozen(kw_only=True)
class CheckOptions:
    """Which rules run, and whether findings fail a build.

    Attributes:
        skip: names of rules that do not run.
        skip_all: none runs but experimental ones that are asked for.
        experimental: names of experimental rules that run.
        experimental_all: all of them do.
        error: a finding is an error.
    """

    skip: frozenset[str] = frozenset()
    skip_all: bool = False
    experimental: frozenset[str] = frozenset()
    experimental_all: bool = False
    error: bool = False

    @classmethod
    def parse(cls, text: str) -> "CheckOptions":
        """Read `skip=A,B;error=true;experimental=all`, each part at most once.

        Raises:
            UsageError: an unknown part, or one that has no or a bad value.
        """
        found: dict[str, frozenset[str]] = {}
        error = False
        text = text.strip(BLANKS)
        for part in text.split(";", 2) if text else ():
            name, equals, value = part.partition("=")
            name, value = name.strip(BLANKS), value.strip(BLANKS)
            if not equals or name not in {"skip", "experimental", "error"}:
                raise UsageError(f"invalid check option {quoted(name if equals else part)}")
            if name != "error":
                found[name] = frozenset(rule.strip(BLANKS) for rule in value.split(","))
            elif value in _TRUE | _FALSE:
                error = value in _TRUE
            else:
                raise UsageError(f"failed to parse check option {quoted(part)}: no boolean")
        skip = found.get("skip", frozenset())
        experimental = found.get("experimental", frozenset())
        return cls(
            skip=skip,
            skip_all=skip == {"all"},
            experimental=experimental,
            experimental_all=experimental == {"all"},
            error=error,
        )

    def asks_for(self, rule: Rule) -> bool:
        """Whether an experimental rule is to run."""
        return self.experimental_all or rule.name in self.experimental

    def skips(self, rule: Rule) -> bool:
        """Whether an ordinary rule is not to run."""
        return self.skip_all or rule.name in self.skip


def options_of(source: str, build_args: Mapping[str, str], *, filename: str) -> CheckOptions:
    """The options of a file, or those of the build argument.

    Raises:
        DockerfileError: they are not well formed (`check-directive-invalid`).
    """
    given = build_args.get(CHECK_ARG, "")
    directive = None if given else check_directive(source)
    text = given or (directive.value.partition(" ")[0] if directive else "")
    try:
        return CheckOptions.parse(text)
    except UsageError as exc:
        where = f"line {directive.line}" if directive else f"the build argument {CHECK_ARG}"
        raise DockerfileError(
            f"failed to parse check options: {exc.message}",
            filename=filename,
            hint=f"see {where}; the form is skip=A,B;error=true;experimental=all",
            code="check-directive-invalid",
        ) from exc


@frozen(kw_only=True)
class Finding:
    """One place where a rule fired.

    Attributes:
        rule: which.
        detail: what it says of this place.
        span: the instruction.
        word: the part of it that is meant, if it stands there as it is; `$NAME` is a variable,
            with or without braces.
    """

    rule: Rule
    detail: str
    span: Span
    word: str = ""


class Checks:
    """What the checks of one file and platform have found so far, in the order of the search.

    Attributes:
        options: which rules run.
        ignore: the patterns of the context's ignore file, for `CopyIgnoredFile`; or None.
    """

    def __init__(
        self,
        options: CheckOptions | None = None,
        *,
        ignore: Matcher | None = None,
        found: Iterable[Finding] = (),
    ) -> None:
        self.options = options or CheckOptions()
        self.ignore = ignore
        self._found = list(found)
        self._suggestions = 0

    @property
    def found(self) -> tuple[Finding, ...]:
        """All findings."""
        return tuple(self._found)

    def report(
        self,
        rule: Rule,
        *details: str,
        span: Span,
        comments: Sequence[str] = (),
        word: str = "",
    ) -> None:
        """Add a finding, unless the options or the comments above the instruction say no.

        Args:
            rule: which fired.
            details: what goes into its message.
            span: of the instruction.
            comments: the lines right above it, without `#`.
            word: the part that is meant.
        """
        if rule.experimental:
            if not self.options.asks_for(rule) and not _own_options(comments).asks_for(rule):
                return
        elif self.options.skips(rule) or (comments and _own_options(comments).skips(rule)):
            return
        detail = rule.message.format(*details)
        self._found.append(Finding(rule=rule, detail=detail, span=span, word=word))

    def suggestion(self, name: str, known: Iterable[str], *, sign: str = "") -> str:
        """What a message says of the similar name that was probably meant; maybe nothing.

        Args:
            name: that is unknown.
            known: the names that there are.
            sign: what stands before names in the message.
        """
        self._suggestions += 1
        near = similar(name, known) if self._suggestions <= _MAX_SUGGESTIONS else ""
        return f" (did you mean {sign}{near}?)" if near else ""

    def refuse(self, *, filename: str) -> None:
        """Fail if there are findings and the options make them errors.

        Raises:
            DockerfileError: with the names of the rules (`lint-as-error`).
        """
        if self.options.error and self._found:
            names = dict.fromkeys(finding.rule.name for finding in self._found)
            raise DockerfileError(
                f"lint violation found for rules: {', '.join(names)}",
                filename=filename,
                hint="error=true makes warnings errors; skip=RULE leaves one out",
                code="lint-as-error",
            )


_NOTHING: Final = CheckOptions()


def _own_options(comments: Sequence[str]) -> CheckOptions:
    """The options right above an instruction; what is not well formed is a comment like others."""
    for comment in comments:
        match = _COMMENT.fullmatch(comment)
        if match is not None:
            try:
                return CheckOptions.parse(match[1].partition(" ")[0])
            except UsageError:
                return _NOTHING
    return _NOTHING


def as_warnings(findings: Iterable[Finding], *, source: str, filename: str) -> tuple[Warned, ...]:
    """Findings as events, each with the lines that it is about.

    Args:
        findings: of one file.
        source: its text.
        filename: its name.
    """
    lines = source.split("\n")
    warnings = []
    for finding in findings:
        word = finding.word
        if word.startswith("$"):
            span = with_variable(lines, finding.span, word[1:])
        else:
            span = with_word(lines, finding.span, word)
        warnings.append(
            Warned(
                code=finding.rule.name,
                message=printable(finding.detail),
                span=span,
                filename=filename,
                description=finding.rule.description,
                url=finding.rule.url,
                excerpt=excerpt(lines, span),
            )
        )
    return tuple(warnings)

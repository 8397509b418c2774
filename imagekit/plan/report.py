"""`check`: a Dockerfile looked at and not built, as `docker build --check` does."""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from imagekit.dockerfile.ignore import Matcher
from imagekit.dockerfile.lines import decode, has_bom, printable
from imagekit.errors import DockerfileError, ImagekitError, Span, StageCycleError
from imagekit.oci.platform import Platform
from imagekit.plan.bases import BaseRequest, ResolvedBase
from imagekit.plan.checks import Checks, Finding
from imagekit.plan.contexts import NamedContext
from imagekit.plan.lint import open_checks, parse_checked
from imagekit.plan.lower import lower
from imagekit.plan.stages import missing_bases, stage_graph

_RULER = "-" * 20


@frozen(kw_only=True)
class CheckReport:
    """What checks found in a Dockerfile.

    Attributes:
        warnings: findings, in the order of the search.
        error: why the file cannot be built, or None; what comes behind it was not checked.
        filename: of the Dockerfile.
        source: its text.
        has_bom: a byte order mark stood before the text.
    """

    warnings: tuple[Finding, ...]
    error: ImagekitError | None = None
    filename: str = "Dockerfile"
    source: str = field(default="", repr=False)
    has_bom: bool = False

    @property
    def is_clean(self) -> bool:
        """Whether there is neither a finding nor an error: the exit status says so."""
        return not self.warnings and self.error is None

    def to_json(self) -> dict[str, Any]:
        """The report in the shape of BuildKit's `--call=check,format=json`."""
        document: dict[str, Any] = {
            "warnings": [_warning(finding) for finding in self.warnings],
            "sources": [
                {
                    "filename": self.filename,
                    "language": "Dockerfile",
                    "data": base64.b64encode(
                        self.source.encode("utf-8", "surrogateescape")
                    ).decode(),
                }
            ],
        }
        if self.error is not None:
            document["buildError"] = {
                "message": printable(self.error.message),
                "location": location(_places(self.error)),
            }
        return document

    def to_text(self) -> str:
        """The report for people, in the form of `docker build --check`, by line."""
        source = printable(self.source)
        lines = source.split("\n")
        parts = [_summary(len(self.warnings))]
        for finding in sorted(self.warnings, key=lambda finding: finding.span.line):
            url = f" - {finding.rule.url}" if finding.rule.url else ""
            parts += ["", f"WARNING: {finding.rule.name}{url}", printable(finding.detail)]
            parts += _excerpt(self.filename, lines, [finding.span])
        if self.error is not None:
            parts += ["", f"ERROR: {printable(self.error.message)}"]
            parts += _excerpt(self.filename, lines, _places(self.error))
        return "\n".join(parts) + "\n"


def check(  # noqa: PLR0913 - the parts of a build, all by name
    text: str | bytes,
    *,
    build: Platform,
    resolve: Callable[[BaseRequest], ResolvedBase],
    filename: str = "Dockerfile",
    build_args: Mapping[str, str] | None = None,
    target: Platform | None = None,
    stage: str | None = None,
    contexts: Mapping[str, NamedContext] | None = None,
    ignore: Matcher | None = None,
    expand_from: bool = False,
) -> CheckReport:
    """Run the build checks on a Dockerfile.

    Args:
        text: of the Dockerfile.
        build: the platform that steps would run on.
        resolve: gives the config of a base image; what it raises becomes the report's error.
        filename: for the report.
        build_args: of the caller.
        target: the platform that the image would be for; None is `build`.
        stage: the target stage. Without one, every stage is checked; with one, those it needs.
        contexts: named contexts by name.
        ignore: the patterns of the context's ignore file, if it has one.
        expand_from: as in `stage_graph`.

    Spec: dockerfile-semantics, 17.
    """
    checks = Checks()
    source, error = "", None
    try:
        source = decode(text, filename)
        checks = open_checks(text, build_args or {}, filename=filename, ignore=ignore)
        graph = stage_graph(
            parse_checked(text, checks, filename=filename, expand_from=expand_from),
            build_args=build_args or {},
            build=build,
            target=target,
            stage=stage,
            contexts=contexts,
            all_stages=not stage,
            checks=checks,
            expand_from=expand_from,
        )
        known: dict[BaseRequest, ResolvedBase] = {}
        while missing := missing_bases(graph, known):
            known |= {request: resolve(request) for request in sorted(missing, key=str)}
        lower(graph, known, checks=checks)
    except ImagekitError as exc:
        error = exc
    return CheckReport(
        warnings=checks.found,
        error=error,
        filename=filename,
        source=source,
        has_bom=has_bom(text),
    )


def _summary(count: int) -> str:
    if count == 0:
        return "Check complete, no warnings found."
    if count == 1:
        return "Check complete, 1 warning has been found!"
    return f"Check complete, {count} warnings have been found!"


def _warning(finding: Finding) -> dict[str, Any]:
    document: dict[str, Any] = {
        "ruleName": finding.rule.name,
        "description": finding.rule.description,
    }
    if finding.rule.url:
        document["url"] = finding.rule.url
    document["detail"] = printable(finding.detail)
    return {**document, "location": location([finding.span])}


def location(spans: Sequence[Span]) -> dict[str, Any]:
    """Places in BuildKit's JSON: one range a line, without what is zero."""
    numbers = [n for span in spans for n in range(span.line, span.end_line + 1)]
    return {"ranges": [{"start": {"line": n}, "end": {"line": n}} for n in numbers]}


def _places(error: ImagekitError) -> list[Span]:
    if isinstance(error, StageCycleError):
        return sorted(error.spans, key=lambda span: span.line)
    return [error.span] if isinstance(error, DockerfileError) and error.span else []


def _excerpt(filename: str, lines: list[str], spans: Sequence[Span]) -> list[str]:
    """The lines of some places, marked, with a few around them."""
    meant = {n for span in spans for n in range(span.line, span.end_line + 1)}
    meant.intersection_update(range(1, len(lines) + 1))
    if not meant:
        return []
    first, last = min(meant), max(meant)
    # One line is shown with about four around it; several already speak for themselves.
    room = 4 if first == last else 2
    start, end = first, last
    while room > 0:
        start, end, room = (
            max(1, start - 1),
            min(len(lines), end + 1),
            room - 1 - (start > 1) - (end < len(lines)),
        )
    shown = [
        f" {n:>3} | {'>>>' if n in meant else '   '} {lines[n - 1]}" for n in range(start, end + 1)
    ]
    return [f"{filename}:{first}", _RULER, *shown, _RULER]

"""Every exception that imagekit raises.

    ImagekitError       .code .hint
    + DockerfileError   .filename .span .source
    + PlanError         a plan that cannot be made from what the Dockerfile asks for
    + OciError          a document, digest, platform or reference that is not well formed
    + LayerError        .path
    + StepFailedError   .step .exit_code .log_tail
    + SandboxError      .backend
    + StoreError        .descriptor
    + RegistryError     .status .codes .retry_after
    + FetchError        .status
    + OutputError       a place that the result cannot be written to
    + UsageError        a call or command line that asks for what cannot be
    + CancelledError

A `code` is stable and meant for programs; the message is meant for people; the hint, which may be
empty, says what to try next.
"""

from collections.abc import Sequence
from typing import ClassVar

from attrs import frozen


@frozen
class Span:
    """A place in a Dockerfile; lines and columns count from 1, and column 0 is unknown.

    Attributes:
        line: the first.
        end_line: the last.
        column: where the word starts that is meant.
        end_column: the column after its last character.
        column_line: the line that the columns are of, if it is not the first; else 0.
    """

    line: int
    end_line: int
    column: int = 0
    end_column: int = 0
    column_line: int = 0

    @property
    def place(self) -> str:
        """`line` or `line:column`, of the word that is meant if that is known."""
        if not self.column:
            return str(self.line)
        return f"{self.column_line or self.line}:{self.column}"


_EXCERPT_LINES = 5


def excerpt(lines: Sequence[str], span: Span) -> str:
    """The lines of a span with their numbers and, where a column is known, a caret.

    Args:
        lines: of the whole file.
        span: at most five lines of it are shown, that with the caret among them.
    """
    caret = span.column_line or span.line
    last = min(span.end_line, span.line + _EXCERPT_LINES - 1, len(lines))
    numbers = [*range(span.line, last + 1)]
    if last < caret <= len(lines):
        numbers = [span.line, *range(caret - 1, min(caret + 1, span.end_line, len(lines)) + 1)]
    width = len(str(max(numbers, default=0)))
    shown = []
    before = span.line
    for number in numbers:
        if number > before + 1:
            shown.append(f"{'':>{width}} : ...")
        before = number
        text = lines[number - 1].rstrip("\r")
        shown.append(f"{number:>{width}} | {text}")
        if number == caret and span.column:
            lead = "".join(c if c == "\t" else " " for c in text[: span.column - 1])
            size = max(1, span.end_column - span.column)
            shown.append(f"{'':>{width}} | {lead}{'^' * size}")
    return "\n".join(shown)


def _printable(text: str) -> str:
    """The text with a replacement character for each byte of a name that was not UTF-8."""
    if text.isascii():
        return text
    return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)


class ImagekitError(Exception):
    """The base of all errors of this library.

    Message and hint can be encoded, whatever bytes the names in them were made of.
    """

    default_code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "", code: str = "") -> None:
        self.message = _printable(message)
        super().__init__(self.message)
        self.hint = _printable(hint)
        self.code = code or self.default_code

    def __str__(self) -> str:
        return self.message


class DockerfileError(ImagekitError):
    """The Dockerfile is wrong at a place that is known.

    Attributes:
        filename: as given to `parse`.
        span: where; None when the whole file is meant.
        source: the text of the file, for the excerpt; empty when not at hand.
        others: further errors of the same file that were found along with this one, by line.
    """

    default_code = "other"

    def __init__(
        self,
        message: str,
        *,
        span: Span | None = None,
        filename: str = "Dockerfile",
        source: str = "",
        hint: str = "",
        code: str = "",
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.filename = filename
        self.span = span
        self.source = source
        self.others: tuple[DockerfileError, ...] = ()

    @property
    def place(self) -> str:
        """`file:line` or `file:line:column`, as compilers print it."""
        if self.span is None:
            return self.filename
        return f"{self.filename}:{self.span.place}"

    def excerpt(self) -> str:
        """The lines of the span with their numbers and, where a column is known, a caret."""
        if self.span is None or not self.source:
            return ""
        return excerpt(_printable(self.source).split("\n"), self.span)


class DockerfileSyntaxError(DockerfileError):
    """The text is no Dockerfile: unknown instruction, bad flag, missing argument."""


class ExpansionError(DockerfileError):
    """A `${...}` that cannot be expanded.

    Attributes:
        unmatched: the names that were asked for before it failed and are not set.
    """

    default_code = "expansion"
    unmatched: tuple[str, ...] = ()


class UnknownStageError(DockerfileError):
    """A target, FROM or --from names a stage that is not there."""

    default_code = "target-not-found"


class StageCycleError(DockerfileError):
    """Stages that read each other.

    Attributes:
        spans: the instructions that do, in the order of the circle; `span` is the first.
    """

    default_code = "stage-cycle"

    def __init__(
        self,
        message: str,
        *,
        spans: Sequence[Span],
        filename: str = "Dockerfile",
        source: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message, span=spans[0], filename=filename, source=source, hint=hint)
        self.spans = tuple(spans)


class PlanError(ImagekitError):
    """A plan cannot be made from what was asked for."""

    default_code = "plan"


class OciError(ImagekitError):
    """A document, digest, platform or reference is not well formed."""

    default_code = "oci"


class InvalidDigestError(OciError):
    """A digest that is not `algorithm:hex` of a known algorithm and the right length."""

    default_code = "invalid-digest"


class InvalidReferenceError(OciError):
    """An image reference that does not follow the grammar."""

    default_code = "reference-invalid"


class InvalidPlatformError(OciError):
    """A platform that is not `os/arch[/variant]`."""

    default_code = "platform-invalid"


class InvalidDocumentError(OciError):
    """JSON that is not the manifest, index or config it should be."""

    default_code = "invalid-document"


class LayerError(ImagekitError):
    """A layer, tree or archive that cannot be used; `path` is inside the image."""

    default_code = "layer"

    def __init__(self, message: str, *, path: str = "", hint: str = "", code: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.path = path


class BadArchiveError(LayerError):
    """Bytes that are no well-formed tar, or one past a limit."""

    default_code = "bad-archive"


class BadWhiteoutError(LayerError):
    """A whiteout marker that hides nothing, such as a bare `.wh.`."""

    default_code = "bad-whiteout"


class EscapesRootError(LayerError):
    """A name or link that points above its root."""

    default_code = "escapes-root"


class PathError(LayerError):
    """A path that cannot be resolved or written: missing, looping, wrong type."""

    default_code = "path"


class ContextError(ImagekitError):
    """A build context that cannot be read; `path` is relative to it."""

    default_code = "context"

    def __init__(self, message: str, *, path: str = "", hint: str = "", code: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.path = path


class StepFailedError(DockerfileError):
    """A step that ran and did not succeed.

    Attributes:
        step: its label, as the progress shows it.
        exit_code: of the command; 128 + n for a process that signal n ended.
        log_tail: the last lines it wrote.
    """

    default_code = "exec-failed"

    def __init__(  # noqa: PLR0913 - the data of the failure, all by name
        self,
        message: str,
        *,
        step: str,
        exit_code: int | None = None,
        log_tail: str = "",
        span: Span | None = None,
        filename: str = "Dockerfile",
        source: str = "",
        hint: str = "",
        code: str = "",
    ) -> None:
        super().__init__(
            message, span=span, filename=filename, source=source, hint=hint, code=code
        )
        self.step = step
        self.exit_code = exit_code
        self.log_tail = log_tail


class SandboxError(ImagekitError):
    """A sandbox that cannot be made or did not hold; `backend` is its name."""

    default_code = "sandbox"

    def __init__(self, message: str, *, backend: str = "", hint: str = "", code: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.backend = backend


class StoreError(ImagekitError):
    """The store cannot do what it was asked; `descriptor` names the blob, if one is meant."""

    default_code = "store"

    def __init__(
        self, message: str, *, descriptor: object = None, hint: str = "", code: str = ""
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.descriptor = descriptor


class NotFoundError(StoreError, LookupError):
    """No such blob or tag."""

    default_code = "not-found"


class DigestMismatchError(StoreError):
    """Bytes that are not the ones their descriptor names."""

    default_code = "digest-mismatch"


class RegistryError(ImagekitError):
    """A registry said no.

    Attributes:
        status: the HTTP status; 0 when there was no answer.
        codes: the error codes of the answer (distribution-spec, Error Codes).
        retry_after: seconds that the registry asked to wait, or None.
    """

    default_code = "registry"

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        codes: Sequence[str] = (),
        retry_after: float | None = None,
        hint: str = "",
        code: str = "",
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.status = status
        self.codes = tuple(codes)
        self.retry_after = retry_after


class ImageNotFoundError(RegistryError, LookupError):
    """The registry has no such repository, tag, manifest or blob."""

    default_code = "image-not-found"


class AuthError(RegistryError):
    """Credentials are missing, wrong or not enough."""

    default_code = "auth"


class RateLimitedError(RegistryError):
    """Too many requests."""

    default_code = "rate-limited"


class UnreachableError(RegistryError):
    """No answer: name, connection, TLS or time-out."""

    default_code = "unreachable"


class FetchError(ImagekitError):
    """What a URL or a git repository should give cannot be had.

    Attributes:
        status: the HTTP status; 0 when there was none.
    """

    default_code = "fetch"

    def __init__(self, message: str, *, status: int = 0, hint: str = "", code: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.status = status


class OutputError(ImagekitError):
    """The result cannot be written where it was asked for."""

    default_code = "output"


class UsageError(ImagekitError):
    """A call or command line that asks for what cannot be."""

    default_code = "usage"


class CancelledError(ImagekitError):
    """The build was cancelled."""

    default_code = "cancelled"

"""What happens during a build, as typed values for whoever watches.

Library code never prints: it hands these to an `Observer`. Progress bars, plain logs, JSON lines
and traces are observers (see `imagekit.progress`). Times are seconds; `at` is a monotonic clock's.
"""

from collections.abc import Callable
from typing import Literal

from attrs import frozen

from imagekit.errors import Span

StreamName = Literal["stdout", "stderr"]


@frozen(kw_only=True)
class StepInfo:
    """A step as a person knows it.

    Attributes:
        id: unique within one build.
        name: `[stage 2/4] RUN make`, with the platform before the stage where there are several.
        span: its place in the Dockerfile, if it has one.
    """

    id: int
    name: str
    span: Span | None = None


@frozen(kw_only=True)
class BuildStarted:
    """Planning is over; `steps` will run or be taken from the cache."""

    steps: tuple[StepInfo, ...]


@frozen(kw_only=True)
class SandboxChosen:
    """How RUN steps are isolated, and why that way."""

    backend: str
    reason: str


@frozen(kw_only=True)
class StepStarted:
    """A step was not in the cache and starts."""

    step: StepInfo
    at: float


@frozen(kw_only=True)
class StepCached:
    """A step was taken from the cache."""

    step: StepInfo


@frozen(kw_only=True)
class StepLog:
    """Bytes that a step's command wrote, as they came."""

    step: StepInfo
    stream: StreamName
    data: bytes


@frozen(kw_only=True)
class StepFinished:
    """A step ended well; `layer_size` is that of its compressed layer in bytes, if it made one."""

    step: StepInfo
    at: float
    seconds: float
    layer_size: int | None = None


@frozen(kw_only=True)
class StepFailed:
    """A step failed; the error is raised as well."""

    step: StepInfo
    at: float
    seconds: float
    message: str


@frozen(kw_only=True)
class Transfer:
    """Bytes of one blob that moved.

    Attributes:
        direction: `pull` from a registry, `push` to one, `export` to an output, `mount` across
            repositories without moving.
        name: what a person would call it, such as a digest or a file name.
        why: the reason that the bytes are needed.
        done: bytes so far.
        total: bytes in all, or None while that is not known.
    """

    direction: Literal["pull", "push", "export", "mount"]
    name: str
    why: str = ""
    done: int
    total: int | None = None


@frozen(kw_only=True)
class Warned:
    """Something is probably not as meant; the build goes on.

    Attributes:
        code: what kind of thing; the name of the rule for build checks.
        message: what is said of this place.
        span: its place in the Dockerfile, if it has one.
        filename: of the Dockerfile.
        excerpt: the lines of the place with their numbers, ready to be shown; or nothing.
        description: what the rule is about.
        url: where it is documented.
    """

    code: str
    message: str
    span: Span | None = None
    filename: str = ""
    excerpt: str = ""
    description: str = ""
    url: str = ""


@frozen(kw_only=True)
class BuildFinished:
    """The result is where it was asked for."""

    at: float
    seconds: float


Event = (
    BuildStarted
    | SandboxChosen
    | StepStarted
    | StepCached
    | StepLog
    | StepFinished
    | StepFailed
    | Transfer
    | Warned
    | BuildFinished
)
"""Any of the above."""

Observer = Callable[[Event], None]
"""Called from any thread of the build, one event at a time; must not block for long."""


def ignore_events(event: Event) -> None:
    """Watch nothing."""
    del event

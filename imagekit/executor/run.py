"""RUN: a root laid out, a command in a sandbox, and the changes it made as a layer."""

import threading
from collections.abc import Sequence

from attrs import frozen

from imagekit.errors import ImagekitError, SandboxError, StepFailedError, UsageError
from imagekit.events import Observer, SandboxChosen, StepInfo, ignore_events
from imagekit.executor.contexts import Contexts
from imagekit.executor.layers import Layers
from imagekit.executor.mounts import Mounts
from imagekit.executor.output import Log
from imagekit.executor.snapshots import Snapshots
from imagekit.executor.values import Layer, Outcome, SecretReader
from imagekit.plan.ops import Exec, Plan, Step
from imagekit.sandbox.base import (
    Cancellation,
    ExitStatus,
    ProcessSpec,
    Sandbox,
    TmpfsMount,
    Ulimit,
)
from imagekit.sandbox.choose import choose


@frozen(kw_only=True)
class RunOptions:
    """What a caller decides about RUN.

    Attributes:
        sandbox: which one; see `sandbox.choose`.
        secret: gives secrets by id.
        allow: entitlements.
    """

    sandbox: str = "auto"
    secret: SecretReader = lambda _: None
    allow: frozenset[str] = frozenset()


class Runner:
    """Runs commands; the sandbox is started when the first one needs it."""

    def __init__(
        self,
        *,
        layers: Layers,
        contexts: Contexts,
        options: RunOptions,
        observer: Observer = ignore_events,
        cancellation: Cancellation,
    ) -> None:
        self._layers = layers
        self._contexts = contexts
        self._options = options
        self._observer = observer
        self._cancellation = cancellation
        self._lock = threading.Lock()
        self._sandbox: Sandbox | None = None
        self._snapshots: Snapshots | None = None

    def _start(self) -> tuple[Sandbox, Snapshots]:
        with self._lock:
            if self._sandbox is None or self._snapshots is None:
                sandbox = choose(self._options.sandbox)
                try:
                    sandbox.ready()
                except BaseException:
                    sandbox.close()
                    raise
                self._observer(SandboxChosen(backend=sandbox.name, reason=sandbox.reason))
                self._sandbox = sandbox
                self._snapshots = Snapshots(self._layers, sandbox)
            return self._sandbox, self._snapshots

    def run(
        self, op: Exec, step: Step, inputs: Sequence[Outcome], info: StepInfo, plan: Plan
    ) -> Layer:
        """Run the command of a step; the layer of what it changed.

        Raises:
            StepFailedError: it ended with another status than 0.
            SandboxError: it could not be started.
            CancelledError: the build was cancelled.
        """
        if op.security == "insecure" and "security.insecure" not in self._options.allow:
            raise UsageError(
                "RUN --security=insecure is not allowed",
                hint="allow it with --allow security.insecure",
                code="not-allowed",
            )
        if not op.argv:
            raise UsageError("RUN has no command to run", code="exec-failed")
        if op.devices:
            raise UsageError("RUN --device is not supported yet", code="unsupported")
        sandbox, snapshots = self._start()
        mounts = Mounts(
            self._layers,
            self._contexts,
            snapshots,
            self._options.secret,
            self._cancellation.is_set,
        )
        log = Log(self._observer, info, mounts.secret_values(op))
        with (
            mounts,
            snapshots.writable(inputs[0].layers) as root,
        ):
            spec = ProcessSpec(
                argv=op.argv,
                env=(*op.env, *op.proxy_env, *mounts.environment(op)),
                cwd=op.cwd,
                user=op.user,
                root=root.root,
                mounts=(*_shm(op), *mounts.prepare(op, inputs)),
                network=op.network,
                hostname=op.hostname or "imagekit",
                extra_hosts=op.extra_hosts,
                security=op.security,
                ulimits=tuple(Ulimit(name=n, soft=s, hard=h) for n, s, h in op.ulimits),
            )
            try:
                status = sandbox.run(spec, output=log.write, cancelled=self._cancellation)
            except SandboxError as exc:
                raise ImagekitError(exc.message, hint=exc.hint, code=exc.code) from exc
            finally:
                log.close()
            if status.exit_code != 0:
                raise _failed(op, step, status, log, plan)
            return root.commit()

    def close(self) -> None:
        """End the sandbox and what runs in it."""
        with self._lock:
            if self._sandbox is not None:
                self._sandbox.close()
                self._sandbox = None


def _shm(op: Exec) -> tuple[TmpfsMount, ...]:
    """What takes the place of the sandbox's own /dev/shm, if another size is asked for."""
    return (TmpfsMount(target="/dev/shm", size=op.shm_size),) if op.shm_size else ()  # noqa: S108 - in the root


def _failed(op: Exec, step: Step, status: ExitStatus, log: Log, plan: Plan) -> StepFailedError:
    command = " ".join(op.argv)
    if status.signal is not None:
        how = f"was ended by signal {status.signal}"
    else:
        how = f"exit code {status.exit_code}"
    return StepFailedError(
        f"the command did not succeed: {how}: {_shortened(command)}",
        step=step.name,
        exit_code=status.exit_code,
        log_tail=log.tail,
        span=step.span,
        filename=plan.filename,
        source=plan.source,
        hint=_hint(op, status),
    )


def _hint(op: Exec, status: ExitStatus) -> str:
    if status.exit_code == 127:
        return f"a program was not found in the image; PATH is {dict(op.env).get('PATH', '')}"
    if status.exit_code == 126:
        return "a program cannot be executed: is its mode, format or interpreter right?"
    return ""


def _shortened(text: str, limit: int = 200) -> str:
    line = text.replace("\n", " ")
    return line if len(line) <= limit else line[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"

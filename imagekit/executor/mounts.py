"""The mounts of a RUN as a sandbox takes them: trees laid out, caches locked, secrets read."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from imagekit.errors import UsageError
from imagekit.executor.contexts import Contexts
from imagekit.executor.layers import Layers
from imagekit.executor.snapshots import Snapshots
from imagekit.executor.values import Outcome, SecretReader
from imagekit.layer.tree import DIRECTORY, Entry
from imagekit.plan import ops
from imagekit.sandbox import base


class Mounts:
    """The mounts of one step; what they hold is let go when it ends."""

    def __init__(
        self,
        layers: Layers,
        contexts: Contexts,
        snapshots: Snapshots,
        secret: SecretReader,
        cancelled: Callable[[], bool],
    ) -> None:
        self._layers = layers
        self._contexts = contexts
        self._snapshots = snapshots
        self._secret = secret
        self._cancelled = cancelled
        self._held = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def secret_values(self, op: ops.Exec) -> tuple[bytes, ...]:
        """The secrets that a step sees, to be masked in what it writes.

        Raises:
            UsageError: a required one was not given.
        """
        mounts = [m for m in op.mounts if isinstance(m, ops.SecretMount)]
        return tuple(v for v in (self._value(m) for m in mounts) if v is not None)

    def environment(self, op: ops.Exec) -> Iterator[tuple[str, str]]:
        """Secrets that a step gets as environment variables."""
        for mount in op.mounts:
            if isinstance(mount, ops.SecretMount) and mount.env:
                value = self._value(mount)
                if value is not None:
                    yield mount.env, value.decode("utf-8", "surrogateescape")

    def prepare(self, op: ops.Exec, inputs: Sequence[Outcome]) -> tuple[base.Mount, ...]:
        """The mounts for the sandbox, in order.

        Raises:
            UsageError: a required secret was not given, or a kind is not supported.
        """
        self._lock_caches(op)
        made = [m for mount in op.mounts for m in self._mount(mount, inputs)]
        return tuple(made)

    def _mount(self, mount: ops.Mount, inputs: Sequence[Outcome]) -> Iterator[base.Mount]:
        match mount:
            case ops.BindMount():
                yield self._bind(mount, inputs[mount.input])
            case ops.CacheMount():
                yield self._cache(mount, inputs)
            case ops.TmpfsMount():
                yield base.TmpfsMount(target=mount.target, size=mount.size or None)
            case ops.ScriptMount():
                yield base.FileMount(target=mount.target, content=mount.content, mode=0o755)
            case ops.SecretMount():
                value = self._value(mount)
                if value is not None and mount.target:
                    yield base.FileMount(
                        target=mount.target,
                        content=value,
                        mode=mount.mode,
                        uid=mount.uid,
                        gid=mount.gid,
                    )
            case ops.SshMount():
                if mount.required:
                    raise UsageError(
                        "RUN --mount=type=ssh is not supported yet",
                        hint="use a secret with a deploy key",
                        code="unsupported",
                    )

    def _value(self, mount: ops.SecretMount) -> bytes | None:
        value = self._secret(mount.id)
        if value is None and mount.required:
            raise UsageError(
                f"the secret {mount.id} is required and was not given",
                hint=f"give it with --secret id={mount.id},src=FILE",
                code="secret-not-found",
            )
        return value

    def _bind(self, mount: ops.BindMount, outcome: Outcome) -> base.BindMount:
        return base.BindMount(
            source=self._folders(outcome, mount.source),
            target=mount.target,
            subpath=mount.source,
            read_only=mount.read_only,
            writable_copy=not mount.read_only,
        )

    def _folders(self, outcome: Outcome, source: str) -> tuple[str, ...]:
        """Layer folders, topmost first, that together show what an input is."""
        if outcome.context is None:
            return self._snapshots.folders(outcome.layers)
        name = outcome.context
        tree = self._contexts.tree_for(name, self._contexts.files_below(name, source))
        folder = self._contexts.context(name)
        return (self._held.enter_context(self._snapshots.laid_out(tree, source, folder)),)

    def _lock_caches(self, op: ops.Exec) -> None:
        """Lock what only one step at a time may use; in one order for all, so that none waits."""
        names = {
            _cache_name(mount)
            for mount in op.mounts
            if isinstance(mount, ops.CacheMount) and mount.sharing == "locked"
        }
        for name in sorted(names):
            lock = self._layers.store.lock(f"cache {name}", cancelled=self._cancelled)
            self._held.enter_context(lock)

    def _cache(self, mount: ops.CacheMount, inputs: Sequence[Outcome]) -> base.BindMount:
        name = _cache_name(mount)
        if mount.sharing == "private":
            name = self._held.enter_context(self._snapshots.private_cache(name))

        def fill(folder: Path) -> None:
            if mount.input is not None:
                self._fill(folder, inputs[mount.input], mount.source)

        root = Entry(DIRECTORY, mount.mode, mount.uid, mount.gid)
        folder = self._snapshots.cache_folder(name, root, fill)
        return base.BindMount(source=str(folder), target=mount.target, read_only=mount.read_only)

    def _fill(self, folder: Path, outcome: Outcome, source: str) -> None:
        """Put what a cache starts with into its folder."""
        if outcome.context is None:
            self._snapshots.fill(folder, outcome.layers, source)
        else:
            name = outcome.context
            tree = self._contexts.tree_for(name, self._contexts.files_below(name, source))
            self._snapshots.fill_from(folder, tree, source, self._contexts.context(name))


def _cache_name(mount: ops.CacheMount) -> str:
    return hashlib.sha256(mount.id.encode("utf-8", "surrogateescape")).hexdigest()[:32]

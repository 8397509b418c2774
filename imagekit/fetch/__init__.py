"""What Dockerfiles and callers name by URL: files over HTTP(S), and git repositories.

`Downloader` is what the executor asks (`executor.values.Downloads`). It gives bytes and folders,
and knows nothing of layers, caches or stores. All it is told comes from Dockerfiles, so it takes
no credentials from anywhere, and there are addresses that it does not speak to (`reach`).

Spec: security.md C-7, N-2, N-12; dockerfile-semantics.md section 10.
"""

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from imagekit.fetch.git import Git
from imagekit.fetch.reach import Reach

if TYPE_CHECKING:
    from imagekit.fetch.http import Downloaded, Http

MAX_SIZE: Final = 64 << 30
"""The most bytes of one download."""


class Downloader:
    """Downloads files and checks out repositories; methods may be called from any thread."""

    def __init__(
        self,
        *,
        insecure: Collection[str] = (),
        agent_for: Collection[str] = (),
        max_size: int = MAX_SIZE,
        cancelled: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Prepare to fetch; nothing is opened yet.

        Args:
            insecure: hosts, as `host` or `host:port`, that may be spoken to without TLS and at any
                address.
            agent_for: repositories that the caller named itself, and that may therefore be reached
                with the caller's SSH agent.
            max_size: the most bytes of one download.
            cancelled: asked now and then whether to give up.
            sleep: waits for some seconds before another try.
        """
        self._reach = Reach(frozenset(insecure))
        self._max_size = max_size
        self._cancelled = cancelled
        self._sleep = sleep
        self._made: Http | None = None
        self._git = Git(self._reach, agent_for=frozenset(agent_for), cancelled=cancelled)

    def close(self) -> None:
        """Close the connections."""
        if self._made is not None:
            self._made.close()

    def download(
        self,
        url: str,
        file: BinaryIO,
        *,
        etag: str = "",
        modified: str = "",
        checksum: str = "",
        progress: Callable[[int, int | None], None] = lambda _done, _total: None,
    ) -> "Downloaded | None":
        """See `Http.download`."""
        return self._http().download(
            url, file, etag=etag, modified=modified, checksum=checksum, progress=progress
        )

    def commit(self, url: str, ref: str, *, pinned: bool) -> str:
        """See `Git.commit`."""
        return self._git.commit(url, ref, pinned=pinned)

    def checkout(
        self,
        url: str,
        ref: str,
        commit: str,
        folder: Path,
        *,
        submodules: bool,
        keep_git_dir: bool,
    ) -> int:
        """See `Git.checkout`."""
        return self._git.checkout(
            url, ref, commit, folder, submodules=submodules, keep_git_dir=keep_git_dir
        )

    def _http(self) -> "Http":
        if self._made is None:
            from imagekit.fetch.http import Http  # noqa: PLC0415 - httpx takes 100 ms

            self._made = Http(
                self._reach,
                max_size=self._max_size,
                cancelled=self._cancelled,
                sleep=self._sleep,
            )
        return self._made


__all__ = ["MAX_SIZE", "Downloader"]

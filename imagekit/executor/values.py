"""What the steps of a build hand to each other."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from attrs import frozen

from imagekit.layer.tree import Entry, Tree
from imagekit.oci.descriptor import Descriptor
from imagekit.oci.digest import Digest


@frozen(kw_only=True)
class Layer:
    """A layer that is in the store, or can be fetched to it.

    Attributes:
        descriptor: of its blob.
        content: digest of its changes without file times; it stands for the layer in the keys of
            what is built on it. For the layer of a base image, the diff ID.
        origin: where the blob can be fetched; empty for what was built here.
        created: seconds since the epoch; 0 for the layer of a base image.
        codec: how it was compressed here; empty for what came from elsewhere.
    """

    diff_id: Digest
    descriptor: Descriptor
    content: Digest
    origin: str = ""
    created: int = 0
    codec: str = ""


@frozen(kw_only=True)
class Outcome:
    """What a step gave: the layers of a root file system, lowest first, or a local context."""

    layers: tuple[Layer, ...] = ()
    context: str | None = None


class Fetcher(Protocol):
    """Whoever knows where base images come from."""

    def open(self, origin: str, descriptor: Descriptor) -> BinaryIO:
        """The bytes of a blob; the caller checks them and closes the stream.

        Raises:
            RegistryError: the registry does not give it.
            StoreError: the layout does not have it.
        """


class Downloaded(Protocol):
    """What is known of a file that was downloaded."""

    @property
    def digest(self) -> Digest:
        """SHA-256 of it."""

    @property
    def size(self) -> int:
        """In bytes."""

    @property
    def mtime(self) -> int:
        """When it was last changed, in seconds since the epoch; 0 where nobody says."""

    @property
    def etag(self) -> str:
        """What the server calls this version; empty where it does not say."""

    @property
    def modified(self) -> str:
        """When it was last changed, in the server's words."""


class Downloads(Protocol):
    """Whoever can fetch from URLs and repositories (`fetch.Downloader`).

    All methods raise FetchError for what cannot be had, and CancelledError.
    """

    def download(
        self,
        url: str,
        file: BinaryIO,
        *,
        etag: str = "",
        modified: str = "",
        checksum: str = "",
        progress: Callable[[int, int | None], None] = ...,
    ) -> Downloaded | None:
        """Download a file; None if the version of that `etag` or time is still the latest."""

    def commit(self, url: str, ref: str, *, pinned: bool) -> str:
        """The full id of the commit that a ref of a repository is; an empty ref is its default."""

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
        """Put the files of a commit into `folder / "tree"`; the time of the commit comes back."""


class Context(Protocol):
    """A build context: a tree, and the content of its files.

    One object serves one build; methods may be called from any thread.
    """

    @property
    def source(self) -> str:
        """What the `where` of its files says."""

    def scan(self) -> Tree:
        """What is in it; files may lack their digest."""

    def digest(self, entries: Sequence[Entry]) -> list[Entry]:
        """The same entries of its tree with the digest of every file."""

    def read_small(self, entry: Entry) -> bytes | None:
        """The whole content of a small file, None for a larger one."""

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """The content of a file in pieces."""

    def close(self) -> None:
        """Let go of what it holds; a second call does nothing."""


def content_id(layers: Iterable[Layer]) -> Digest:
    """What a stack of layers is, file times aside."""
    return Digest.of("\n".join(["layers", *(str(layer.content) for layer in layers)]).encode())


SecretReader = Callable[[str], bytes | None]
"""The value of a secret by its id, or None if the caller gave none."""

"""Blobs in a folder: `blobs/<algorithm>/<hex>`, as image layouts have them.

A blob is written to a private file beside the others, hashed while it passes, synced, and renamed
into place; a name below `blobs` is never written in place (security spec S-1). The private file is
locked by its writer, so that what a dead process left can be told from what a live one is writing
(S-7).
"""

import contextlib
import errno
import fcntl
import io
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Literal

from imagekit.errors import DigestMismatchError, NotFoundError, StoreError
from imagekit.oci.descriptor import Descriptor
from imagekit.oci.digest import Digest, hasher
from imagekit.store.files import make_private, storing, sync_folder, try_lock
from imagekit.store.roles import check_bytes

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

CHUNK: Final = 1 << 20
SMALL: Final = 4 << 20
"""Blobs up to this size are read and checked whole (security spec S-5)."""

_FICLONE: Final = 0x40049409
_NO_RANGE_COPY: Final = (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)

Verify = Literal["small", "always"]


class BlobFile(io.FileIO):
    """An open blob of a folder; its bytes had its digest when they were stored."""


class _IngestFile(io.FileIO):
    """The raw file of an ingest, whose failures are the store's."""

    def write(self, data: "ReadableBuffer", /) -> int:
        with storing("cannot write to the store"):
            return super().write(data)


class Ingest:
    """A blob that is being written; made by `BlobFolder.ingest`.

    Attributes:
        file: takes the bytes; hashing them is for who writes them.
    """

    def __init__(self, folder: "BlobFolder", path: Path, file: BinaryIO) -> None:
        self.file = file
        self._folder = folder
        self._path = path

    def commit(self, digest: Digest, size: int) -> None:
        """Make what was written a blob; durable when this returns.

        Args:
            digest: of the bytes, as whoever wrote them has computed it.
            size: how many they were.

        Raises:
            StoreError: another number of bytes arrived, or they cannot be written.
        """
        with storing(f"cannot store {digest}"):
            self.file.flush()
            fd = self.file.fileno()
            written = os.fstat(fd).st_size
            if written != size:
                raise StoreError(f"{digest}: want {size} bytes, wrote {written}", code="size")
            if self._folder.private:
                os.fchmod(fd, 0o400)
            os.fsync(fd)
            path = self._folder.path(digest)
            if not path.parent.is_dir():
                self._folder.make_folder(path.parent)
            self._path.rename(path)
            sync_folder(path.parent)


class BlobFolder:
    """Blobs below one folder, shared by any number of processes.

    Attributes:
        root: the folder that has `blobs`.
        private: whether only the owner may read it; else the umask decides, as for any file.
    """

    def __init__(
        self,
        root: Path,
        *,
        private: bool,
        verify: Verify = "small",
        quarantine: Path | None = None,
    ) -> None:
        self.root = root
        self.private = private
        self._verify = verify
        self._quarantine = quarantine
        self._ingest = root / ("ingest" if private else ".ingest")
        self._verified: set[Digest] = set()

    def path(self, digest: Digest) -> Path:
        """Where a blob is or would be; a `Digest` is checked by its type (CVE-2024-3727)."""
        return self.root / "blobs" / digest.algorithm / digest.hex

    def make_folder(self, path: Path) -> None:
        """Make a folder for blobs, and those above it up to the root."""
        if path != self.root and not path.parent.is_dir():
            self.make_folder(path.parent)
        if self.private:
            make_private(path)
        else:
            with contextlib.suppress(
                FileExistsError
            ):  # `exist_ok` looks again, and may not find it
                path.mkdir()

    def size(self, digest: Digest) -> int | None:
        """How many bytes a blob has; None if it is not there."""
        with storing("cannot look for a blob"):
            try:
                return self.path(digest).stat().st_size
            except FileNotFoundError:
                return None

    @contextlib.contextmanager
    def ingest(self) -> Iterator[Ingest]:
        """A private file for a blob whose digest is not known yet; gone unless committed."""
        with storing("cannot write to the store"):
            path, fd = self._private_file()
        try:
            with io.BufferedWriter(_IngestFile(fd, "wb"), CHUNK) as file:
                try:
                    yield Ingest(self, path, file)
                except BaseException:
                    with contextlib.suppress(StoreError):  # a full disk was reported before
                        file.close()
                    raise
        finally:
            path.unlink(missing_ok=True)

    def _private_file(self) -> tuple[Path, int]:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        while True:
            path = self._ingest / secrets.token_hex(8)
            try:
                fd = os.open(path, flags, 0o600 if self.private else 0o666)
            except FileNotFoundError:
                self.make_folder(self._ingest)
                continue
            # Between open and lock another process may have taken it for a dead one's.
            if try_lock(fd) and os.fstat(fd).st_nlink:
                return path, fd
            os.close(fd)

    def remove_leftovers(self) -> int:
        """Remove what dead writers left; how many files that were."""
        removed = 0
        try:
            paths = list(self._ingest.iterdir())
        except FileNotFoundError:
            return 0
        for path in paths:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue
            try:
                if try_lock(fd):
                    path.unlink(missing_ok=True)
                    removed += 1
            finally:
                os.close(fd)
        return removed

    def remove_empty_ingest(self) -> None:
        """Remove the folder of private files unless somebody is writing: for layouts."""
        with contextlib.suppress(OSError):  # not empty, or another writer was faster
            self._ingest.rmdir()

    def write(self, descriptor: Descriptor, open_source: Callable[[], BinaryIO]) -> None:
        """Store the bytes of a descriptor, checked while they pass.

        Raises:
            DigestMismatchError: they are others; nothing is stored.
            StoreError: they cannot be written.
        """
        if self.size(descriptor.digest) == descriptor.size:
            return
        with open_source() as source, self.ingest() as ingest:
            with storing(f"cannot store {descriptor.digest}"):
                if not _clone(source, ingest.file, descriptor):
                    _copy_checked(source, ingest.file, descriptor)
            ingest.commit(descriptor.digest, descriptor.size)

    def write_bytes(self, descriptor: Descriptor, data: bytes) -> None:
        """Store a small blob that is at hand; its digest is checked."""
        check_bytes(descriptor, data)
        if self.size(descriptor.digest) == descriptor.size:
            return
        with self.ingest() as ingest:
            with storing(f"cannot store {descriptor.digest}"):
                ingest.file.write(data)
            ingest.commit(descriptor.digest, descriptor.size)

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """A blob to be read and closed; checked as security spec S-5 asks.

        Raises:
            NotFoundError: it is not there.
            DigestMismatchError: it was damaged; it is moved out of the way, not served.
        """
        digest = descriptor.digest
        with storing(f"cannot open {digest}"):
            try:
                file = BlobFile(self.path(digest))
            except FileNotFoundError as exc:
                raise NotFoundError(f"no such blob: {digest}", descriptor=descriptor) from exc
        try:
            size = os.fstat(file.fileno()).st_size
            if size != descriptor.size:
                self._reject(descriptor, f"{size} bytes")
            if size <= SMALL or (self._verify == "always" and digest not in self._verified):
                return self._checked(descriptor, file)
        except BaseException:
            file.close()
            raise
        return file

    def _checked(self, descriptor: Descriptor, file: BlobFile) -> BinaryIO:
        digest = descriptor.digest
        hashed = hasher(digest.algorithm)
        small = b""
        with storing(f"cannot read {digest}"):
            if descriptor.size <= SMALL:
                small = file.read(descriptor.size)
                hashed.update(small)
            else:
                while chunk := file.read(CHUNK):
                    hashed.update(chunk)
                file.seek(0)
        if hashed.hexdigest() != digest.hex:
            self._reject(descriptor, f"{digest.algorithm}:{hashed.hexdigest()}")
        self._verified.add(digest)
        if descriptor.size > SMALL:
            return file
        file.close()
        return io.BytesIO(small)

    def _reject(self, descriptor: Descriptor, found: str) -> None:
        path = self.path(descriptor.digest)
        if self._quarantine is not None:
            with (
                storing("cannot move a damaged blob away"),
                contextlib.suppress(FileNotFoundError),
            ):
                path.rename(self._quarantine / f"{path.name}.{secrets.token_hex(4)}")
        raise DigestMismatchError(
            f"the stored blob is damaged: want {descriptor.digest} of {descriptor.size} bytes, "
            f"found {found}",
            descriptor=descriptor,
            hint="fetch or build it again",
        )

    def verify(self, digest: Digest) -> bool:
        """Whether the bytes of a blob are those of its name; reads them all."""
        hashed = hasher(digest.algorithm)
        with storing(f"cannot read {digest}"), self.path(digest).open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                hashed.update(chunk)
        return hashed.hexdigest() == digest.hex

    def digests(self) -> Iterator[Digest]:
        """Every blob that is there, in no order."""
        for algorithm in ("sha256", "sha512"):
            folder = self.root / "blobs" / algorithm
            length = hasher(algorithm).digest_size * 2
            if folder.is_dir():
                names = (path.name for path in folder.iterdir())
                yield from (Digest(algorithm, name) for name in names if len(name) == length)


def _clone(source: BinaryIO, target: BinaryIO, descriptor: Descriptor) -> bool:
    """Have the kernel copy a stored blob: it shares the extents, or the bytes stay below.

    Never a hard link: the layout is the user's to change, and would change the store with it.
    """
    if not isinstance(source, BlobFile) or not descriptor.size:
        return False
    try:
        fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except OSError:  # another file system, or one without shared extents
        return _copy_in_kernel(source.fileno(), target.fileno(), descriptor.size)
    return True


def _copy_in_kernel(source: int, target: int, size: int) -> bool:
    """Copy a file of a known size; False if the kernel cannot, and then nothing was written."""
    copied = 0
    while copied < size:
        try:
            count = os.copy_file_range(source, target, size - copied, copied, copied)
        except OSError as exc:
            if copied or exc.errno not in _NO_RANGE_COPY:
                raise
            return False
        if not count:
            raise StoreError(f"a blob of {size} bytes ends after {copied}", code="size")
        copied += count
    return True


def _copy_checked(source: BinaryIO, target: BinaryIO, descriptor: Descriptor) -> None:
    """Copy at most one byte more than there should be (security spec N-6)."""
    hashed = hasher(descriptor.digest.algorithm)
    left = descriptor.size + 1
    while left and (chunk := source.read(min(CHUNK, left))):
        hashed.update(chunk)
        target.write(chunk)
        left -= len(chunk)
    got = f"{descriptor.digest.algorithm}:{hashed.hexdigest()}"
    if left != 1 or got != str(descriptor.digest):
        size = f"{descriptor.size + 1 - left} bytes" if left else f"over {descriptor.size} bytes"
        raise DigestMismatchError(
            f"want {descriptor.digest} of {descriptor.size} bytes, got {got} of {size}",
            descriptor=descriptor,
        )

"""OCI image layouts: a folder with blobs and an index of names (image-spec image-layout.md).

Blobs are copied into a layout, or share extents with those of the store where the file system can
do that; never hard links, since a layout is its owner's to change and the store's files are not.
The index is replaced in one step, under a lock on the folder, so that several writers may add to
one layout.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

from attrs import evolve

from imagekit.errors import InvalidDocumentError, NotFoundError, StoreError
from imagekit.oci.descriptor import Descriptor
from imagekit.oci.document import MAX_DOCUMENT, parse_object
from imagekit.oci.manifest import Index
from imagekit.store.blobs import BlobFolder
from imagekit.store.files import storing, write_durably

REF_NAME: Final = "org.opencontainers.image.ref.name"
IMAGE_NAME: Final = "io.containerd.image.name"
MARKER: Final = b'{"imageLayoutVersion":"1.0.0"}'
VERSION: Final = "1.0.0"


class Layout:
    """An image layout in a folder: Source, Target and Tagger of `store.roles`."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Open a layout.

        Args:
            path: its folder.
            create: make it if it is not there.

        Raises:
            NotFoundError: there is none, and it is not to be made.
            StoreError: it cannot be made, or is of another version.
        """
        self.path = path
        self._blobs = BlobFolder(path, private=False)
        with storing(f"cannot open the layout {path}"):
            try:
                marker = (path / "oci-layout").read_bytes()
            except (FileNotFoundError, NotADirectoryError) as exc:
                if not create:
                    raise NotFoundError(
                        f"there is no image layout at {path}",
                        hint="an image layout is a folder with a file oci-layout in it",
                    ) from exc
                self._create()
                return
        version = parse_object(marker, what="oci-layout").get("imageLayoutVersion")
        if version != VERSION:
            raise StoreError(f"{path} is an image layout of version {version}, not {VERSION}")

    def _create(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        with self._locked():
            if not (self.path / "index.json").exists():
                self._write(Index(manifests=()))
        write_durably(self.path / "oci-layout", MARKER, private=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is kept open."""

    def exists(self, descriptor: Descriptor) -> bool:
        """See `Target`."""
        return self._blobs.size(descriptor.digest) == descriptor.size

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """See `Source`; what is up to 4 MiB is checked at once.

        Raises:
            NotFoundError: it is not there.
            DigestMismatchError: it is not what its name says.
        """
        return self._blobs.open(descriptor)

    def write(self, descriptor: Descriptor, open_source: Callable[[], BinaryIO]) -> None:
        """See `Target`."""
        self._blobs.write(descriptor, open_source)
        self._blobs.remove_empty_ingest()

    def entries(self) -> tuple[Descriptor, ...]:
        """What the index names, in its order.

        Raises:
            InvalidDocumentError: the index is malformed.
        """
        return self._read().manifests

    def tags(self) -> dict[str, Descriptor]:
        """Names and what they stand for; an image may have a full name and a tag alone."""
        found = {}
        for entry in self.entries():
            for key in (REF_NAME, IMAGE_NAME):
                if key in entry.annotations:
                    found[entry.annotations[key]] = without_names(entry)
        return found

    def resolve(self, name: str) -> Descriptor:
        """See `Source`; an empty name is the only image there is.

        Raises:
            NotFoundError: no such name; or an empty one, and not exactly one image.
        """
        entries = self.entries()
        found = [e for e in entries if not name or name in (*names_of(e), str(e.digest))]
        if not name and len({entry.digest for entry in found}) > 1:
            names = ", ".join(sorted({n for e in found for n in names_of(e)}))
            raise NotFoundError(f"{self.path} has several images", hint=f"name one: {names}")
        if not found:
            names = ", ".join(sorted({n for e in entries for n in names_of(e)}))
            raise NotFoundError(
                f"{self.path} has no image {name}".rstrip(),
                hint=f"it has: {names}" if names else "",
            )
        return without_names(found[-1])

    def tag(self, descriptor: Descriptor, name: str) -> None:
        """See `Tagger`: a tag, or a full reference, whose tag is then a name too.

        Raises:
            NotFoundError: the blob is not there.
            StoreError: the index cannot be written.
        """
        if not self.exists(descriptor):
            raise NotFoundError(f"no such blob: {descriptor.digest}", descriptor=descriptor)
        named = with_name(descriptor, name)
        with self._locked():
            index = self._read()
            kept = tuple(
                entry
                for entry in index.manifests
                if names_of(entry) and names_of(entry) != names_of(named)
            )
            self._write(evolve(index, manifests=(*kept, named)))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with storing(f"cannot lock the layout {self.path}"):
            fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with storing(f"cannot lock the layout {self.path}"):
                fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _read(self) -> Index:
        with storing(f"cannot read the index of {self.path}"):
            try:
                with (self.path / "index.json").open("rb") as file:
                    raw = file.read(MAX_DOCUMENT + 1)
            except FileNotFoundError as exc:
                raise NotFoundError(f"{self.path} has no index.json") from exc
        return read_index(raw, str(self.path))

    def _write(self, index: Index) -> None:
        with storing(f"cannot write the index of {self.path}"):
            write_durably(self.path / "index.json", index.encode(), private=False)


def read_index(raw: bytes, where: str) -> Index:
    """The index of a layout; unlike one in a registry it may have any number of entries.

    Raises:
        InvalidDocumentError: it is malformed.
    """
    value = parse_object(raw, what=f"index.json of {where}")
    manifests = value.get("manifests")
    annotations = value.get("annotations") or {}
    if value.get("schemaVersion") != 2 or not isinstance(manifests, list):
        raise InvalidDocumentError(f"{where}: index.json is no image index")
    if not isinstance(annotations, dict):
        raise InvalidDocumentError(f"{where}: annotations of index.json must be an object")
    return Index(
        manifests=tuple(Descriptor.from_json(d, where=f"{where}: index.json") for d in manifests),
        annotations=annotations,
    )


def with_name(descriptor: Descriptor, name: str) -> Descriptor:
    """The entry of an index that gives a descriptor a name, as BuildKit and containerd do.

    A full reference stays whole under containerd's key, and its tag alone is the specification's.
    """
    annotations = dict(without_names(descriptor).annotations)
    if "/" in name:
        annotations[IMAGE_NAME] = name
        bare = name.partition("@")[0].rpartition("/")[2]
        annotations[REF_NAME] = bare.partition(":")[2] or "latest"
    else:
        annotations[REF_NAME] = name
    return evolve(descriptor, annotations=annotations)


def without_names(descriptor: Descriptor) -> Descriptor:
    """A descriptor without what `with_name` added."""
    kept = {k: v for k, v in descriptor.annotations.items() if k not in (REF_NAME, IMAGE_NAME)}
    return evolve(descriptor, annotations=kept)


def names_of(descriptor: Descriptor) -> tuple[str, ...]:
    """The full name and the tag that an entry of an index has."""
    annotations: Mapping[str, Any] = descriptor.annotations
    return tuple(annotations[key] for key in (IMAGE_NAME, REF_NAME) if key in annotations)

"""From layers to images, and from images to the places that were asked for.

Part of the doors: layers come from the executor, documents are the packer's, places are the
store's and the registry's.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from attrs import frozen

from imagekit.bases import STORE, Bases
from imagekit.errors import (
    DigestMismatchError,
    NotFoundError,
    OutputError,
    StoreError,
    UsageError,
)
from imagekit.events import Observer
from imagekit.executor.layers import Layers
from imagekit.executor.values import Layer
from imagekit.layer.compress import Codec, codec
from imagekit.oci.descriptor import Descriptor
from imagekit.oci.digest import Digest
from imagekit.oci.document import Document
from imagekit.oci.reference import Reference
from imagekit.packer.annotations import of_level
from imagekit.packer.finish import finish
from imagekit.packer.image import Image, image
from imagekit.packer.index import index
from imagekit.packer.spec import Output
from imagekit.plan import Plan
from imagekit.store.database import CacheRecord

if TYPE_CHECKING:
    from imagekit.store.layout import Layout

Writer = Callable[[BinaryIO], object]
"""Writes a result to an open file."""


@frozen(kw_only=True)
class Packed:
    """Images that are in the store but for what layers of their bases were never fetched.

    Attributes:
        root: the manifest, or the index of several.
        images: in the order of the plans.
        stacks: their layers, lowest first.
    """

    root: Descriptor
    images: tuple[Image, ...]
    stacks: tuple[tuple[Layer, ...], ...]


class Packer:
    """Packs what was built, in the forms that outputs want."""

    def __init__(
        self,
        layers: Layers,
        plans: Sequence[Plan],
        stacks: Sequence[tuple[Layer, ...]],
        *,
        annotations: Mapping[str, str],
    ) -> None:
        self._layers = layers
        self._plans = plans
        self._stacks = stacks
        self._annotations = annotations
        self._packed: dict[tuple[object, ...], Packed] = {}

    def pack(self, output: Output) -> Packed:
        """The images as an output wants them; documents are stored, equal forms made once."""
        wanted = self._layers.codec
        if output.compression is not None:
            reproducible = any(plan.epoch is not None for plan in self._plans)
            wanted = codec(output.compression, level=output.level, reproducible=reproducible)
        docker = not output.oci_media_types
        annotations = {**self._annotations, **output.annotations}
        form = (wanted, output.force_compression, docker, *sorted(annotations.items()))
        if form not in self._packed:
            stacks = self._recoded(wanted, force=output.force_compression)
            self._packed[form] = self._pack(stacks, annotations, docker=docker)
        return self._packed[form]

    def _recoded(self, wanted: Codec, *, force: bool) -> tuple[tuple[Layer, ...], ...]:
        return tuple(
            tuple(
                self._layers.recode(layer, wanted, epoch=plan.epoch if layer.created else None)
                if layer.created or force
                else layer
                for layer in stack
            )
            for plan, stack in zip(self._plans, self._stacks, strict=True)
        )

    def _pack(
        self,
        stacks: tuple[tuple[Layer, ...], ...],
        annotations: Mapping[str, str],
        *,
        docker: bool,
    ) -> Packed:
        images = tuple(
            self._image(plan, stack, of_level("manifest", annotations), docker=docker)
            for plan, stack in zip(self._plans, stacks, strict=True)
        )
        if len(images) == 1:
            return Packed(root=images[0].manifest.descriptor, images=images, stacks=stacks)
        document = index(images, annotations=of_level("index", annotations), docker=docker)
        self._store(document)
        return Packed(root=document.descriptor, images=images, stacks=stacks)

    def _image(
        self,
        plan: Plan,
        stack: Sequence[Layer],
        annotations: Mapping[str, str],
        *,
        docker: bool,
    ) -> Image:
        times = [layer.created for layer in stack if layer.created]
        config = finish(
            plan.config,
            base_history=plan.base_history,
            diff_ids=[layer.diff_id for layer in stack],
            layer_times=times,
            otherwise=0 if times or plan.epoch is not None else self._first_built(plan),
            epoch=plan.epoch,
        )
        made = image(
            config,
            [layer.descriptor for layer in stack],
            annotations=annotations,
            docker=docker,
        )
        self._store(made.config)
        self._store(made.manifest)
        return made

    def _first_built(self, plan: Plan) -> int:
        """When an image without a new layer was built first: no layer could tell."""
        database = self._layers.store.database
        key = str(Digest.of(b"image " + plan.config.encode()))
        found = database.records([key]).get(key)
        if found is not None:
            return found.created
        now = int(time.time())
        database.put_record(CacheRecord(key=key, scope="image", result={}, created=now))
        return now

    def _store(self, document: Document[Any]) -> None:
        self._layers.store.write_bytes(document.descriptor, document.raw)


class Everything:
    """All blobs of packed images as a `Source`; layers of bases are fetched when opened."""

    def __init__(self, layers: Layers, packed: Packed) -> None:
        self._layers = layers
        self._by_digest = {
            layer.descriptor.digest: layer for stack in packed.stacks for layer in stack
        }

    def resolve(self, name: str) -> Descriptor:
        """See `Source`."""
        raise NotFoundError(f"no such tag: {name}")

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """See `Source`."""
        layer = self._by_digest.get(descriptor.digest)
        if layer is not None:
            self._layers.ensure_blob(layer, why="the result holds it")
        return self._layers.store.open(descriptor)


class Delivery:
    """Puts packed images where they were asked for."""

    def __init__(
        self, layers: Layers, bases: Bases, *, tags: Sequence[str], observer: Observer
    ) -> None:
        self._layers = layers
        self._bases = bases
        self._tags = tuple(tags)
        self._observer = observer

    def deliver(self, output: Output, packed: Packed) -> None:
        """Carry out one output.

        Raises:
            OutputError: the place cannot be written to.
            RegistryError: the registry does not take it.
        """
        names = tuple(str(Reference.parse(n).with_default_tag()) for n in output.names)
        names = (*self._tags, *names)
        match output.type:
            case "oci":
                self._oci(output, packed, names)
            case "docker":
                self._docker(output, packed, names)
            case "local" | "tar":
                from imagekit.rootfs import export  # noqa: PLC0415 - few outputs need it

                export(output, packed, self._layers)
            case "image":
                if names and not output.push:
                    self.fetch_all(packed)
                for name in names:
                    self._layers.store.tag(packed.root, name)
                if output.push:
                    self._push(output, packed, names)
            case "cacheonly":
                pass

    def fetch_all(self, packed: Packed) -> None:
        """Bring what was never read of the bases here: a name in the store is for whole images."""
        for layer in {layer.diff_id: layer for stack in packed.stacks for layer in stack}.values():
            self._layers.ensure_blob(layer, why="the store names the image")

    def _oci(self, output: Output, packed: Packed, names: Sequence[str]) -> None:
        from imagekit.store.archive import write_oci_archive  # noqa: PLC0415
        from imagekit.store.copy import copy  # noqa: PLC0415
        from imagekit.store.layout import Layout  # noqa: PLC0415

        source = Everything(self._layers, packed)
        if output.tar:
            to_file(
                output.dest,
                lambda stream: write_oci_archive(stream, source, packed.root, names=names),
            )
            return
        with _new_folder(Path(output.dest)) as folder:
            target = _Written(Layout(folder, create=True), output.dest)
            copy(source, packed.root, target, observer=self._observer)
            for name in names or ("latest",):
                target.tag(packed.root, name)

    def _docker(self, output: Output, packed: Packed, names: Sequence[str]) -> None:
        from imagekit.store.archive import write_docker_archive  # noqa: PLC0415

        if len(packed.images) > 1:
            raise UsageError(
                "a docker archive holds one platform",
                hint="build one --platform, or use type=oci",
            )
        source = Everything(self._layers, packed)
        to_file(
            output.dest,
            lambda stream: write_docker_archive(stream, source, packed.root, names=names),
        )

    def _push(self, output: Output, packed: Packed, names: Sequence[str]) -> None:
        from imagekit.store.copy import copy  # noqa: PLC0415

        source = Everything(self._layers, packed)
        for name in names:
            reference = Reference.parse(name)
            target = self._bases.repository(
                reference,
                insecure=output.insecure,
                mount_from=self._mountable(packed, reference),
            )
            tag = None if output.by_digest else reference.tag
            copy(source, packed.root, target, tag=tag, observer=self._observer)

    def _mountable(self, packed: Packed, reference: Reference) -> tuple[str, ...]:
        """Repositories of the same registry that layers of the bases came from."""
        found = []
        for layer in (layer for stack in packed.stacks for layer in stack):
            if layer.origin and "://" not in layer.origin and not layer.origin.startswith(STORE):
                origin = Reference.parse(layer.origin)
                if origin.host == reference.host:
                    found.append(origin.repository)
        return tuple(dict.fromkeys(found))


class _Written:
    """A layout that is an output: what cannot be written there is no fault of the store."""

    def __init__(self, layout: "Layout", dest: str) -> None:
        self._layout = layout
        self._dest = dest

    def exists(self, descriptor: Descriptor) -> bool:
        """See `Target`."""
        return self._layout.exists(descriptor)

    def write(self, descriptor: Descriptor, open_source: Callable[[], BinaryIO]) -> None:
        """See `Target`."""
        with open_source() as source:
            try:
                self._layout.write(descriptor, lambda: source)
            except DigestMismatchError:
                raise
            except StoreError as exc:
                raise _unwritable(self._dest, exc) from exc

    def tag(self, descriptor: Descriptor, name: str) -> None:
        """See `Tagger`."""
        try:
            self._layout.tag(descriptor, name)
        except StoreError as exc:
            raise _unwritable(self._dest, exc) from exc


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """The folder to write to: that of the path, or a new one that gets its name when it is whole.

    Raises:
        OutputError: it cannot be made.
    """
    if path.exists():
        yield path
        return
    fresh = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        fresh.mkdir(parents=True)
        yield fresh
        fresh.rename(path)
    except OSError as exc:
        raise _unwritable(str(path), exc) from exc
    finally:
        if fresh.exists():
            from imagekit.disk.paths import remove_tree  # noqa: PLC0415 - only after a failure

            remove_tree(fresh)


def _unwritable(dest: str, exc: OSError | StoreError) -> OutputError:
    why = exc.message if isinstance(exc, StoreError) else exc.strerror
    cause = exc.__cause__
    if isinstance(exc, StoreError) and isinstance(cause, OSError):
        why = cause.strerror
    return OutputError(
        f"cannot write {dest}: {why}", hint="is there room, and may you write there?"
    )


def to_file(dest: str, write: Writer) -> None:
    """Write a result to a file, whole or not at all, or to standard output for `-`.

    Raises:
        OutputError: it cannot be written.
        UsageError: standard output is a terminal.
    """
    if dest != "-":
        write_atomically(Path(dest), write)
        return
    if sys.stdout.isatty():
        raise UsageError("the result is not written to a terminal", hint="add dest=FILE to -o")
    write(sys.stdout.buffer)
    sys.stdout.buffer.flush()


def write_atomically(path: Path, write: Writer) -> None:
    """Write a file whole or not at all; what is no file, such as a device, is written to.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        if _is_special(path):
            with path.open("wb") as stream:
                write(stream)
        else:
            _replace(Path(os.path.realpath(path)), write)
    except OSError as exc:
        raise OutputError(
            f"cannot write {path}: {exc.strerror}", hint="is there room, and may you write there?"
        ) from exc


def _is_special(path: Path) -> bool:
    """Whether a file must not take the place of this: a device, a pipe, /dev/stdout."""
    if path.is_symlink() and path.parts[:2] in (("/", "dev"), ("/", "proc")):
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


def _replace(path: Path, write: Writer) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("xb") as stream:
            write(stream)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):  # the first error says more
            temporary.unlink(missing_ok=True)
        raise

"""Outputs `type=local` and `type=tar`: the root file system of the result instead of an image.

Part of the doors. The file system is the tree that the layers make; each file is read from the
layer that holds it, so nothing is unpacked twice.
"""

import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from imagekit.delivery import Packed, to_file
from imagekit.disk.extract import Form, extract
from imagekit.disk.paths import remove_tree
from imagekit.disk.xattrs import CAPABILITY
from imagekit.errors import ImagekitError, OutputError
from imagekit.executor.layers import LayerContents, Layers
from imagekit.executor.snapshots import in_stream
from imagekit.executor.values import Layer
from imagekit.layer.changes import Changes
from imagekit.layer.tar import write_layer
from imagekit.layer.tree import FILE, IMPLIED, Entry
from imagekit.oci.digest import Digest, hasher
from imagekit.oci.platform import Platform
from imagekit.packer.spec import Output


def export(output: Output, packed: Packed, layers: Layers) -> None:
    """Write the root file systems of images to a folder or a tar.

    With several platforms each has a folder of its own, `linux_amd64`, unless
    `platform-split=false`.

    Raises:
        OutputError: the place cannot be written to.
    """
    several = len(packed.images) > 1
    split = several if output.platform_split is None else output.platform_split
    parts = [
        (_folder_name(image.platform) if split else "", _everything(layers, stack))
        for image, stack in zip(packed.images, packed.stacks, strict=True)
    ]
    contents = LayerContents(layers)
    try:
        if output.type == "tar":
            entries = _joined(parts)
            to_file(output.dest, lambda stream: _write_tar(entries, contents, stream))
        else:
            for prefix, entries in parts:
                _write_folder(Path(output.dest), prefix, entries, contents)
    finally:
        contents.close()


def _folder_name(platform: Platform) -> str:
    return str(platform.normalised()).replace("/", "_")


def _everything(layers: Layers, stack: Sequence[Layer]) -> dict[str, Entry]:
    return dict(layers.tree(stack).walk())


def _joined(parts: Sequence[tuple[str, dict[str, Entry]]]) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for prefix, entries in parts:
        if prefix:
            found[prefix] = IMPLIED
        found.update({f"{prefix}/{p}" if prefix else p: e for p, e in entries.items()})
    return found


class _Plain:
    """A sink that compresses nothing."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hash = hasher()

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        self._stream.write(data)

    def finish(self) -> Digest:
        return Digest("sha256", self._hash.hexdigest())


def _write_tar(entries: dict[str, Entry], contents: LayerContents, stream: BinaryIO) -> None:
    write_layer(Changes(entries=entries), contents, _Plain(stream))


def _write_folder(
    dest: Path, prefix: str, entries: dict[str, Entry], contents: LayerContents
) -> None:
    """Write files into a folder, which is new as a whole or gets them one by one."""
    target = dest / prefix
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            _extract(entries, contents, target)
            return
        fresh = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
        fresh.mkdir()
        try:
            _extract(entries, contents, fresh)
            fresh.rename(target)
        except BaseException:
            remove_tree(fresh)
            raise
    except OSError as exc:
        raise OutputError(
            f"cannot write {target}: {exc.strerror}",
            hint="is there room, and may you write there?",
        ) from exc
    except ImagekitError as exc:
        raise OutputError(f"cannot write {target}: {exc.message}", hint=exc.hint) from exc


def _extract(entries: dict[str, Entry], contents: LayerContents, dest: Path) -> None:
    """Lay files out as the caller's own: no devices, and nobody's rights become the caller's."""
    mine = {path: _mine(entry) for path, entry in entries.items() if path}
    placed, stream = in_stream(mine, contents)
    extract(Changes(entries=placed), stream, dest, Form(overlay=False, devices=False))


def _mine(entry: Entry) -> Entry:
    owner = os.geteuid(), os.getegid()
    mode = entry.mode
    if entry.kind == FILE and (entry.uid, entry.gid) != owner:
        mode &= ~(stat.S_ISUID | stat.S_ISGID)  # as chown does
    xattrs = tuple((name, value) for name, value in entry.xattrs if name != CAPABILITY)
    return entry._replace(mode=mode, uid=owner[0], gid=owner[1], xattrs=xattrs)

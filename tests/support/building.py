"""Builds through the API in a few words: a context and a store, and what came of a build."""

import gzip
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import imagekit
from imagekit.builder import Result
from imagekit.events import Event, SandboxChosen, StepCached, StepLog, StepStarted
from tests.support.flatten import Tree, flatten
from tests.support.layout import Image, Layout

E = TypeVar("E")


class Built(NamedTuple):
    """The result of a build, what happened during it, and its layout."""

    result: Result
    events: list[Event]
    folder: Path

    def having(self, kind: type[E]) -> list[E]:
        """The events of a kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def ran(self) -> list[str]:
        """What the steps that were executed do, sorted: `RUN make`."""
        return sorted(label(e.step.name) for e in self.having(StepStarted))

    @property
    def cached(self) -> list[str]:
        """What the steps that were taken from the cache do, sorted."""
        return sorted(label(e.step.name) for e in self.having(StepCached))

    @property
    def log(self) -> str:
        """What commands wrote."""
        return log_of(self.events)

    @property
    def image(self) -> Image:
        return Layout(self.folder).image()

    @property
    def tree(self) -> Tree:
        return flatten(self.image)

    def text(self, path: str) -> str:
        """The content of a file, read from the top layer that has it."""
        return file_of(self.image, path).decode()

    @property
    def sandboxes(self) -> list[str]:
        return [event.backend for event in self.having(SandboxChosen)]


def label(name: str) -> str:
    """The name of a step without its place."""
    return name.partition("] ")[2] or name


def log_of(events: list[Event]) -> str:
    return b"".join(e.data for e in events if isinstance(e, StepLog)).decode(errors="replace")


def file_of(image: Image, path: str) -> bytes:
    for layer in reversed(list(image.layers())):
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            if path in tar.getnames():
                member = tar.extractfile(path)
                assert member is not None
                return member.read()
    raise AssertionError(f"no layer has {path}")


class Project:
    """A build context with a store beside it; `busybox` is the embedded base, if there is one."""

    def __init__(self, folder: Path, base: Path | None = None) -> None:
        self.folder = folder
        self.context = folder / "context"
        self.store = folder / "store"
        self.base = base
        self.context.mkdir(parents=True, exist_ok=True)
        self._builds = 0

    def write(self, files: Mapping[str, str | bytes]) -> "Project":
        """Put files into the context."""
        for name, content in files.items():
            path = self.context / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return self

    def dockerfile(self, text: str) -> "Project":
        return self.write({"Dockerfile": text})

    @property
    def contexts(self) -> dict[str, str]:
        return {} if self.base is None else {"busybox": f"oci-layout://{self.base}"}

    def build(self, text: str | None = None, **options: Any) -> Built:
        """Build to a new layout; `options` are those of `imagekit.build`."""
        if text is not None:
            self.dockerfile(text)
        self._builds += 1
        layout = self.folder / f"image-{self._builds}"
        events: list[Event] = []
        contexts = {**self.contexts, **options.pop("build_contexts", {})}
        given = {"output": f"oci:{layout}", "store": self.store, "observer": events.append}
        result = imagekit.build(self.context, build_contexts=contexts, **{**given, **options})
        return Built(result, events, layout)


def listing(folder: Path) -> dict[str, tuple[object, ...]]:
    """All below a folder: type, mode, size and content; without times."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = ""
        if stat.S_ISREG(status.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
        found[os.fspath(path.relative_to(folder))] = (oct(status.st_mode), size, content)
    return found


def places(folder: Path, needles: list[bytes]) -> list[str]:
    """Files that hold one of these, as they are or compressed with gzip."""
    found = []
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        data = path.read_bytes()
        texts = [data]
        if data[:2] == b"\x1f\x8b":
            texts.append(gzip.decompress(data))
        if any(needle in text for needle in needles for text in texts):
            found.append(str(path.relative_to(folder)))
    return found

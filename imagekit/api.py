"""Build, inspect, push, pull and prune: what `import imagekit` gives.

    import imagekit

    result = imagekit.build(".", tags=["registry.example/app:1.2"], output="oci:dist/app")
    print(result.digest, result.image.config.value.env)

Everything here blocks; `imagekit.aio` is the same off an event loop.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from attrs import frozen

from imagekit.builder import Builder, Request, Result
from imagekit.contexts import ContextSource
from imagekit.errors import NotFoundError, UsageError
from imagekit.events import Observer, ignore_events
from imagekit.oci.descriptor import Descriptor
from imagekit.oci.document import Document
from imagekit.oci.manifest import Index, Manifest
from imagekit.oci.platform import Platform
from imagekit.oci.reference import Reference
from imagekit.options import Secret
from imagekit.packer.spec import Output, parse_output
from imagekit.sandbox.base import Cancellation, Network, Ulimit
from imagekit.store.local import Store
from imagekit.store.roles import Source
from imagekit.store.select import read_document, select_image

if TYPE_CHECKING:
    from contextlib import ExitStack

PathLike = str | os.PathLike[str]
StoreLike = PathLike | Store | None


def build(  # noqa: PLR0913 - what a build can be asked for, all by name
    context: ContextSource = ".",
    *,
    dockerfile: PathLike | IO[bytes] | None = None,
    target: str | None = None,
    expand_from: bool = False,
    platforms: Sequence[str | Platform] = (),
    build_args: Mapping[str, str] | None = None,
    build_contexts: Mapping[str, PathLike] | None = None,
    tags: Sequence[str] = (),
    output: str | Output | Sequence[str | Output] = (),
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    secrets: Sequence[Secret] = (),
    no_cache: bool = False,
    no_cache_filter: Iterable[str] = (),
    pull: bool = False,
    network: Network = "default",
    add_hosts: Sequence[tuple[str, str]] = (),
    ulimits: Sequence[Ulimit] = (),
    shm_size: int | None = None,
    allow: Iterable[str] = (),
    sandbox: str = "auto",
    epoch: int | None = None,
    jobs: int | None = None,
    insecure_registries: Iterable[str] = (),
    insecure_sources: Iterable[str] = (),
    store: StoreLike = None,
    observer: Observer = ignore_events,
    cancellation: Cancellation | None = None,
) -> Result:
    """Build what a Dockerfile describes.

    Args:
        context: what COPY and ADD read: a folder, a tar archive, the URL of an archive or of a git
            repository (`https://HOST/REPO.git#REF:FOLDER`, `git@HOST:REPO`), or an open file to
            read an archive from, or a Dockerfile without a context.
        dockerfile: a path, or an open file; by default `Dockerfile` in the context. Of a context
            that is no folder, the path is in the context.
        target: name of the stage to build; the last by default.
        expand_from: expand variables in `COPY --from` and `RUN --mount from=`, which BuildKit
            does not: those of the global scope and the ARGs of the stage.
        platforms: such as `linux/arm64`; several give an index. By default this machine's.
        build_args: values for ARG.
        build_contexts: what names in FROM, COPY --from and RUN --mount from= stand for: a folder,
            a tar archive, the URL of an archive or a git repository,
            `oci-layout://FOLDER[:TAG|@DIGEST]`, or `docker-image://REFERENCE`.
        tags: names for the result, in the store and for outputs that have names.
        output: where to put it: what `-o` takes (`type=oci,dest=app.tar`), `oci:FOLDER`, or
            `Output`. Without one the result is only in the store.
        labels: set on the image.
        annotations: of the manifest, or with the prefix `index:` of the index.
        secrets: for RUN --mount=type=secret.
        no_cache: run every step.
        no_cache_filter: stages whose steps are all run.
        pull: ask the registry for bases even if the store has them under this name.
        network: of RUN: `default`, `none` or `host`.
        add_hosts: (name, address) pairs for /etc/hosts in RUN.
        ulimits: resource limits of RUN.
        shm_size: bytes of /dev/shm in RUN.
        allow: entitlements, `security.insecure` or `network.host`.
        sandbox: how RUN is isolated: `auto`, `root`, `rootless` or `single-uid`.
        epoch: SOURCE_DATE_EPOCH: file times are clamped to it, and the result is the same bytes
            every time. A build arg of that name does the same.
        jobs: steps at a time; one a core by default.
        insecure_registries: hosts that may be spoken to without TLS.
        insecure_sources: hosts that ADD and contexts may fetch from without TLS, and at addresses
            that are otherwise refused, such as link-local ones.
        store: where blobs and cache are kept; IMAGEKIT_STORE or the user's cache folder by
            default.
        observer: gets events while the build goes on.
        cancellation: ends the build when it is cancelled.

    Raises:
        DockerfileError: the Dockerfile is wrong, or a step cannot be carried out.
        StepFailedError: the command of a RUN failed.
        ImagekitError: a base, the context, the store or an output cannot be used; each kind has a
            class.
        UsageError: the arguments contradict each other or are malformed.
        CancelledError: `cancellation` was cancelled.
    """
    request = Request(
        context=context,
        dockerfile=dockerfile,
        target=target,
        expand_from=expand_from,
        platforms=tuple(p if isinstance(p, Platform) else Platform.parse(p) for p in platforms),
        build_args=dict(build_args or {}),
        build_contexts={k: os.fspath(v) for k, v in (build_contexts or {}).items()},
        tags=tuple(tags),
        outputs=_outputs(output),
        labels=dict(labels or {}),
        annotations=dict(annotations or {}),
        secrets=tuple(secrets),
        no_cache=no_cache,
        no_cache_filter=frozenset(s.lower() for s in no_cache_filter),
        pull=pull,
        network=network,
        add_hosts=tuple(add_hosts),
        ulimits=tuple(ulimits),
        shm_size=shm_size,
        allow=frozenset(allow),
        sandbox=sandbox,
        epoch=epoch,
        jobs=jobs,
        insecure_registries=frozenset(insecure_registries),
        insecure_sources=frozenset(insecure_sources),
    )
    with open_store(store) as opened:
        return Builder(opened, observer, cancellation or Cancellation()).build(request)


def _outputs(output: str | Output | Sequence[str | Output]) -> tuple[Output, ...]:
    given = [output] if isinstance(output, str | Output) else output
    return tuple(o if isinstance(o, Output) else parse_output(o) for o in given)


class _Borrowed:
    """A store that the caller opened and will close."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __enter__(self) -> Store:
        return self._store

    def __exit__(self, *_: object) -> None:
        return None


def open_store(store: StoreLike) -> Store | _Borrowed:
    """The store of that path, or the one that was opened already."""
    if isinstance(store, Store):
        return _Borrowed(store)
    return Store(None if store is None else Path(store))


@frozen(kw_only=True)
class Inspected:
    """A document of an image, and what it leads to.

    Attributes:
        name: as asked for.
        document: the manifest or index.
        configs: by platform, of the images it leads to.
    """

    name: str
    document: Document[Manifest | Index]
    configs: Mapping[str, Mapping[str, Any]]

    @property
    def raw(self) -> bytes:
        """The bytes of the manifest or index."""
        return self.document.raw

    def to_json(self) -> dict[str, Any]:
        """What `imagekit inspect` prints."""
        import json  # noqa: PLC0415 - not needed to build

        return {
            "name": self.name,
            "digest": str(self.document.descriptor.digest),
            "mediaType": self.document.descriptor.media_type,
            "size": len(self.document.raw),
            "document": json.loads(self.document.raw),
            "images": self.configs,
        }


def inspect(
    image: str,
    *,
    platform: str | None = None,
    store: StoreLike = None,
    insecure_registries: Iterable[str] = (),
) -> Inspected:
    """Look at an image without fetching its layers.

    Args:
        image: a tag or digest in the store, `oci-layout://FOLDER[:TAG]`, or `docker://REFERENCE`
            for one in a registry.
        platform: of an index, only this image; its manifest is then the document.
        store: as for `build`.
        insecure_registries: as for `build`.

    Raises:
        NotFoundError: there is no such image.
        RegistryError: the registry does not give it.
    """
    from imagekit.store.select import images  # noqa: PLC0415 - not needed to build

    with open_store(store) as opened, _registries(insecure_registries) as registries:
        source, root = _locate(image, opened, registries)
        if platform is not None:
            found = [select_image(source, root, Platform.parse(platform), name=image)]
            document: Document[Manifest | Index] = Document(
                found[0].manifest.raw, found[0].manifest.value, found[0].manifest.descriptor
            )
        else:
            document = read_document(source, root)
            found = list(images(source, root))
        configs = {str(f.config.value.platform): f.config.value.to_json() for f in found}
    return Inspected(name=image, document=document, configs=configs)


def push(
    image: str,
    destination: str | None = None,
    *,
    store: StoreLike = None,
    insecure_registries: Iterable[str] = (),
    observer: Observer = ignore_events,
) -> str:
    """Push an image, with everything below an index, to a registry.

    Args:
        image: a tag or digest in the store, or `oci-layout://FOLDER[:TAG]`.
        destination: where to; by default the name of the image.
        store: as for `build`.
        insecure_registries: as for `build`.
        observer: gets the transfers.

    Returns:
        The reference with the digest of what was pushed.

    Raises:
        NotFoundError: there is no such image.
        RegistryError: the registry does not take it.
    """
    from imagekit.registry import Repository  # noqa: PLC0415 - httpx takes 100 ms
    from imagekit.store.copy import copy  # noqa: PLC0415

    reference = Reference.parse(destination or image).with_default_tag()
    with (
        open_store(store) as opened,
        opened.lease(),
        _registries(insecure_registries, observer) as registries,
    ):
        source, root = _locate(image, opened, registries)
        target = Repository(registries.at(reference.host), reference)
        copy(source, root, target, tag=reference.tag, observer=observer)
    return f"{reference.name}@{root.digest}"


def pull(
    image: str,
    *,
    platform: str | None = None,
    store: StoreLike = None,
    insecure_registries: Iterable[str] = (),
    observer: Observer = ignore_events,
) -> str:
    """Fetch an image into the store and name it there; a later FROM of that name takes it.

    Args:
        image: a reference.
        platform: of an index, only this image; all of them by default.
        store: as for `build`.
        insecure_registries: as for `build`.
        observer: gets the transfers.

    Returns:
        The reference with the digest of what was pulled.

    Raises:
        RegistryError: the registry does not give it.
        NotFoundError: an index without an image for the platform.
    """
    from imagekit.registry import Repository  # noqa: PLC0415 - httpx takes 100 ms
    from imagekit.store.copy import copy  # noqa: PLC0415

    reference = Reference.parse(image).with_default_tag()
    with (
        open_store(store) as opened,
        opened.lease(),
        _registries(insecure_registries, observer) as registries,
    ):
        source = Repository(registries.at(reference.host), reference)
        root = source.resolve(str(reference.digest or reference.tag))
        if platform is not None:
            found = select_image(source, root, Platform.parse(platform), name=image)
            root = found.manifest.descriptor
        copy(source, root, opened, tag=str(reference), observer=observer)
    return f"{reference.name}@{root.digest}"


@frozen(kw_only=True)
class Removed:
    """What `prune` took away: objects, and their bytes."""

    count: int
    size: int


def prune(
    *, everything: bool = False, keep_s: float = 14 * 86_400, store: StoreLike = None
) -> Removed:
    """Remove from the store what no tag, no recent cache record and no running build needs.

    Args:
        everything: forget the whole build cache, whenever it was used, and unless a build is
            running what cache mounts keep.
        keep_s: otherwise, cache records used in the last so many seconds stay.
        store: as for `build`.

    Raises:
        StoreError: the store cannot be read or written.
    """
    from contextlib import ExitStack  # noqa: PLC0415 - not needed to build

    from imagekit.store.prune import prune as prune_store  # noqa: PLC0415

    with open_store(store) as opened, ExitStack() as held:
        done = prune_store(
            opened,
            remove_tree=_remover(held),
            records_older_than_s=0 if everything else keep_s,
            grace_s=0 if everything else 3600,
            caches=everything,
        )
    count = len(done.blobs) + len(done.snapshots) + done.records + done.leftovers + done.caches
    return Removed(count=count, size=done.freed)


def _remover(held: "ExitStack") -> Callable[[Path], None]:
    """Removes folders; those of a rootless sandbox's users with the rights of one."""
    from imagekit.disk.paths import remove_tree  # noqa: PLC0415 - not needed to build
    from imagekit.disk.snapshot import Form, Workbench  # noqa: PLC0415
    from imagekit.sandbox.choose import choose  # noqa: PLC0415

    def remove(path: Path) -> None:
        try:
            remove_tree(path)
        except PermissionError:
            sandbox = choose()
            held.callback(sandbox.close)
            Workbench(sandbox.service.call, Form()).remove(path)

    return remove


def write_file(path: PathLike, text: str) -> None:
    """Write a small result file, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    from imagekit.delivery import write_atomically  # noqa: PLC0415 - few builds need it

    write_atomically(Path(path), lambda stream: stream.write(text.encode()))


def _registries(insecure: Iterable[str], observer: Observer = ignore_events) -> Any:  # noqa: ANN401 - imported late
    from contextlib import closing  # noqa: PLC0415

    from imagekit.registry import Registries  # noqa: PLC0415 - httpx takes 100 ms

    return closing(Registries(insecure=frozenset(insecure), observer=observer))


def _locate(
    image: str,
    store: Store,
    registries: Any,  # noqa: ANN401 - imported late
) -> tuple[Source, Descriptor]:
    """Where an image is, and the descriptor of its manifest or index."""
    if image.startswith("oci-layout://"):
        from imagekit.bases import split_layout  # noqa: PLC0415
        from imagekit.store.layout import Layout  # noqa: PLC0415

        path, name = split_layout(image.removeprefix("oci-layout://"))
        layout = Layout(path)
        return layout, layout.resolve(name)
    if image.startswith("docker://"):
        from imagekit.registry import Repository  # noqa: PLC0415

        reference = Reference.parse(image.removeprefix("docker://")).with_default_tag()
        repository = Repository(registries.at(reference.host), reference)
        return repository, repository.resolve(str(reference.digest or reference.tag))
    if image.startswith("sha256:"):
        return store, _by_digest(store, image)
    name = str(Reference.parse(image).with_default_tag())
    try:
        return store, store.resolve(name)
    except NotFoundError as exc:
        raise NotFoundError(
            f"the store has no image {image}",
            hint=f"pull it, or look at the registry's: imagekit inspect docker://{image}",
        ) from exc


def _by_digest(store: Store, text: str) -> Descriptor:
    for descriptor in store.tags().values():
        if str(descriptor.digest) == text:
            return descriptor
    raise NotFoundError(f"the store has no tagged image {text}", hint="give it a tag with -t")


__all__ = [
    "Inspected",
    "Removed",
    "Result",
    "Secret",
    "UsageError",
    "build",
    "inspect",
    "open_store",
    "prune",
    "pull",
    "push",
    "write_file",
]

"""One build from request to result: parse, resolve bases, lower, run, pack, put out.

Part of the doors: it ties the folders together and holds no rule of its own about Dockerfiles,
layers or images.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from attrs import evolve, field, frozen

from imagekit.bases import Bases
from imagekit.contexts import (
    ContextSource,
    DockerfileSource,
    Opened,
    Opener,
    fetched_context,
    host_platform,
)
from imagekit.delivery import Delivery, Packed, Packer
from imagekit.disk.context import FolderContext
from imagekit.dockerfile.ignore import Matcher
from imagekit.dockerfile.instructions import Dockerfile
from imagekit.errors import DockerfileError, ImagekitError, NotFoundError, Span, UsageError
from imagekit.events import BuildFinished, Event, Observer
from imagekit.executor.cache import BuildCache
from imagekit.executor.contexts import Contexts
from imagekit.executor.engine import Engine, Policy
from imagekit.executor.inputs import Inputs
from imagekit.executor.layers import Layers
from imagekit.executor.values import Layer
from imagekit.layer.compress import Codec, codec
from imagekit.oci.descriptor import Descriptor
from imagekit.oci.platform import Platform
from imagekit.oci.reference import Reference
from imagekit.options import Secret
from imagekit.packer.annotations import split_annotation
from imagekit.packer.image import Image
from imagekit.packer.spec import Output
from imagekit.plan import (
    BaseRequest,
    Plan,
    ResolvedBase,
    StageGraph,
    Trace,
    missing_bases,
    stage_graph,
    trace,
)
from imagekit.plan.checks import Checks
from imagekit.plan.lint import open_checks, parse_checked
from imagekit.plan.ops import Exec, Fetch
from imagekit.plan.places import did_you_mean
from imagekit.sandbox.base import Cancellation, Network, Ulimit
from imagekit.store.local import Store

if TYPE_CHECKING:
    from imagekit.executor.fetching import Fetches
    from imagekit.executor.handlers import Workshop
    from imagekit.executor.tarcontext import TarContext
    from imagekit.fetch import Downloader
    from imagekit.plan.report import CheckReport

EPOCH = "SOURCE_DATE_EPOCH"
_NETWORKS = ("default", "none", "host")
_ENTITLEMENTS = frozenset({"security.insecure", "network.host"})


@frozen(kw_only=True)
class Request:
    """What a caller asks for; the fields are the arguments of `imagekit.build`."""

    context: ContextSource
    dockerfile: DockerfileSource = None
    target: str | None = None
    expand_from: bool = False
    platforms: tuple[Platform, ...] = ()
    build_args: Mapping[str, str] = field(factory=dict)
    build_contexts: Mapping[str, str] = field(factory=dict)
    tags: tuple[str, ...] = ()
    outputs: tuple[Output, ...] = ()
    labels: Mapping[str, str] = field(factory=dict)
    annotations: Mapping[str, str] = field(factory=dict)
    secrets: tuple[Secret, ...] = ()
    no_cache: bool = False
    no_cache_filter: frozenset[str] = frozenset()
    pull: bool = False
    network: Network = "default"
    add_hosts: tuple[tuple[str, str], ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    shm_size: int | None = None
    allow: frozenset[str] = frozenset()
    sandbox: str = "auto"
    epoch: int | None = None
    jobs: int | None = None
    insecure_registries: frozenset[str] = frozenset()
    insecure_sources: frozenset[str] = frozenset()

    def check(self) -> None:
        """Check what can be checked before anything is read.

        Raises:
            UsageError: an argument is malformed, or two contradict each other.
        """
        if self.network not in _NETWORKS:
            raise UsageError(f"network {self.network!r}", hint=f"use {', '.join(_NETWORKS)}")
        if unknown := sorted(self.allow - _ENTITLEMENTS):
            raise UsageError(
                f"unknown entitlement {unknown[0]!r}", hint=f"use {', '.join(_ENTITLEMENTS)}"
            )
        if self.sandbox != "auto":
            from imagekit.sandbox.choose import check_name  # noqa: PLC0415 - rarely asked for

            check_name(self.sandbox)
        for name in self.annotations:
            split_annotation(name)
        if self.jobs is not None and self.jobs < 1:
            raise UsageError(f"jobs must be at least 1, not {self.jobs}")
        if any(o.push for o in self.outputs) and not (
            self.tags or all(o.names for o in self.outputs if o.push)
        ):
            raise UsageError("nothing says where to push to", hint="add a tag: -t HOST/NAME:TAG")


@frozen(kw_only=True)
class Result:
    """What was built.

    Attributes:
        descriptor: of the manifest, or of the index of several.
        images: by platform, in the order asked for.
        tags: canonical names that it has in the store.
    """

    descriptor: Descriptor
    images: Mapping[str, Image]
    tags: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Of the manifest, or of the index of several."""
        return str(self.descriptor.digest)

    @property
    def image(self) -> Image:
        """The image, or the first of several."""
        return next(iter(self.images.values()))

    @property
    def image_id(self) -> str:
        """What `--iidfile` holds: digest of the config; of several images, of the index."""
        if len(self.images) > 1:
            return self.digest
        return str(self.image.config.descriptor.digest)

    def metadata(self) -> dict[str, Any]:
        """What `--metadata-file` holds, in the form of buildx."""
        found: dict[str, Any] = {
            "containerimage.descriptor": self.descriptor.to_json(),
            "containerimage.digest": self.digest,
        }
        if len(self.images) == 1:
            found["containerimage.config.digest"] = self.image_id
        if self.tags:
            found["image.name"] = ",".join(self.tags)
        return found


@frozen(kw_only=True)
class Explained:
    """What a request comes to on one platform, before anything is carried out."""

    graph: StageGraph
    trace: Trace


class _OneAtATime:
    """An observer that threads wait for, as `events.Observer` promises."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._lock = threading.RLock()

    def __call__(self, event: Event) -> None:
        with self._lock:
            self._observer(event)


class Builder:
    """Builds against one store."""

    def __init__(self, store: Store, observer: Observer, cancellation: Cancellation) -> None:
        self._store = store
        self._observer = _OneAtATime(observer)
        self._caller = cancellation
        self._cancellation = Cancellation()  # of this build: a failure is none of the caller's

    def build(self, request: Request) -> Result:
        """Carry out a request; see `imagekit.build`."""
        request.check()
        forget = self._caller.subscribe(self._cancellation.cancel)
        try:
            return self._build(request)
        finally:
            forget()

    def explain(self, request: Request) -> "tuple[Explained, ...]":
        """Plan a request for each of its platforms, and carry nothing out.

        Raises:
            ImagekitError: as `build`, as far as a build gets without a step.
        """
        with self._inputs(request) as (opened, bases, _):
            return self._explained(request, opened, bases)

    def check(self, request: Request) -> "CheckReport":
        """Run the build checks for the first platform of a request; see `plan.report.check`."""
        from imagekit.plan.report import check  # noqa: PLC0415 - not needed to build

        with self._inputs(request) as (opened, bases, _):
            return check(
                opened.text,
                build=host_platform(),
                resolve=bases.resolve,
                filename=opened.filename,
                build_args=_build_args(request),
                target=next(iter(request.platforms), None),
                stage=request.target,
                contexts=opened.named,
                ignore=_ignore_of(opened),
                expand_from=request.expand_from,
            )

    def dockerfile(self, request: Request) -> tuple[str, bytes]:
        """The name of the Dockerfile of a request, and its bytes."""
        with self._inputs(request) as (opened, _, _):
            return opened.filename, opened.text

    @contextmanager
    def _inputs(self, request: Request) -> "Iterator[tuple[Opened, Bases, _Fetching]]":
        """The open contexts of a request, and where bases and what is fetched come from."""
        with (
            self._store.lease(),
            Bases(
                self._store,
                insecure=request.insecure_registries,
                pull=request.pull,
                observer=self._observer,
            ) as bases,
            _Fetching(request, self._store, self._observer, self._cancellation) as fetching,
            Opener(self._store, fetching.context).open(
                request.context, request.dockerfile, request.build_contexts, request.build_args
            ) as opened,
        ):
            yield opened, bases, fetching

    def _build(self, request: Request) -> Result:
        began = time.monotonic()
        tags = [str(Reference.parse(tag).with_default_tag()) for tag in request.tags]
        with self._inputs(request) as (opened, bases, fetching):
            explained = self._explained(request, opened, bases)
            plans = [_with_options(each.trace.plan, request) for each in explained]
            for warning in dict.fromkeys(w for plan in plans for w in plan.warnings):
                self._observer(warning)
            layers = Layers(
                self._store, bases, codec=_codec(request, plans), observer=self._observer
            )
            stacks = self._run(request, plans, layers, opened, fetching)
            result = self._pack(request, tags, plans, stacks, layers, bases)
        now = time.monotonic()
        self._observer(BuildFinished(at=now, seconds=now - began))
        return result

    def _explained(
        self, request: Request, opened: Opened, bases: Bases
    ) -> "tuple[Explained, ...]":
        host, args = host_platform(), _build_args(request)
        checks = open_checks(
            opened.text, args, filename=opened.filename, ignore=_ignore_of(opened)
        )
        file = parse_checked(
            opened.text, checks, filename=opened.filename, expand_from=request.expand_from
        )
        found = []
        known: dict[BaseRequest, ResolvedBase] = {}
        for platform in request.platforms or (None,):
            own = Checks(checks.options, ignore=checks.ignore, found=checks.found)
            graph = stage_graph(
                file,
                build_args=args,
                build=host,
                target=platform,
                stage=request.target,
                contexts=opened.named,
                checks=own,
                expand_from=request.expand_from,
            )
            while missing := missing_bases(graph, known):
                known |= {r: _resolve(bases, graph, r) for r in sorted(missing, key=str)}
            done = trace(graph, known, labels=request.labels, checks=own)
            found.append(Explained(graph=graph, trace=done))
        return tuple(found)

    def _run(
        self,
        request: Request,
        plans: Sequence[Plan],
        layers: Layers,
        opened: Opened,
        fetching: "_Fetching",
    ) -> Sequence[tuple[Layer, ...]]:
        contexts = Contexts(opened.given)
        with ExitStack() as running:
            engine = Engine(
                cache=BuildCache(self._store),
                inputs=Inputs(layers, contexts, fetching.layer),
                handlers=lambda: self._workshop(request, layers, contexts, running),
                policy=Policy(
                    no_cache=request.no_cache,
                    no_cache_stages=request.no_cache_filter,
                    jobs=request.jobs,
                ),
                observer=self._observer,
                cancellation=self._cancellation,
            )
            return engine.run(plans)

    def _workshop(
        self, request: Request, layers: Layers, contexts: Contexts, running: ExitStack
    ) -> "Workshop":
        """What steps are carried out with; what it started ends with the build."""
        from imagekit.executor.handlers import Workshop  # noqa: PLC0415 - only if something runs
        from imagekit.executor.run import Runner, RunOptions  # noqa: PLC0415

        secrets = {secret.id: secret for secret in request.secrets}
        options = RunOptions(
            sandbox=request.sandbox,
            secret=lambda name: secrets[name].read() if name in secrets else None,
            allow=request.allow,
        )
        runner = Runner(
            layers=layers,
            contexts=contexts,
            options=options,
            observer=self._observer,
            cancellation=self._cancellation,
        )
        running.callback(runner.close)
        return Workshop(layers=layers, contexts=contexts, runner=runner)

    def _pack(
        self,
        request: Request,
        tags: Sequence[str],
        plans: Sequence[Plan],
        stacks: Sequence[tuple[Layer, ...]],
        layers: Layers,
        bases: Bases,
    ) -> Result:
        packer = Packer(layers, plans, stacks, annotations=request.annotations)
        packed = packer.pack(next(iter(request.outputs), Output(type="cacheonly")))
        delivery = Delivery(layers, bases, tags=tags, observer=self._observer)
        for output in request.outputs:
            delivery.deliver(output, packer.pack(output))
        if tags and not any(output.push for output in request.outputs):
            delivery.fetch_all(packed)
        for tag in tags:
            self._tag(packed, tag)
        return Result(
            descriptor=packed.root,
            images={str(i.platform): i for i in packed.images},
            tags=tuple(tags),
        )

    def _tag(self, packed: Packed, tag: str) -> None:
        if self._store.tags().get(tag) != packed.root:
            self._store.tag(packed.root, tag)


class _Fetching:
    """Fetches for one build; what it takes is imported and opened when the first one comes."""

    def __init__(
        self, request: Request, store: Store, observer: Observer, cancellation: Cancellation
    ) -> None:
        self._request = request
        self._store = store
        self._observer = observer
        self._cancellation = cancellation
        self._lock = threading.Lock()
        self._downloader: Downloader | None = None
        self._fetches: Fetches | None = None

    def layer(self, op: Fetch) -> Layer:
        """What an operation fetches."""
        return self._made().fetch(op)

    def context(self, op: Fetch) -> "TarContext":
        """The same as a build context."""
        return self._made().context(op)

    def _made(self) -> "Fetches":
        from imagekit.executor.fetching import Fetches  # noqa: PLC0415 - few builds fetch
        from imagekit.fetch import Downloader  # noqa: PLC0415

        with self._lock:
            if self._fetches is None:
                request = self._request
                given = (request.context, *request.build_contexts.values())
                self._downloader = Downloader(
                    insecure=request.insecure_sources,
                    agent_for={op.url for op in map(fetched_context, given) if op is not None},
                    cancelled=self._cancellation.is_set,
                    sleep=self._cancellation.wait,
                )
                layers = Layers(self._store, _Nowhere(), codec=codec("none"))
                self._fetches = Fetches(layers, self._downloader, observer=self._observer)
            return self._fetches

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._downloader is not None:
            self._downloader.close()


class _Nowhere:
    """No base images: what is fetched is kept in the store (`executor.values.Fetcher`)."""

    def open(self, origin: str, descriptor: Descriptor) -> BinaryIO:
        """See `Fetcher`."""
        raise NotFoundError(f"nowhere to get {origin} from", descriptor=descriptor)


def _build_args(request: Request) -> dict[str, str]:
    epoch = {} if request.epoch is None else {EPOCH: str(request.epoch)}
    return {**request.build_args, **epoch}


def _ignore_of(opened: Opened) -> Matcher | None:
    """What the ignore file of the build context says, if that is a folder."""
    main = opened.given.get("")
    return main.ignore if isinstance(main, FolderContext) else None


def _resolve(bases: Bases, graph: StageGraph, request: BaseRequest) -> ResolvedBase:
    """What a base is; a failure says which line of the Dockerfile asks for it."""
    try:
        return bases.resolve(request)
    except ImagekitError as exc:
        node = next((n for n in graph.nodes if graph.request(n) == request), None)
        if node is None:
            raise
        raise place_base_error(graph.file, str(request), node.span, exc) from exc


def place_base_error(
    file: Dockerfile, image: str, span: Span, error: ImagekitError
) -> DockerfileError:
    """The error that says which line of a Dockerfile asks for an image that cannot be had."""
    name = Reference.parse(image).familiar.removesuffix(":latest") if "//" not in image else ""
    hint = did_you_mean(name, [stage.name for stage in file.stages if stage.name])
    return DockerfileError(
        f"cannot get the image {image}: {error.message}",
        span=span,
        filename=file.filename,
        source=file.source,
        hint=hint or error.hint,
        code=error.code,
    )


def _codec(request: Request, plans: Sequence[Plan]) -> Codec:
    """How new layers are compressed: as the first output wants it."""
    wanted = next((o for o in request.outputs if o.compression), None)
    reproducible = any(plan.epoch is not None for plan in plans)
    if wanted is None or wanted.compression is None:
        return codec("gzip", reproducible=reproducible)
    return codec(wanted.compression, level=wanted.level, reproducible=reproducible)


def _with_options(plan: Plan, request: Request) -> Plan:
    """The plan with the options that every RUN of a build has."""
    steps = []
    for step in plan.steps:
        op = step.op
        if isinstance(op, Exec):
            if op.network == "host" and "network.host" not in request.allow:
                raise DockerfileError(
                    "RUN --network=host is not allowed",
                    span=step.span,
                    filename=plan.filename,
                    source=plan.source,
                    hint="allow it with --allow network.host",
                    code="not-allowed",
                )
            op = evolve(
                op,
                network=request.network if op.network == "default" else op.network,
                extra_hosts=request.add_hosts,
                ulimits=tuple((u.name, u.soft, u.hard) for u in request.ulimits),
                shm_size=request.shm_size or 0,
            )
            step = evolve(step, op=op)  # noqa: PLW2901 - the step as it is to be
        steps.append(step)
    return evolve(plan, steps=tuple(steps))

"""Plans from Dockerfile text, with images that need no registry."""

from collections.abc import Mapping
from typing import Any

from imagekit.dockerfile.parser import parse
from imagekit.oci.config import ImageConfig
from imagekit.oci.digest import Digest
from imagekit.oci.document import encode_json
from imagekit.oci.platform import Platform
from imagekit.plan import (
    BaseRequest,
    ResolvedBase,
    StageGraph,
    Trace,
    missing_bases,
    stage_graph,
    trace,
)

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")


def graph_of(text: str, **options: Any) -> StageGraph:
    """The stage graph of a text; `options` are those of `stage_graph`."""
    given = {"build_args": {}, "build": AMD64, **options}
    return stage_graph(parse(text), **given)


def base(request: BaseRequest, config: Mapping[str, Any]) -> ResolvedBase:
    """An image of one layer with a container config."""
    document = {
        **request.platform.to_json(),
        "config": {"Env": ["PATH=/bin"], **config},
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(str(request).encode()))]},
        "history": [{"created_by": "base"}],
    }
    return ResolvedBase(config=ImageConfig.decode(encode_json(document)), origin=str(request))


def traced(
    text: str,
    images: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    **options: Any,
) -> Trace:
    """The trace of a text; `images` holds container configs by short name."""
    graph = graph_of(text, **options)
    bases: dict[BaseRequest, ResolvedBase] = {}
    while missing := missing_bases(graph, bases):
        for request in missing:
            name = request.reference.familiar.removesuffix(":latest")
            bases[request] = base(request, (images or {}).get(name, {}))
    return trace(graph, bases, labels=labels)

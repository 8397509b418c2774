"""imagekit builds OCI images from Dockerfiles, without a daemon.

    import imagekit

    result = imagekit.build(".", tags=["registry.example/app:1.2"], output="oci:dist/app")
    print(result.digest)

What this package gives is in `api` and `language`; errors are in `errors`, events in `events`.
Names are loaded when they are first used, so that importing costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagekit.api import build, inspect, prune, pull, push
    from imagekit.builder import Result
    from imagekit.dockerfile.printer import print_dockerfile, replace
    from imagekit.errors import ImagekitError
    from imagekit.events import Event, Observer
    from imagekit.language import check, fix, outline, parse, pin, plan_build, targets
    from imagekit.oci.platform import Platform
    from imagekit.oci.reference import Reference
    from imagekit.options import Secret
    from imagekit.packer.spec import Output
    from imagekit.sandbox.base import Cancellation
    from imagekit.store.local import Store

__version__ = "0.1.0"

_HOMES = {
    "build": "api",
    "inspect": "api",
    "prune": "api",
    "pull": "api",
    "push": "api",
    "check": "language",
    "fix": "language",
    "outline": "language",
    "parse": "language",
    "pin": "language",
    "plan_build": "language",
    "targets": "language",
    "print_dockerfile": "dockerfile.printer",
    "replace": "dockerfile.printer",
    "Result": "builder",
    "ImagekitError": "errors",
    "Event": "events",
    "Observer": "events",
    "Platform": "oci.platform",
    "Reference": "oci.reference",
    "Secret": "options",
    "Output": "packer.spec",
    "Cancellation": "sandbox.base",
    "Store": "store.local",
}

__all__ = [
    "Cancellation",
    "Event",
    "ImagekitError",
    "Observer",
    "Output",
    "Platform",
    "Reference",
    "Result",
    "Secret",
    "Store",
    "build",
    "check",
    "fix",
    "inspect",
    "outline",
    "parse",
    "pin",
    "plan_build",
    "print_dockerfile",
    "prune",
    "pull",
    "push",
    "replace",
    "targets",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)

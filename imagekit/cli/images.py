"""`imagekit inspect`, `push`, `pull` and `prune`: images that are there already."""

import argparse
import json
import sys

from imagekit.cli.words import Run, add_store, split
from imagekit.progress import MODES, progress


def add_inspect(parser: argparse.ArgumentParser) -> Run:
    """Add the arguments of `imagekit inspect`; returns what carries it out."""
    add_store(parser)
    parser.add_argument(
        "image",
        metavar="IMAGE",
        help="a tag or digest in the store, oci-layout://FOLDER[:TAG], or docker://REFERENCE",
    )
    parser.add_argument("--platform", metavar="OS/ARCH", help="of an index, only this one")
    parser.add_argument(
        "--raw", action="store_true", help="the document's bytes as they are stored"
    )
    parser.add_argument("--insecure-registry", action="append", default=[], metavar="HOST")
    return _inspect


def _inspect(arguments: argparse.Namespace) -> int:
    from imagekit import api  # noqa: PLC0415 - what --help does not need

    found = api.inspect(
        arguments.image,
        platform=arguments.platform,
        store=arguments.store,
        insecure_registries=split(arguments.insecure_registry),
    )
    if arguments.raw:
        sys.stdout.buffer.write(found.raw)
    else:
        sys.stdout.write(json.dumps(found.to_json(), indent=2, ensure_ascii=False) + "\n")
    return 0


def add_push(parser: argparse.ArgumentParser) -> Run:
    """Add the arguments of `imagekit push`; returns what carries it out."""
    add_store(parser)
    parser.add_argument(
        "image", metavar="IMAGE", help="a tag in the store, or oci-layout://FOLDER"
    )
    parser.add_argument("destination", nargs="?", metavar="REFERENCE", help="default: IMAGE")
    parser.add_argument("--insecure-registry", action="append", default=[], metavar="HOST")
    parser.add_argument("--progress", default="auto", choices=[m for m in MODES if m != "quiet"])
    return _push


def _push(arguments: argparse.Namespace) -> int:
    from imagekit import api  # noqa: PLC0415 - what --help does not need

    observer = progress(arguments.progress, sys.stderr)
    try:
        pushed = api.push(
            arguments.image,
            arguments.destination,
            store=arguments.store,
            insecure_registries=split(arguments.insecure_registry),
            observer=observer,
        )
    finally:
        observer.close()
    sys.stdout.write(f"{pushed}\n")
    return 0


def add_pull(parser: argparse.ArgumentParser) -> Run:
    """Add the arguments of `imagekit pull`; returns what carries it out."""
    add_store(parser)
    parser.add_argument("image", metavar="REFERENCE")
    parser.add_argument("--platform", metavar="OS/ARCH", help="only this one (default: all)")
    parser.add_argument("--insecure-registry", action="append", default=[], metavar="HOST")
    parser.add_argument("--progress", default="auto", choices=[m for m in MODES if m != "quiet"])
    return _pull


def _pull(arguments: argparse.Namespace) -> int:
    from imagekit import api  # noqa: PLC0415 - what --help does not need

    observer = progress(arguments.progress, sys.stderr)
    try:
        pulled = api.pull(
            arguments.image,
            platform=arguments.platform,
            store=arguments.store,
            insecure_registries=split(arguments.insecure_registry),
            observer=observer,
        )
    finally:
        observer.close()
    sys.stdout.write(f"{pulled}\n")
    return 0


def add_prune(parser: argparse.ArgumentParser) -> Run:
    """Add the arguments of `imagekit prune`; returns what carries it out."""
    add_store(parser)
    parser.add_argument("-a", "--all", action="store_true", help="the build cache as well")
    parser.add_argument(
        "--keep-hours",
        type=float,
        default=14 * 24,
        metavar="HOURS",
        help="keep cache records used in the last HOURS (default: two weeks)",
    )
    return _prune


def _prune(arguments: argparse.Namespace) -> int:
    from imagekit import api  # noqa: PLC0415 - what --help does not need
    from imagekit.progress import size_text  # noqa: PLC0415

    removed = api.prune(
        everything=arguments.all, keep_s=arguments.keep_hours * 3600, store=arguments.store
    )
    sys.stdout.write(f"removed {removed.count} objects, {size_text(removed.size)}\n")
    return 0

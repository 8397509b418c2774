"""`imagekit build`: the flags of `docker buildx build`, same names and syntax."""

import argparse
import gc
import json
import sys

from imagekit.cli.words import Run, add_definition, add_store, context_of, definition, split
from imagekit.progress import MODES, progress


def add_build(parser: argparse.ArgumentParser) -> Run:
    """Add the arguments of `imagekit build`; returns what carries it out."""
    add_store(parser)
    add = parser.add_argument
    add(
        "context",
        metavar="CONTEXT",
        help="what COPY and ADD read: a folder, a tar archive, a URL of one or of a git repository"
        " (https://HOST/REPO.git#REF:FOLDER); -: an archive or a Dockerfile on stdin",
    )
    add_definition(parser)
    add("-t", "--tag", action="append", default=[], metavar="NAME[:TAG]", help="name the image")
    add("--annotation", action="append", default=[], metavar="NAME=VALUE", help="annotate it")
    add(
        "-o",
        "--output",
        action="append",
        default=[],
        metavar="OUTPUT",
        help="type=oci|docker|local|tar|image|registry[,dest=PATH][,KEY=VALUE]; or a folder; or -",
    )
    add("--push", action="store_true", help="short for -o type=registry")
    add("--secret", action="append", default=[], metavar="id=NAME[,src=FILE|,env=NAME]")
    add("--no-cache", action="store_true", help="run every step")
    add("--no-cache-filter", action="append", default=[], metavar="STAGE[,...]")
    add("--network", default="default", choices=("default", "none", "host"), help="of RUN")
    add("--add-host", action="append", default=[], metavar="NAME:ADDRESS", help="to /etc/hosts")
    add("--ulimit", action="append", default=[], metavar="TYPE=SOFT[:HARD]", help="of RUN")
    add("--shm-size", metavar="SIZE", help="of /dev/shm in RUN")
    add("--allow", action="append", default=[], metavar="ENTITLEMENT")
    add("--sandbox", default="auto", metavar="NAME", help="auto, root, rootless or single-uid")
    add("--jobs", type=int, metavar="N", help="steps that run side by side (default: cores)")
    add("--metadata-file", metavar="FILE", help="write what was built as JSON")
    add("--iidfile", metavar="FILE", help="write the image ID")
    add("--progress", default="auto", choices=[m for m in MODES if m != "quiet"])
    add("-q", "--quiet", action="store_true", help="show nothing but the image ID")
    add(
        "--call",
        default="build",
        metavar="METHOD[,format=json]",
        help="instead of a build: check, outline or targets",
    )
    add("--check", action="store_true", help="short for --call=check")
    return _build


def _build(arguments: argparse.Namespace) -> int:
    method = "check" if arguments.check else arguments.call
    if method != "build":
        from imagekit.cli.language import call  # noqa: PLC0415 - no build

        return call(method, arguments)
    from imagekit import api, options  # noqa: PLC0415 - what --help does not need

    _collect_rarely()
    outputs = [*arguments.output, *(["type=registry"] if arguments.push else [])]
    observer = progress("quiet" if arguments.quiet else arguments.progress, sys.stderr)
    try:
        result = api.build(
            context_of(arguments),
            **definition(arguments),
            tags=arguments.tag,
            output=outputs,
            annotations=options.parse_pairs("--annotation", arguments.annotation),
            secrets=[options.parse_secret(s) for s in arguments.secret],
            no_cache=arguments.no_cache,
            no_cache_filter=split(arguments.no_cache_filter),
            network=arguments.network,
            add_hosts=options.parse_hosts(arguments.add_host),
            ulimits=[options.parse_ulimit(u) for u in arguments.ulimit],
            shm_size=arguments.shm_size and options.parse_size("--shm-size", arguments.shm_size),
            allow=split(arguments.allow),
            sandbox=arguments.sandbox,
            jobs=arguments.jobs,
            store=arguments.store,
            observer=observer,
        )
        if arguments.iidfile:
            api.write_file(arguments.iidfile, result.image_id)
        if arguments.metadata_file:
            api.write_file(arguments.metadata_file, json.dumps(result.metadata(), indent=2) + "\n")
    finally:
        observer.close()
    if arguments.quiet:
        sys.stdout.write(f"{result.image_id}\n")
    return 0


def _collect_rarely() -> None:
    """Spare a short-lived process most of Python's searches for cycles.

    A build makes tens of thousands of small values that live to its end; looking through them
    again and again was an eighth of its time. For a program that embeds the library this is its
    own to decide.
    """
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)

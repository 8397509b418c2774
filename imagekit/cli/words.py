"""What the commands have in common: how they are added, and lists in options."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from imagekit.contexts import ContextSource
    from imagekit.language import Options

Run: TypeAlias = Callable[[argparse.Namespace], int]
"""Carries a command out; returns the exit code."""


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add the option that every command has which looks at images."""
    parser.add_argument(
        "--store",
        metavar="FOLDER",
        help="where blobs and cache are kept (IMAGEKIT_STORE, else the user's cache folder)",
    )


def add_definition(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is built: where the Dockerfile is, and what it depends on."""
    add = parser.add_argument
    add(
        "-f",
        "--file",
        metavar="FILE",
        help="the Dockerfile (default: CONTEXT/Dockerfile; -: stdin)",
    )
    add("--target", metavar="STAGE", help="this stage instead of the last")
    add("--build-arg", action="append", default=[], metavar="NAME[=VALUE]", help="set an ARG")
    add(
        "--build-context",
        action="append",
        default=[],
        metavar="NAME=SOURCE",
        help="a folder, a tar archive, a URL of one or of a git repository,"
        " oci-layout://FOLDER[:TAG|@DIGEST] or docker-image://REFERENCE",
    )
    add("--platform", action="append", default=[], metavar="OS/ARCH[,...]", help="for these")
    add("--label", action="append", default=[], metavar="NAME=VALUE", help="set a label")
    add(
        "--expand-from",
        action="store_true",
        help="expand variables in COPY --from and RUN --mount from=, as BuildKit does not",
    )
    add(
        "--pull", action="store_true", help="ask the registry for bases even if the store has them"
    )
    add(
        "--insecure-registry", action="append", default=[], metavar="HOST", help="speak HTTP to it"
    )
    add(
        "--insecure-source",
        action="append",
        default=[],
        metavar="HOST",
        help="ADD and contexts may fetch from it without TLS, at any address",
    )


def definition(arguments: argparse.Namespace) -> "Options":
    """What `add_definition` was given, as keyword arguments of the API."""
    from imagekit import options  # noqa: PLC0415 - what --help does not need

    return {
        "dockerfile": sys.stdin.buffer if arguments.file == "-" else arguments.file,
        "target": arguments.target,
        "build_args": _build_args(arguments.build_arg),
        "build_contexts": options.parse_pairs("--build-context", arguments.build_context),
        "platforms": split(arguments.platform),
        "labels": options.parse_pairs("--label", arguments.label),
        "expand_from": arguments.expand_from,
        "pull": arguments.pull,
        "insecure_registries": split(arguments.insecure_registry),
        "insecure_sources": split(arguments.insecure_source),
    }


def context_of(arguments: argparse.Namespace) -> "ContextSource":
    """The context that was named; `-` is standard input."""
    return sys.stdin.buffer if arguments.context == "-" else str(arguments.context)


def _build_args(given: Sequence[str]) -> dict[str, str]:
    """Those of `--build-arg`, and SOURCE_DATE_EPOCH of the environment, as buildx passes it on."""
    from imagekit import options  # noqa: PLC0415 - what --help does not need

    found = options.parse_pairs("--build-arg", given, from_env=True)
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    return found if epoch is None else {"SOURCE_DATE_EPOCH": epoch, **found}


def print_json(document: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    """Write a document to standard output."""
    import json  # noqa: PLC0415 - what --help does not need

    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def split(values: Sequence[str]) -> list[str]:
    """The values of an option that may be repeated, and hold several between commas."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]

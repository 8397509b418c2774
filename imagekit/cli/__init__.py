"""The command line: a thin door on `imagekit.api`.

`imagekit build` has the flags of `docker buildx build`, same names and syntax. Exit codes: 0
done, 1 the build or transfer failed, 2 the command line is wrong, 130 interrupted. Results go to
standard output, everything else to standard error.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Final, NoReturn

from imagekit.errors import (
    CancelledError,
    DockerfileError,
    ImagekitError,
    InvalidPlatformError,
    InvalidReferenceError,
    StepFailedError,
    UsageError,
)
from imagekit.progress import MODES, escape_control, progress

_EXIT_FAILED: Final = 1
_EXIT_USAGE: Final = 2
_EXIT_INTERRUPTED: Final = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code and writes errors to standard error."""
    parser = _parser()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        arguments, unknown = parser.parse_known_args(argv)
        if unknown:
            raise _unknown_option(unknown[0], arguments.options)
        run: Callable[[argparse.Namespace], int] = arguments.run
        return run(arguments)
    except (UsageError, InvalidPlatformError, InvalidReferenceError) as exc:
        _report(exc)
        return _EXIT_USAGE
    except (CancelledError, KeyboardInterrupt):
        sys.stderr.write("imagekit: interrupted\n")
        return _EXIT_INTERRUPTED
    except ImagekitError as exc:
        _report(exc)
        return _EXIT_FAILED
    except BrokenPipeError:
        sys.stderr.close()  # nobody reads: nothing is left to say, and Python must not try
        return _EXIT_FAILED


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    """Turn SIGTERM into what Ctrl-C does, so that everything is cleaned up."""
    del signum, frame
    raise KeyboardInterrupt


def _unknown_option(word: str, known: Sequence[str]) -> UsageError:
    from difflib import get_close_matches  # noqa: PLC0415 - only for a mistake

    if not word.startswith("-"):
        return UsageError(f"too many arguments: {word!r}", hint="options stand before them")
    close = get_close_matches(word.partition("=")[0], known, n=1)
    hint = f"did you mean {close[0]}?" if close else "see --help"
    return UsageError(f"unknown option {word!r}", hint=hint)


def _report(error: ImagekitError) -> None:
    lines = []
    if isinstance(error, StepFailedError) and error.log_tail:
        lines += [f"--- the last output of {error.step}", error.log_tail.rstrip("\n"), "---"]
    if isinstance(error, DockerfileError) and error.span is not None:
        lines += [f"{error.place}: error: {error.message}", error.excerpt()]
    else:
        lines.append(f"imagekit: error: {error.message}")
    lines += [f"note: {note}" for note in getattr(error, "__notes__", ())]
    if error.hint:
        lines.append(f"hint: {error.hint}")
    shown = (escape_control(line) for text in lines if text for line in text.split("\n"))
    sys.stderr.write("\n".join(shown) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="imagekit",
        description="Build OCI images from Dockerfiles without a daemon.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_build(commands)
    _add_inspect(commands)
    _add_push(commands)
    _add_pull(commands)
    _add_prune(commands)
    return parser


def _version() -> str:
    from imagekit import __version__  # noqa: PLC0415 - computed only when asked for

    return f"imagekit {__version__}"


def _command(
    commands: Any,  # noqa: ANN401 - argparse's own type is private
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary, allow_abbrev=False
    )
    parser.set_defaults(run=run, options=parser._option_string_actions.keys())  # noqa: SLF001
    parser.add_argument(
        "--store",
        metavar="FOLDER",
        help="where blobs and cache are kept (IMAGEKIT_STORE, else the user's cache folder)",
    )
    return parser


def _add_build(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    parser = _command(commands, "build", _build, "Build an image from a Dockerfile.")
    add = parser.add_argument
    add("context", metavar="CONTEXT", help="the folder that COPY and ADD read")
    add(
        "-f",
        "--file",
        metavar="FILE",
        help="the Dockerfile (default: CONTEXT/Dockerfile; -: stdin)",
    )
    add("-t", "--tag", action="append", default=[], metavar="NAME[:TAG]", help="name the image")
    add("--target", metavar="STAGE", help="build this stage instead of the last")
    add("--build-arg", action="append", default=[], metavar="NAME[=VALUE]", help="set an ARG")
    add(
        "--build-context",
        action="append",
        default=[],
        metavar="NAME=SOURCE",
        help="a folder, oci-layout://FOLDER[:TAG|@DIGEST] or docker-image://REFERENCE",
    )
    add("--platform", action="append", default=[], metavar="OS/ARCH[,...]", help="build for these")
    add("--label", action="append", default=[], metavar="NAME=VALUE", help="set a label")
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
    add(
        "--pull", action="store_true", help="ask the registry for bases even if the store has them"
    )
    add("--network", default="default", choices=("default", "none", "host"), help="of RUN")
    add("--add-host", action="append", default=[], metavar="NAME:ADDRESS", help="to /etc/hosts")
    add("--ulimit", action="append", default=[], metavar="TYPE=SOFT[:HARD]", help="of RUN")
    add("--shm-size", metavar="SIZE", help="of /dev/shm in RUN")
    add("--allow", action="append", default=[], metavar="ENTITLEMENT")
    add("--sandbox", default="auto", metavar="NAME", help="auto, root, rootless or single-uid")
    add("--jobs", type=int, metavar="N", help="steps that run side by side (default: cores)")
    add(
        "--insecure-registry", action="append", default=[], metavar="HOST", help="speak HTTP to it"
    )
    add("--metadata-file", metavar="FILE", help="write what was built as JSON")
    add("--iidfile", metavar="FILE", help="write the image ID")
    add("--progress", default="auto", choices=[m for m in MODES if m != "quiet"])
    add("-q", "--quiet", action="store_true", help="show nothing but the image ID")


def _build(arguments: argparse.Namespace) -> int:
    from imagekit import api, options  # noqa: PLC0415 - what --help does not need

    outputs = [*arguments.output, *(["type=registry"] if arguments.push else [])]
    observer = progress("quiet" if arguments.quiet else arguments.progress, sys.stderr)
    try:
        result = api.build(
            arguments.context,
            dockerfile=sys.stdin.buffer if arguments.file == "-" else arguments.file,
            target=arguments.target,
            platforms=_split(arguments.platform),
            build_args=_build_args(arguments.build_arg),
            build_contexts=options.parse_pairs("--build-context", arguments.build_context),
            tags=arguments.tag,
            output=outputs,
            labels=options.parse_pairs("--label", arguments.label),
            annotations=options.parse_pairs("--annotation", arguments.annotation),
            secrets=[options.parse_secret(s) for s in arguments.secret],
            no_cache=arguments.no_cache,
            no_cache_filter=_split(arguments.no_cache_filter),
            pull=arguments.pull,
            network=arguments.network,
            add_hosts=options.parse_hosts(arguments.add_host),
            ulimits=[options.parse_ulimit(u) for u in arguments.ulimit],
            shm_size=arguments.shm_size and options.parse_size("--shm-size", arguments.shm_size),
            allow=_split(arguments.allow),
            sandbox=arguments.sandbox,
            jobs=arguments.jobs,
            insecure_registries=_split(arguments.insecure_registry),
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


def _build_args(given: Sequence[str]) -> dict[str, str]:
    """Those of `--build-arg`, and SOURCE_DATE_EPOCH of the environment, as buildx passes it on."""
    from imagekit import options  # noqa: PLC0415 - what --help does not need

    found = options.parse_pairs("--build-arg", given, from_env=True)
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    return found if epoch is None else {"SOURCE_DATE_EPOCH": epoch, **found}


def _add_inspect(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    parser = _command(commands, "inspect", _inspect, "Show an image as JSON.")
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


def _inspect(arguments: argparse.Namespace) -> int:
    from imagekit import api  # noqa: PLC0415 - what --help does not need

    found = api.inspect(
        arguments.image,
        platform=arguments.platform,
        store=arguments.store,
        insecure_registries=_split(arguments.insecure_registry),
    )
    if arguments.raw:
        sys.stdout.buffer.write(found.raw)
    else:
        sys.stdout.write(json.dumps(found.to_json(), indent=2, ensure_ascii=False) + "\n")
    return 0


def _add_push(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    parser = _command(commands, "push", _push, "Push an image to a registry.")
    parser.add_argument(
        "image", metavar="IMAGE", help="a tag in the store, or oci-layout://FOLDER"
    )
    parser.add_argument("destination", nargs="?", metavar="REFERENCE", help="default: IMAGE")
    parser.add_argument("--insecure-registry", action="append", default=[], metavar="HOST")
    parser.add_argument("--progress", default="auto", choices=[m for m in MODES if m != "quiet"])


def _push(arguments: argparse.Namespace) -> int:
    from imagekit import api  # noqa: PLC0415 - what --help does not need

    observer = progress(arguments.progress, sys.stderr)
    try:
        pushed = api.push(
            arguments.image,
            arguments.destination,
            store=arguments.store,
            insecure_registries=_split(arguments.insecure_registry),
            observer=observer,
        )
    finally:
        observer.close()
    sys.stdout.write(f"{pushed}\n")
    return 0


def _add_pull(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    parser = _command(commands, "pull", _pull, "Fetch an image from a registry into the store.")
    parser.add_argument("image", metavar="REFERENCE")
    parser.add_argument("--platform", metavar="OS/ARCH", help="only this one (default: all)")
    parser.add_argument("--insecure-registry", action="append", default=[], metavar="HOST")
    parser.add_argument("--progress", default="auto", choices=[m for m in MODES if m != "quiet"])


def _pull(arguments: argparse.Namespace) -> int:
    from imagekit import api  # noqa: PLC0415 - what --help does not need

    observer = progress(arguments.progress, sys.stderr)
    try:
        pulled = api.pull(
            arguments.image,
            platform=arguments.platform,
            store=arguments.store,
            insecure_registries=_split(arguments.insecure_registry),
            observer=observer,
        )
    finally:
        observer.close()
    sys.stdout.write(f"{pulled}\n")
    return 0


def _add_prune(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    parser = _command(commands, "prune", _prune, "Remove what no image needs from the store.")
    parser.add_argument("-a", "--all", action="store_true", help="the build cache as well")
    parser.add_argument(
        "--keep-hours",
        type=float,
        default=14 * 24,
        metavar="HOURS",
        help="keep cache records used in the last HOURS (default: two weeks)",
    )


def _prune(arguments: argparse.Namespace) -> int:
    from imagekit import api  # noqa: PLC0415 - what --help does not need
    from imagekit.progress import size_text  # noqa: PLC0415

    removed = api.prune(
        everything=arguments.all, keep_s=arguments.keep_hours * 3600, store=arguments.store
    )
    sys.stdout.write(f"removed {removed.count} objects, {size_text(removed.size)}\n")
    return 0


def _split(values: Sequence[str]) -> list[str]:
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


if __name__ == "__main__":
    sys.exit(main())

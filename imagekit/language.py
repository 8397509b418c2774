"""Looking at Dockerfiles without building them: parse, plan, outline, check, fix and pin.

    import imagekit

    file = imagekit.parse("Dockerfile")
    planned = imagekit.plan_build(".", target="runtime")
    print(planned.to_json()["plans"][0]["steps"])
    imagekit.check(".").warnings

Bases are asked for their manifests and configs only; no layer is fetched and nothing runs.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from attrs import frozen

from imagekit.api import PathLike, StoreLike, open_store
from imagekit.builder import Builder, Explained, Request, place_base_error
from imagekit.contexts import ContextSource, DockerfileSource, find_dockerfile
from imagekit.dockerfile.instructions import Dockerfile, Instruction
from imagekit.dockerfile.parser import parse as parse_text
from imagekit.errors import ImagekitError, OutputError
from imagekit.events import ignore_events
from imagekit.oci.digest import Digest
from imagekit.oci.platform import Platform
from imagekit.oci.reference import Reference
from imagekit.plan.fixes import Fixed
from imagekit.plan.fixes import fix as fix_file
from imagekit.plan.outline import Outline, Targets, outline_of, targets_of
from imagekit.plan.pins import Pinned
from imagekit.plan.report import CheckReport
from imagekit.sandbox.base import Cancellation


class Options(TypedDict, total=False):
    """What a plan depends on; each as for `imagekit.build`."""

    dockerfile: DockerfileSource
    target: str | None
    platforms: Sequence[str | Platform]
    build_args: Mapping[str, str] | None
    build_contexts: Mapping[str, PathLike] | None
    labels: Mapping[str, str] | None
    expand_from: bool
    epoch: int | None
    pull: bool
    insecure_registries: Iterable[str]
    insecure_sources: Iterable[str]


def parse(
    dockerfile: PathLike | bytes, *, filename: str | None = None, expand_from: bool = False
) -> Dockerfile:
    r"""The instructions of a Dockerfile.

    Args:
        dockerfile: its path; or its text, which are bytes or a `str` that holds a line end.
        filename: for errors; by default the path, or `Dockerfile`.
        expand_from: as for `imagekit.build`.

    Raises:
        DockerfileError: the file is not there, or is no Dockerfile.
    """
    if isinstance(dockerfile, bytes) or (isinstance(dockerfile, str) and "\n" in dockerfile):
        return parse_text(dockerfile, filename=filename or "Dockerfile", expand_from=expand_from)
    name, data = find_dockerfile(Path(), dockerfile)
    return parse_text(data, filename=filename or name, expand_from=expand_from)


@frozen
class Planned:
    """What a build would do, for each platform."""

    platforms: tuple[Explained, ...]

    def to_json(self) -> dict[str, Any]:
        """`{"plans": [...]}`, each as `plan.describe` says."""
        from imagekit.plan.describe import describe_plan  # noqa: PLC0415 - one of four forms

        return {"plans": [describe_plan(each.graph, each.trace) for each in self.platforms]}

    def to_text(self) -> str:
        """The steps and the config, for people."""
        from imagekit.plan.describe import summary  # noqa: PLC0415 - see above

        return "\n".join(summary(each.graph, each.trace) for each in self.platforms)

    def to_mermaid(self) -> str:
        """The stage graph of the first platform as a Mermaid flowchart."""
        from imagekit.plan.drawing import drawing_of, to_mermaid  # noqa: PLC0415 - see above

        return to_mermaid(drawing_of(self.platforms[0].graph))

    def to_svg(self) -> str:
        """The stage graph of the first platform as a picture."""
        from imagekit.plan.drawing import drawing_of, to_svg  # noqa: PLC0415 - see above

        return to_svg(drawing_of(self.platforms[0].graph))


def plan_build(
    context: ContextSource = ".", *, store: StoreLike = None, **options: Unpack[Options]
) -> Planned:
    """What a build would do; nothing is carried out.

    Args:
        context: as for `imagekit.build`; its files are not read.
        store: as for `imagekit.build`.
        options: likewise.

    Raises:
        ImagekitError: as `imagekit.build`, as far as a build gets without a step.
    """
    with open_store(store) as opened:
        builder = Builder(opened, ignore_events, Cancellation())
        return Planned(builder.explain(_request(context, options)))


def outline(
    context: ContextSource = ".", *, store: StoreLike = None, **options: Unpack[Options]
) -> Outline:
    """The build arguments, secrets and SSH agents that a target takes; as `plan_build`."""
    planned = plan_build(context, store=store, **options).platforms[0]
    expand_from = options.get("expand_from", False)
    return outline_of(planned.graph, planned.trace, expand_from=expand_from)


def targets(
    context: ContextSource = ".", *, store: StoreLike = None, **options: Unpack[Options]
) -> Targets:
    """The stages that can be built; as `plan_build`, but bases are not looked at."""
    with open_store(store) as opened:
        builder = Builder(opened, ignore_events, Cancellation())
        request = _request(context, options)
        name, text = builder.dockerfile(request)
    return targets_of(parse_text(text, filename=name, expand_from=request.expand_from))


def check(
    context: ContextSource = ".", *, store: StoreLike = None, **options: Unpack[Options]
) -> CheckReport:
    """Run BuildKit's build checks; what makes a build impossible is in the report, too.

    Args:
        context: as for `imagekit.build`; of its files only the ignore file is read.
        store: as for `imagekit.build`.
        options: likewise. Without a target, all stages are checked.

    Raises:
        ImagekitError: there is no Dockerfile, or no such context.
    """
    with open_store(store) as opened:
        builder = Builder(opened, ignore_events, Cancellation())
        return builder.check(_request(context, options))


def fix(report: CheckReport) -> Fixed:
    """A checked file with all mended that can be mended (`plan.fixes`).

    Raises:
        DockerfileError: the file cannot be parsed.
    """
    text = ("\ufeff" if report.has_bom else "") + report.source
    data = text.encode("utf-8", "surrogateescape")
    file = parse_text(data, filename=report.filename, expand_from=True)
    return fix_file(file, report.warnings)


def pin(
    dockerfile: PathLike | bytes,
    *,
    filename: str | None = None,
    insecure_registries: Iterable[str] = (),
    store: StoreLike = None,
) -> Pinned:
    """A Dockerfile with the digests that its images have in their registries now.

    Args:
        dockerfile: as for `parse`.
        filename: likewise.
        insecure_registries: as for `imagekit.build`.
        store: as for `imagekit.build`.

    Raises:
        DockerfileError: the file is no Dockerfile, or an image cannot be had.
    """
    from imagekit.bases import Bases  # noqa: PLC0415 - not needed to parse
    from imagekit.plan import pins  # noqa: PLC0415

    file = parse(dockerfile, filename=filename, expand_from=True)
    with (
        open_store(store) as opened,
        Bases(opened, insecure=frozenset(insecure_registries)) as bases,
    ):

        def resolve(reference: Reference, at: Instruction) -> Digest:
            try:
                return bases.repository(reference).resolve(reference.tag).digest
            except ImagekitError as exc:
                raise place_base_error(file, str(reference), at.span, exc) from exc

        return pins.pin(file, resolve)


def write_dockerfile(path: PathLike, text: str) -> None:
    """Put the text of a Dockerfile in its place, whole or not at all; its mode is kept.

    Raises:
        OutputError: it cannot be written.
    """
    target = Path(path).resolve()
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_bytes(text.encode("utf-8", "surrogateescape"))
        temporary.chmod(target.stat().st_mode & 0o7777)
        temporary.replace(target)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"cannot write {target}: {exc.strerror}") from exc


def _request(context: ContextSource, options: Options) -> Request:
    given = {name: value for name, value in options.items() if value is not None}
    platforms = options.get("platforms", ())
    contexts = options.get("build_contexts") or {}
    given["platforms"] = tuple(
        p if isinstance(p, Platform) else Platform.parse(p) for p in platforms
    )
    given["build_contexts"] = {name: os.fspath(source) for name, source in contexts.items()}
    for name in ("insecure_registries", "insecure_sources"):
        given[name] = frozenset(given.get(name, ()))  # type: ignore[call-overload] # a list
    request = Request(context=context, **given)  # type: ignore[arg-type] # by name, as declared
    request.check()
    return request


__all__ = [
    "CheckReport",
    "Fixed",
    "Options",
    "Outline",
    "Pinned",
    "Planned",
    "Targets",
    "check",
    "fix",
    "outline",
    "parse",
    "pin",
    "plan_build",
    "targets",
    "write_dockerfile",
]

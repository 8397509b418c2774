"""What `-o` asks for: the exporters of `docker buildx build`, same names and attributes."""

import csv
from collections.abc import Mapping
from typing import Final, Literal

from attrs import field, frozen

from imagekit.errors import UsageError
from imagekit.packer.annotations import split_annotation

Type = Literal["oci", "docker", "local", "tar", "image", "cacheonly"]
_ATTRIBUTES: Final = {
    "oci": {"dest", "tar", "name"},
    "docker": {"dest", "tar", "name"},
    "local": {"dest", "platform-split"},
    "tar": {"dest", "platform-split"},
    "image": {"name", "push", "registry.insecure", "push-by-digest"},
    "registry": {"name", "push", "registry.insecure", "push-by-digest"},
    "cacheonly": set[str](),
}
_COMMON: Final = frozenset(
    {"compression", "compression-level", "force-compression", "oci-mediatypes"}
    | {"rewrite-timestamp", "buildinfo"}
)
_CODECS: Final = {"gzip": "gzip", "zstd": "zstd", "uncompressed": "none"}
_LEVELS: Final = {"gzip": range(10), "zstd": range(1, 23), "none": range(1)}


@frozen(kw_only=True)
class Output:
    """Where the result goes and in what form.

    Attributes:
        type: `oci` and `docker` are a folder or archive of images, `local` and `tar` the root file
            system, `image` the store and, with `push`, the registry.
        dest: a path; `-` is standard output; empty for `image`.
        tar: an archive, else a folder, for `oci` and `docker`.
        names: tags for this output, beside those of the build.
        push: to the registries that the tags name.
        insecure: registries may be spoken to without TLS.
        by_digest: push without a tag.
        compression: of new layers; None leaves the default.
        level: None leaves the codec's default.
        force_compression: recompress layers of the base too.
        oci_media_types: else Docker's.
        platform_split: a folder a platform, for `local` and `tar`.
        annotations: beside those of the build, by names such as `KEY` and `index:KEY`.
    """

    type: Type
    dest: str = ""
    tar: bool = True
    names: tuple[str, ...] = ()
    push: bool = False
    insecure: bool = False
    by_digest: bool = False
    compression: Literal["gzip", "zstd", "none"] | None = None
    level: int | None = None
    force_compression: bool = False
    oci_media_types: bool = True
    platform_split: bool | None = None
    annotations: Mapping[str, str] = field(factory=dict)


def parse_output(text: str) -> Output:
    """Read one value of `-o`.

    `DEST` alone is `type=local,dest=DEST`, `-` is `type=tar,dest=-`, `oci:DIR` is an OCI layout
    folder.

    Raises:
        UsageError: an unknown type or attribute, or one that is missing.
    """
    if not text:
        raise UsageError("an output is empty", hint="write -o type=oci,dest=image.tar")
    if text == "-":
        return Output(type="tar", dest="-")
    if text.startswith("oci:"):
        if text == "oci:":
            raise UsageError(f"output {text!r}: dest is missing", hint="write oci:FOLDER")
        return Output(type="oci", dest=text[4:], tar=False)
    try:
        (parts,) = csv.reader([text], strict=True)
    except (csv.Error, ValueError) as exc:
        raise UsageError(f"output {text!r}: {exc}") from exc
    if len(parts) == 1 and not parts[0].startswith("type="):
        return Output(type="local", dest=text)
    return _from_attributes(text, _attributes(text, parts))


def _attributes(text: str, parts: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        key = key.strip().lower()
        if not equals:
            raise UsageError(f"output {text!r}: {part!r} has no value", hint="write key=value")
        if key in found:
            raise UsageError(f"output {text!r}: {key} is given twice")
        found[key] = value
    return found


def _from_attributes(text: str, found: dict[str, str]) -> Output:
    kind = found.pop("type", "")
    if kind not in _ATTRIBUTES:
        names = ", ".join(sorted(_ATTRIBUTES))
        raise UsageError(f"output {text!r}: unknown type {kind!r}", hint=f"types are {names}")
    annotations = _annotations(text, found)
    unknown = sorted(set(found) - _ATTRIBUTES[kind] - _COMMON)
    if unknown:
        known = ", ".join(sorted(_ATTRIBUTES[kind] | _COMMON))
        raise UsageError(
            f"output {text!r}: {kind} has no attribute {unknown[0]!r}",
            hint=f"it has {known} and annotation.KEY",
        )
    dest = found.get("dest", "")
    if kind == "local" and not dest:
        raise UsageError(f"output {text!r}: dest is missing", hint="add dest=FOLDER")
    if kind == "local" and dest == "-":
        raise UsageError(
            f"output {text!r}: a folder cannot be written to standard output", hint="use type=tar"
        )
    tar = _flag(text, found, "tar", default=True)
    if kind in {"oci", "docker"} and not tar and dest in {"", "-"}:
        raise UsageError(f"output {text!r}: a folder needs dest", hint="add dest=FOLDER")
    if kind == "docker" and not tar:
        raise UsageError(
            f"output {text!r}: the docker form is an archive", hint="use type=oci,tar=false"
        )
    codec = _codec(text, found)
    split = _flag(text, found, "platform-split", default=True)
    return Output(
        type="image" if kind == "registry" else kind,  # type: ignore[arg-type]  # checked above
        dest=dest or ("-" if kind in {"oci", "docker", "tar"} else ""),
        tar=tar,
        names=tuple(n.strip() for n in found.get("name", "").split(",") if n.strip()),
        push=kind == "registry" or _flag(text, found, "push", default=False),
        insecure=_flag(text, found, "registry.insecure", default=False),
        by_digest=_flag(text, found, "push-by-digest", default=False),
        compression=codec,
        level=_level(text, found, codec or "gzip"),
        force_compression=_flag(text, found, "force-compression", default=False),
        oci_media_types=_flag(text, found, "oci-mediatypes", default=kind != "docker"),
        platform_split=split if "platform-split" in found else None,
        annotations=annotations,
    )


def _annotations(text: str, found: dict[str, str]) -> dict[str, str]:
    """Take `annotation.KEY` and `annotation-LEVEL.KEY` out of the attributes."""
    annotations = {}
    for attribute in [k for k in found if k.startswith("annotation")]:
        head, _, key = attribute.partition(".")
        level = head.removeprefix("annotation").removeprefix("-")
        name = f"{level}:{key}" if level else key
        try:
            split_annotation(name)
        except UsageError as exc:
            raise UsageError(f"output {text!r}: {exc.message}", hint=exc.hint) from exc
        annotations[name] = found.pop(attribute)
    return annotations


def _flag(text: str, found: Mapping[str, str], key: str, *, default: bool) -> bool:
    value = found.get(key, "").lower()
    if value not in {"", "true", "false", "1", "0"}:
        raise UsageError(f"output {text!r}: {key} must be true or false, not {value!r}")
    return default if value == "" else value in {"true", "1"}


def _codec(text: str, found: Mapping[str, str]) -> Literal["gzip", "zstd", "none"] | None:
    name = found.get("compression", "")
    if name and name not in _CODECS:
        raise UsageError(
            f"output {text!r}: unknown compression {name!r}",
            hint="use gzip, zstd or uncompressed",
        )
    return _CODECS[name] if name else None  # type: ignore[return-value]  # the table's values


def _level(text: str, found: Mapping[str, str], codec: str) -> int | None:
    value = found.get("compression-level", "")
    if not value:
        return None
    levels = _LEVELS[codec]
    if not (value.isascii() and value.isdigit()) or int(value) not in levels:
        raise UsageError(
            f"output {text!r}: no compression level {value!r} in {codec}",
            hint=f"it has {levels.start} to {levels.stop - 1}",
        )
    return int(value)

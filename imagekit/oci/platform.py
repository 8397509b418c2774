"""Platforms: `os/arch[/variant]`, normalised and matched as containerd does."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from attrs import field, frozen

from imagekit.errors import InvalidDocumentError, InvalidPlatformError

_COMPONENT: Final = re.compile(r"[A-Za-z0-9_.-]+")
_OS_VERSION: Final = re.compile(r"(?P<os>[A-Za-z0-9_.-]+)(?:\((?P<version>[^()]*)\))?")
_ARCHITECTURES: Final = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv8l": ("arm", "v7"),
}
_KNOWN_OSES: Final = frozenset(
    """aix android darwin dragonfly freebsd illumos ios js linux
    netbsd openbsd plan9 solaris wasip1 windows zos""".split()
)
_KNOWN_ARCHITECTURES: Final = frozenset(
    """386 amd64 amd64p32 arm armbe arm64 arm64be loong64 mips mips64 mips64le mips64p32
    mips64p32le mipsle ppc ppc64 ppc64le riscv riscv64 s390 s390x sparc sparc64 wasm""".split()
)


@frozen
class Platform:
    """What an image runs on (image-spec image-index.md, platform)."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    extra: tuple[tuple[str, Any], ...] = field(default=(), eq=False)

    def __str__(self) -> str:
        version = f"({self.os_version})" if self.os_version else ""
        return "/".join(x for x in (self.os + version, self.architecture, self.variant) if x)

    @classmethod
    def parse(cls, text: str, *, default: "Platform | None" = None) -> "Platform":
        """Read and normalise `os[(version)][/arch[/variant]]`, or an os or architecture alone.

        Args:
            text: as a user writes it after `--platform`.
            default: gives what is left out; `linux/amd64` if None.

        Raises:
            InvalidPlatformError: empty parts, too many of them, or a name that is neither.
        """
        default = default or cls("linux", "amd64")
        parts = text.split("/")
        match = _OS_VERSION.fullmatch(parts[0])
        if match is None or not all(_COMPONENT.fullmatch(p) for p in parts[1:]) or len(parts) > 3:
            raise InvalidPlatformError(
                f"not a platform: {text!r}",
                hint="write os/arch or os/arch/variant, as linux/arm64",
            )
        version = match["version"] or ""
        if len(parts) == 1:
            return _from_one_word(match["os"], version, default, cls)
        os, architecture = _normal_os(match["os"]), parts[1]
        variant = parts[2] if len(parts) == 3 else ""
        return cls(os, *_normal(architecture, variant), version)

    def normalised(self) -> "Platform":
        """The same platform in its common spelling: `x86_64` is `amd64`, arm64 has no `v8`."""
        return Platform(
            _normal_os(self.os),
            *_normal(self.architecture, self.variant),
            self.os_version,
            self.os_features,
            self.extra,
        )

    def to_json(self) -> dict[str, Any]:
        """The JSON form, in the specification's order of fields."""
        document: dict[str, Any] = {"architecture": self.architecture, "os": self.os}
        if self.os_version:
            document["os.version"] = self.os_version
        if self.os_features:
            document["os.features"] = list(self.os_features)
        if self.variant:
            document["variant"] = self.variant
        document.update(self.extra)
        return document

    @classmethod
    def from_json(cls, value: Any) -> "Platform":  # noqa: ANN401 - JSON
        """Read the JSON form.

        Raises:
            InvalidDocumentError: not an object, or a field that is no string.
        """
        if not isinstance(value, dict):
            raise InvalidDocumentError(f"platform: want an object, got {type(value).__name__}")
        rest = dict(value)
        names = ("os", "architecture", "variant", "os.version")
        os, architecture, variant, version = (rest.pop(k, "") or "" for k in names)
        features = rest.pop("os.features", None) or []
        if not isinstance(features, list) or not all(
            isinstance(x, str) for x in (os, architecture, variant, version, *features)
        ):
            raise InvalidDocumentError("platform: os, architecture and variant must be strings")
        return cls(os, architecture, variant, version, tuple(features), tuple(rest.items()))


def _from_one_word(word: str, version: str, default: Platform, make: type[Platform]) -> Platform:
    os = _normal_os(word)
    if os in _KNOWN_OSES:
        variant = default.variant if default.architecture == "arm" else ""
        return make(os, default.architecture, variant, version)
    architecture, variant = _normal(word, "")
    if architecture in _KNOWN_ARCHITECTURES:
        return make(default.os, architecture, variant, version)
    raise InvalidPlatformError(
        f"neither an operating system nor an architecture: {word!r}",
        hint="write os/arch or os/arch/variant, as linux/arm64",
    )


def _normal_os(os: str) -> str:
    os = os.lower()
    return "darwin" if os == "macos" else os


def _normal(architecture: str, variant: str) -> tuple[str, str]:
    architecture, variant = architecture.lower(), variant.lower()
    if architecture in _ARCHITECTURES:
        architecture, implied = _ARCHITECTURES[architecture]
        variant = variant or implied
    match architecture, variant:
        case "arm64", "8" | "v8" | "v8.0":
            variant = ""
        case "arm", "" | "7":
            variant = "v7"
        case "arm", "5" | "6" | "8":
            variant = "v" + variant
        case "amd64", "v1":
            variant = ""
        case _:
            pass
    return architecture, variant


def compatible(wanted: Platform) -> Iterable[tuple[str, str]]:
    """The (architecture, variant) pairs that run on `wanted`, best first.

    A processor runs what was made for older variants of it: arm v7 runs v6 and v5, amd64 v3 runs
    v2 and v1, arm64 runs no arm unless asked for.
    """
    architecture, variant = wanted.architecture, wanted.variant
    yield architecture, variant
    number = variant[1:].split(".")[0] if variant.startswith("v") else ""
    if architecture == "arm" and number.isdigit():
        for lower in range(int(number) - 1, 4, -1):
            yield "arm", f"v{lower}"
    elif architecture == "amd64" and number.isdigit():
        for lower in range(int(number) - 1, 1, -1):
            yield "amd64", f"v{lower}"
        yield "amd64", ""
    elif architecture == "arm64" and variant:
        yield "arm64", ""


def choose(wanted: Platform, offered: Sequence[Platform | None]) -> int | None:
    """The position of the best match for `wanted`; None if nothing offered runs on it.

    An offer without a platform matches last; `unknown/unknown` (attestations) never does.
    """
    best: tuple[int, int] | None = None
    wanted = wanted.normalised()
    ranks = {pair: rank for rank, pair in enumerate(compatible(wanted))}
    for position, platform in enumerate(offered):
        if platform is None:
            rank = len(ranks)
        else:
            offer = platform.normalised()
            found = ranks.get((offer.architecture, offer.variant))
            if offer.os != wanted.os or found is None:
                continue
            rank = found
        if best is None or rank < best[0]:
            best = (rank, position)
    return None if best is None else best[1]

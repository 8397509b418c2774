"""Image references: `[host/]repository[:tag][@digest]` (distribution's reference grammar)."""

import re
from typing import Final

from attrs import evolve, frozen

from imagekit.errors import InvalidDigestError, InvalidReferenceError
from imagekit.oci.digest import Digest

DOCKER_HUB: Final = "docker.io"
_SEPARATED: Final = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_PATH: Final = re.compile(rf"{_SEPARATED}(?:/{_SEPARATED})*")
_LABEL: Final = r"(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9])"
_HOST: Final = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HEX_NAME: Final = re.compile(r"[0-9a-f]{64}")
_DIGEST: Final = re.compile(
    r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9A-Fa-f]{32,}"
)


@frozen
class Reference:
    """The name of an image in a registry; made by `Reference.parse`.

    `str()` gives the canonical form, with the host; `familiar` the short one. The digest, where
    there is one, decides; the tag is then for display.
    """

    host: str
    repository: str
    tag: str = ""
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Read a reference as users write it: `debian` is `docker.io/library/debian`.

        Neither a tag nor a digest is added; see `with_default_tag`.

        Raises:
            InvalidReferenceError: against the grammar; the message says which part.
        """
        if _HEX_NAME.fullmatch(text):
            raise _bad(text, "64 hexadecimal digits are an image ID, not a name")
        rest, at, digest_text = text.partition("@")
        digest = None
        if at:
            if not _DIGEST.fullmatch(digest_text):
                raise _bad(text, f"{digest_text!r} is not a digest")
            digest = _digest(text, digest_text)
        host, path = _split_host(rest)
        path, colon, tag = path.partition(":")
        if colon and not _TAG.fullmatch(tag):
            raise _bad(text, f"{tag!r} is not a tag")
        _check_name(text, host, path)
        if host == "index.docker.io":
            host = DOCKER_HUB
        if host == DOCKER_HUB and "/" not in path:
            path = f"library/{path}"
        if len(host) + 1 + len(path) > 255:
            raise _bad(text, "host and repository are longer than 255 characters")
        return cls(host, path, tag, digest)

    def with_default_tag(self) -> "Reference":
        """The same with the tag `latest` if it has neither tag nor digest."""
        return self if self.tag or self.digest else evolve(self, tag="latest")

    @property
    def name(self) -> str:
        """Host and repository."""
        return f"{self.host}/{self.repository}"

    @property
    def api_host(self) -> str:
        """The host that answers the registry API; Docker Hub's is not the one in its names."""
        return "registry-1.docker.io" if self.host == DOCKER_HUB else self.host

    @property
    def familiar(self) -> str:
        """The short form that people write: without `docker.io/library/`."""
        name = self.name
        if self.host == DOCKER_HUB:
            name = self.repository.removeprefix("library/")
        return name + self._suffix

    def __str__(self) -> str:
        return self.name + self._suffix

    @property
    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return tag + (f"@{self.digest}" if self.digest else "")


def _digest(text: str, digest: str) -> Digest:
    try:
        return Digest.parse(digest)
    except InvalidDigestError as exc:
        raise _bad(text, exc.message) from exc


def _split_host(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    is_host = any(c in first for c in ".:[") or first == "localhost" or first != first.lower()
    return (first, rest) if slash and is_host else (DOCKER_HUB, text)


def _check_name(text: str, host: str, path: str) -> None:
    if not _HOST.fullmatch(host):
        raise _bad(text, f"{host!r} is not a registry host")
    if not _PATH.fullmatch(path):
        why = f"{path!r} is not a repository name"
        if _PATH.fullmatch(path.lower()):
            why += "; it must be lower case"
        raise _bad(text, why)


def _bad(text: str, why: str) -> InvalidReferenceError:
    return InvalidReferenceError(
        f"invalid image reference {text!r}: {why}",
        hint="write [host[:port]/]repository[:tag][@sha256:...]",
    )

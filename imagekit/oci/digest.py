"""Digests: the names of bytes (image-spec descriptor.md, Digests)."""

import hashlib
from collections.abc import Iterable

from attrs import Attribute, field, frozen

from imagekit.errors import InvalidDigestError

_HEX_LENGTHS = {"sha256": 64, "sha512": 128}
_HEX_DIGITS = frozenset("0123456789abcdef")


@frozen(order=True)
class Digest:
    """The name of some bytes, as in `sha256:ab..`; made by `Digest.parse` or `Digest.of`."""

    algorithm: str
    hex: str = field()

    @hex.validator  # noqa: A003 - the word of the specification
    def _check(self, _: "Attribute[str]", value: str) -> None:
        if len(value) != _HEX_LENGTHS.get(self.algorithm) or not set(value) <= _HEX_DIGITS:
            raise InvalidDigestError(
                f"not a digest: {self.algorithm}:{value}"[:200],
                hint="a digest is sha256: and 64 hexadecimal digits, or sha512: and 128",
            )

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @property
    def short(self) -> str:
        """The first twelve digits, for people."""
        return self.hex[:12]

    @classmethod
    def parse(cls, text: str) -> "Digest":
        """Read `algorithm:hex`.

        Raises:
            InvalidDigestError: another form, an unknown algorithm or a wrong length.
        """
        algorithm, _, encoded = text.partition(":")
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, data: bytes) -> "Digest":
        """The SHA-256 digest of `data`."""
        return cls("sha256", hashlib.sha256(data).hexdigest())


def hasher(algorithm: str = "sha256") -> "hashlib._Hash":
    """An incremental hash for the algorithm of a digest.

    Raises:
        InvalidDigestError: an algorithm that content may not be named by.
    """
    if algorithm not in _HEX_LENGTHS:
        raise InvalidDigestError(f"unknown digest algorithm: {algorithm}"[:200])
    return hashlib.new(algorithm)


def chain_id(diff_ids: Iterable[Digest]) -> Digest | None:
    """The name of a stack of layers; None for no layers (image-spec config.md, Layer ChainID)."""
    chain: Digest | None = None
    for diff_id in diff_ids:
        chain = diff_id if chain is None else Digest.of(f"{chain} {diff_id}".encode())
    return chain

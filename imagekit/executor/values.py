"""What the steps of a build hand to each other."""

from collections.abc import Callable, Iterable
from typing import BinaryIO, Protocol

from attrs import frozen

from imagekit.oci.descriptor import Descriptor
from imagekit.oci.digest import Digest


@frozen(kw_only=True)
class Layer:
    """A layer that is in the store, or can be fetched to it.

    Attributes:
        descriptor: of its blob.
        content: digest of its changes without file times; it stands for the layer in the keys of
            what is built on it. For the layer of a base image, the diff ID.
        origin: where the blob can be fetched; empty for what was built here.
        created: seconds since the epoch; 0 for the layer of a base image.
        codec: how it was compressed here; empty for what came from elsewhere.
    """

    diff_id: Digest
    descriptor: Descriptor
    content: Digest
    origin: str = ""
    created: int = 0
    codec: str = ""


@frozen(kw_only=True)
class Outcome:
    """What a step gave: the layers of a root file system, lowest first, or a local context."""

    layers: tuple[Layer, ...] = ()
    context: str | None = None


class Fetcher(Protocol):
    """Whoever knows where base images come from."""

    def open(self, origin: str, descriptor: Descriptor) -> BinaryIO:
        """The bytes of a blob; the caller checks them and closes the stream.

        Raises:
            RegistryError: the registry does not give it.
            StoreError: the layout does not have it.
        """


def content_id(layers: Iterable[Layer]) -> Digest:
    """What a stack of layers is, file times aside."""
    return Digest.of("\n".join(["layers", *(str(layer.content) for layer in layers)]).encode())


SecretReader = Callable[[str], bytes | None]
"""The value of a secret by its id, or None if the caller gave none."""

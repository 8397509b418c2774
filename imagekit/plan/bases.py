"""Base images as a plan sees them: what has to be known of them, and what then is."""

from attrs import frozen

from imagekit.oci.config import ImageConfig
from imagekit.oci.descriptor import Descriptor
from imagekit.oci.platform import Platform
from imagekit.oci.reference import Reference


@frozen(kw_only=True)
class BaseRequest:
    """An image that a plan cannot be made without.

    Attributes:
        reference: canonical, with a tag or a digest.
        platform: to be chosen from an index.
        layout: where a named context says to look instead of a registry, as it stands after
            `oci-layout://`; empty otherwise.
    """

    reference: Reference
    platform: Platform
    layout: str = ""

    def __str__(self) -> str:
        return f"oci-layout://{self.layout}" if self.layout else str(self.reference)


@frozen(kw_only=True)
class ResolvedBase:
    """What an image turned out to be.

    Attributes:
        config: its config.
        manifest: None for what has none, such as an image of a docker archive.
        layers: lowest first, in step with the config's diff IDs.
        origin: where its blobs can be fetched: a canonical pinned reference, or
            `oci-layout://PATH`.
    """

    config: ImageConfig
    manifest: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    origin: str = ""

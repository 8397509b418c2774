"""What the sync and the async registry have in common: how flows are prepared, and what is known.

A session is pure: it has no connection, only the way there, the credentials for it, and what was
learnt on it.
"""

from collections.abc import Callable
from typing import Final

from attrs import Factory, frozen

from imagekit.errors import UsageError
from imagekit.events import Observer, Transfer
from imagekit.oci.descriptor import Descriptor
from imagekit.oci.digest import Digest
from imagekit.oci.document import Document
from imagekit.oci.manifest import Index, Manifest
from imagekit.oci.reference import DOCKER_HUB, Reference
from imagekit.registry.access import Access
from imagekit.registry.auth import Authority, CredentialSource
from imagekit.registry.calls import Flow, T, through
from imagekit.registry.retry import RetryPolicy, retrying
from imagekit.registry.uploads import UploadSettings

_STEP: Final = 4 << 20
"""Bytes between two events of one transfer."""


@frozen(kw_only=True)
class Settings:
    """What may be changed about a registry's client; the defaults are those of the specifications.

    Attributes:
        policy: tries and waits.
        upload: how blobs are cut.
        trusted_realms: token servers, as `host` or `host:port`, that may be asked and given
            credentials although the registry's name does not vouch for them.
        tls: the host speaks TLS although it is loopback.
        sleep: waits for some seconds; None for the clock's own.
    """

    policy: RetryPolicy = Factory(RetryPolicy)
    upload: UploadSettings = Factory(UploadSettings)
    trusted_realms: frozenset[str] = Factory(frozenset)
    tls: bool = False
    sleep: Callable[[float], object] | None = None


class Session:
    """One registry as its flows see it."""

    def __init__(
        self,
        host: str,
        *,
        insecure: bool,
        credentials: CredentialSource,
        clock: Callable[[], float],
        observer: Observer,
        settings: Settings,
    ) -> None:
        """Prepare to talk to a host; see `Registry`."""
        self.host = host.partition("://")[2] or host
        self.settings = settings
        api = "registry-1.docker.io" if host == DOCKER_HUB else host
        self.access = Access.to(api, insecure=insecure, tls=settings.tls)
        self.authority = Authority(
            self.access,
            credentials,
            clock=clock,
            policy=settings.policy,
            trusted_realms=settings.trusted_realms,
            host=self.host,
        )
        self._observer = observer
        self._holders: dict[Digest, str] = {}

    def prepare(self, flow: Flow[T]) -> Flow[T]:
        """The flow with tries, redirects and credentials around it."""
        flow = through(retrying(flow, self.settings.policy), self.access.redirecting)
        return through(flow, self.authority.authorising)

    def read(self, reference: Reference | str) -> tuple[str, str | Digest]:
        """Repository and name of a reference at this registry.

        Raises:
            UsageError: it is at another.
        """
        if isinstance(reference, str):
            reference = Reference.parse(reference)
        if reference.host != self.host:
            raise UsageError(f"{reference} is not at {self.host}")
        return reference.repository, reference.digest or reference.tag or "latest"

    def learn(self, repository: str, document: Document[Manifest | Index]) -> None:
        """Note that the blobs of a manifest are in the repository it came from."""
        if isinstance(document.value, Manifest):
            for descriptor in (document.value.config, *document.value.layers):
                self.note(repository, descriptor)

    def note(self, repository: str, descriptor: Descriptor) -> None:
        """Note that a blob is in a repository."""
        self._holders.setdefault(descriptor.digest, repository)

    def holder(self, descriptor: Descriptor, *, but: str) -> str:
        """Another repository that has the blob; empty if none is known."""
        found = self._holders.get(descriptor.digest, "")
        return "" if found == but else found

    def transfer(self, direction: str, descriptor: Descriptor, why: str) -> Callable[[int], None]:
        """Tells the observer how far a transfer has come, not at every byte."""
        told = -_STEP

        def progress(done: int) -> None:
            nonlocal told
            if done == descriptor.size or not 0 <= done - told < _STEP:
                told = done
                self._observer(
                    Transfer(
                        direction="push" if direction == "push" else "pull",
                        name=str(descriptor.digest),
                        why=why,
                        done=done,
                        total=descriptor.size,
                    )
                )

        return progress

    def mounted(self, descriptor: Descriptor, why: str) -> None:
        """Tell the observer that a blob did not have to move."""
        self._observer(
            Transfer(
                direction="mount",
                name=str(descriptor.digest),
                why=why,
                done=descriptor.size,
                total=descriptor.size,
            )
        )

"""Registries: images pulled from and pushed to (distribution-spec 1.1).

`flows` and `uploads` say what is asked, as generators of calls; `retry`, `access` and `auth` put
tries, redirects and credentials around that; none of these knows a socket. `client` and `aclient`
drive them in threads and on the event loop, over `transport` and `atransport`, which alone know
httpx. `repository` shows a repository as a store, so that pushing and pulling is copying;
`pull` finds the image of a platform.
"""

from imagekit.registry.aclient import AsyncRegistry
from imagekit.registry.auth import Credential, CredentialSource, anonymous
from imagekit.registry.client import Registries, Registry
from imagekit.registry.credentials import StoredCredentials
from imagekit.registry.pull import PulledImage, resolve_image
from imagekit.registry.repository import Repository
from imagekit.registry.retry import RetryPolicy
from imagekit.registry.session import Settings
from imagekit.registry.uploads import UploadSettings

__all__ = [
    "AsyncRegistry",
    "Credential",
    "CredentialSource",
    "PulledImage",
    "Registries",
    "Registry",
    "Repository",
    "RetryPolicy",
    "Settings",
    "StoredCredentials",
    "UploadSettings",
    "anonymous",
    "resolve_image",
]

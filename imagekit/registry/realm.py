"""Which token servers are asked, and which are given stored secrets.

The URL of the token server (the realm) comes from whoever answered, so it must not lead into the
networks behind us, and secrets go only where the registry's own domain, or the user, vouches for
it.

Spec: security spec N-3.
"""

from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from imagekit.errors import AuthError, RegistryError
from imagekit.registry.access import Access, Origin
from imagekit.registry.calls import Reach, redact_url

WELL_KNOWN: Final = frozenset(("auth.docker.io",))
_SECOND_LEVEL: Final = frozenset(("ac", "co", "com", "edu", "gov", "net", "ne", "or", "org"))


def check_realm(realm: str, access: Access, trusted: frozenset[str]) -> Reach:
    """Check a realm; gives the addresses that it may be connected to at.

    Args:
        realm: as the challenge has it.
        access: what the registry may be spoken to with.
        trusted: hosts, as `host` or `host:port`, that the user vouches for.

    Raises:
        AuthError: not an absolute https URL, or one of a place that no token server is at.
    """
    try:
        origin, parts = Origin.of(realm), urlsplit(realm)
    except RegistryError as exc:
        raise _refused(realm, access, "it is not an absolute https URL") from exc
    if parts.fragment:
        raise _refused(realm, access, "it has a fragment")
    same = (origin.host, origin.port) == (access.origin.host, access.origin.port)
    listed = _listed(origin, trusted)
    if origin.scheme != "https":
        plain = access.origin.scheme == "http" and (same or (listed and access.allows(origin)))
        if not plain:
            raise _refused(realm, access, "it is plain HTTP")
    if same or listed:
        return "any"
    if is_private(origin.host) or origin.is_loopback:
        raise _refused(realm, access, "it is inside a private network")
    return "public"


def may_have_secrets(realm: str, access: Access, trusted: frozenset[str]) -> bool:
    """Whether stored secrets may be sent to a realm that `check_realm` has passed."""
    origin = Origin.of(realm)
    if origin.host == access.origin.host or _listed(origin, trusted | WELL_KNOWN):
        return True
    return same_domain(origin.host, access.origin.host)


def same_domain(one: str, other: str) -> bool:
    """Whether two hosts are under one domain that a single owner registered.

    Told without the list of public suffixes: two labels in common, three where the last two look
    like the second level of a country (`co.uk`). An address is under no domain.
    """
    if _is_address(one) or _is_address(other):
        return False
    common: list[str] = []
    for a, b in zip(reversed(one.split(".")), reversed(other.split(".")), strict=False):
        if a != b:
            break
        common.append(a)
    if len(common) == 2 and len(common[0]) == 2 and common[1] in _SECOND_LEVEL:
        return False
    return len(common) >= 2


def is_private(host: str) -> bool:
    """Whether a host is written as an address that is not on the public internet."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return not (mapped or address).is_global or address.is_multicast


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _listed(origin: Origin, hosts: frozenset[str]) -> bool:
    return not hosts.isdisjoint((origin.host, f"{origin.host}:{origin.port}", origin.netloc))


def _refused(realm: str, access: Access, why: str) -> AuthError:
    return AuthError(
        f"{access.origin.netloc} names a token server that is not asked: "
        f"{redact_url(realm)[:200]}: {why}",
        code="realm-refused",
        hint="list it as a trusted realm if it is the registry's own",
    )

"""Where downloads may go: schemes, hosts, addresses, and from where to where redirects may lead.

A Dockerfile is not trusted, and the machine that builds sees more than its author: what listens on
loopback, the metadata service of a cloud. So those are not spoken to on a stranger's word. TLS is
expected; plain HTTP is for this machine itself, for hosts that the caller lists, and for what is
pinned by a checksum, since nobody on the way can then change it unseen.

Spec: security.md C-7, N-2.
"""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, NoReturn
from urllib.parse import SplitResult, urlsplit

from attrs import frozen

from imagekit.errors import FetchError
from imagekit.registry.calls import redact_url

PORTS: Final = {"http": 80, "https": 443, "git": 9418, "ssh": 22}
_PLAIN: Final = frozenset({"http", "git"})
_METADATA: Final = tuple(
    map(ip_network, ("169.254.0.0/16", "fd00:ec2::254/128", "100.100.100.200/32"))
)
LIST_IT: Final = "list the host as an insecure source if it is meant (--insecure-source HOST)"


@frozen
class Reach:
    """What may be fetched from.

    Attributes:
        listed: hosts, as `host` or `host:port`, that are spoken to in any case.
    """

    listed: frozenset[str] = frozenset()

    def check(self, url: str, *, origin: str = "", pinned: bool = False) -> SplitResult:
        """Check that a URL may be asked; its parts come back.

        Args:
            url: absolute.
            origin: the URL that led here by redirects, if any did.
            pinned: the content is known by its digest.

        Raises:
            FetchError: code `insecure-url`, `address-refused` or `url-invalid`.
        """
        parts = split(url)
        listed = self._is_listed(parts)
        loopback = is_loopback(parts.hostname or "")
        address = _address(parts.hostname or "")
        if address is not None:
            self.check_address(url, address, origin=origin)
        elif loopback and origin and not listed and not is_loopback(split(origin).hostname or ""):
            _refuse(url, "a redirect led to this machine itself")
        if parts.scheme in _PLAIN and not (loopback or listed or pinned):
            raise FetchError(
                f"{redact_url(url)}: without TLS anybody on the way can change what is fetched",
                hint=f"use https, pin the content with --checksum, or {LIST_IT}",
                code="insecure-url",
            )
        return parts

    def check_redirect(self, previous: str, url: str, *, origin: str, pinned: bool) -> None:
        """Check that an answer of `previous` may send us to `url`.

        Raises:
            FetchError: as `check`, or code `redirect` if it leads from TLS to plain HTTP.
        """
        parts = self.check(url, origin=origin, pinned=pinned)
        if split(previous).scheme == "https" and parts.scheme != "https":
            raise FetchError(
                f"{redact_url(previous)} redirects from TLS to {redact_url(url)}", code="redirect"
            )

    def check_address(
        self, url: str, address: IPv4Address | IPv6Address, *, origin: str = ""
    ) -> None:
        """Check the address that the host of a URL stands for, once it is known.

        Raises:
            FetchError: code `address-refused`.
        """
        parts = split(url)
        if self._is_listed(parts):
            return
        address = getattr(address, "ipv4_mapped", None) or address
        if address.is_loopback:
            hosts = [parts.hostname or "", *([split(origin).hostname or ""] if origin else [])]
            if not all(is_loopback(host) for host in hosts):
                _refuse(url, "it leads to this machine itself")
        elif address.is_link_local or any(address in network for network in _METADATA):
            _refuse(url, f"{address} is link-local, as the metadata services of clouds are")
        elif address.is_unspecified or address.is_multicast:
            _refuse(url, f"{address} is no host")

    def _is_listed(self, parts: SplitResult) -> bool:
        host = parts.hostname or ""
        port = parts.port or PORTS.get(parts.scheme, 0)
        return not self.listed.isdisjoint((host, f"{host}:{port}", parts.netloc))


def split(url: str) -> SplitResult:
    """The parts of an absolute URL of a known scheme.

    Raises:
        FetchError: it is none; code `url-invalid`.
    """
    try:
        parts = urlsplit(url)
        known = parts.scheme in PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known or any(ord(c) <= 0x20 or ord(c) == 0x7F for c in url):
        raise FetchError(f"{redact_url(url)!r} is no URL to fetch from", code="url-invalid")
    return parts


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its very name."""
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _refuse(url: str, why: str) -> NoReturn:
    raise FetchError(
        f"refused to fetch {redact_url(url)}: {why}", hint=LIST_IT, code="address-refused"
    )

"""Which URLs a registry's exchanges may go to, and the redirects between them.

Registries redirect downloads to storage services, so other hosts must be allowed; but never in
plain HTTP where it was not asked for, and never with credentials: `auth` binds those to an origin.

Spec: security spec N-1, N-2.
"""

from ipaddress import ip_address
from typing import Final, Self
from urllib.parse import urljoin, urlsplit

from attrs import evolve, frozen

from imagekit.errors import RegistryError, UsageError
from imagekit.registry.calls import Call, Flow, Reply, redact_url

MAX_REDIRECTS: Final = 5
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
OCTETS: Final = ("content-type", "application/octet-stream")
"""The header of the bytes of a blob."""
_PORTS: Final = {"http": 80, "https": 443}


@frozen
class Origin:
    """Scheme, host and port: what credentials are bound to."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Self:
        """The origin of an absolute URL.

        Raises:
            RegistryError: it is not http or https, has no host, or holds a user name.
        """
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS[parts.scheme]
        except (ValueError, KeyError):
            raise _refused(url, "it is not an http or https URL") from None
        if not parts.hostname or "@" in parts.netloc:
            raise _refused(url, "it has no host, or a user name")
        return cls(parts.scheme, parts.hostname, port)

    @property
    def netloc(self) -> str:
        """`host` or `host:port`, the port where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine by its very name."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@frozen(kw_only=True)
class Access:
    """What may be spoken to on behalf of one registry.

    Attributes:
        origin: of the registry's API.
        insecure: hosts, as `host` or `host:port`, that plain HTTP may be used with.
    """

    origin: Origin
    insecure: frozenset[str] = frozenset()

    @classmethod
    def to(cls, host: str, *, insecure: bool = False, tls: bool = False) -> Self:
        """Access to a registry by its host.

        Args:
            host: `host`, `host:port`, or a URL with nothing after the port. Without a scheme,
                plain HTTP is used with loopback and insecure hosts, unless the port is 443.
            insecure: the host may be spoken to in plain HTTP.
            tls: the host is known to speak TLS, loopback or not.

        Raises:
            UsageError: plain HTTP with a host that is neither loopback nor insecure.
        """
        if "://" in host:
            origin = Origin.of(host)
        else:
            origin = Origin.of(f"https://{host}")
            plain = (insecure or origin.is_loopback) and not tls
            if plain and urlsplit(f"//{host}").port != 443:
                origin = Origin.of(f"http://{host}")
        access = cls(origin=origin, insecure=frozenset((origin.netloc,) if insecure else ()))
        if not access.allows(origin):
            raise UsageError(
                f"{host}: plain HTTP is for loopback and for hosts that are listed as insecure",
                hint="list the registry as insecure if the network to it is trusted",
            )
        return access

    def allows(self, origin: Origin) -> bool:
        """Whether requests may go there at all."""
        named = not self.insecure.isdisjoint((origin.host, origin.netloc))
        return origin.scheme == "https" or origin.is_loopback or named

    def absolute(self, url: str) -> str:
        """The URL, made absolute if it is a path at the registry."""
        return f"{self.origin}{url}" if url.startswith("/") else url

    def check_step(self, previous: Origin, call: Call) -> None:
        """Check that an answer of `previous` may send us to where the call goes.

        Raises:
            RegistryError: plain HTTP where it is not allowed, or after TLS.
        """
        origin = Origin.of(call.url)
        if previous.scheme == "https" and origin.scheme != "https":
            raise _refused(call.url, f"{previous} sent us from TLS to plain HTTP")
        if not self.allows(origin):
            raise _refused(call.url, "plain HTTP is not allowed there")

    def redirecting(self, call: Call) -> Flow[Reply]:
        """An exchange that makes URLs absolute and follows redirects.

        Reading may be sent to another host, and so may the bytes of a blob; what changes a
        repository may not.

        Raises:
            RegistryError: too many redirects, or one that is not allowed.
        """
        call = evolve(call, url=self.absolute(call.url))
        self.check_step(self.origin, call)
        for _ in range(MAX_REDIRECTS + 1):
            reply = yield call
            if reply.status not in _REDIRECTS:
                return reply
            # The hop is looked at as a call, never as a bare URL: tracebacks show locals, and a
            # signed URL is a credential.
            hop = evolve(call, url=urljoin(call.url, reply.header("location")), delay=0.0)
            self.check_step(Origin.of(call.url), hop)
            if call.method not in ("GET", "HEAD"):
                self._check_write(hop, reply.status)
            call = hop
        raise _refused(call.url, f"more than {MAX_REDIRECTS} redirects")

    def _check_write(self, hop: Call, status: int) -> None:
        if status not in (307, 308):
            raise _refused(hop.url, f"a {hop.method} cannot follow a redirect of status {status}")
        is_blob = hop.method in ("PUT", "PATCH") and hop.headers and hop.headers[0] == OCTETS
        if not is_blob and Origin.of(hop.url) != self.origin:
            raise _refused(hop.url, f"a {hop.method} may not be sent to another host")


def _refused(url: str, why: str) -> RegistryError:
    return RegistryError(f"refused to follow {redact_url(url)}: {why}", code="redirect")

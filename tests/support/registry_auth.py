"""What stands in front of `FakeRegistry`: Basic and token authentication, TLS with a new CA."""

import base64
import datetime as dt
import ipaddress
import itertools
import json
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.registry import Answer, Request, error


@define
class BasicGuard:
    """One account, by user name and password."""

    user: str
    password: str

    def check(self, request: Request, name: str, actions: set[str]) -> Answer | None:
        if self.may(request, name, actions):
            return None
        return error(401, "UNAUTHORIZED").having(www_authenticate='Basic realm="test"')

    def may(self, request: Request, name: str, actions: set[str]) -> bool:
        del name, actions
        return request.headers.get("authorization") == basic(self.user, self.password)

    def token(self, request: Request) -> Answer | None:
        del request


@define
class TokenGuard:
    """Tokens, of a token server at `/token` of the same host unless `realm` is elsewhere.

    Attributes:
        anonymous: what may be done without an account.
        identity_tokens: refresh tokens; each is good once if they rotate.
        life: `expires_in` of new tokens, None to leave it out.
        narrow: grants nothing that is not in it, whatever is asked for, until it is emptied.
        key: `token` or `access_token`.
    """

    user: str = "tester"
    password: str = "s3cret-p4ssword"  # a canary that must not show up
    realm: str = ""
    service: str = "fake"
    anonymous: frozenset[str] = frozenset()
    identity_tokens: set[str] = field(factory=set)
    rotating: bool = False
    life: int | None = 300
    key: str = "token"
    post_status: int = 200
    challenge_prefix: str = ""
    asked: list[tuple[str, ...]] = field(factory=list)
    issued: dict[str, frozenset[str]] = field(factory=dict)
    narrow: set[str] = field(factory=set)
    _numbers: Any = field(factory=lambda: itertools.count(1))

    def check(self, request: Request, name: str, actions: set[str]) -> Answer | None:
        if self.may(request, name, actions):
            return None
        realm = self.realm or f"http://{request.headers['host']}/token"
        scope = f"repository:{name}:{','.join(sorted(actions))}"
        challenge = f'Bearer realm="{realm}",service="{self.service}",scope="{scope}"'
        if "authorization" in request.headers:
            challenge += ',error="insufficient_scope"'
        answer = error(401, "UNAUTHORIZED", "authentication required")
        return answer.having(www_authenticate=self.challenge_prefix + challenge)

    def may(self, request: Request, name: str, actions: set[str]) -> bool:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        granted = self.issued.get(token, frozenset()) if kind == "Bearer" else frozenset()
        return {f"{name}:{a}" for a in actions} <= granted

    def expire(self) -> None:
        """Forget all tokens that were issued."""
        self.issued.clear()

    def token(self, request: Request) -> Answer | None:
        if request.path != "/token":
            return None
        if request.method == "POST":
            return self._post(request)
        fields = parse_qs(urlsplit(request.target).query)
        header = request.headers.get("authorization", "")
        if header and header != basic(self.user, self.password):
            return error(401, "UNAUTHORIZED", "wrong password")
        return self._issue(tuple(fields.get("scope", ())), known=bool(header))

    def _post(self, request: Request) -> Answer:
        if self.post_status != 200:
            return error(self.post_status, "UNSUPPORTED")
        form = {k: v[0] for k, v in parse_qs(request.body.decode()).items()}
        token = form.get("refresh_token", "")
        if form.get("grant_type") != "refresh_token" or token not in self.identity_tokens:
            return error(401, "UNAUTHORIZED", "wrong identity token")
        renewed = ""
        if self.rotating:
            self.identity_tokens.discard(token)
            renewed = f"refresh-{next(self._numbers)}"
            self.identity_tokens.add(renewed)
        return self._issue(tuple(form.get("scope", "").split()), known=True, renewed=renewed)

    def _issue(self, scopes: tuple[str, ...], *, known: bool, renewed: str = "") -> Answer:
        self.asked.append(scopes)
        granted = {
            f"{scope.split(':')[1]}:{action}"
            for scope in scopes
            for action in scope.rpartition(":")[2].split(",")
        }
        if not known:
            granted &= self.anonymous
        if self.narrow:
            granted &= self.narrow
        token = f"tok3n-{next(self._numbers)}"
        self.issued[token] = frozenset(granted)
        value: dict[str, Any] = {self.key: token}
        if self.life is not None:
            value["expires_in"] = self.life
        if renewed:
            value["refresh_token"] = renewed
        return Answer(200, (("content-type", "application/json"),), json.dumps(value).encode())


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def make_tls(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server context for 127.0.0.1, and the file of the CA that signed for it."""
    now = dt.datetime.now(dt.UTC)
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def certificate(common_name: str, public_key: Any) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)]))
            .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test CA")]))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
        )

    ca = (
        certificate("test CA", ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    leaf = (
        certificate("registry", key.public_key())
        .add_extension(names, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(ca.public_bytes(pem))
    (folder / "server.pem").write_bytes(
        leaf.public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context, folder / "ca.pem"

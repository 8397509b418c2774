"""Credentials for calls: challenges answered, tokens fetched, kept and renewed.

An `Authority` answers for one registry. Nothing is sent before the registry asks; what it asked
for is remembered, so that later calls bring it along. Credentials go to the registry's own origin
and to token servers that `realm` lets have them, nowhere else: not along redirects, not to an
upload elsewhere.

Spec: distribution's token and OAuth2 documents; registry spec section 4; security spec N-2, N-3,
N-5.
"""

import base64
import re
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from attrs import evolve, frozen

from imagekit.errors import AuthError
from imagekit.registry.access import Access, Origin
from imagekit.registry.calls import Call, Flow, Reply, Secret, T, redact_url, through
from imagekit.registry.challenge import parse_challenges
from imagekit.registry.flows import BytesBody
from imagekit.registry.problems import error_of
from imagekit.registry.realm import check_realm, may_have_secrets
from imagekit.registry.retry import RetryPolicy, retrying

CLIENT_ID: Final = "imagekit"
MAX_TOKEN: Final = 1 << 20
_DEFAULT_LIFE: Final = 60.0
_USED_LIFE: Final = 0.75
_ROUNDS: Final = 4
_PRINTABLE: Final = re.compile(r"[\x21-\x7e]+")
_FORM: Final = (("content-type", "application/x-www-form-urlencoded"),)


@frozen(kw_only=True)
class Credential:
    """What an account proves itself with; a password, or a token in its stead.

    Attributes:
        identity_token: a refresh token, exchanged for access tokens.
        registry_token: an access token, sent as it is.
    """

    username: str = ""
    password: Secret | None = None
    identity_token: Secret | None = None
    registry_token: Secret | None = None

    @classmethod
    def of(cls, username: str, password: str) -> "Credential":
        """A user name and password."""
        return cls(username=username, password=Secret(password))


CredentialSource = Callable[[str, str], Credential | None]
"""The credential for a registry host and a repository there; None to be anonymous."""


def anonymous(host: str, repository: str) -> Credential | None:
    """No credential for anything."""
    del host, repository
    return None


@frozen(kw_only=True)
class Token:
    """An access token; `expires` is on the authority's clock."""

    secret: Secret
    actions: frozenset[str]
    expires: float


@frozen(kw_only=True)
class TokenServer:
    """Where tokens come from and for whom, as a Bearer challenge says."""

    realm: str
    service: str
    credential: Credential | None = None


@frozen
class _Answer:
    """A value of Authorization, and what it was newly asked to allow."""

    secret: Secret
    asked: frozenset[str] = frozenset()


class Authority:
    """What one registry asked for, and the tokens that answer it; in memory, for one run.

    Its state is a few dictionaries whose items are replaced whole, so threads may share it.
    """

    def __init__(
        self,
        access: Access,
        credentials: CredentialSource,
        *,
        clock: Callable[[], float],
        policy: RetryPolicy,
        trusted_realms: frozenset[str] = frozenset(),
        host: str = "",
    ) -> None:
        """Answer for a registry.

        Args:
            access: how the registry is spoken to.
            credentials: asked when the registry first wants them.
            clock: seconds that only grow.
            policy: for requests to token servers.
            trusted_realms: token servers that the user vouches for.
            host: the registry as credentials name it, where that is not its API host.
        """
        self._access = access
        self._host = host or access.origin.netloc
        self._credentials = credentials
        self._clock = clock
        self._policy = policy
        self._trusted = trusted_realms
        self._basic: dict[str, Secret] = {}
        self._tokens: dict[str, tuple[Token, ...]] = {}
        self._refreshed: dict[TokenServer, Secret] = {}

    def authorising(self, call: Call) -> Flow[Reply]:
        """An exchange that brings credentials along and answers challenges.

        Raises:
            AuthError: the token server refused, or may not be asked.
        """
        if Origin.of(call.url) != self._access.origin:
            return (yield call)
        secret = self._remembered(call)
        asked: frozenset[str] = frozenset()
        for _ in range(_ROUNDS):
            reply = yield evolve(call, authorization=secret)
            if reply.status != 401:
                break
            answer = yield from self._answer(call, reply, secret, asked)
            if answer is None or answer.secret == secret:
                break
            secret, asked = answer.secret, answer.asked
            call = evolve(call, delay=0.0)
        return reply

    def _remembered(self, call: Call) -> Secret | None:
        basic = self._basic.get(call.repository)
        if basic is not None:
            return basic
        token = self._token_for(call.repository, actions_of(call.scopes))
        return None if token is None else _bearer_secret(token.secret)

    def _token_for(self, repository: str, actions: frozenset[str]) -> Token | None:
        now = self._clock()
        for token in self._tokens.get(repository, ()):
            if actions <= token.actions and now < token.expires:
                return token
        return None

    def _answer(
        self, call: Call, reply: Reply, used: Secret | None, asked: frozenset[str]
    ) -> Flow[_Answer | None]:
        """What the challenges ask for; None if none of them can be met."""
        challenges = parse_challenges(reply.all_headers("www-authenticate"))
        credential = self._credentials(self._host, call.repository)
        for challenge in challenges:
            if challenge.scheme == "bearer" and challenge.get("realm"):
                if credential is not None and credential.registry_token is not None:
                    return _Answer(_bearer_secret(credential.registry_token))
                actions = actions_of((*call.scopes, *challenge.get("scope").split()))
                if asked and actions <= asked:
                    return None  # a new token for just that was refused
                server = TokenServer(
                    realm=challenge.get("realm"),
                    service=challenge.get("service"),
                    credential=credential,
                )
                return (yield from self._bearer(call.repository, server, actions, used))
        for challenge in challenges:
            if challenge.scheme == "basic" and credential is not None:
                secret = basic_secret(credential)
                if secret is not None:
                    self._basic[call.repository] = secret
                    return _Answer(secret)
        return None

    def _bearer(
        self, repository: str, server: TokenServer, actions: frozenset[str], used: Secret | None
    ) -> Flow[_Answer]:
        """A token that another call got meanwhile, else a new one."""
        known = self._token_for(repository, actions)
        if known is not None and _bearer_secret(known.secret) != used:
            return _Answer(_bearer_secret(known.secret))
        token = yield from self._fetch(server, actions)
        kept = (
            t
            for t in self._tokens.get(repository, ())
            if not t.actions <= actions and _bearer_secret(t.secret) != used
        )
        self._tokens[repository] = (token, *kept)
        return _Answer(_bearer_secret(token.secret), actions)

    def _fetch(self, server: TokenServer, actions: frozenset[str]) -> Flow[Token]:
        reach = check_realm(server.realm, self._access, self._trusted)
        if server.credential is not None and not may_have_secrets(
            server.realm, self._access, self._trusted
        ):
            raise AuthError(
                f"{self._host}: its token server is under another domain, so it was not given the "
                f"stored credentials: {redact_url(server.realm)}",
                code="realm-refused",
                hint="list it as a trusted realm if it is the registry's own",
            )
        flow = retrying(self._exchange_token(server, scopes_of(actions)), self._policy)
        reply = yield from through(flow, lambda call: _once(evolve(call, reach=reach)))
        return self._read_token(reply, server, actions)

    def _exchange_token(self, server: TokenServer, scopes: tuple[str, ...]) -> Flow[Reply]:
        """Ask by POST with an identity token, else, or if it does not know that, by GET."""
        credential = server.credential
        if credential is not None and credential.identity_token is not None:
            token = self._refreshed.get(server, credential.identity_token)
            reply = yield token_post(server, scopes, token)
            fall_back = credential.password is not None and reply.status in (400, 401, 404, 405)
            if not fall_back:
                return reply
        return (yield token_get(server, scopes))

    def _read_token(self, reply: Reply, server: TokenServer, actions: frozenset[str]) -> Token:
        what = f"token for {self._host}"
        if reply.status != 200:
            error = error_of(reply, what)
            raise AuthError(
                error.message,
                status=reply.status,
                codes=error.codes,
                retry_after=error.retry_after,
                hint=f"the stored credentials may be wrong or expired: run `docker login "
                f"{self._host}`"
                if server.credential is not None
                else error.hint,
            )
        value = reply.json()
        fields = value if isinstance(value, dict) else {}
        found = fields.get("token") or fields.get("access_token")
        if not isinstance(found, str) or not _PRINTABLE.fullmatch(found):
            raise AuthError(f"{what}: {redact_url(reply.url)} answered without one", status=200)
        renewed = fields.get("refresh_token")
        if isinstance(renewed, str) and renewed:
            self._refreshed[server] = Secret(renewed)
        life = fields.get("expires_in")
        seconds = float(life) if isinstance(life, int | float) and life > 0 else _DEFAULT_LIFE
        return Token(
            secret=Secret(found),
            actions=actions,
            expires=self._clock() + _USED_LIFE * seconds,
        )


def authorised(flow: Flow[T], authority: Authority) -> Flow[T]:
    """The flow with the credentials that its calls need."""
    return through(flow, authority.authorising)


def _bearer_secret(token: Secret) -> Secret:
    return Secret(f"Bearer {token.value}")


def _once(call: Call) -> Flow[Reply]:
    return (yield call)


def token_get(server: TokenServer, scopes: tuple[str, ...]) -> Call:
    """Ask for a token by GET, with Basic credentials where there is a password."""
    credential = server.credential
    fields = [("service", server.service)] if server.service else []
    fields += [("scope", scope) for scope in scopes]
    fields.append(("client_id", CLIENT_ID))
    if credential is not None and credential.username:
        fields.append(("account", credential.username))
    parts = urlsplit(server.realm)
    query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), *fields])
    url = urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))
    authorization = None if credential is None else basic_secret(credential)
    return Call(
        method="GET",
        url=url,
        authorization=authorization,
        limit=MAX_TOKEN,
        shared=f"GET {url} {'' if authorization is None else authorization.value}",
    )


def token_post(server: TokenServer, scopes: tuple[str, ...], identity_token: Secret) -> Call:
    """Exchange an identity token for an access token (distribution's OAuth2 document)."""
    form = urlencode(
        {
            "grant_type": "refresh_token",
            "service": server.service,
            "scope": " ".join(scopes),
            "client_id": CLIENT_ID,
            "refresh_token": identity_token.value,
        }
    )
    return Call(
        method="POST",
        url=server.realm,
        headers=_FORM,
        body=BytesBody(form.encode()),
        limit=MAX_TOKEN,
        shared=f"POST {server.realm} {form}",
    )


def basic_secret(credential: Credential) -> Secret | None:
    """The value of Authorization for a user name and password; None if there is no password.

    Raises:
        AuthError: a user name that the scheme cannot express (RFC 7617, 2).
    """
    if credential.password is None:
        return None
    if ":" in credential.username:
        raise AuthError("a user name with a colon cannot be used to log in", code="bad-credential")
    pair = f"{credential.username}:{credential.password.value}".encode()
    return Secret(f"Basic {base64.b64encode(pair).decode()}")


def actions_of(scopes: Iterable[str]) -> frozenset[str]:
    """Scopes taken apart: `repository:app:pull,push` is `repository:app:pull` and `..:push`."""
    single: set[str] = set()
    for scope in scopes:
        resource, colon, actions = scope.rpartition(":")
        single.update(f"{resource}:{a}" for a in actions.split(",") if colon and a)
    return frozenset(single)


def scopes_of(actions: Iterable[str]) -> tuple[str, ...]:
    """The opposite of `actions_of`: one scope for each resource, sorted."""
    by_resource: dict[str, list[str]] = {}
    for action in sorted(actions):
        resource, _, verb = action.rpartition(":")
        by_resource.setdefault(resource, []).append(verb)
    return tuple(f"{resource}:{','.join(verbs)}" for resource, verbs in by_resource.items())

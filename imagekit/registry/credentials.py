"""Stored credentials: the files that `docker login` and `podman login` write, and their helpers.

The places, first find wins: DOCKER_AUTH_CONFIG (JSON), REGISTRY_AUTH_FILE, containers' auth.json
below XDG_RUNTIME_DIR and XDG_CONFIG_HOME, Docker's config.json, `.dockercfg`. In each of them
credHelpers beat credsStore, which beats auths. A place that cannot be read is an error, not an
absence: nobody wants to be anonymous without knowing.

Spec: registry spec section 3; security spec N-4.
"""

import base64
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from imagekit.errors import AuthError
from imagekit.oci.reference import DOCKER_HUB
from imagekit.registry.auth import Credential
from imagekit.registry.calls import Secret

MAX_FILE: Final = 4 << 20
_HUB_NAMES: Final = frozenset((DOCKER_HUB, "index.docker.io", "registry-1.docker.io"))
_HUB_SERVER: Final = "https://index.docker.io/v1/"


@frozen
class _Place:
    """A place that credentials may be in; `paths` tells whether its keys may name repositories."""

    name: str
    document: Mapping[str, Any]
    paths: bool


class StoredCredentials:
    """The credentials of this user; called with a host and a repository, gives one or None.

    Files are read at the first question, helpers run at most once for each host. Threads may
    share it.
    """

    def __init__(self, environ: Mapping[str, str] | None = None, home: Path | None = None) -> None:
        """Look in these places.

        Args:
            environ: the variables that name them; the process's own if None.
            home: the home folder; the user's own if None.
        """
        self._environ = os.environ if environ is None else environ
        self._home = home
        self._places: tuple[_Place, ...] | None = None
        self._found: dict[tuple[str, str], Credential | None] = {}
        self._asked: dict[tuple[str, str], Credential | None] = {}
        self._lock = threading.Lock()

    def __call__(self, host: str, repository: str) -> Credential | None:
        """The credential for a repository of a registry.

        Raises:
            AuthError: a place is malformed, or a helper failed.
        """
        with self._lock:
            if self._places is None:
                self._places = tuple(_places(self._environ, self._home or Path.home()))
            key = (host, repository)
            if key not in self._found:
                self._found[key] = self._find(self._places, host, repository)
            return self._found[key]

    def _find(self, places: tuple[_Place, ...], host: str, repository: str) -> Credential | None:
        for place in places:
            found = self._from_helpers(place, host) or _from_auths(place, host, repository)
            if found is not None:
                return found
        return None

    def _from_helpers(self, place: _Place, host: str) -> Credential | None:
        helpers = place.document.get("credHelpers")
        own = helpers if isinstance(helpers, dict) else {}
        names = [name for key, name in own.items() if _host_of(key) == _hub(host)]
        name = names[0] if names else place.document.get("credsStore")
        if not isinstance(name, str) or not name:
            return None
        server = _HUB_SERVER if _hub(host) == DOCKER_HUB else host
        from imagekit.registry.helper import ask_helper  # noqa: PLC0415 - subprocess is slow

        if (name, server) not in self._asked:
            self._asked[name, server] = ask_helper(name, server)
        return self._asked[name, server]


def _places(environ: Mapping[str, str], home: Path) -> Iterator[_Place]:
    if text := environ.get("DOCKER_AUTH_CONFIG"):
        yield _Place("DOCKER_AUTH_CONFIG", _parse(text.encode(), "DOCKER_AUTH_CONFIG"), paths=True)
    config_home = environ.get("XDG_CONFIG_HOME") or home / ".config"
    containers = [environ.get("REGISTRY_AUTH_FILE")]
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        containers.append(f"{runtime}/containers/auth.json")
    containers.append(f"{config_home}/containers/auth.json")
    for path in containers:
        if path and (raw := _read(Path(path))) is not None:
            yield _Place(path, _parse(raw, path), paths=True)
    docker = Path(environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
    if (raw := _read(docker)) is not None:
        yield _Place(str(docker), _parse(raw, str(docker)), paths=False)
    oldest = home / ".dockercfg"
    if (raw := _read(oldest)) is not None:
        yield _Place(str(oldest), {"auths": _parse(raw, str(oldest))}, paths=False)


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise _bad(str(path), exc.strerror or "cannot be read") from exc
    if len(raw) > MAX_FILE:
        raise _bad(str(path), f"is larger than {MAX_FILE} bytes")
    return raw


def _parse(raw: bytes, name: str) -> Mapping[str, Any]:
    if not raw.strip():
        return {}
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise _bad(name, "is not JSON") from None  # the cause would show the content
    if not isinstance(value, dict):
        raise _bad(name, "is not a JSON object")
    return value


def _from_auths(place: _Place, host: str, repository: str) -> Credential | None:
    auths = place.document.get("auths")
    if not isinstance(auths, dict):
        return None
    if place.paths:
        name = f"{_hub(host)}/{repository}"
        while "/" in name:
            if isinstance(auths.get(name), dict):
                return _entry(auths[name], f"{place.name}: {name}")
            name = name.rpartition("/")[0]
    for key, entry in auths.items():
        if isinstance(entry, dict) and _host_of(key) == _hub(host):
            found = _entry(entry, f"{place.name}: {key}")
            if found is not None:
                return found
    return None


def _entry(entry: Mapping[str, Any], where: str) -> Credential | None:
    fields: dict[str, str] = {k: v for k, v in entry.items() if isinstance(v, str) and v}
    username: str = fields.get("username", "")
    password: str = fields.get("password", "")
    if "auth" in fields:
        try:
            text = base64.b64decode(fields["auth"], validate=True).decode()
        except ValueError:
            raise _bad(where, "auth is not base64 of a user name and password") from None
        username, colon, password = text.partition(":")
        if not colon:
            raise _bad(where, "auth has no colon")
        password = password.strip("\0")
    identity, token = fields.get("identitytoken"), fields.get("registrytoken")
    if not (password or identity or token):
        return None
    return Credential(
        username=username,
        password=Secret(password) if password else None,
        identity_token=Secret(identity) if identity else None,
        registry_token=Secret(token) if token else None,
    )


def _hub(host: str) -> str:
    return DOCKER_HUB if host in _HUB_NAMES else host


def _host_of(key: str) -> str:
    """The host that a key names; empty for a key that names a repository."""
    rest = key.removeprefix("https://").removeprefix("http://").rstrip("/")
    for suffix in ("/v1", "/v2"):
        rest = rest.removesuffix(suffix)
    return "" if "/" in rest else _hub(rest)


def _bad(where: str, why: str) -> AuthError:
    return AuthError(f"stored credentials: {where}: {why}", code="bad-credential")

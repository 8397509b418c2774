"""What an answer that is no success means, as typed errors with a hint."""

from typing import Final
from urllib.parse import urlsplit

from imagekit.errors import AuthError, ImageNotFoundError, RateLimitedError, RegistryError
from imagekit.registry.calls import Reply

_UNKNOWN: Final = frozenset(("NAME_UNKNOWN", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN"))
_SHOWN: Final = 256
_MAX_CODES: Final = 16


def error_of(reply: Reply, what: str) -> RegistryError:
    """The error that an answer stands for.

    Args:
        reply: any answer but the wanted one.
        what: what was asked for, as `manifest of debian:12`.

    Spec: distribution-spec, Error Codes; registry spec section 8.
    """
    codes, said = _read_body(reply)
    host = urlsplit(reply.url).netloc
    message = f"{what}: {host} answered {reply.status}" + (f": {said}" if said else "")
    if reply.status == 401:
        return AuthError(
            message,
            status=401,
            codes=codes,
            hint=f"it does not exist, or needs credentials that are not there: "
            f"run `docker login {_login_host(host)}`",
        )
    if reply.status == 403:
        return AuthError(
            message,
            status=403,
            codes=codes,
            code="denied",
            hint="the account that is logged in may not do this",
        )
    if _says_not_found(reply.status, codes, said):
        return ImageNotFoundError(
            message,
            status=reply.status,
            codes=codes,
            hint="check the spelling of repository and tag",
        )
    wait = retry_after(reply)
    if reply.status == 429:
        when = "" if wait is None else f" in {wait:.0f} s"
        hint = f"try again{when}, or run `docker login {_login_host(host)}` for a higher limit"
        return RateLimitedError(message, status=429, codes=codes, retry_after=wait, hint=hint)
    hint = "it is smaller than what was sent allows; use another registry or smaller layers"
    return RegistryError(
        message,
        status=reply.status,
        codes=codes,
        retry_after=wait,
        hint=hint if reply.status == 413 else "",
    )


def retry_after(reply: Reply) -> float | None:
    """Seconds that the answer asks to wait, a date counted from its own (RFC 9110, 10.2.3)."""
    value = reply.header("retry-after")
    if value.isascii() and value.isdigit():
        return float(value[:9])
    if not value:
        return None
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - slow, and seldom needed

    try:
        until, now = (parsedate_to_datetime(v) for v in (value, reply.header("date")))
        return max(0.0, (until - now).total_seconds())
    except (ValueError, TypeError):
        return None


def clean(text: str, limit: int = _SHOWN) -> str:
    """Text from outside as one line of printable characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[:limit] + "..."


def _login_host(host: str) -> str:
    return "docker.io" if host == "registry-1.docker.io" else host


def _says_not_found(status: int, codes: tuple[str, ...], said: str) -> bool:
    if status == 404 or _UNKNOWN & set(codes):
        return True
    return "UNKNOWN" in codes and "not found" in said.lower()


def _read_body(reply: Reply) -> tuple[tuple[str, ...], str]:
    """Codes and message: of `errors` if the body is such JSON, else its beginning."""
    value = reply.json()
    errors = value.get("errors") if isinstance(value, dict) else None
    if isinstance(errors, list):
        found = [e for e in errors[:_MAX_CODES] if isinstance(e, dict)]
        codes = tuple(clean(str(e.get("code") or ""), 64) for e in found)
        said = "; ".join(str(e.get("message") or e.get("code") or "") for e in found)
        return codes, clean(said)
    if reply.media_type in ("text/html", "application/xhtml+xml"):
        return (), "an HTML page"
    return (), clean(reply.body[:_SHOWN].decode(errors="replace"))

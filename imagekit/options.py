"""What a caller may ask of a build, as values, and the command line's spelling of them."""

import csv
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from attrs import field, frozen

from imagekit.errors import UsageError
from imagekit.sandbox.base import Ulimit

MAX_SECRET: Final = 500 << 10
"""The most bytes of a secret, as in BuildKit."""

_HOST_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")
_UNITS: Final = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_ULIMITS: Final = frozenset(
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending"
    " stack".split()
)


@frozen(kw_only=True)
class Secret:
    """Something that a RUN may see and no image may hold.

    Give one of `env` (the name of an environment variable of this process), `src` (a file) and
    `value`; with none of them, the environment variable or file named by `id` is meant, as in
    BuildKit.
    """

    id: str
    env: str = ""
    src: str | os.PathLike[str] | None = None
    value: bytes | None = field(default=None, repr=False)

    def read(self) -> bytes:
        """Its bytes.

        Raises:
            UsageError: the variable or file is not there, or is too large.
        """
        if self.value is not None:
            data = self.value
        elif self.env or (self.src is None and self.id in os.environ):
            name = self.env or self.id
            if name not in os.environ:
                raise UsageError(f"secret {self.id}: the environment has no variable {name}")
            data = os.environb[os.fsencode(name)]
        else:
            data = self._read_file(Path(self.src if self.src is not None else self.id))
        if len(data) > MAX_SECRET:
            raise UsageError(f"secret {self.id}: {len(data)} bytes, the most is {MAX_SECRET}")
        return data

    def _read_file(self, path: Path) -> bytes:
        try:
            with path.open("rb") as stream:
                return stream.read(MAX_SECRET + 1)
        except OSError as exc:
            raise UsageError(
                f"secret {self.id}: cannot read {path}: {exc.strerror}",
                hint="give it as id=NAME,env=VARIABLE or id=NAME,src=FILE",
            ) from exc


def parse_secret(text: str) -> Secret:
    """Read `id=NAME[,src=FILE|,env=VARIABLE][,type=file|env]`.

    Raises:
        UsageError: no id, or an unknown key.
    """
    fields = _pairs("--secret", text, {"id", "src", "source", "env", "type"})
    src, env = fields.get("src") or fields.get("source"), fields.get("env", "")
    if fields.get("type") == "env" and not env:
        env, src = src or fields.get("id", ""), None
    name = fields.get("id") or env or Path(src or "").name
    if not name:
        raise UsageError(f"--secret {text}: id is missing", hint="write id=NAME,src=FILE")
    return Secret(id=name, env=env, src=src)


def parse_pairs(option: str, values: Iterable[str], *, from_env: bool = False) -> dict[str, str]:
    """Read `NAME=VALUE` texts; the last of a name wins.

    Args:
        option: for messages.
        values: the texts.
        from_env: a bare NAME takes the variable of this process, and is left out if there is none,
            as with `--build-arg`; otherwise it is an error.

    Raises:
        UsageError: no name, or no `=`.
    """
    found: dict[str, str] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not name or not (equals or from_env):
            raise UsageError(f"{option} {text!r}: want NAME=VALUE")
        if equals:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
    return found


def parse_hosts(values: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Read `NAME:ADDRESS` or `NAME=ADDRESS`; an IPv6 address may stand in brackets.

    Raises:
        UsageError: another form, or no address.
    """
    import ipaddress  # noqa: PLC0415 - 5 ms that most builds do not need

    hosts = []
    for text in values:
        name, _, address = text.partition("=") if "=" in text else text.partition(":")
        address = address.removeprefix("[").removesuffix("]")
        try:
            ipaddress.ip_address(address)
        except ValueError as exc:
            raise UsageError(f"--add-host {text!r}: want NAME:ADDRESS") from exc
        if not _HOST_NAME.fullmatch(name):
            raise UsageError(f"--add-host {text!r}: {name!r} is not the name of a host")
        hosts.append((name, address))
    return tuple(hosts)


def parse_ulimit(text: str) -> Ulimit:
    """Read `TYPE=SOFT[:HARD]`; -1 is unlimited.

    Raises:
        UsageError: an unknown type, or numbers that are none.
    """
    name, _, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    try:
        values = int(soft), int(hard or soft)
    except ValueError as exc:
        raise UsageError(f"--ulimit {text!r}: want TYPE=SOFT[:HARD]") from exc
    if name not in _ULIMITS:
        raise UsageError(
            f"--ulimit {text!r}: unknown type {name!r}",
            hint=f"types: {', '.join(sorted(_ULIMITS))}",
        )
    if min(values) < -1:
        raise UsageError(f"--ulimit {text!r}: a limit is a number, or -1 for none")
    if -1 not in values and values[0] > values[1]:
        raise UsageError(f"--ulimit {text!r}: the soft limit is above the hard one")
    return Ulimit(name=name, soft=values[0], hard=values[1])


def parse_size(option: str, text: str) -> int:
    """Read a number of bytes with an optional unit: `64m`.

    Raises:
        UsageError: another form.
    """
    lower = text.lower().removesuffix("b") or text
    digits = lower.rstrip("kmg")
    unit = lower[len(digits) :]
    if not (digits.isascii() and digits.isdigit()) or unit not in _UNITS:
        raise UsageError(f"{option} {text!r}: want a size such as 64m")
    return int(digits) * _UNITS[unit]


def _pairs(option: str, text: str, known: set[str]) -> Mapping[str, str]:
    try:
        (parts,) = csv.reader([text], strict=True)
    except (csv.Error, ValueError) as exc:
        raise UsageError(f"{option} {text!r}: {exc}") from exc
    fields = parse_pairs(option, parts)
    unknown = sorted(set(fields) - known)
    if unknown:
        raise UsageError(
            f"{option} {text!r}: unknown key {unknown[0]!r}",
            hint=f"keys are {', '.join(sorted(known))}",
        )
    return fields

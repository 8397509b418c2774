"""Image configs (image-spec config.md, with Docker's additions that builders write)."""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from attrs import field, frozen

from imagekit.errors import InvalidDigestError, InvalidDocumentError
from imagekit.oci.digest import Digest
from imagekit.oci.document import encode_json, parse_object
from imagekit.oci.platform import Platform

T = TypeVar("T")
_WHAT: Final = "image config"
_HISTORY_TEXTS: Final = ("created", "created_by", "author", "comment")


@frozen(kw_only=True)
class Healthcheck:
    """How a runtime asks a container whether it is well; durations in nanoseconds, 0 inherits."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0

    def to_json(self) -> dict[str, Any]:
        """Docker's form, zero values left out."""
        fields = {
            "Test": list(self.test),
            "Interval": self.interval,
            "Timeout": self.timeout,
            "StartPeriod": self.start_period,
            "StartInterval": self.start_interval,
            "Retries": self.retries,
        }
        return {k: v for k, v in fields.items() if v}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Healthcheck":
        """Read Docker's form.

        Raises:
            InvalidDocumentError: a field of the wrong type.
        """
        test = value.get("Test") or []
        names = ("Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")
        numbers = [value.get(name) or 0 for name in names]
        if not isinstance(test, list) or not all(isinstance(x, str) for x in test):
            raise InvalidDocumentError(f"{_WHAT}: Healthcheck.Test must hold strings")
        if not all(isinstance(x, int) for x in numbers):
            raise InvalidDocumentError(f"{_WHAT}: times of Healthcheck must be whole numbers")
        interval, timeout, start_period, start_interval, retries = numbers
        return cls(
            test=tuple(test),
            interval=interval,
            timeout=timeout,
            start_period=start_period,
            start_interval=start_interval,
            retries=retries,
        )


@frozen(kw_only=True)
class ContainerConfig:
    """What a runtime needs to start a container; `env` holds (name, value) pairs in order.

    `cmd`, `entrypoint` and `shell` are None where the config does not have them, which differs
    from an empty list. `extra` keeps fields that this library does not know.
    """

    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: tuple[str, ...] = ()
    working_dir: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    stop_signal: str = ""
    args_escaped: bool = False
    healthcheck: Healthcheck | None = None
    on_build: tuple[str, ...] = ()
    shell: tuple[str, ...] | None = None
    extra: Mapping[str, Any] = field(factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The JSON form; sets are sorted, empty values left out."""
        fields: dict[str, Any] = {
            "User": self.user,
            "ExposedPorts": {p: {} for p in sorted(self.exposed_ports)},
            "Env": [f"{k}={v}" for k, v in self.env],
            "Entrypoint": self.entrypoint and list(self.entrypoint),
            "Cmd": self.cmd and list(self.cmd),
            "Healthcheck": self.healthcheck and self.healthcheck.to_json(),
            "ArgsEscaped": self.args_escaped,
            "Volumes": {v: {} for v in sorted(self.volumes)},
            "WorkingDir": self.working_dir,
            "OnBuild": list(self.on_build),
            "Labels": dict(sorted(self.labels)),
            "StopSignal": self.stop_signal,
            "Shell": self.shell and list(self.shell),
        }
        return {**{k: v for k, v in fields.items() if v}, **self.extra}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ContainerConfig":
        """Read the JSON form.

        An Env entry that is not `name=value` is dropped (security spec C-10).

        Raises:
            InvalidDocumentError: a field of the wrong type.
        """
        rest = dict(value)

        def take(key: str, kind: type) -> Any:  # noqa: ANN401 - JSON
            found = rest.pop(key, None)
            if found is not None and not isinstance(found, kind):
                raise InvalidDocumentError(f"{_WHAT}: {key} is a {type(found).__name__}")
            return found

        def strings(key: str) -> tuple[str, ...] | None:
            found = take(key, list)
            if found is not None and not all(isinstance(x, str) for x in found):
                raise InvalidDocumentError(f"{_WHAT}: {key} must hold strings")
            return None if found is None else tuple(found)

        env = (e.partition("=") for e in strings("Env") or () if "=" in e[1:] and "\0" not in e)
        labels = take("Labels", dict) or {}
        if not all(isinstance(x, str) for x in labels.values()):
            raise InvalidDocumentError(f"{_WHAT}: Labels must hold strings")
        health = take("Healthcheck", dict)
        return cls(
            user=take("User", str) or "",
            exposed_ports=tuple(take("ExposedPorts", dict) or ()),
            env=tuple((k, v) for k, _, v in env if k != "*"),
            entrypoint=strings("Entrypoint"),
            cmd=strings("Cmd"),
            volumes=tuple(take("Volumes", dict) or ()),
            working_dir=take("WorkingDir", str) or "",
            labels=tuple(labels.items()),
            stop_signal=take("StopSignal", str) or "",
            args_escaped=bool(take("ArgsEscaped", bool)),
            healthcheck=None if health is None else Healthcheck.from_json(health),
            on_build=strings("OnBuild") or (),
            shell=strings("Shell"),
            extra=rest,
        )


@frozen(kw_only=True)
class History:
    """One line of the history of an image; `created` is an RFC 3339 time or empty."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False
    extra: Mapping[str, Any] = field(factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The JSON form, empty values left out."""
        fields = {
            "created": self.created,
            "created_by": self.created_by,
            "author": self.author,
            "comment": self.comment,
            "empty_layer": self.empty_layer,
        }
        return {**{k: v for k, v in fields.items() if v}, **self.extra}

    @classmethod
    def from_json(cls, value: Any) -> "History":  # noqa: ANN401 - JSON
        """Read the JSON form.

        Raises:
            InvalidDocumentError: not an object, or a field of the wrong type.
        """
        if not isinstance(value, dict):
            raise InvalidDocumentError(f"{_WHAT}: a history entry is malformed")
        rest = dict(value)
        texts = {k: rest.pop(k, None) or "" for k in _HISTORY_TEXTS}
        if not all(isinstance(text, str) for text in texts.values()):
            raise InvalidDocumentError(f"{_WHAT}: a history entry is malformed")
        return cls(**texts, empty_layer=bool(rest.pop("empty_layer", False)), extra=rest)


@frozen(kw_only=True)
class ImageConfig:
    """An image config; its digest is the image ID."""

    platform: Platform
    config: ContainerConfig = field(factory=ContainerConfig)
    created: str = ""
    author: str = ""
    diff_ids: tuple[Digest, ...] = ()
    history: tuple[History, ...] = ()
    extra: Mapping[str, Any] = field(factory=dict)

    @property
    def env(self) -> dict[str, str]:
        """The environment as a mapping."""
        return dict(self.config.env)

    def to_json(self) -> dict[str, Any]:
        """The JSON form, in the order in which Docker writes it."""
        document: dict[str, Any] = {}
        if self.created:
            document["created"] = self.created
        if self.author:
            document["author"] = self.author
        platform = self.platform.to_json()
        document["architecture"] = platform.pop("architecture")
        document["os"] = platform.pop("os")
        document.update(platform)
        document["config"] = self.config.to_json()
        document["rootfs"] = {"type": "layers", "diff_ids": [str(d) for d in self.diff_ids]}
        if self.history:
            document["history"] = [h.to_json() for h in self.history]
        document.update(self.extra)
        return document

    def encode(self) -> bytes:
        """The bytes whose digest is the image ID."""
        return encode_json(self.to_json())

    @classmethod
    def decode(cls, raw: bytes) -> "ImageConfig":
        """Read a config.

        Raises:
            InvalidDocumentError: not JSON, or a field of the wrong type.
        """
        value = parse_object(raw, what=_WHAT)
        platform_keys = ("architecture", "os", "variant", "os.version", "os.features")
        platform = Platform.from_json({k: value.pop(k) for k in platform_keys if k in value})
        created, author = (value.pop(k, None) or "" for k in ("created", "author"))
        inner, rootfs = (_section(value, k, dict) for k in ("config", "rootfs"))
        history = _section(value, "history", list)
        diff_ids = _section(dict(rootfs), "diff_ids", list)
        if not all(isinstance(x, str) for x in (created, author, *diff_ids)):
            raise InvalidDocumentError(f"{_WHAT}: a field is of the wrong type")
        try:
            digests = tuple(Digest.parse(d) for d in diff_ids)
        except InvalidDigestError as exc:
            raise InvalidDocumentError(f"{_WHAT}: {exc}") from exc
        return cls(
            platform=platform,
            config=ContainerConfig.from_json(inner),
            created=created,
            author=author,
            diff_ids=digests,
            history=tuple(History.from_json(h) for h in history),
            extra=value,
        )


def _section(value: dict[str, Any], key: str, kind: type[T]) -> T:
    """Take a field out of a document; absent and null are empty."""
    found = value.pop(key, None)
    if found is None:
        return kind()
    if not isinstance(found, kind):
        raise InvalidDocumentError(f"{_WHAT}: {key} is a {type(found).__name__}")
    return found

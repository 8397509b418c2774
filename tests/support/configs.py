"""What a runtime reads of two image configs, compared field by field."""

from typing import Any

from tests.support.flatten import Difference
from tests.support.layout import Image

RUNTIME_FIELDS = (
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "Healthcheck",
    "OnBuild",
    "Shell",
)


def compare_configs(ours: Image, theirs: Image) -> list[Difference]:
    """The fields of the config that differ; absent and empty are the same.

    Env is compared without its order, which buildah changes where a variable is set anew.
    """
    found = []
    for field in ("architecture", "os", "variant", "author"):
        mine, other = ours.config.get(field) or "", theirs.config.get(field) or ""
        if mine != other:
            found.append(Difference("config", field, mine, other))
    for field in RUNTIME_FIELDS:
        mine, other = runtime_value(ours, field), runtime_value(theirs, field)
        if mine != other:
            found.append(Difference("config", field, mine, other))
    return found


def runtime_value(image: Image, field: str) -> Any:
    value = image.config.get("config", {}).get(field)
    if field == "Labels":
        kept = {k: v for k, v in (value or {}).items() if not k.startswith("io.buildah.")}
        return kept or None
    if field == "Env":
        return sorted(value or ())
    if field == "WorkingDir":
        return value or "/"
    return value or None

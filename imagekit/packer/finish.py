"""The last that a config needs: its layers, and times that an unchanged build does not change."""

import time
from collections.abc import Sequence

from attrs import evolve

from imagekit.oci.config import History, ImageConfig
from imagekit.oci.digest import Digest


def finish(
    config: ImageConfig,
    *,
    base_history: int,
    diff_ids: Sequence[Digest],
    layer_times: Sequence[int],
    otherwise: int,
    epoch: int | None = None,
) -> ImageConfig:
    """Complete the config that a plan describes.

    An entry of the history gets the time at which its layer was made, which a cached layer keeps;
    one without a layer gets that of the entry before it. So an unchanged build gives an unchanged
    image.

    Args:
        config: of the plan.
        base_history: how many entries of its history are the base's, and stay as they are.
        diff_ids: of all layers, lowest first.
        layer_times: when each layer of this build was made, in seconds since the epoch.
        otherwise: the time of an image without a new layer.
        epoch: the time of everything, if there is one.
    """
    times = iter(layer_times)
    now = epoch if epoch is not None else next(iter(layer_times), otherwise)
    history = list(config.history[:base_history])
    for entry in config.history[base_history:]:
        if not entry.empty_layer and epoch is None:
            now = next(times, now)
        history.append(_at(entry, now))
    return evolve(config, history=tuple(history), diff_ids=tuple(diff_ids), created=rfc3339(now))


def _at(entry: History, seconds: int) -> History:
    return evolve(entry, created=rfc3339(seconds))


def rfc3339(seconds: int) -> str:
    """A time as documents hold it: `2026-01-02T03:04:05Z`."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))

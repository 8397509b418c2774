"""The build cache: cache key -> layer, in the store's database.

A record is written after its blob is stored and is never changed; it holds the named inputs of
its step, so that a later miss can be explained. A record whose blob is gone is no hit.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from imagekit.errors import OciError
from imagekit.executor.values import Layer
from imagekit.oci.descriptor import Descriptor
from imagekit.oci.digest import Digest
from imagekit.plan.key import KeyRecord
from imagekit.store.database import CacheRecord
from imagekit.store.local import Store


class BuildCache:
    """Results of steps by cache key."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def lookup(self, keys: Iterable[Digest]) -> dict[Digest, Layer]:
        """The layers of those keys that have one; one query for all of them."""
        records = self.store.database.records([str(key) for key in keys])
        found = {}
        for text, record in records.items():
            layer = decode_layer(record.result)
            if layer is not None and self.store.exists(layer.descriptor):
                found[Digest.parse(text)] = layer
        return found

    def save(self, records: Sequence[KeyRecord], layer: Layer, *, scope: str) -> None:
        """Keep a layer under the key of each record; attempts at one step share the scope."""
        for record in records:
            self.store.database.put_record(
                CacheRecord(
                    key=str(record.key()),
                    scope=scope,
                    result=encode_layer(layer),
                    inputs=[list(field) for field in record.fields],
                    created=layer.created,
                )
            )

    def touch(self, keys: Sequence[Digest]) -> None:
        """Note that these were used, so that pruning by age spares them."""
        self.store.database.touch_records([str(key) for key in keys])


def encode_layer(layer: Layer) -> dict[str, Any]:
    """A layer as records hold it."""
    return {
        "diff_id": str(layer.diff_id),
        "blob": layer.descriptor.to_json(),
        "content": str(layer.content),
        "created": layer.created,
        "codec": layer.codec,
    }


def decode_layer(result: Mapping[str, Any]) -> Layer | None:
    """The layer of a record, or None if another version wrote it."""
    try:
        return Layer(
            diff_id=Digest.parse(str(result["diff_id"])),
            descriptor=Descriptor.from_json(result["blob"]),
            content=Digest.parse(str(result["content"])),
            created=result["created"],
            codec=result["codec"],
        )
    except (KeyError, TypeError, OciError):
        return None  # written in a form of another version: a miss, not a failure

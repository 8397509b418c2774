"""Values that grow by one entry an instruction, in constant time each.

A stage is a fold, and each of its states is a value. Copying a list or mapping for each of them
takes time that grows with the square of the file. These share their storage instead: the newest
value appends to it in place, and an older one that is added to gets a copy of its own part.
"""

from collections.abc import ItemsView, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class Log(Generic[T]):
    """A sequence that is only ever appended to."""

    __slots__ = ("_items", "_size")

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._items = list(items)
        self._size = len(self._items)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[T]:
        items = self._items
        return (items[index] for index in range(self._size))

    def plus(self, *items: T) -> "Log[T]":
        """The log with more entries; this one stays as it is."""
        if len(self._items) != self._size:
            return Log((*self, *items))
        grown: Log[T] = Log()
        grown._items = self._items
        grown._items.extend(items)
        grown._size = len(grown._items)
        return grown


class Variables(Mapping[str, str]):
    """Variables in the order in which they were last set."""

    __slots__ = ("_log", "_shared", "_size")

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self._shared = dict(values or {})
        self._log = list(self._shared.items())
        self._size = len(self._log)

    def plus(self, pairs: Iterable[tuple[str, str]]) -> "Variables":
        """These with others set, one after the other; each becomes the last."""
        self._own()
        grown = Variables()
        grown._shared, grown._log = self._shared, self._log
        for name, value in pairs:
            self._shared.pop(name, None)
            self._shared[name] = value
            self._log.append((name, value))
        grown._size = len(self._log)
        return grown

    def _own(self) -> dict[str, str]:
        """The values as a mapping that nobody newer has written to."""
        if self._size != len(self._log):
            self._log = self._log[: self._size]
            self._shared = {}
            for name, value in self._log:
                self._shared.pop(name, None)
                self._shared[name] = value
        return self._shared

    def __getitem__(self, name: str) -> str:
        return self._own()[name]

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        """The value of a variable, or `default`."""
        return self._own().get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._own())

    def __len__(self) -> int:
        return len(self._own())

    def items(self) -> ItemsView[str, str]:
        """Names and values; valid until one of the newer values is made."""
        return self._own().items()

"""A registry for each test, and clients that never wait."""

from collections.abc import Callable, Iterator

import pytest

from imagekit.registry import Registry, RetryPolicy, Settings, UploadSettings, anonymous
from tests.support.registry import FakeRegistry

POLICY = RetryPolicy(tries=4, jitter=lambda: 1.0)


@pytest.fixture
def server() -> Iterator[FakeRegistry]:
    with FakeRegistry() as server:
        yield server


@pytest.fixture
def waits() -> list[float]:
    """The seconds that clients would have waited."""
    return []


@pytest.fixture
def connect(waits: list[float]) -> Iterator[Callable[..., Registry]]:
    """Makes clients that are closed at the end."""
    made: list[Registry] = []

    def make(server: FakeRegistry, **options: object) -> Registry:
        host = server.url if server.scheme == "https" else server.host
        given = {"credentials": anonymous, "settings": quick(waits), **options}
        registry = Registry(host, **given)
        made.append(registry)
        return registry

    yield make
    for registry in made:
        registry.close()


def quick(waits: list[float], *, trusted_realms: frozenset[str] = frozenset()) -> Settings:
    """Settings with small chunks, whose waits are only written down."""
    return Settings(
        policy=POLICY,
        upload=UploadSettings(
            chunks_above=1 << 16, chunk_size=1 << 15, small_chunk_size=1 << 13, policy=POLICY
        ),
        trusted_realms=trusted_realms,
        sleep=waits.append,
    )

"""`transport` for the event loop."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from imagekit.errors import ImagekitError, UnreachableError
from imagekit.registry.calls import Body, Call, Reply
from imagekit.registry.transport import (
    RateGuard,
    Timeouts,
    body_limit,
    check_address,
    client_options,
    open_body,
    read_body,
    reply_of,
    request_options,
    too_large,
    translating,
)


class AsyncTransport:
    """Sends calls on one event loop. Close it when done."""

    def __init__(
        self,
        *,
        ca: Path | None = None,
        timeouts: Timeouts | None = None,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        """Prepare to send; see `Transport`. A `sleep` that is given must not block."""
        self._timeouts = timeouts or Timeouts()
        self._sleep = sleep
        self._ca = ca
        self._clients: dict[tuple[str, str], httpx.AsyncClient] = {}
        self._flights: dict[str, asyncio.Task[Reply]] = {}

    async def close(self) -> None:
        """Close all connections."""
        clients, self._clients = tuple(self._clients.values()), {}
        for client in clients:
            await client.aclose()

    async def send(self, call: Call) -> Reply:
        """See `Transport.send`."""
        if call.delay:
            await self._wait(call.delay)
        if not call.shared:
            return await self._send(call)
        flight = self._flights.get(call.shared)
        if flight is None:
            flight = asyncio.ensure_future(self._send(call))
            self._flights[call.shared] = flight
            flight.add_done_callback(lambda _: self._flights.pop(call.shared, None))
        # One waiter that is cancelled must not take the answer away from the others.
        return await asyncio.shield(flight)

    async def _wait(self, seconds: float) -> None:
        if self._sleep is None:
            await asyncio.sleep(seconds)
        else:
            self._sleep(seconds)

    def _client(self, call: Call) -> httpx.AsyncClient:
        key = (call.reach, urlsplit(call.url).scheme)
        if key not in self._clients:
            self._clients[key] = httpx.AsyncClient(**client_options(key[1], self._ca))
        return self._clients[key]

    def _request(self, call: Call) -> httpx.Request:
        return self._client(call).build_request(
            call.method,
            call.url,
            content=None if call.body is None else _content(call.body),
            **request_options(call, self._timeouts, _check_connection),
        )

    async def _send(self, call: Call) -> Reply:
        try:
            with translating(call):
                response = await self._client(call).send(
                    self._request(call), stream=True, follow_redirects=False
                )
        except ImagekitError as exc:
            # The frames of httpx hold whole requests; reading the body may fail through them.
            raise exc.with_traceback(None) from exc.__cause__
        stream = _AsyncStream(response, call, self._timeouts)
        if call.stream and response.status_code in (200, 206):
            return reply_of(response, call, stream=stream)
        try:
            return reply_of(response, call, body=await _read(stream, response, call))
        finally:
            await stream.aclose()


class _AsyncStream:
    """See `AsyncStream`."""

    def __init__(self, response: httpx.Response, call: Call, timeouts: Timeouts) -> None:
        self._response = response
        self._call = call
        self._rate = RateGuard(call, timeouts)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = self._response.aiter_raw()
        while True:
            begin = time.monotonic()
            with translating(self._call):
                data = await anext(chunks, None)
            if data is None:
                return
            self._rate.count(len(data), time.monotonic() - begin)
            yield data

    async def aclose(self) -> None:
        with translating(self._call):
            await self._response.aclose()


async def _check_connection(event: str, info: dict[str, Any]) -> None:
    if event == "connection.connect_tcp.complete":
        stream = info["return_value"]
        try:
            check_address(stream)
        except UnreachableError:
            await stream.aclose()
            raise


def _content(body: Body) -> bytes | AsyncIterator[bytes]:
    return _pieces(body) if body.size else b""


async def _pieces(body: Body) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(open_body, body) as stream:
        while data := await asyncio.to_thread(read_body, stream):
            yield data


async def _read(stream: _AsyncStream, response: httpx.Response, call: Call) -> bytes:
    limit, strict = body_limit(response, call)
    body = bytearray()
    async for data in stream:
        body += data
        if len(body) > limit:
            if strict:
                raise too_large(call)
            break
    return bytes(body[:limit])

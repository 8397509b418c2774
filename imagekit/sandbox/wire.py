"""Messages between the engine and its helper: small values as bytes, framed by their length.

A bencode with None and text beside bytes, because the helper must start in milliseconds and `json`
costs six. Text is UTF-8 with 'surrogateescape', so that any name survives.
"""

import _socket
import array
from collections.abc import Mapping, Sequence
from typing import Final

Value = (
    None | bool | int | bytes | str | Sequence["Value"] | Mapping[str, "Value"]
)  # what a message holds

_HEADER: Final = 4
_LIMIT: Final = 64 << 20


class WireError(Exception):
    """Bytes that are no message: the other side is broken or gone."""


def encode(value: Value) -> bytes:
    """The one encoding of `value`, without its frame."""
    parts: list[bytes] = []
    _encode(value, parts)
    return b"".join(parts)


def _encode(value: Value, parts: list[bytes]) -> None:
    if value is None:
        parts.append(b"n")
    elif isinstance(value, int):
        parts.append(b"i%de" % value)
    elif isinstance(value, bytes):
        parts.append(b"b%d:" % len(value))
        parts.append(value)
    elif isinstance(value, str):
        raw = value.encode("utf-8", "surrogateescape")
        parts.append(b"s%d:" % len(raw))
        parts.append(raw)
    elif isinstance(value, Mapping):
        parts.append(b"d")
        for key, item in value.items():
            _encode(key, parts)
            _encode(item, parts)
        parts.append(b"e")
    else:
        parts.append(b"l")
        for item in value:
            _encode(item, parts)
        parts.append(b"e")


def decode(data: bytes) -> Value:
    """What was encoded; sequences come back as lists.

    Raises:
        WireError: `data` is not exactly one value.
    """
    try:
        value, end = _decode(data, 0)
    except (ValueError, IndexError, RecursionError) as exc:
        raise WireError(f"no message: {data[:40]!r}") from exc
    if end != len(data):
        raise WireError(f"{len(data) - end} bytes after a message")
    return value


def _decode(data: bytes, at: int) -> tuple[Value, int]:
    kind = data[at : at + 1]
    at += 1
    if kind == b"n":
        return None, at
    if kind == b"i":
        end = data.index(b"e", at)
        return int(data[at:end]), end + 1
    if kind in (b"b", b"s"):
        colon = data.index(b":", at)
        end = colon + 1 + int(data[at:colon])
        raw = data[colon + 1 : end]
        if end > len(data):
            raise ValueError(end)
        return (raw if kind == b"b" else raw.decode("utf-8", "surrogateescape")), end
    if kind not in (b"l", b"d"):
        raise ValueError(kind)
    items: list[Value] = []
    while data[at : at + 1] != b"e":
        item, at = _decode(data, at)
        items.append(item)
    if kind == b"l":
        return items, at + 1
    return {str(key): item for key, item in zip(items[::2], items[1::2], strict=True)}, at + 1


def send(stream: _socket.socket, value: Value) -> None:
    """Write one framed message to a stream socket."""
    data = encode(value)
    stream.sendall(len(data).to_bytes(_HEADER, "big") + data)


def receive(stream: _socket.socket) -> Value:
    """Read one framed message from a stream socket.

    Raises:
        EOFError: the other side closed it before or within a message.
        WireError: what came is no message.
    """
    size = int.from_bytes(_exactly(stream, _HEADER), "big")
    if size > _LIMIT:
        raise WireError(f"a message of {size} bytes")
    return decode(_exactly(stream, size))


def _exactly(stream: _socket.socket, size: int) -> bytes:
    chunks = bytearray()
    while len(chunks) < size:
        chunk = stream.recv(min(size - len(chunks), 1 << 20))
        if not chunk:
            raise EOFError
        chunks += chunk
    return bytes(chunks)


def send_packet(packets: _socket.socket, data: bytes, fds: Sequence[int]) -> None:
    """Send `data` and duplicates of `fds` as one packet."""
    ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    packets.sendmsg([data], ancillary)


def receive_packet(packets: _socket.socket, fd_limit: int = 253) -> tuple[bytes, list[int]]:
    """One packet and the fds that came with it, close-on-exec; no bytes at the end."""
    fds = array.array("i")
    space = _socket.CMSG_LEN(fd_limit * fds.itemsize)
    data, ancillary, _, _ = packets.recvmsg(1 << 16, space, _socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return data, list(fds)

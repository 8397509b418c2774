import socket
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagekit.sandbox import request, wire

LEAVES = (
    st.none()
    | st.integers()
    | st.binary()
    | st.text(st.characters(exclude_categories=["Cs"]) | st.just("\udcff"))
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_was_encoded_is_decoded(value: Any) -> None:
    assert wire.decode(wire.encode(value)) == value


@given(st.binary(max_size=40))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    with suppress(wire.WireError):
        wire.decode(data)


def test_a_stream_that_ends_within_a_message() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            theirs.sendall(b"\0\0\0\x09i1")
        with pytest.raises(EOFError):
            wire.receive(ours)


def test_a_message_over_the_limit_is_refused() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"\xff\xff\xff\xff")
        with pytest.raises(wire.WireError):
            wire.receive(ours)


def test_a_step_survives_the_crossing() -> None:
    step = request.Step(
        argv=["a", "\udcff"],
        env=[("A", "1")],
        cwd="/",
        user="",
        root=request.RootFolders(["l"], "u", "w"),
        mounts=[
            request.Bind("/t", ["s"], False, "", True, False),  # noqa: FBT003 - fields of a tuple
            request.Tmpfs("/t", 0, 0o755),
            request.File("/f", b"\0", 0o400, 0, 0, True),  # noqa: FBT003
        ],
        network="none",
        hostname="h",
        security="sandbox",
        ulimits=[("nofile", 1, -1)],
    )
    assert request.unpack(wire.decode(wire.encode(request.pack(step)))) == step

"""Credential helpers: programs that keep credentials for `docker login`.

Only `get` is spoken: the server on stdin, JSON on stdout.

Spec: docker-credential-helpers protocol; registry spec section 3; security spec N-4.
"""

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import time
from typing import Final

from imagekit.errors import AuthError
from imagekit.registry.auth import Credential
from imagekit.registry.calls import Secret
from imagekit.registry.problems import clean

TIMEOUT_S: Final = 10.0
MAX_OUTPUT: Final = 1 << 20
_NAME: Final = re.compile(r"[a-zA-Z0-9._-]+")
_SERVER: Final = re.compile(r"[\x21-\x7e]{1,1024}")
_NOT_FOUND: Final = "credentials not found in native keychain"


def ask_helper(name: str, server: str, *, timeout_s: float = TIMEOUT_S) -> Credential | None:
    """The credential that `docker-credential-<name>` has for a server; None if it has none.

    Raises:
        AuthError: there is no such program, or it failed, hung or answered with anything else.
    """
    if not _NAME.fullmatch(name):
        raise AuthError(f"not the name of a credential helper: {name[:80]!r}", code="helper")
    if not _SERVER.fullmatch(server):
        raise AuthError(f"not a registry host: {clean(server)!r}", code="helper")
    program = f"docker-credential-{name}"
    status, output = _run(program, server, timeout_s)
    if status != 0:
        said = clean(output.decode(errors="replace"))
        if said == _NOT_FOUND:
            return None
        raise AuthError(f"{program}: exit {status}: {said}", code="helper")
    return _read_answer(program, output)


def _read_answer(program: str, output: bytes) -> Credential | None:
    try:
        value = json.loads(output)
    except (ValueError, RecursionError):
        raise AuthError(f"{program}: its answer is not JSON", code="helper") from None
    fields = value if isinstance(value, dict) else {}
    username, secret = fields.get("Username"), fields.get("Secret")
    if not isinstance(username, str) or not isinstance(secret, str):
        raise AuthError(f"{program}: its answer lacks Username or Secret", code="helper")
    if not secret:
        return None
    if username == "<token>":
        return Credential(identity_token=Secret(secret))
    return Credential.of(username, secret)


def _run(program: str, server: str, timeout_s: float) -> tuple[int, bytes]:
    try:
        process = subprocess.Popen(  # noqa: S603 - the name is checked, and there is no shell
            [program, "get"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as exc:
        raise AuthError(
            f"{program}: {exc.strerror}",
            code="helper",
            hint="install it, or take it out of the Docker configuration",
        ) from exc
    with process:
        try:
            output = _talk(process, program, server, timeout_s)
            return process.wait(timeout=timeout_s), output
        except (AuthError, subprocess.TimeoutExpired) as exc:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(exc, AuthError):
                raise
            raise AuthError(f"{program}: did not end", code="helper") from exc


def _talk(
    process: "subprocess.Popen[bytes]", program: str, server: str, timeout_s: float
) -> bytes:
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None:
        raise AuthError(f"{program}: has no pipes", code="helper")
    with contextlib.suppress(BrokenPipeError), stdin:
        stdin.write(server.encode() + b"\n")
    deadline = time.monotonic() + timeout_s
    output = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ)
        while len(output) <= MAX_OUTPUT:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise AuthError(f"{program}: no answer in {timeout_s:g} s", code="helper")
            data = os.read(stdout.fileno(), 65536)
            if not data:
                return bytes(output)
            output += data
    raise AuthError(f"{program}: answered more than {MAX_OUTPUT} bytes", code="helper")

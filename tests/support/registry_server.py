"""A real registry server, Debian's docker-registry, on a loopback port."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.tools import need, run

START_TIMEOUT_S = 20


class RegistryServer(NamedTuple):
    """A running server; `user` and `password` are empty where anybody may push."""

    host: str
    user: str = ""
    password: str = ""

    def reference(self, name: str, tag: str = "latest") -> str:
        return f"{self.host}/{name}:{tag}"

    def push_layout(self, layout: Path, name: str, tag: str = "latest") -> str:
        """Push the image of a layout with skopeo; the reference that pulls it comes back."""
        need("skopeo")
        reference = self.reference(name, tag)
        login = ["--dest-creds", f"{self.user}:{self.password}"] if self.user else []
        command = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", *login]
        run([*command, f"oci:{layout}:latest", f"docker://{reference}"])
        return reference


@contextlib.contextmanager
def registry_server(
    folder: Path, *, user: str = "", password: str = ""
) -> Iterator[RegistryServer]:
    """Run a server that keeps its blobs in `folder`, until the block ends."""
    need("docker-registry")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    host = f"127.0.0.1:{port}"
    config = {
        "version": 0.1,
        "log": {"accesslog": {"disabled": True}, "level": "error"},
        "storage": {
            "filesystem": {"rootdirectory": os.fspath(folder / "data")},
            "delete": {"enabled": True},
        },
        "http": {"addr": host},
    }
    if user:
        config["auth"] = {
            "htpasswd": {"realm": "tests", "path": str(htpasswd(folder, user, password))}
        }
    path = folder / "config.yml"
    path.write_text(json.dumps(config))  # JSON is YAML too
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", path],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            wait_until_up(host, process, folder / "log")
            yield RegistryServer(host, user, password)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def htpasswd(folder: Path, user: str, password: str) -> Path:
    """A password file; the server takes bcrypt only."""
    need("htpasswd")
    path = folder / "htpasswd"
    path.write_text(run(["htpasswd", "-Bbn", user, password]).stdout)
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_up(host: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"docker-registry ended:\n{log.read_text()}"
        try:
            with urllib.request.urlopen(f"http://{host}/v2/", timeout=2):
                return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 401:
                return
        except OSError:
            time.sleep(0.05)  # the server tells nobody when it listens
    raise AssertionError(f"docker-registry does not answer:\n{log.read_text()}")

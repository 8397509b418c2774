"""What the command line's values mean: secrets, pairs, hosts, limits, sizes."""

from pathlib import Path

import pytest

from imagekit.errors import UsageError
from imagekit.options import (
    MAX_SECRET,
    Secret,
    parse_hosts,
    parse_pairs,
    parse_secret,
    parse_size,
    parse_ulimit,
)
from imagekit.sandbox.base import Ulimit


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("id=a", Secret(id="a")),
        ("id=a,src=/x", Secret(id="a", src="/x")),
        ("id=a,source=/x", Secret(id="a", src="/x")),
        ("src=/dir/name", Secret(id="name", src="/dir/name")),
        ("id=a,env=B", Secret(id="a", env="B")),
        ("env=B", Secret(id="B", env="B")),
        ("id=a,type=env", Secret(id="a", env="a")),
        ("id=a,type=env,src=B", Secret(id="a", env="B")),
        ("type=file,id=a,src=/x", Secret(id="a", src="/x")),
        ('id=a,"src=/x,y"', Secret(id="a", src="/x,y")),
    ],
)
def test_a_secret_is_read(text: str, secret: Secret) -> None:
    assert parse_secret(text) == secret


@pytest.mark.parametrize("text", ["", "id=", "a", "id=a,target=/x", '"id=a', "src="])
def test_a_malformed_secret_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--secret"):
        parse_secret(text)


def test_the_value_of_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"from file\xff")
    monkeypatch.setenv("TOKEN", "from env")
    monkeypatch.chdir(tmp_path)
    assert Secret(id="a", value=b"").read() == b""
    assert Secret(id="a", src=path).read() == b"from file\xff"
    assert Secret(id="a", env="TOKEN").read() == b"from env"
    assert Secret(id="TOKEN").read() == b"from env"
    assert Secret(id="file").read() == b"from file\xff"


@pytest.mark.parametrize(
    "secret",
    [
        Secret(id="a", env="NOT_THERE"),
        Secret(id="a", src="/nowhere"),
        Secret(id="not-there"),
        Secret(id="a", value=b"x" * (MAX_SECRET + 1)),
    ],
    ids=["variable", "file", "neither", "too large"],
)
def test_a_secret_that_cannot_be_had(secret: Secret) -> None:
    with pytest.raises(UsageError, match=f"secret {secret.id}: "):
        secret.read()


def test_a_secret_does_not_show_its_value() -> None:
    assert "hunter2" not in repr(Secret(id="a", value=b"hunter2"))


def test_pairs_keep_the_last_and_may_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HERE", "1")
    monkeypatch.delenv("GONE", raising=False)
    assert parse_pairs("-x", ["a=1", "a=2=3", "b="]) == {"a": "2=3", "b": ""}
    assert parse_pairs("-x", ["HERE", "GONE"], from_env=True) == {"HERE": "1"}
    with pytest.raises(UsageError, match="want NAME=VALUE"):
        parse_pairs("-x", ["HERE"])


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("a:192.0.2.1", ("a", "192.0.2.1")),
        ("a=192.0.2.1", ("a", "192.0.2.1")),
        ("a:2001:db8::1", ("a", "2001:db8::1")),
        ("a=[2001:db8::1]", ("a", "2001:db8::1")),
    ],
)
def test_a_host_is_read(text: str, host: tuple[str, str]) -> None:
    assert parse_hosts([text]) == (host,)


@pytest.mark.parametrize(
    "text", ["a", "a:", ":192.0.2.1", "a:name", "a:1.2.3", "a\nb:192.0.2.1", "a b:192.0.2.1"]
)
def test_a_malformed_host_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--add-host"):
        parse_hosts([text])


def test_a_limit_is_read() -> None:
    assert parse_ulimit("nofile=1024:2048") == Ulimit(name="nofile", soft=1024, hard=2048)
    assert parse_ulimit("nproc=7") == Ulimit(name="nproc", soft=7, hard=7)
    assert parse_ulimit("core=-1") == Ulimit(name="core", soft=-1, hard=-1)


@pytest.mark.parametrize(
    "text", ["nofile", "nofile=", "nofile=a", "files=1", "nofile=2:1", "nofile=1:2:3", "nofile=-2"]
)
def test_a_malformed_limit_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--ulimit"):
        parse_ulimit(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64", 64),
        ("64b", 64),
        ("1k", 1024),
        ("64m", 64 << 20),
        ("64MB", 64 << 20),
        ("2g", 2 << 30),
    ],
)
def test_a_size_is_read(text: str, size: int) -> None:
    assert parse_size("--shm-size", text) == size


@pytest.mark.parametrize("text", ["", "m", "1.5m", "-1", "1x", "1mm", "1kg", "\u0663", "b"])
def test_a_malformed_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--shm-size"):
        parse_size("--shm-size", text)

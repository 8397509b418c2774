"""Stored credentials: where they are looked for, what a file may hold, how helpers are asked."""

import base64
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imagekit.errors import AuthError
from imagekit.registry import Credential, StoredCredentials
from imagekit.registry.calls import Secret
from imagekit.registry.helper import ask_helper

HOST = "reg.example"


def auth(user: str, password: str = "pw") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def stored(home: Path, environ: dict[str, str] | None = None) -> StoredCredentials:
    return StoredCredentials(environ or {}, home)


def docker(home: Path, value: Any) -> StoredCredentials:
    write(home / ".docker/config.json", value)
    return stored(home)


def test_without_files_there_are_none(tmp_path: Path) -> None:
    assert stored(tmp_path)(HOST, "app") is None


def test_places_are_looked_at_in_order(tmp_path: Path) -> None:
    def auths(user: str) -> dict[str, Any]:
        return {"auths": {HOST: auth(user)}}

    places: list[tuple[str, Callable[[], None]]] = [
        ("dockercfg", lambda: write(tmp_path / ".dockercfg", auths("dockercfg")["auths"])),
        ("docker", lambda: write(tmp_path / "docker/config.json", auths("docker"))),
        ("config", lambda: write(tmp_path / "cfg/containers/auth.json", auths("config"))),
        ("runtime", lambda: write(tmp_path / "run/containers/auth.json", auths("runtime"))),
        ("file", lambda: write(tmp_path / "auth.json", auths("file"))),
    ]
    environ = {
        "DOCKER_CONFIG": str(tmp_path / "docker"),
        "XDG_CONFIG_HOME": str(tmp_path / "cfg"),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "REGISTRY_AUTH_FILE": str(tmp_path / "auth.json"),
    }
    for name, make in places:
        make()
        found = stored(tmp_path, environ)(HOST, "app")
        assert found is not None
        assert found.username == name
    environ["DOCKER_AUTH_CONFIG"] = json.dumps(auths("environment"))
    assert stored(tmp_path, environ)(HOST, "app") == Credential.of("environment", "pw")


@pytest.mark.parametrize(
    "key",
    [
        "docker.io",
        "index.docker.io",
        "registry-1.docker.io",
        "https://index.docker.io/v1/",
        "https://docker.io/v2/",
    ],
)
def test_docker_hub_has_many_names(tmp_path: Path, key: str) -> None:
    find = docker(tmp_path, {"auths": {key: auth("hub")}})
    assert find("docker.io", "library/debian") == Credential.of("hub", "pw")
    assert find(HOST, "app") is None


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("reg.example:5000", "reg.example:5000"),
        ("https://reg.example:5000", "reg.example:5000"),
        ("http://reg.example/v2/", "reg.example"),
        ("reg.example/", "reg.example"),
        ("127.0.0.1:5000", "127.0.0.1:5000"),
        ("[::1]:5000", "[::1]:5000"),
    ],
)
def test_keys_are_hosts_in_many_spellings(tmp_path: Path, key: str, host: str) -> None:
    assert docker(tmp_path, {"auths": {key: auth("u")}})(host, "app") == Credential.of("u", "pw")


@pytest.mark.parametrize("host", ["evil-reg.example", "reg.example.evil", "reg.example:5000"])
def test_hosts_are_matched_whole(tmp_path: Path, host: str) -> None:
    assert docker(tmp_path, {"auths": {HOST: auth("u")}})(host, "app") is None


def test_the_longest_repository_of_a_containers_file_wins(tmp_path: Path) -> None:
    auths = {HOST: auth("host"), f"{HOST}/org": auth("org"), f"{HOST}/org/app": auth("app")}
    write(tmp_path / ".config/containers/auth.json", {"auths": auths})
    find = stored(tmp_path)
    users = [find(HOST, name) for name in ("org/app", "org/other", "orgs/app", "solo")]
    assert [u and u.username for u in users] == ["app", "org", "host", "host"]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (auth("user", "pass:word"), Credential.of("user", "pass:word")),
        (auth("robot$x", "pw\0\0"), Credential.of("robot$x", "pw")),
        ({"username": "u", "password": "p"}, Credential.of("u", "p")),
        (
            {**auth("0000", ""), "identitytoken": "idt"},
            Credential(username="0000", identity_token=Secret("idt")),
        ),
        ({"registrytoken": "rt"}, Credential(registry_token=Secret("rt"))),
        ({}, None),
        ({"email": "a@b"}, None),
        ({"auth": ""}, None),
    ],
)
def test_an_entry_holds_one_of_several_things(
    tmp_path: Path, entry: dict[str, str], expected: Credential | None
) -> None:
    assert docker(tmp_path, {"auths": {HOST: entry}})(HOST, "app") == expected


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        json.dumps({"auths": {HOST: {"auth": "***"}}}),
        json.dumps({"auths": {HOST: {"auth": base64.b64encode(b"nocolon").decode()}}}),
    ],
)
def test_a_malformed_file_is_an_error_that_does_not_show_it(tmp_path: Path, content: str) -> None:
    with pytest.raises(AuthError, match=r"config\.json") as caught:
        docker(tmp_path, content)(HOST, "app")
    assert "nocolon" not in str(caught.value)


def test_an_empty_file_is_none(tmp_path: Path) -> None:
    assert docker(tmp_path, "")(HOST, "app") is None


def test_secrets_do_not_show(tmp_path: Path) -> None:
    found = docker(tmp_path, {"auths": {HOST: {"username": "u", "password": "c4nary"}}})(HOST, "a")
    assert "c4nary" not in f"{found!r} {found}"


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Installs `docker-credential-test`, a Python program, that logs what it is asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    log = tmp_path / "asked"

    def install(body: str) -> Path:
        program = folder / "docker-credential-test"
        program.write_text(
            f"#!{sys.executable} -IS\nimport sys, time\n"
            f"server = sys.stdin.read().strip()\n"
            f"open({str(log)!r}, 'a').write(sys.argv[1] + ' ' + server + '\\n')\n{body}\n"
        )
        program.chmod(0o755)
        return log

    return install


FOUND = 'print(\'{"ServerURL": "x", "Username": "u", "Secret": "s"}\')'
NONE = "print('credentials not found in native keychain'); sys.exit(1)"


def test_a_helper_is_asked_once_for_a_host(tmp_path: Path, helper: Callable[[str], Path]) -> None:
    log = helper(FOUND)
    find = docker(tmp_path, {"credsStore": "test"})
    threads = [threading.Thread(target=find, args=(HOST, f"app{n}")) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert find(HOST, "app") == Credential.of("u", "s")
    assert log.read_text() == f"get {HOST}\n"


def test_a_helper_knows_docker_hub_by_its_old_name(
    tmp_path: Path, helper: Callable[[str], Path]
) -> None:
    log = helper(FOUND)
    find = docker(tmp_path, {"credHelpers": {"docker.io": "test"}})
    assert find("docker.io", "library/debian") is not None
    assert log.read_text() == "get https://index.docker.io/v1/\n"


def test_a_helper_of_a_host_beats_the_store_which_beats_the_file(
    tmp_path: Path, helper: Callable[[str], Path]
) -> None:
    helper(FOUND)
    both = {"credHelpers": {HOST: "test"}, "credsStore": "absent", "auths": {HOST: auth("file")}}
    assert docker(tmp_path, both)(HOST, "app") == Credential.of("u", "s")
    helper(NONE)
    assert docker(tmp_path, both)(HOST, "app") == Credential.of("file", "pw")


def test_a_helper_may_give_an_identity_token(helper: Callable[[str], Path]) -> None:
    helper('print(\'{"Username": "<token>", "Secret": "idt"}\')')
    assert ask_helper("test", HOST) == Credential(identity_token=Secret("idt"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("print('keychain is locked'); sys.exit(1)", "exit 1: keychain is locked"),
        ("print('{')", "not JSON"),
        ("print('{}')", "lacks"),
        ("sys.stdout.write('x' * (2 << 20))", "more than"),
    ],
)
def test_a_helper_that_fails_is_an_error(
    helper: Callable[[str], Path], body: str, message: str
) -> None:
    helper(body)
    with pytest.raises(AuthError, match=message):
        ask_helper("test", HOST)


def test_a_helper_that_hangs_is_ended(helper: Callable[[str], Path]) -> None:
    helper("time.sleep(60)")
    with pytest.raises(AuthError, match="no answer"):
        ask_helper("test", HOST, timeout_s=0.3)


def test_a_helper_that_is_not_installed_is_an_error() -> None:
    with pytest.raises(AuthError, match="docker-credential-not-there"):
        ask_helper("not-there", HOST)


@pytest.mark.parametrize("name", ["../evil", "a b", "", "x;y", "a/b"])
def test_a_helper_has_the_name_of_a_program(name: str) -> None:
    with pytest.raises(AuthError):
        ask_helper(name, HOST)


@pytest.mark.parametrize("server", ["a\nb", "a\0b", "", "é"])
def test_a_helper_is_not_given_what_is_no_host(server: str) -> None:
    with pytest.raises(AuthError):
        ask_helper("test", server)

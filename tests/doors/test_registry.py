"""Push, pull and FROM, with a real registry and with one that writes down what it is asked."""

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import imagekit
from imagekit.errors import AuthError, ImagekitError
from imagekit.events import Transfer
from tests.support.building import Project
from tests.support.commands import Command
from tests.support.layout import Layout
from tests.support.registry import FakeRegistry
from tests.support.registry_server import RegistryServer
from tests.support.tools import need_root

TEXT = 'FROM scratch\nCOPY a /a\nCMD ["/a"]\n'


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with FakeRegistry() as server:
        yield server


@pytest.fixture(autouse=True)
def _no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "DOCKER_AUTH_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


def log_in(folder: Path, server: RegistryServer) -> None:
    auth = base64.b64encode(f"{server.user}:{server.password}".encode()).decode()
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"auths": {server.host: {"auth": auth}}}))


def push_base(fake: FakeRegistry, layout: Path, name: str, tag: str = "1") -> str:
    """Put the image of a layout into a registry, past its requests."""
    image = Layout(layout).image()
    for descriptor in (image.manifest["config"], *image.manifest["layers"]):
        fake.add_blob(name, image.layout.blob(descriptor))
    raw = image.layout.blob(image.descriptor)
    fake.add_manifest(name, raw, image.descriptor["mediaType"], tag)
    return f"{fake.host}/{name}:{tag}"


def blobs_read(fake: FakeRegistry) -> list[str]:
    return [
        r.path.rpartition("/")[2]
        for r in fake.requests
        if r.method == "GET" and "/blobs/" in r.path
    ]


def test_pushed_pulled_and_built_upon(
    project: Project, registry: RegistryServer, tmp_path: Path
) -> None:
    name = registry.reference("team/app", "1")
    built = project.write({"a": "a"}).build(TEXT, tags=[name], output="type=registry")
    other = Project(tmp_path / "other").write({"b": "b"})
    pulled = imagekit.pull(name, store=other.store)
    assert pulled == f"{registry.host}/team/app@{built.result.digest}"
    assert imagekit.inspect(name, store=other.store).raw == built.result.image.manifest.raw
    above = other.build(f"FROM {name}\nCOPY b /b\n")
    assert set(above.tree) == {"a", "b"}
    assert above.image.config["config"]["Cmd"] == ["/a"]


def test_an_index_is_pushed_whole(project: Project, registry: RegistryServer) -> None:
    name = registry.reference("team/index", "1")
    result = (
        project.write({"a": "a"})
        .build(TEXT, tags=[name], output="type=registry", platforms=["linux/amd64", "linux/arm64"])
        .result
    )
    found = imagekit.inspect(f"docker://{name}", store=project.store)
    assert set(found.configs) == {"linux/amd64", "linux/arm64"}
    assert str(found.document.descriptor.digest) == result.digest


def test_without_credentials_a_locked_registry_is_an_error(
    project: Project, locked_registry: RegistryServer
) -> None:
    with pytest.raises(AuthError) as caught:
        project.write({"a": "a"}).build(
            TEXT, tags=[locked_registry.reference("app")], output="type=registry"
        )
    assert locked_registry.host in caught.value.message
    assert caught.value.hint


def test_credentials_of_docker_are_used(
    project: Project, locked_registry: RegistryServer, tmp_path: Path
) -> None:
    log_in(tmp_path / "docker", locked_registry)
    name = locked_registry.reference("app", "2")
    result = project.write({"a": "a"}).build(TEXT, tags=[name], output="type=registry").result
    assert imagekit.inspect(f"docker://{name}", store=project.store).raw == (
        result.image.manifest.raw
    )
    other = Project(tmp_path / "other").write({"b": "b"})
    assert set(other.build(f"FROM {name}\nCOPY b /b\n").tree) == {"a", "b"}


def test_a_base_is_not_fetched_when_nothing_reads_its_files(
    project: Project, fake: FakeRegistry, embedded_base: Path
) -> None:
    base = push_base(fake, embedded_base, "base")
    image = Layout(embedded_base).image()
    text = f'FROM {base}\nENV A=1\nLABEL b=c\nCOPY --link a /linked/\nCMD ["sh"]\n'
    project.write({"a": "a"}).build(text, output=())
    assert blobs_read(fake) == [image.manifest["config"]["digest"]]
    fake.requests.clear()
    project.build(output=())
    assert blobs_read(fake) == []


def test_a_base_is_fetched_once_and_the_reason_is_said(
    project: Project, fake: FakeRegistry, embedded_base: Path
) -> None:
    base = push_base(fake, embedded_base, "base")
    (layer,) = Layout(embedded_base).image().manifest["layers"]
    built = project.write({"a": "a"}).build(f"FROM {base}\nCOPY --chown=www-data a /etc/a\n")
    assert blobs_read(fake).count(layer["digest"]) == 1
    assert built.tree["etc/a"].inode.owner == (33, 33) or built.tree["etc/a"].inode.owner[0] == 33
    (pulled,) = [e for e in built.having(Transfer) if e.direction == "pull" and e.why]
    assert pulled.why == "its files are read"
    project.write({"a": "b"}).build()
    assert blobs_read(fake).count(layer["digest"]) == 1


def test_layers_are_mounted_across_repositories(
    project: Project, fake: FakeRegistry, embedded_base: Path
) -> None:
    base = push_base(fake, embedded_base, "base")
    (layer,) = Layout(embedded_base).image().manifest["layers"]
    built = project.write({"a": "a"}).build(
        f"FROM {base}\nCOPY --link a /linked/\n",
        tags=[f"{fake.host}/app:1"],
        output="type=registry",
    )
    assert layer["digest"] not in blobs_read(fake)
    assert layer["digest"] in fake.blobs["app"]
    assert not (project.store / "blobs" / layer["digest"].replace(":", "/")).exists()
    mounts = [e for e in built.having(Transfer) if e.direction == "mount"]
    assert len(mounts) == 1


def test_a_second_push_uploads_nothing(project: Project, fake: FakeRegistry) -> None:
    options = {"tags": [f"{fake.host}/app:1"], "output": "type=registry"}
    project.write({"a": "a"}).build(TEXT, **options)
    fake.requests.clear()
    project.build(**options)
    assert [r.line for r in fake.requests if r.method not in ("GET", "HEAD")] == []


def test_a_tag_is_moved_after_everything_else(project: Project, fake: FakeRegistry) -> None:
    project.write({"a": "a"}).build(TEXT, tags=[f"{fake.host}/app:1"], output="type=registry")
    puts = [r.path for r in fake.requests if r.method in ("PUT", "POST", "PATCH")]
    assert puts[-1] == "/v2/app/manifests/1"


def test_pushed_by_digest_there_is_no_tag(project: Project, fake: FakeRegistry) -> None:
    output = f"type=registry,name={fake.host}/app,push-by-digest=true"
    result = project.write({"a": "a"}).build(TEXT, output=output).result
    assert list(fake.manifests["app"]) == [result.digest]


def test_a_failed_push_is_one_error(project: Project, fake: FakeRegistry) -> None:
    fake.fault(r"PUT /v2/app/manifests", times=99, instead=None, change=lambda a: type(a)(403))
    command = Command(project.write({"a": "a"}).dockerfile(TEXT))
    said = command.build("--push", f"-t={fake.host}/app:1")
    assert said.code == 1
    assert said.err.count("error: ") == 1
    assert fake.host in said.err


def test_a_tagged_image_can_be_pushed_later(project: Project, fake: FakeRegistry) -> None:
    command = Command(project.write({"a": "a"}).dockerfile(TEXT))
    assert command.build("-t=app:1").code == 0
    said = command.run("push", "app:1", f"{fake.host}/team/app:2")
    assert said.code == 0, said.err
    assert said.out.startswith(f"{fake.host}/team/app@sha256:")
    assert "2" in fake.manifests["team/app"]
    missing = command.run("push", "other", f"{fake.host}/other")
    assert missing.code == 1
    assert "the store has no image other" in missing.err


def test_a_tagged_image_is_whole_though_its_base_was_never_read(
    project: Project, fake: FakeRegistry, embedded_base: Path
) -> None:
    project.dockerfile("FROM base\nENV A=1\n")
    command = Command(project)
    assert command.build(f"--build-context=base=oci-layout://{embedded_base}", "-t=app").code == 0
    said = command.run("push", "app", f"{fake.host}/app")
    assert said.code == 0, said.err
    project.write({"a": "a"}).dockerfile("FROM app\nCOPY a /etc/a\n")
    said = command.build("-o=oci:out")
    assert said.code == 0, said.err


def test_an_image_in_the_store_is_a_base(busybox: Project) -> None:
    need_root()
    busybox.build("FROM busybox\nENV A=1\n", tags=["local/app:1"], output=())
    built = busybox.build("FROM local/app:1\nRUN echo $A > /x\n")
    assert built.text("x") == "1\n"


def test_pull_takes_one_platform_if_asked(
    project: Project, fake: FakeRegistry, tmp_path: Path
) -> None:
    name = f"{fake.host}/app:1"
    project.write({"a": "a"}).build(
        TEXT, tags=[name], output="type=registry", platforms=["linux/amd64", "linux/arm64"]
    )
    command = Command(Project(tmp_path / "other"))
    said = command.run("pull", name, "--platform=linux/arm64")
    assert said.code == 0, said.err
    assert list(json.loads(command.run("inspect", name).out)["images"]) == ["linux/arm64"]
    assert command.run("pull", name, "--platform=linux/s390x").code == 1


def test_inspect_shows_documents_and_their_bytes(project: Project) -> None:
    built = project.write({"a": "a"}).build(
        TEXT, tags=["app:1"], platforms=["linux/amd64", "linux/arm64"]
    )
    command = Command(project)
    shown = json.loads(command.run("inspect", "app:1").out)
    assert shown["digest"] == built.result.digest
    assert sorted(shown["images"]) == ["linux/amd64", "linux/arm64"]
    one = json.loads(command.run("inspect", "app:1", "--platform=linux/arm64").out)
    assert one["document"]["layers"]
    raw = command.run("inspect", "--raw", "app:1").raw
    assert raw == command.run("inspect", "--raw", built.result.digest).raw
    assert (
        raw == command.run("inspect", "--raw", f"oci-layout://{built.folder}:1").raw
        or (json.loads(raw)["manifests"])
    )
    missing = command.run("inspect", "nothing")
    assert missing.code == 1
    assert "hint: pull it" in missing.err


def test_prune_keeps_what_tags_need(project: Project) -> None:
    project.write({"a": "kept", "b": "b"})
    project.build("FROM scratch\nCOPY a /\n", tags=["kept"], output=())
    project.build("FROM scratch\nCOPY b /\n", output=())
    command = Command(project)
    blobs = set(os.listdir(project.store / "blobs/sha256"))  # noqa: PTH208 - names only
    assert command.run("prune").out.startswith("removed ")
    assert len(project.build(output=()).ran) == 0  # a recent record is kept
    assert command.run("prune", "--all").code == 0
    left = set(os.listdir(project.store / "blobs/sha256"))  # noqa: PTH208 - names only
    assert left < blobs
    assert json.loads(command.run("inspect", "kept").out)["images"]
    assert project.build("FROM kept\nCOPY b /\n").tree.keys() == {"a", "b"}


def test_a_registry_that_is_gone_is_made_up_for_by_what_it_said(
    project: Project, embedded_base: Path
) -> None:
    with FakeRegistry() as fake:
        base = push_base(fake, embedded_base, "base")
        first = project.build(f"FROM {base}\nENV A=1\n", output=())
    again = project.build(output=())
    assert again.result.digest == first.result.digest
    with pytest.raises(ImagekitError):
        project.build(f"FROM {base}x\nENV A=1\n", output=())

"""What -o makes, read by other people's programs."""

import base64
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.flatten import compare, flatten
from tests.support.layout import Layout, sha256
from tests.support.referees import skopeo_copy
from tests.support.registry_server import RegistryServer
from tests.support.tools import imagekit_command, imagekit_env, need, run

DOCKERFILE = """\
FROM busybox
COPY --chown=33:33 hello.txt /srv/
WORKDIR /srv/empty
CMD ["cat", "/srv/hello.txt"]
"""


class Project:
    """A project to build in many ways, with one store."""

    def __init__(self, folder: Path, base: Path) -> None:
        self.folder, self.base = folder, base
        (folder / "context").mkdir()
        (folder / "context" / "Dockerfile").write_text(DOCKERFILE)
        (folder / "context" / "hello.txt").write_text("hello\n")

    def build(self, *flags: str | Path) -> None:
        command = [
            *imagekit_command(),
            "build",
            "--progress=plain",
            f"--store={self.folder}/store",
        ]
        command += [f"--build-context=busybox=oci-layout://{self.base}"]
        env = {**imagekit_env(), "DOCKER_CONFIG": str(self.folder)}
        run([*command, *flags, self.folder / "context"], cwd=self.folder, env=env)

    def layout(self, name: str = "layout") -> Layout:
        self.build(f"--output=type=oci,tar=false,dest={self.folder / name}", "--tag=a/b:latest")
        return Layout(self.folder / name)


@pytest.fixture
def project(tmp_path: Path, embedded_base: Path) -> Project:
    return Project(tmp_path, embedded_base)


def expect_image(image: Layout, wanted: Layout) -> None:
    assert image.image().config == wanted.image().config
    assert compare(flatten(image.image()), flatten(wanted.image()), times=True) == []


def unpacked(archive: Path, folder: Path) -> Layout:
    folder.mkdir()
    run(["tar", "--extract", "--file", archive, "--directory", folder])
    return Layout(folder)


def test_the_tar_of_a_layout_holds_the_layout(project: Project, tmp_path: Path) -> None:
    project.build(f"--output=type=oci,dest={tmp_path}/out.tar", "--tag=a/b:latest")
    expect_image(unpacked(tmp_path / "out.tar", tmp_path / "untarred"), project.layout())


def test_skopeo_reads_a_docker_archive(project: Project, tmp_path: Path) -> None:
    need("skopeo")
    project.build(f"--output=type=docker,dest={tmp_path}/out.tar", "--tag=example/app:1.2")
    source = f"docker-archive:{tmp_path}/out.tar:example/app:1.2"
    skopeo_copy(source, f"oci:{tmp_path}/copied:latest")
    ours, theirs = project.layout().image(), Layout(tmp_path / "copied").image()
    assert theirs.config["rootfs"] == ours.config["rootfs"]
    assert theirs.config["config"]["Cmd"] == ["cat", "/srv/hello.txt"]


@pytest.mark.parametrize("compression", ["gzip", "zstd", "uncompressed"])
def test_skopeo_reads_layers_of_every_compression(
    compression: str, project: Project, tmp_path: Path
) -> None:
    need("skopeo")
    wanted = project.layout()
    flags = f"compression={compression},force-compression=true"
    project.build(f"--output=type=oci,tar=false,{flags},dest={tmp_path}/out", "--tag=a/b:latest")
    media_types = {
        layer["mediaType"] for layer in Layout(tmp_path / "out").image().manifest["layers"]
    }
    suffix = "" if compression == "uncompressed" else f"+{compression}"
    assert media_types == {f"application/vnd.oci.image.layer.v1.tar{suffix}"}
    expect_image(Layout(tmp_path / "out"), wanted)
    skopeo_copy(f"oci:{tmp_path}/out:latest", f"dir:{tmp_path}/copied")


def test_a_root_file_system_in_a_folder(project: Project, tmp_path: Path) -> None:
    project.build(f"--output=type=local,dest={tmp_path}/root")
    assert (tmp_path / "root" / "srv" / "hello.txt").read_text() == "hello\n"
    assert (tmp_path / "root" / "srv" / "empty").is_dir()
    assert (tmp_path / "root" / "bin" / "busybox").stat().st_nlink > 100


def test_a_root_file_system_in_a_tar(project: Project, tmp_path: Path) -> None:
    project.build(f"--output=type=tar,dest={tmp_path}/root.tar")
    wanted = flatten(project.layout().image())
    with tarfile.open(tmp_path / "root.tar") as tar:
        members = {member.name.strip("./"): member for member in tar}
        assert members.keys() - {""} == wanted.keys() - {""}
        hello = members["srv/hello.txt"]
        assert (hello.uid, hello.gid, hello.mode) == (33, 33, 0o644)


def test_the_metadata_and_image_id_are_those_of_the_image(
    project: Project, tmp_path: Path
) -> None:
    project.build(
        f"--output=type=oci,tar=false,dest={tmp_path}/out",
        "--tag=a/b:latest",
        f"--metadata-file={tmp_path}/metadata.json",
        f"--iidfile={tmp_path}/iid",
    )
    image = Layout(tmp_path / "out").image()
    metadata = json.loads((tmp_path / "metadata.json").read_text())
    assert metadata["containerimage.digest"] == image.descriptor["digest"]
    assert metadata["containerimage.config.digest"] == image.manifest["config"]["digest"]
    assert (tmp_path / "iid").read_text() == image.manifest["config"]["digest"]


def pulled(reference: str, folder: Path, *flags: str) -> Layout:
    need("skopeo")
    flags = ("--src-tls-verify=false", *flags)
    skopeo_copy(f"docker://{reference}", f"oci:{folder}:latest", *flags)
    return Layout(folder)


PUSHES: Sequence[Sequence[str]] = (
    ("--output=type=image,name={reference},push=true",),
    ("--output=type=registry,name={reference}",),
    ("--push", "--tag={reference}"),
)


@pytest.mark.parametrize("flags", PUSHES, ids=["image", "registry", "push"])
def test_skopeo_pulls_what_was_pushed(
    flags: Sequence[str],
    project: Project,
    registry: RegistryServer,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    reference = registry.reference(f"pushed/{request.node.callspec.id}", "1.2")
    project.build(*(flag.format(reference=reference) for flag in flags))
    expect_image(pulled(reference, tmp_path / "pulled"), project.layout())


def test_a_push_logs_in_with_the_docker_config(
    project: Project, locked_registry: RegistryServer, tmp_path: Path
) -> None:
    login = f"{locked_registry.user}:{locked_registry.password}"
    auth = base64.b64encode(login.encode()).decode()
    config = {"auths": {locked_registry.host: {"auth": auth}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    reference = locked_registry.reference("pushed/login")
    project.build("--push", f"--tag={reference}")
    image = pulled(reference, tmp_path / "pulled", f"--src-creds={login}")
    expect_image(image, project.layout())


def test_a_push_without_a_login_fails_and_says_so(
    project: Project, locked_registry: RegistryServer
) -> None:
    reference = locked_registry.reference("pushed/refused")
    with pytest.raises(AssertionError, match=r"exit 1: .*(?s:.*)imagekit: error: ") as caught:
        project.build("--push", f"--tag={reference}")
    assert "Traceback" not in str(caught.value)


def test_a_base_is_pulled_from_a_registry(
    project: Project, registry: RegistryServer, embedded_base: Path, tmp_path: Path
) -> None:
    reference = registry.push_layout(embedded_base, "bases/busybox", "1")
    context = tmp_path / "context"
    (context / "Dockerfile").write_text(DOCKERFILE.replace("busybox", reference))
    ours = project.layout().image()
    layers = ours.manifest["layers"]
    assert layers[0] == Layout(embedded_base).image().manifest["layers"][0]
    assert sha256(next(ours.layers())) == ours.config["rootfs"]["diff_ids"][0]

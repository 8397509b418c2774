"""Outputs of the command line: layouts, archives, root file systems, standard output, files."""

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.building import Project
from tests.support.commands import Command
from tests.support.flatten import flatten
from tests.support.layout import Layout
from tests.support.schemas import schema_problems
from tests.support.tools import run

TEXT = 'FROM scratch\nCOPY --chmod=0640 a /srv/a\nCOPY links/ /srv/\nENV A=1\nCMD ["/srv/a"]\n'
PLATFORMS = "--platform=linux/amd64,linux/arm64"


@pytest.fixture(autouse=True)
def _project(project: Project) -> None:
    project.write({"a": "content"}).dockerfile(TEXT)
    (project.context / "links").mkdir()
    (project.context / "links/link").symlink_to("a")


def built(command: Command, *words: str) -> None:
    said = command.build(*words)
    assert said.code == 0, said.err


def tar_names(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name.rstrip("/"): member for member in tar}


def unpacked(archive: Path, folder: Path) -> Path:
    folder.mkdir()
    run(["tar", "--extract", "--file", archive, "--directory", folder])
    return folder


@pytest.mark.parametrize("output", ["oci:out", "type=oci,tar=false,dest=out"])
def test_a_layout_folder(command: Command, output: str) -> None:
    built(command, f"-o={output}", "-t=example/app:1", "-t=example/app:2")
    layout = Layout(command.project.folder / "out")
    assert schema_problems(layout) == []
    assert sorted(layout.tags) == ["docker.io/example/app:1", "docker.io/example/app:2"] or (
        sorted(layout.tags) == ["1", "2"]
    )
    assert {i.descriptor["digest"] for i in layout.images} == {
        layout.images[0].descriptor["digest"]
    }
    assert flatten(layout.images[0]).keys() == {"srv", "srv/a", "srv/link"}


def test_a_layout_folder_takes_a_second_image(command: Command) -> None:
    built(command, "-o=oci:out", "-t=one:1")
    command.project.write({"a": "other"})
    built(command, "-o=oci:out", "-t=two:1")
    layout = Layout(command.project.folder / "out")
    assert len({image.descriptor["digest"] for image in layout.images}) == 2


def test_a_layout_archive(command: Command, tmp_path: Path) -> None:
    built(command, "-o=type=oci,dest=out.tar", "-t=example/app:1")
    layout = Layout(unpacked(command.project.folder / "out.tar", tmp_path / "unpacked"))
    assert schema_problems(layout) == []
    assert flatten(layout.image())["srv/a"].inode.mode == 0o640


def test_a_docker_archive(command: Command) -> None:
    built(command, "-o=type=docker,dest=out.tar", "-t=example/app:1")
    with tarfile.open(command.project.folder / "out.tar") as tar:

        def read(name: str) -> bytes:
            stream = tar.extractfile(name)
            assert stream is not None
            return stream.read()

        (entry,) = json.loads(read("manifest.json"))
        assert entry["RepoTags"] == ["example/app:1"]
        config = json.loads(read(entry["Config"]))
        assert config["config"]["Env"] == ["A=1"] or "A=1" in config["config"]["Env"]
        assert len(entry["Layers"]) == len(config["rootfs"]["diff_ids"]) == 2
        first = read(entry["Layers"][0])
        layer = gzip.decompress(first) if first[:2] == b"\x1f\x8b" else first
        assert "srv/a" in tar_names(layer)


def test_a_docker_archive_of_several_platforms_is_refused(command: Command) -> None:
    said = command.build("-o=type=docker,dest=out.tar", PLATFORMS)
    assert said.code == 2
    assert "one platform" in said.err
    assert not (command.project.folder / "out.tar").exists()


def test_a_root_file_system_as_a_folder(command: Command) -> None:
    built(command, "-o=out")
    out = command.project.folder / "out"
    assert (out / "srv/a").read_text() == "content"
    assert (out / "srv/a").stat().st_mode & 0o7777 == 0o640
    assert (out / "srv/link").readlink() == Path("a")
    assert [path.name for path in command.project.folder.glob(".*")] == []


def test_a_folder_that_is_there_gets_the_files(command: Command) -> None:
    out = command.project.folder / "out"
    (out / "srv").mkdir(parents=True)
    (out / "srv/a").write_text("old")
    (out / "kept").write_text("kept")
    built(command, "-o=type=local,dest=out")
    assert (out / "srv/a").read_text() == "content"
    assert (out / "kept").read_text() == "kept"


def test_folders_by_platform(command: Command) -> None:
    built(command, "-o=out", PLATFORMS)
    out = command.project.folder / "out"
    assert sorted(path.name for path in out.iterdir()) == ["linux_amd64", "linux_arm64"]
    assert (out / "linux_arm64/srv/a").read_text() == "content"
    built(command, "-o=type=local,dest=one,platform-split=true")
    assert len(list((command.project.folder / "one").iterdir())) == 1
    built(command, "-o=type=local,dest=joined,platform-split=false", PLATFORMS)
    assert (command.project.folder / "joined/srv/a").exists()


@pytest.mark.parametrize("output", ["-", "type=tar,dest=-", "type=tar"])
def test_a_root_file_system_on_standard_output(command: Command, output: str) -> None:
    said = command.build(f"--output={output}")
    assert said.code == 0
    found = tar_names(said.raw)
    assert found.keys() == {"srv", "srv/a", "srv/link"}
    assert found["srv/link"].linkname == "a"


def test_an_archive_on_standard_output(command: Command, tmp_path: Path) -> None:
    said = command.build("-o=type=oci,dest=-")
    (tmp_path / "out.tar").write_bytes(said.raw)
    assert flatten(Layout(unpacked(tmp_path / "out.tar", tmp_path / "o")).image())


def test_a_root_file_system_as_a_tar(command: Command) -> None:
    built(command, "-o=type=tar,dest=out.tar", PLATFORMS)
    data = (command.project.folder / "out.tar").read_bytes()
    assert {"linux_amd64/srv/a", "linux_arm64/srv/a"} <= tar_names(data).keys()


def test_several_outputs_of_one_build(command: Command) -> None:
    built(command, "-o=oci:out", "-o=type=tar,dest=out.tar", "-o=type=docker,dest=d.tar", "-t=a")
    names = {path.name for path in command.project.folder.iterdir()}
    assert {"out", "out.tar", "d.tar"} <= names


def test_a_file_that_is_there_is_replaced_as_a_whole(command: Command) -> None:
    target = command.project.folder / "out.tar"
    target.write_bytes(b"old")
    command.project.dockerfile("FROM scratch\nCOPY missing /\n")
    assert command.build("-o=type=oci,dest=out.tar").code == 1
    assert target.read_bytes() == b"old"
    command.project.dockerfile(TEXT)
    built(command, "-o=type=oci,dest=out.tar")
    assert tarfile.is_tarfile(target)


@pytest.mark.parametrize(
    ("compression", "suffix"), [("gzip", "+gzip"), ("zstd", "+zstd"), ("uncompressed", "")]
)
def test_layers_are_compressed_as_asked(command: Command, compression: str, suffix: str) -> None:
    built(command, f"-o=type=oci,tar=false,dest=out,compression={compression}")
    image = Layout(command.project.folder / "out").image()
    wanted = f"application/vnd.oci.image.layer.v1.tar{suffix}"
    assert {layer["mediaType"] for layer in image.manifest["layers"]} == {wanted}
    assert "srv/a" in flatten(image)


def test_another_compression_of_a_cached_build_is_made_from_the_cache(command: Command) -> None:
    built(command, "-o=oci:out")
    said = command.build("-o=type=oci,tar=false,dest=z,compression=zstd,compression-level=9")
    assert "DONE" not in said.err
    first, second = (Layout(command.project.folder / name).image() for name in ("out", "z"))
    assert first.config["rootfs"] == second.config["rootfs"]


def test_docker_media_types_are_never_mixed_with_ocis(command: Command) -> None:
    said = command.build("-o=type=image,oci-mediatypes=false,name=app")
    assert said.code == 0, said.err
    shown = json.loads(command.run("inspect", "app").out)
    types = {shown["mediaType"], shown["document"]["config"]["mediaType"]}
    types |= {layer["mediaType"] for layer in shown["document"]["layers"]}
    assert all(kind.startswith("application/vnd.docker.") for kind in types), types


def test_several_platforms_make_an_index(command: Command) -> None:
    built(command, "-o=oci:out", "--platform=linux/amd64", "--platform=linux/arm/v7,linux/arm64")
    layout = Layout(command.project.folder / "out")
    assert schema_problems(layout) == []
    assert [image.platform for image in layout.images] == [
        "linux/amd64",
        "linux/arm/v7",
        "linux/arm64",
    ]
    assert len({image.manifest["layers"][0]["digest"] for image in layout.images}) == 1


def metadata(command: Command) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((command.project.folder / "meta.json").read_text())
    return found


def test_the_metadata_file_is_like_that_of_buildx(command: Command) -> None:
    built(command, "-o=oci:out", "-t=app:1", "--metadata-file=meta.json", "--iidfile=id")
    image = Layout(command.project.folder / "out").image()
    found = metadata(command)
    assert found["containerimage.digest"] == image.descriptor["digest"]
    assert found["containerimage.config.digest"] == image.manifest["config"]["digest"]
    assert found["containerimage.descriptor"]["mediaType"] == image.descriptor["mediaType"]
    assert found["containerimage.descriptor"]["size"] == image.descriptor["size"]
    assert found["image.name"] == "docker.io/library/app:1"
    assert (command.project.folder / "id").read_text() == image.manifest["config"]["digest"]


def test_the_metadata_of_an_index(command: Command) -> None:
    built(command, "-o=oci:out", PLATFORMS, "--metadata-file=meta.json", "--iidfile=id")
    found = metadata(command)
    assert "containerimage.config.digest" not in found
    assert "image.name" not in found
    assert (command.project.folder / "id").read_text() == found["containerimage.digest"]


def test_quiet_shows_the_id_and_nothing_else(command: Command) -> None:
    said = command.build("-q", "--iidfile=id")
    assert (said.err, said.out) == ("", (command.project.folder / "id").read_text() + "\n")


def test_result_files_that_cannot_be_written(command: Command) -> None:
    said = command.build("--iidfile=no/id")
    assert said.code == 1
    assert "cannot write no/id" in said.err


def test_labels_and_annotations(command: Command) -> None:
    built(
        command,
        "-o=oci:out",
        PLATFORMS,
        "--label=a=1",
        "--label=b=x=y",
        "--annotation=m=1",
        "--annotation=manifest:n=2",
        "--annotation=index:i=3",
        "--annotation=index,manifest:b=4",
    )
    layout = Layout(command.project.folder / "out")
    for image in layout.images:
        assert image.config["config"]["Labels"] == {"a": "1", "b": "x=y"}
        assert image.manifest["annotations"] == {"b": "4", "m": "1", "n": "2"}
    assert layout.indexes[1]["annotations"] == {"b": "4", "i": "3"}


def test_annotations_of_one_output(command: Command) -> None:
    built(command, "-o=type=oci,tar=false,dest=out,annotation.x=1,annotation-index.y=2", PLATFORMS)
    layout = Layout(command.project.folder / "out")
    assert [image.manifest["annotations"] for image in layout.images] == [{"x": "1"}, {"x": "1"}]
    assert layout.indexes[1]["annotations"] == {"y": "2"}


def test_a_dockerfile_from_standard_input(command: Command) -> None:
    said = command.build("-f=-", "-o=out", stdin=b"FROM scratch\nCOPY a /other\n")
    assert said.code == 0, said.err
    assert (command.project.folder / "out/other").exists()


def test_build_args_come_from_the_environment(command: Command) -> None:
    command.project.dockerfile("FROM scratch\nARG A=0\nARG B=0\nCOPY a /$A-$B\n")
    said = command.build("-o=out", "--build-arg=A", "--build-arg=B=2", env={"A": "1"})
    assert said.code == 0, said.err
    assert (command.project.folder / "out/1-2").exists()


def test_a_target_is_built_alone(command: Command) -> None:
    command.project.dockerfile(
        "FROM scratch AS one\nCOPY a /one\nFROM nowhere.invalid/x\nCOPY a /\n"
    )
    built(command, "-o=out", "--target=one")
    assert [path.name for path in (command.project.folder / "out").iterdir()] == ["one"]

"""Image configs: what is read, kept, dropped and written."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagekit.errors import InvalidDocumentError
from imagekit.oci.config import ContainerConfig, Healthcheck, History, ImageConfig
from imagekit.oci.digest import Digest
from imagekit.oci.platform import Platform
from tests.support.schemas import Schemas
from tests.support.tools import reference_folder

DIFF_ID = Digest.of(b"layer")


def raw(**changes: Any) -> bytes:
    document = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [str(DIFF_ID)]},
        **changes,
    }
    return json.dumps(document).encode()


def container(**fields: Any) -> ContainerConfig:
    return ImageConfig.decode(raw(config=fields)).config


def full() -> ImageConfig:
    return ImageConfig(
        platform=Platform("linux", "arm", "v7", "1.0", ("x",)),
        created="2026-01-02T03:04:05Z",
        author="somebody",
        config=ContainerConfig(
            user="1000:1000",
            exposed_ports=("443/tcp", "80/tcp"),
            env=(("PATH", "/bin"), ("EMPTY", ""), ("EQUALS", "a=b")),
            entrypoint=("/app",),
            cmd=("serve", ""),
            volumes=("/data",),
            working_dir="/srv",
            labels=(("a", "1"), ("b", "")),
            stop_signal="SIGTERM",
            healthcheck=Healthcheck(test=("CMD", "true"), interval=10**9, retries=3),
            on_build=("RUN true",),
            shell=("/bin/bash", "-c"),
        ),
        diff_ids=(DIFF_ID,),
        history=(
            History(created="2026-01-02T03:04:05Z", created_by="COPY / # x", comment="c"),
            History(created_by="ENV", author="me", empty_layer=True),
        ),
    )


def test_reading_what_was_written_gives_the_same_bytes() -> None:
    written = full().encode()
    found = ImageConfig.decode(written)
    assert found == full()
    assert found.encode() == written


def test_the_written_form_matches_the_schema() -> None:
    schemas = Schemas(reference_folder() / "image-spec-schema")
    bare = ImageConfig(platform=Platform("linux", "s390x"))
    assert schemas.problems("config", json.loads(full().encode())) == []
    assert schemas.problems("config", json.loads(bare.encode())) == []


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=6)
NAMES = TEXT.filter(lambda t: t and "=" not in t and t != "*")
MAYBE = st.none() | st.lists(TEXT, min_size=1, max_size=2).map(tuple)
CONTAINERS = st.builds(
    ContainerConfig,
    user=TEXT,
    exposed_ports=st.lists(NAMES, max_size=2, unique=True).map(sorted).map(tuple),
    env=st.lists(st.tuples(NAMES, TEXT), max_size=3).map(tuple),
    entrypoint=MAYBE,
    cmd=MAYBE,
    working_dir=TEXT,
    labels=st.dictionaries(TEXT, TEXT, max_size=2).map(lambda d: tuple(sorted(d.items()))),
    shell=MAYBE,
)


@given(CONTAINERS)
def test_any_config_that_is_written_is_read_again_as_it_was(config: ContainerConfig) -> None:
    written = ImageConfig(platform=Platform("linux", "amd64"), config=config).encode()
    found = ImageConfig.decode(written)
    assert found.config == config
    assert found.encode() == written


def test_env_entries_that_set_nothing_are_dropped() -> None:
    entries = ["A=1", "NOTHING", "=x", "", "B=", "C=x=y", "N=\0", "*=1"]
    assert container(Env=entries).env == (("A", "1"), ("B", ""), ("C", "x=y"))


def test_absent_is_not_empty() -> None:
    assert container().cmd is None
    assert container(Cmd=None).cmd is None
    assert container(Cmd=[]).cmd == ()


def test_unknown_fields_survive_at_every_level() -> None:
    document = json.loads(
        raw(
            config={"Env": ["A=1"], "Hostname": "h", "NetworkDisabled": False, "Memory": 0},
            history=[{"created_by": "x", "vendor": 1}],
            container_config={"Cmd": ["x"]},
            docker_version="20",
        )
    )
    found = json.loads(ImageConfig.decode(json.dumps(document).encode()).encode())
    assert found == document


@pytest.mark.parametrize(
    "change",
    [
        {"config": []},
        {"config": "x"},
        {"rootfs": []},
        {"rootfs": {"diff_ids": "x"}},
        {"rootfs": {"diff_ids": [1]}},
        {"rootfs": {"diff_ids": ["sha256:abc"]}},
        {"history": {}},
        {"history": ["x"]},
        {"history": [{"created_by": 7}]},
        {"created": 7},
        {"author": ["x"]},
        {"architecture": 7},
        {"os.features": 7},
        {"config": {"Env": "A=1"}},
        {"config": {"Env": [1]}},
        {"config": {"Cmd": {"a": 1}}},
        {"config": {"Labels": {"a": 1}}},
        {"config": {"Labels": ["a"]}},
        {"config": {"ExposedPorts": ["80"]}},
        {"config": {"Volumes": "x"}},
        {"config": {"User": 0.5}},
        {"config": {"WorkingDir": []}},
        {"config": {"Healthcheck": {"Test": 7}}},
        {"config": {"Healthcheck": {"Test": "CMD x"}}},
        {"config": {"Healthcheck": {"Test": [7]}}},
        {"config": {"Healthcheck": {"Interval": "30s"}}},
        {"config": {"Healthcheck": {"Retries": 1.5}}},
        {"config": {"OnBuild": [None]}},
    ],
    ids=str,
)
def test_fields_of_the_wrong_type_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidDocumentError):
        ImageConfig.decode(raw(**change))


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(InvalidDocumentError, match="image config: not JSON"):
        ImageConfig.decode(b"no")

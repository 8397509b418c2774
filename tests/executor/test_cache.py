"""The cache in real builds: what is executed again, and what is not."""

import json
import os
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from imagekit.executor.cache import BuildCache
from imagekit.executor.values import Layer
from imagekit.oci.descriptor import LAYER_GZIP, Descriptor
from imagekit.oci.digest import Digest
from imagekit.plan.key import KeyRecord
from imagekit.store.local import Store
from tests.support.building import Project, label, listing
from tests.support.tools import imagekit_command, imagekit_env, need_root

THREE = """\
FROM scratch AS lib
COPY lib.txt /lib.txt
FROM scratch AS app
COPY app.txt /app.txt
WORKDIR /srv
COPY --from=lib /lib.txt /copied
"""
FILES = {"lib.txt": "lib", "app.txt": "app", "unused.txt": "unused"}


@pytest.fixture
def _files_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files look an hour old: what is brand new is not believed and learnt a build later."""
    monkeypatch.setattr("imagekit.disk.context.now_ns", lambda: time.time_ns() + 3600 * 10**9)


@pytest.mark.usefixtures("_files_are_old")
def test_an_unchanged_build_executes_and_writes_nothing(project: Project) -> None:
    project.write(FILES)
    first = project.build(THREE, output=())
    before = listing(project.store)
    again = project.build(output=())
    assert again.ran == []
    assert len(again.cached) > 3
    assert again.result.digest == first.result.digest
    assert listing(project.store) == before


@pytest.mark.usefixtures("_files_are_old")
def test_an_unchanged_build_with_run_writes_nothing(busybox: Project) -> None:
    need_root()
    busybox.write(FILES)
    text = "FROM busybox\nCOPY lib.txt /\nRUN echo 1 > /one\nENV A=1\n"
    first = busybox.build(text, tags=["app"], output=())
    before = listing(busybox.store)
    again = busybox.build(tags=["app"], output=())
    assert (again.ran, again.sandboxes) == ([], [])
    assert again.result.digest == first.result.digest
    assert listing(busybox.store) == before


@pytest.mark.usefixtures("_files_are_old")
def test_an_image_without_new_layers_is_unchanged_as_well(busybox: Project) -> None:
    text = 'FROM busybox\nENV A=1\nCMD ["sh"]\n'
    first = busybox.build(text, output=())
    before = listing(busybox.store)
    assert busybox.build(output=()).result.digest == first.result.digest
    assert listing(busybox.store) == before


@pytest.mark.parametrize(
    ("changed", "text", "ran"),
    [
        ("unused.txt", "x", []),
        ("lib.txt", "x", ["COPY --from=lib /lib.txt /copied", "COPY lib.txt /lib.txt"]),
        (
            "app.txt",
            "x",
            ["COPY --from=lib /lib.txt /copied", "COPY app.txt /app.txt", "WORKDIR /srv"],
        ),
    ],
)
def test_a_change_runs_exactly_what_depends_on_it(
    project: Project, changed: str, text: str, ran: list[str]
) -> None:
    project.write(FILES).build(THREE)
    assert project.write({changed: text}).build().ran == ran


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (lambda path: os.utime(path, (1, 1)), False),
        (lambda path: path.write_text("lib"), False),
        (lambda path: path.write_text("LIB"), True),
        (lambda path: path.chmod(0o600), True),
    ],
    ids=["time", "rewritten", "content", "mode"],
)
def test_content_and_mode_count_and_times_do_not(
    project: Project,
    change: object,
    again: bool,  # noqa: FBT001 - of the table
) -> None:
    project.write(FILES).build(THREE)
    change(project.context / "lib.txt")  # type: ignore[operator]
    assert bool(project.build().ran) is again


def test_comments_and_the_name_of_the_dockerfile_do_not_count(project: Project) -> None:
    project.write(FILES).build(THREE)
    other = project.context / "Containerfile"
    other.write_text("# a comment\n\n" + THREE.replace("COPY lib.txt", "copy   lib.txt"))
    assert project.build(dockerfile=other).ran == []


def test_a_stage_that_gives_the_same_again_lets_its_readers_hit(project: Project) -> None:
    text = (
        "FROM scratch AS lib\nCOPY {} /junk\nCOPY lib.txt /lib.txt\n"
        "FROM scratch\nCOPY --from=lib /lib.txt /\n"
    )
    project.write(FILES)
    project.build(text.format("app.txt"))
    again = project.build(text.format("unused.txt"))
    assert "COPY --from=lib /lib.txt /" not in again.ran
    assert "COPY unused.txt /junk" in again.ran
    assert project.build().ran == []


def test_no_cache_runs_everything(project: Project) -> None:
    first = project.write(FILES).build(THREE)
    assert project.build(no_cache=True).ran == first.ran
    assert project.build().ran == []


def test_no_cache_for_a_stage_runs_its_steps_only(project: Project) -> None:
    project.write(FILES).build(THREE)
    assert project.build(no_cache_filter=["LIB"]).ran == []  # the result does not need it
    again = project.build(no_cache_filter=["app"])
    assert again.ran == [
        "COPY --from=lib /lib.txt /copied",
        "COPY app.txt /app.txt",
        "WORKDIR /srv",
    ]


def test_build_args_count_where_they_are_used(busybox: Project) -> None:
    need_root()
    text = "FROM busybox\nARG UNUSED\nRUN echo 1\nARG V\nRUN echo $V\n"
    busybox.build(text, build_args={"V": "1"})
    assert busybox.build(build_args={"V": "1"}).ran == []
    assert busybox.build(build_args={"V": "2"}).ran == ["RUN echo 2"]


def test_a_missing_blob_is_a_miss(project: Project) -> None:
    built = project.write(FILES).build(THREE)
    lost = built.result.image.manifest.value.layers[-1].digest
    (project.store / "blobs" / "sha256" / lost.hex).unlink()
    again = project.build()
    assert again.ran == ["COPY --from=lib /lib.txt /copied"]
    assert again.tree["copied"].inode.size == 3


def test_a_blob_of_another_size_is_a_miss(project: Project) -> None:
    built = project.write(FILES).build(THREE)
    lost = built.result.image.manifest.value.layers[0].digest
    path = project.store / "blobs" / "sha256" / lost.hex
    path.chmod(0o600)
    path.write_bytes(b"")
    assert "COPY app.txt /app.txt" in project.build().ran


@pytest.mark.parametrize("what", ["blobs", "indexes", "database", "everything"])
def test_a_store_that_lost_something_is_used_on(project: Project, what: str) -> None:
    project.write(FILES).build(THREE)
    if what == "database":
        for path in project.store.glob("imagekit.db*"):
            path.unlink()
    else:
        folder = project.store if what == "everything" else project.store / what
        for path in folder.rglob("*"):
            if path.is_file():
                path.unlink()
    assert set(project.build().tree) == {"app.txt", "copied", "srv"}
    assert project.build().ran == []


def test_a_record_of_another_form_is_a_miss(tmp_path: Path) -> None:
    digest = Digest.of(b"x")
    record = KeyRecord((("a", "b"),))
    layer = Layer(
        diff_id=digest,
        descriptor=Descriptor(media_type=LAYER_GZIP, digest=digest, size=1),
        content=digest,
    )
    with Store(tmp_path / "store") as store:
        store.write_bytes(layer.descriptor, b"x")
        cache = BuildCache(store)
        cache.save([record], layer, scope="s")
        assert cache.lookup([record.key()]) == {record.key(): layer}
        (kept,) = store.database.records([str(record.key())]).values()
        for change in (
            {"blob": {}},
            {"blob": 7},
            {"diff_id": "md5:x"},
            {"diff_id": None},
            {"content": ...},
            {"blob": {**kept.result["blob"], "size": "1"}},
        ):
            result = {k: v for k, v in {**kept.result, **change}.items() if v is not ...}
            with sqlite3.connect(store.path / "imagekit.db") as raw:
                names = [row[1] for row in raw.execute("PRAGMA table_info(records)")]
                assert "result" in names
                raw.execute("UPDATE records SET result = ?", (json.dumps(result),))
            raw.close()
            assert cache.lookup([record.key()]) == {}, change


SLOW = """\
FROM busybox
RUN --mount=type=bind,source=.,target=/src [ ! -e /src/never ] && sleep 0.5 && date +%N > /stamp
"""


def test_two_processes_that_build_the_same_execute_a_step_once(busybox: Project) -> None:
    need_root()
    busybox.dockerfile(SLOW)
    with Store(busybox.store) as store:
        store.tags()  # makes the database, as it is there for all but a user's first builds
    command = [*imagekit_command(), "build", "--progress=rawjson", f"--store={busybox.store}"]
    command += [f"--build-context={n}={s}" for n, s in busybox.contexts.items()]
    started = [
        subprocess.Popen(
            [*command, f"--iidfile={busybox.folder / f'id-{n}'}", os.fspath(busybox.context)],
            env={**os.environ, **imagekit_env()},
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(2)
    ]
    logs = [process.communicate(timeout=60)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], logs
    events = [json.loads(line) for log in logs for line in log.splitlines()]
    ran = [e for e in events if e["event"] == "StepStarted"]
    assert [label(e["step"]["name"])[:3] for e in ran] == ["RUN"]
    ids = {(busybox.folder / f"id-{n}").read_text() for n in range(2)}
    assert len(ids) == 1


def test_two_platforms_share_steps_on_files(project: Project) -> None:
    project.write(FILES)
    built = project.build(
        "FROM scratch\nCOPY lib.txt /\n", platforms=["linux/amd64", "linux/arm64"]
    )
    assert len(built.ran) == 1
    assert len(built.result.images) == 2

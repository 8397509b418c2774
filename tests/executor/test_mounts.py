"""RUN --mount: what a step sees beside its root, and what of it stays."""

import base64
import gzip
from pathlib import Path

import pytest

import imagekit
from imagekit.errors import DockerfileError, StepFailedError
from tests.support.building import Project, places
from tests.support.tools import need_root

SECRET = "correct-horse/battery+staple"

pytestmark = pytest.mark.usefixtures("_root")


@pytest.fixture(name="_root")
def root() -> None:
    need_root()


def run(busybox: Project, mount: str, command: str, **options: object) -> str:
    built = busybox.build(f"FROM busybox\nRUN --mount={mount} {command}\n", **options)
    return built.log


def test_a_bind_mount_shows_the_context(busybox: Project) -> None:
    busybox.write({"src/a": "one", "src/b": "two", "other": "x"})
    assert run(busybox, "target=/src", "cat /src/src/a /src/other") == "onex"
    assert run(busybox, "source=src,target=/s", "ls /s").split() == ["a", "b"]
    assert run(busybox, "source=src/a,target=/file", "cat /file") == "one"


def test_a_bind_mount_is_read_only_unless_asked(busybox: Project) -> None:
    busybox.write({"a": "one"})
    assert "read-only" in run(busybox, "target=/s", "touch /s/x 2>&1 || true").lower()
    assert run(busybox, "target=/s,rw", "echo new > /s/a && cat /s/a") == "new\n"
    assert (busybox.context / "a").read_text() == "one"
    assert not (busybox.context / "x").exists()


def test_a_bind_mount_shows_another_stage(busybox: Project) -> None:
    text = """\
FROM busybox AS other
RUN mkdir /out && echo made > /out/f
FROM busybox
RUN --mount=from=other,source=/out,target=/in cat /in/f
"""
    built = busybox.build(text)
    assert built.log == "made\n"
    assert "in" not in built.tree


def test_a_change_below_a_bind_mount_runs_the_step_again(busybox: Project) -> None:
    busybox.write({"src/a": "one", "other": "x"})
    text = "FROM busybox\nRUN --mount=source=src,target=/s cat /s/a\n"
    busybox.build(text)
    assert busybox.write({"other": "y"}).build().ran == []
    assert busybox.write({"src/a": "two"}).build().log == "two"


def test_a_bind_mount_of_what_is_not_there_is_an_error(busybox: Project) -> None:
    with pytest.raises(DockerfileError, match="missing") as caught:
        run(busybox, "source=missing,target=/s", "true")
    assert caught.value.span is not None


def test_a_cache_is_kept_between_builds_and_in_no_layer(busybox: Project) -> None:
    command = "echo $RUN >> /c/log && cat /c/log"
    text = f"FROM busybox\nARG RUN\nRUN --mount=type=cache,target=/c {command}\n"
    busybox.build(text, build_args={"RUN": "1"})
    built = busybox.build(build_args={"RUN": "2"})
    assert built.log == "1\n2\n"
    assert "c/log" not in built.tree


def test_caches_have_ids(busybox: Project) -> None:
    mount = "type=cache,id={},target=/c"
    run(busybox, mount.format("one"), "echo 1 > /c/f")
    assert run(busybox, mount.format("two"), "ls /c") == ""
    assert run(busybox, mount.format("one"), "cat /c/f") == "1\n"


def test_a_cache_has_the_owner_and_mode_asked_for(busybox: Project) -> None:
    mount = "type=cache,target=/c,uid=33,gid=8,mode=0700"
    assert run(busybox, mount, "stat -c %u:%g:%a /c") == "33:8:700\n"


def test_a_tmpfs_is_empty_and_gone_with_the_step(busybox: Project) -> None:
    built = busybox.build(
        "FROM busybox\nRUN --mount=type=tmpfs,target=/t echo x > /t/f && ls /t\n"
    )
    assert built.log == "f\n"
    assert "t/f" not in built.tree


def test_a_secret_is_a_file_for_its_step_only(busybox: Project) -> None:
    text = """\
FROM busybox
RUN --mount=type=secret,id=token wc -c < /run/secrets/token && stat -c %a:%u /run/secrets/token
RUN ls /run/secrets 2>&1 || true
"""
    secret = imagekit.Secret(id="token", value=SECRET.encode())
    built = busybox.build(text, secrets=[secret])
    assert built.log.startswith(f"{len(SECRET)}\n400:0\n")
    assert "No such file" in built.log
    assert not [path for path in built.tree if "secrets" in path]


def test_a_secret_can_be_a_variable(busybox: Project) -> None:
    secret = imagekit.Secret(id="token", value=b"1234-5678-90")
    shown = run(busybox, "type=secret,id=token,env=TOKEN", "echo ${#TOKEN}", secrets=[secret])
    assert shown == "12\n"


def test_a_required_secret_that_is_not_given_is_an_error(busybox: Project) -> None:
    with pytest.raises(DockerfileError, match="token") as caught:
        run(busybox, "type=secret,id=token,required", "true")
    assert "--secret id=token" in caught.value.hint
    assert run(busybox, "type=secret,id=token", "ls /run/secrets/token 2>&1 || true")


def spellings(secret: str) -> list[bytes]:
    raw = secret.encode()
    return [raw, base64.b64encode(raw), base64.b64encode(raw + b"\n")]


@pytest.mark.parametrize("sandbox", ["root", "single-uid"])
def test_a_secret_is_in_no_file_of_the_store_and_in_no_output(
    busybox: Project, sandbox: str
) -> None:
    text = """\
FROM busybox
RUN --mount=type=secret,id=token --mount=type=secret,id=token,env=TOKEN,target=/run/other \
 cat /run/secrets/token && echo "it is $TOKEN" && echo "$TOKEN" | base64 && echo x > /made
RUN --mount=type=secret,id=token cat /run/secrets/token >&2; false
"""
    events: list[imagekit.Event] = []
    options = {
        "secrets": [imagekit.Secret(id="token", value=SECRET.encode())],
        "sandbox": sandbox,
        "observer": events.append,
    }
    with pytest.raises(StepFailedError) as caught:
        busybox.build(text, **options)
    busybox.build(text.replace("; false", ""), **options)
    shown = repr(events) + str(caught.value) + caught.value.log_tail + repr(caught.value.__cause__)
    assert SECRET not in shown
    assert "it is ****" in shown
    assert places(busybox.folder, spellings(SECRET)) == []


def test_the_search_for_secrets_finds_them(tmp_path: Path) -> None:
    (tmp_path / "raw").write_text(f"x{SECRET}y")
    (tmp_path / "packed").write_bytes(gzip.compress(SECRET.encode()))
    (tmp_path / "coded").write_bytes(base64.b64encode(SECRET.encode()))
    assert sorted(places(tmp_path, spellings(SECRET))) == ["coded", "packed", "raw"]


def test_another_value_of_a_secret_does_not_run_a_step_again(busybox: Project) -> None:
    text = "FROM busybox\nRUN --mount=type=secret,id=token true\n"
    busybox.build(text, secrets=[imagekit.Secret(id="token", value=b"one")])
    assert busybox.build(secrets=[imagekit.Secret(id="token", value=b"two")]).ran == []

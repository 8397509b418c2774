"""RUN: what a command changed, as the layer that says so."""

import io
import os
import tarfile

import pytest

from imagekit.errors import DockerfileError, StepFailedError, UsageError
from imagekit.events import StepLog
from tests.support.building import Built, Project
from tests.support.tools import need_root

pytestmark = pytest.mark.usefixtures("_root")


@pytest.fixture(name="_root")
def root() -> None:
    need_root()


def members(built: Built) -> dict[str, tarfile.TarInfo]:
    """The entries of the top layer."""
    *_, top = built.image.layers()
    with tarfile.open(fileobj=io.BytesIO(top)) as tar:
        return {member.name.rstrip("/"): member for member in tar}


def run(busybox: Project, *commands: str, before: str = "", **options: object) -> Built:
    lines = "".join(f"RUN {command}\n" for command in commands)
    return busybox.build(f"FROM busybox\n{before}{lines}", **options)


def test_new_files_are_in_the_layer_and_nothing_else(busybox: Project) -> None:
    built = run(busybox, "echo one > /new && mkdir -m 750 /d && echo two > /d/file")
    found = members(built)
    assert set(found) == {"new", "d", "d/file"}
    assert found["d"].mode == 0o750
    assert built.text("d/file") == "two\n"


def test_a_command_that_changes_nothing_gives_an_empty_layer(busybox: Project) -> None:
    assert members(run(busybox, "true")) == {}


def test_a_command_that_reads_changes_nothing(busybox: Project) -> None:
    assert members(run(busybox, "cat /etc/passwd && ls -R /bin >/dev/null")) == {}


def test_mount_points_leave_nothing_behind(busybox: Project) -> None:
    built = run(busybox, "echo x > /dev/shm/x && ls /proc/self /sys >/dev/null")
    assert members(built) == {}


@pytest.mark.parametrize("before", ["COPY f g /a/\n", "COPY f /a/\nCOPY g /a/\n"])
def test_what_is_removed_is_whited_out(busybox: Project, before: str) -> None:
    busybox.write({"f": "f", "g": "g"})
    found = members(run(busybox, "rm /a/f", before=before))
    assert set(found) == {"a", "a/.wh.f"}
    assert (found["a/.wh.f"].type, found["a/.wh.f"].size) == (tarfile.REGTYPE, 0)


def test_a_removed_folder_is_one_whiteout(busybox: Project) -> None:
    busybox.write({"d/e/f": "f"})
    assert set(members(run(busybox, "rm -r /x/e", before="COPY d /x\n"))) == {"x", "x/.wh.e"}


def test_a_folder_that_is_made_anew_hides_the_old_one(busybox: Project) -> None:
    busybox.write({"d/old": "f"})
    built = run(busybox, "rm -r /x && mkdir /x && echo new > /x/new", before="COPY d /x\n")
    assert "x/old" not in built.tree
    assert built.text("x/new") == "new\n"
    assert set(members(built)) == {"x", "x/.wh.old", "x/new"}


def test_a_folder_that_becomes_a_file_and_back(busybox: Project) -> None:
    busybox.write({"d/old": "f", "file": "f"})
    before = "COPY d /x\nCOPY file /y\n"
    built = run(busybox, "rm -r /x && echo 1 > /x && rm /y && mkdir /y", before=before)
    assert (built.tree["x"].inode.kind, built.tree["y"].inode.kind) == ("file", "directory")
    assert "x/old" not in built.tree


def test_hard_links_stay_links(busybox: Project) -> None:
    built = run(busybox, "echo 1 > /a && ln /a /b && mkdir /d && ln /a /d/c && cp /a /copy")
    tree = built.tree
    assert tree["a"].number == tree["b"].number == tree["d/c"].number != tree["copy"].number
    assert sum(member.islnk() for member in members(built).values()) == 2


def test_modes_owners_and_kinds_are_kept(busybox: Project) -> None:
    built = run(
        busybox,
        "cp /bin/true /suid && chown 33:8 /suid && chmod 6755 /suid"
        " && ln -s nowhere /soft && mkfifo -m 640 /pipe && mknod /null c 1 3"
        " && mkdir -m 1777 /sticky && echo 1 > /ids && chown 4000000:4000001 /ids",
    )
    tree = built.tree
    assert (tree["suid"].inode.mode, tree["suid"].inode.owner) == (0o6755, (33, 8))
    assert tree["soft"].inode.target == "nowhere"
    assert (tree["pipe"].inode.kind, tree["pipe"].inode.mode) == ("fifo", 0o640)
    assert (tree["null"].inode.kind, tree["null"].inode.device) == ("character device", (1, 3))
    assert tree["sticky"].inode.mode == 0o1777
    assert tree["ids"].inode.owner == (4_000_000, 4_000_001)


def test_a_changed_mode_or_owner_is_a_change(busybox: Project) -> None:
    busybox.write({"f": "same", "g": "same"})
    built = run(busybox, "chmod 600 /f && chown 5 /g", before="COPY f g /\n")
    assert set(members(built)) == {"f", "g"}
    assert built.tree["f"].inode.mode == 0o600
    assert built.tree["g"].inode.owner == (5, 0)
    assert built.text("f") == "same"


def test_extended_attributes_and_capabilities_are_kept(busybox: Project) -> None:
    busybox.write({"f": "x"})
    try:
        os.setxattr(
            busybox.context / "f",
            "security.capability",
            bytes.fromhex("0100000200200000" + "0" * 24),
        )
    except OSError as error:
        pytest.skip(f"no capabilities here: {error.strerror}")
    built = run(busybox, "mv /f /moved", before="COPY f /f\n")
    assert dict(built.tree["moved"].inode.xattrs)["security.capability"][:1] == b"\x01"


def test_names_are_bytes(busybox: Project) -> None:
    built = run(busybox, r"touch $(printf '/b\303\251') $(printf '/raw\377') '/sp ace'")
    assert {"b\u00e9", "raw\udcff", "sp ace"} <= set(members(built))


def test_exit_code_and_last_lines_are_in_the_error(busybox: Project) -> None:
    with pytest.raises(StepFailedError) as caught:
        run(busybox, "echo one; echo two >&2; exit 7")
    assert caught.value.exit_code == 7
    assert caught.value.log_tail == "one\ntwo"
    assert caught.value.span is not None
    assert caught.value.span.line == 2
    assert "exit code 7" in caught.value.message


def test_a_program_that_is_not_there_gets_a_hint(busybox: Project) -> None:
    with pytest.raises(StepFailedError) as caught:
        run(busybox, '["/no/such"]')
    assert caught.value.exit_code == 127
    assert "PATH" in caught.value.hint


def test_a_failed_step_is_not_kept(busybox: Project) -> None:
    busybox.write({"f": "1"})
    with pytest.raises(StepFailedError):
        run(busybox, "echo x > /x && false")
    assert set(members(run(busybox, "ls /x || echo gone"))) == set()
    assert list((busybox.store / "temp").iterdir()) == []


def test_output_comes_as_it_is_written(busybox: Project) -> None:
    built = run(busybox, "echo out; echo err >&2; printf 'no end'")
    streams = {(e.stream, e.data) for e in built.having(StepLog)}
    assert ("stderr", b"err\n") in streams
    assert "no end" in built.log


def test_the_environment_is_that_of_the_image(
    busybox: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_OUTSIDE", "leaks")
    before = "ENV A=1 B='x y'\nARG C=3\nUSER www-data\nWORKDIR /srv\n"
    built = run(busybox, "env; pwd; id", before=before)
    assert {"A=1", "B=x y", "C=3", "/srv"} <= set(built.log.splitlines())
    assert "uid=33(www-data)" in built.log
    assert "FROM_OUTSIDE" not in built.log


def test_without_a_network_there_is_only_loopback(busybox: Project) -> None:
    built = run(busybox, "--network=none ip -o link | cut -d: -f2")
    assert built.log.split() == ["lo"]
    whole = run(busybox, "ip -o link | cut -d: -f2 | tr -d '\\n'", network="none")
    assert whole.log.split() == ["lo"]


def test_added_hosts_are_known(busybox: Project) -> None:
    built = run(busybox, "cat /etc/hosts", add_hosts=[("build.example", "192.0.2.7")])
    assert "192.0.2.7" in built.log
    assert "build.example" in built.log
    assert members(built) == {}


@pytest.mark.parametrize(
    ("flag", "hint"),
    [
        ("--network=host", "--allow network.host"),
        ("--security=insecure", "--allow security.insecure"),
    ],
)
def test_what_is_not_allowed_is_refused_with_the_remedy(
    busybox: Project, flag: str, hint: str
) -> None:
    with pytest.raises(DockerfileError) as caught:
        run(busybox, f"{flag} true")
    assert hint in caught.value.hint
    assert caught.value.span is not None


def test_an_unknown_sandbox_is_refused(busybox: Project) -> None:
    with pytest.raises((DockerfileError, UsageError), match="sandbox"):
        run(busybox, "true", sandbox="none-such")


def test_layers_of_run_are_read_by_later_steps(busybox: Project) -> None:
    text = """\
FROM busybox AS one
RUN mkdir /out && echo made > /out/file && ln -s file /out/link && rm /usr/bin/wget
FROM busybox
COPY --from=one /out/ /got/
COPY --from=one /out/link /followed
RUN cat /got/file /followed && test -e /usr/bin/wget
"""
    built = busybox.build(text)
    assert built.log == "made\nmade\n"
    assert built.tree["got/link"].inode.kind == "symlink"


@pytest.mark.parametrize("sandbox", ["root", "single-uid"])
def test_every_sandbox_makes_the_same_layer_of_files(busybox: Project, sandbox: str) -> None:
    busybox.write({"d/old": "x", "f": "f"})
    before = "COPY d /x\nCOPY f /f\n"
    built = run(
        busybox,
        "rm -r /x && mkdir /x && echo 1 > /x/new && ln /x/new /hard && rm /f && chmod 700 /etc",
        before=before,
        sandbox=sandbox,
    )
    assert set(members(built)) == {"x", "x/.wh.old", "x/new", "hard", ".wh.f", "etc"}
    assert built.sandboxes == [sandbox]
    assert {node.inode.owner for node in built.tree.values()} == {(0, 0)}

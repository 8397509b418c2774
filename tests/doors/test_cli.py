"""The command line as a process: interrupts, a reader that goes away, help, platforms, users."""

import json
import os
import pwd
import signal
import subprocess
from pathlib import Path

import pytest

from imagekit import __version__
from tests.support.builders import NOBODY
from tests.support.building import Project, listing, places
from tests.support.commands import Command
from tests.support.flatten import flatten
from tests.support.layout import Layout
from tests.support.tools import need, need_root

SLEEPING = """\
FROM busybox
RUN echo first
RUN trap '' TERM INT; echo $0-{marker} started; sleep 600 & sleep 600; echo never
"""


def processes_with(marker: str) -> list[str]:
    found = []
    for path in Path("/proc").iterdir():
        try:
            line = (path / "cmdline").read_bytes() if path.name.isdigit() else b""
        except OSError:
            continue
        if marker.encode() in line:
            found.append(path.name)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_everything_and_leaves_a_store_to_use(
    busybox: Project, number: signal.Signals
) -> None:
    need_root()
    marker = f"imagekit-test-{os.getpid()}-{number}"
    busybox.dockerfile(SLEEPING.format(marker=marker))
    command = Command(busybox)
    words = command.words(*command.build_words("--progress=rawjson", "-o=oci:out"))
    process = subprocess.Popen(
        words, cwd=busybox.folder, env=command.env, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    with process.stderr as stream:
        for line in stream:
            if f"{marker} started" in json.loads(line).get("data", ""):
                break
        else:
            raise AssertionError("the step did not start")
        process.send_signal(number)
        rest = stream.read()
    assert process.wait(timeout=30) == 130
    assert "Traceback" not in rest
    assert rest.splitlines()[-1] == "imagekit: interrupted"
    assert processes_with(marker) == []
    assert not (busybox.folder / "out").exists()
    assert [p for p in (busybox.store / "temp").iterdir() if p.is_dir()] == []
    mounts = Path("/proc/self/mountinfo").read_text()
    assert str(busybox.store) not in mounts
    busybox.dockerfile("FROM busybox\nRUN echo first\nRUN echo second\n")
    said = command.build("--progress=plain")
    assert said.code == 0, said.err
    assert "RUN echo first\n#2 CACHED" in said.err


def test_a_reader_that_goes_away_is_no_traceback(command: Command) -> None:
    command.project.write({"a": os.urandom(1 << 20)}).dockerfile("FROM scratch\nCOPY a /\n")
    process = subprocess.Popen(
        command.words(*command.build_words("-o=-")),
        cwd=command.project.folder,
        env=command.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    with process.stderr as stream:
        assert b"Traceback" not in stream.read()
    assert process.wait(timeout=30) == 1


def test_version_and_help(command: Command) -> None:
    assert command.run("--version").out == f"imagekit {__version__}\n"
    shown = command.run("--help").out
    for name in ("build", "inspect", "push", "pull", "prune"):
        assert name in shown
        assert command.run(name, "--help").code == 0


def test_a_build_for_several_platforms_needs_no_emulation_for_files(busybox: Project) -> None:
    text = "FROM --platform=$BUILDPLATFORM busybox AS tools\nFROM scratch\nARG TARGETARCH\n"
    text += "COPY bin-$TARGETARCH /bin/app\nCOPY --from=tools /bin/busybox /bin/\n"
    busybox.write({"bin-amd64": "amd", "bin-arm64": "arm"}).dockerfile(text)
    said = Command(busybox).build("--platform=linux/amd64,linux/arm64", "-o=oci:out")
    assert said.code == 0, said.err
    layout = Layout(busybox.folder / "out")
    digests = [flatten(image)["bin/app"].inode.content for image in layout.images]
    assert len(set(digests)) == 2


FILES_ONLY = (
    "FROM busybox\nCOPY --chown=www-data:mail --chmod=4755 a /a\nWORKDIR /srv/x\nADD a /b\n"
)


def test_an_ordinary_user_builds_an_image_of_files_with_no_sandbox(nobody: Command) -> None:
    nobody.project.write({"a": "a"}).dockerfile(FILES_ONLY)
    said = nobody.build("--sandbox=root", "--progress=plain", "-o=oci:out")
    assert said.code == 0, said.err  # the sandbox `root` cannot be had: it was never started
    assert "isolated" not in said.err
    tree = flatten(Layout(nobody.project.folder / "out").image())
    assert (tree["a"].inode.mode, tree["a"].inode.owner) == (0o4755, (33, 8))
    assert tree["srv/x"].inode.owner == tree["b"].inode.owner == (0, 0)


def test_the_image_of_an_ordinary_user_is_that_of_root(nobody: Command, busybox: Project) -> None:
    layers = []
    for command in (nobody, Command(busybox)):
        command.project.write({"a": "a"}).dockerfile(FILES_ONLY)
        os.utime(command.project.context / "a", (1, 1))
        said = command.build("-o=oci:out", env={"SOURCE_DATE_EPOCH": "1700000000"})
        assert said.code == 0, said.err
        layers.append(Layout(command.project.folder / "out").image().descriptor["digest"])
    assert layers[0] == layers[1]


def test_an_ordinary_user_runs_commands_with_one_uid(nobody: Command) -> None:
    nobody.project.dockerfile(
        "FROM busybox\nRUN id -u && mkdir /d && echo x > /d/x && rm /usr/bin/wget\n"
    )
    said = nobody.build("--sandbox=single-uid", "--progress=plain", "-o=oci:out")
    if said.code != 0 and "sandbox single-uid" in said.err:
        pytest.skip(said.err.strip().splitlines()[-1])
    assert said.code == 0, said.err
    assert "isolated by: single-uid" in said.err
    tree = flatten(Layout(nobody.project.folder / "out").image())
    assert tree["d/x"].inode.owner == (0, 0)


SECRET = "correct-horse/battery+staple"
WITH_RANGES = """\
printf '%s:200000:65536\\n' "$0" > "$1"
mount --bind "$1" /etc/subuid && mount --bind "$1" /etc/subgid && shift && exec "$@"
"""


def test_an_ordinary_user_with_more_ids_runs_commands_as_anybody(nobody: Command) -> None:
    need("unshare", "mount", "newuidmap")
    if not Path("/etc/subuid").exists():
        pytest.skip("/etc/subuid does not exist, so nothing can be mounted over it")
    name = pwd.getpwuid(NOBODY).pw_name
    ranges = os.fspath(nobody.project.folder / "ranges")
    command = Command(
        nobody.project,
        prefix=("unshare", "-m", "sh", "-c", WITH_RANGES, name, ranges, *nobody.prefix),
    )
    nobody.project.dockerfile("""\
FROM busybox
RUN cp /bin/true /suid && chown 33:8 /suid && chmod 6755 /suid && rm /usr/bin/wget \\
 && rm -r /var/www && mkdir /var/www && ln /suid /other
RUN --mount=type=secret,id=token,uid=33 cat /run/secrets/token && stat -c %u /run/secrets/token
USER www-data
RUN id -u && touch /tmp/mine
""")
    said = command.build(
        "--sandbox=rootless",
        "--progress=plain",
        "--secret=id=token,env=TOKEN",
        "-o=oci:out",
        env={"TOKEN": SECRET},
    )
    assert said.code == 0, said.err
    assert SECRET not in said.err
    tree = flatten(Layout(nobody.project.folder / "out").image())
    assert (tree["suid"].inode.mode, tree["suid"].inode.owner) == (0o6755, (33, 8))
    assert tree["other"].number == tree["suid"].number
    assert tree["tmp/mine"].inode.owner[0] == 33
    assert "usr/bin/wget" not in tree
    assert places(nobody.project.folder, [SECRET.encode()]) == []


def test_asking_for_a_sandbox_that_cannot_be_had_says_why(nobody: Command) -> None:
    nobody.project.dockerfile("FROM busybox\nRUN true\n")
    said = nobody.build("--sandbox=root")
    assert said.code == 1
    assert "Dockerfile:2:" in said.err
    assert "sandbox root" in said.err
    assert "hint: " in said.err


def test_a_failed_build_changes_no_tag(command: Command) -> None:
    command.project.write({"a": "a"}).dockerfile("FROM scratch\nCOPY a /\n")
    assert command.build("-t=app").code == 0
    before = command.run("inspect", "--raw", "app").raw
    command.project.dockerfile("FROM scratch\nCOPY a /\nCOPY missing /\n")
    assert command.build("-t=app").code == 1
    assert command.run("inspect", "--raw", "app").raw == before


@pytest.mark.parametrize("epoch", ["1700000000", "0"])
def test_with_an_epoch_two_builds_anywhere_give_the_same_bytes(
    embedded_base: Path, tmp_path: Path, epoch: str
) -> None:
    need_root()
    text = "FROM busybox\nCOPY . /src/\nWORKDIR /w\nRUN date > /dev/null; echo made > /made\n"
    layouts = []
    for number, (zone, umask) in enumerate([("Pacific/Auckland", 0o077), ("UTC", 0o022)]):
        old = os.umask(umask)
        try:
            project = Project(tmp_path / f"project-{number}", embedded_base)
            names = ["a", "d/b", "d/c"]
            for name in names if number else reversed(names):
                project.write({name: name})
            for path in sorted(project.context.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)
                os.utime(path, (2_000_000_000 + number, 2_000_000_000 + number))
            project.dockerfile(text)
            (project.context / "Dockerfile").chmod(0o644)
            env = {"SOURCE_DATE_EPOCH": epoch, "TZ": zone, "LC_ALL": "C" if number else "C.UTF-8"}
            said = Command(project).build("-o=oci:out", "-o=type=oci,dest=out.tar", env=env)
        finally:
            os.umask(old)
        assert said.code == 0, said.err
        layouts.append(project.folder)
    first, second = (listing(folder / "out") for folder in layouts)
    assert {k: v[1:] for k, v in first.items()} == {k: v[1:] for k, v in second.items()}
    archives = {(folder / "out.tar").read_bytes() for folder in layouts}
    assert len(archives) == 1
    image = Layout(layouts[0] / "out").image()
    assert {
        node.inode.mtime for path, node in flatten(image).items() if path.startswith("src")
    } == {float(epoch)}

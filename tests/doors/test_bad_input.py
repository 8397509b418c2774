"""Bad input: one clear error that says where, no traceback, and nothing half-written."""

import os
from pathlib import Path

import pytest

from tests.support.building import Project, listing
from tests.support.commands import Command, Said
from tests.support.tools import imagekit_command, need, need_root, run

UNREACHABLE = "127.0.0.1:9"  # the discard port: nobody listens


def assert_one_error(said: Said, *parts: str, code: int = 1) -> None:
    assert said.code == code, said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    assert said.err.count("error: ") == 1, said.err
    for part in parts:
        assert part in said.err, said.err


CASES = {
    "empty": ("", "the file has no instructions", ""),
    "unknown instruction": (
        "FROM scratch\nCOPPY a /\n",
        "Dockerfile:2:1: error: ",
        "did you mean",
    ),
    "no FROM": ("COPY a /\n", "Dockerfile:1:1: error: ", ""),
    "unknown stage": ("FROM scratch AS lib\nCOPY a /\nFROM libb\nCOPY a /\n", ":3:", "lib"),
    "unknown stage to copy from": (
        "FROM scratch AS lib\nCOPY a /\nFROM scratch\nCOPY --from=libb /a /\n",
        ":4:",
        "",
    ),
    "missing source": ("FROM scratch\nCOPY a missing /\n", ":2:", "missing"),
    "missing pattern": ("FROM scratch\nADD missing/a /\n", ":2:", "missing"),
    "source above the context": ("FROM scratch\nCOPY ../../etc/passwd /\n", ":2:", "passwd"),
    "unknown flag": ("FROM scratch\nCOPY --frm=x a /\n", ":2:", "from"),
    "bad mode": ("FROM scratch\nCOPY --chmod=99 a /\n", ":2:", "99"),
    "unknown user": ("FROM scratch\nCOPY --chown=nobody a /\n", ":2:", "nobody"),
    "too few arguments": ("FROM scratch\nCOPY a\n", ":2:", ""),
    "bad expansion": ("FROM scratch\nENV A=${B:?must be set}\nCOPY a /$A\n", ":2:", ""),
    "bad reference": ("FROM Scratch:bad:tag\n", ":1:", ""),
    "file as a folder": ("FROM scratch\nCOPY a /a\nCOPY a /a/b\n", ":3:", ""),
    "cycle": (
        "FROM scratch AS a\nCOPY --from=b /x /\nFROM scratch AS b\nCOPY --from=a /x /\n",
        "",
        "",
    ),
    "base that is not there": (f"FROM {UNREACHABLE}/nothing:1\n", ":1:", "nothing"),
    "unended heredoc": ("FROM scratch\nCOPY <<EOF /a\ntext\n", ":2:", "EOF"),
    "bytes that are no text": ("FROM scratch\nCOPY a /\udcff\udcfe\nCOPY missing /\n", ":3:", ""),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_dockerfile_is_one_error_with_its_place(command: Command, case: str) -> None:
    text, place, more = CASES[case]
    data = text.encode("utf-8", "surrogateescape")
    command.project.write({"Dockerfile": data, "a": "a"})
    out = command.project.folder / "out"
    out.mkdir()
    said = command.build(f"--output=type=oci,dest={out / 'x.tar'}", f"--iidfile={out / 'id'}")
    assert_one_error(said, more)
    assert any(part in said.err for part in place.split("|"))
    assert listing(out) == {}


@pytest.mark.parametrize("case", ["unknown instruction", "unknown flag", "missing source"])
def test_an_error_shows_the_line_and_a_caret(command: Command, case: str) -> None:
    text, _, _ = CASES[case]
    said = command.project.write({"Dockerfile": text, "a": "a"}) and command.build()
    number = int(said.err.split("Dockerfile:")[1].split(":")[0])
    shown = said.err.splitlines()
    at = shown.index(f"{number} | {text.splitlines()[number - 1]}")
    assert set(shown[at + 1].partition("|")[2].strip()) == {"^"}


def test_a_missing_dockerfile_says_where_it_was_looked_for(command: Command) -> None:
    assert_one_error(command.build(), "no Dockerfile at context/Dockerfile", "hint: ", "-f")
    assert_one_error(command.build("-f", "other"), "no Dockerfile at other")


def test_a_dockerfile_that_is_a_folder(command: Command) -> None:
    (command.project.context / "Dockerfile").mkdir()
    assert_one_error(command.build(), "cannot read the Dockerfile", "Is a directory")


def test_a_dockerfile_that_is_too_large(command: Command) -> None:
    command.project.dockerfile("FROM scratch\n" + "# long\n" * 200_000)
    assert_one_error(command.build(), "more than 1048576 bytes")


def test_a_context_that_is_no_folder(command: Command) -> None:
    assert_one_error(command.run("build", "nowhere"), "nowhere is not a folder")


def test_a_target_that_is_not_there(command: Command) -> None:
    command.project.write({"a": "a"}).dockerfile("FROM scratch AS app\nCOPY a /\n")
    assert_one_error(command.build("--target=ap"), "ap", "app")


def test_a_build_context_that_is_not_there(command: Command) -> None:
    command.project.write({"a": "a"}).dockerfile("FROM base\nCOPY a /\n")
    assert_one_error(command.build("--build-context=base=oci-layout:///nowhere"), "nowhere")
    assert_one_error(command.build("--build-context=base=/nowhere"), "/nowhere is not a folder")


def test_a_command_that_fails_shows_its_last_lines_and_its_place(busybox: Project) -> None:
    need_root()
    busybox.dockerfile("FROM busybox\nRUN echo before; \\\n    echo the reason >&2; exit 9\n")
    said = Command(busybox).build("--progress=plain", f"--output=type=oci,dest={busybox.folder}/x")
    assert said.code == 1
    assert "Traceback" not in said.err
    tail = said.err[said.err.index("--- the last output") :]
    assert "before\nthe reason\n---\n" in tail
    assert "context/Dockerfile:2:1: error: the command did not succeed: exit code 9" in tail
    assert "2 | RUN echo before; \\\n" in tail
    assert not (busybox.folder / "x").exists()
    assert list((busybox.store / "temp").iterdir()) == []
    assert list((busybox.store / "ingest").iterdir()) == []


def test_an_unreadable_file_is_named(nobody: Command) -> None:
    nobody.project.write({"a": "a", "secret": "x"}).dockerfile("FROM scratch\nCOPY . /\n")
    (nobody.project.context / "secret").chmod(0)
    assert_one_error(nobody.build(), "Dockerfile:2:", "secret")


@pytest.mark.parametrize("context", [True, False], ids=["copied", "not copied"])
def test_special_files_in_the_context(command: Command, context: bool) -> None:  # noqa: FBT001
    os.mkfifo(command.project.context / "pipe")
    command.project.write({"a": "a"})
    command.project.dockerfile(f"FROM scratch\nCOPY {'pipe' if context else 'a'} /\n")
    said = command.build()
    if context:
        assert_one_error(said, "Dockerfile:2:", "pipe")
    else:
        assert said.code == 0, said.err


def test_a_full_disk_is_one_error_and_the_store_is_used_on(project: Project) -> None:
    need_root()
    need("unshare", "mount")
    project.write({"large": os.urandom(8 << 20), "small": "x"})
    project.dockerfile("FROM scratch\nCOPY large /\n")
    (project.context / "Small").write_text("FROM scratch\nCOPY small /\n")
    project.store.mkdir(mode=0o700)
    command = Command(project)
    script = """
mount -t tmpfs -o size=4m,mode=700 tmpfs store || exit 77
"$@" build context; echo code $?
ls store/ingest store/temp
"$@" build -f context/Small --iidfile id context; echo code $?
"""
    words = ["unshare", "-m", "sh", "-c", script, "sh", *imagekit_command()]
    done = run(words, cwd=project.folder, env=command.env, expect=None)
    if done.returncode == 77:
        pytest.skip("no tmpfs can be mounted")
    assert "Traceback" not in done.stderr
    assert "No space left" in done.stderr
    assert "Dockerfile:2:" in done.stderr
    assert [line for line in done.stdout.splitlines() if line] == [
        "code 1",
        "store/ingest:",
        "store/temp:",
        "code 0",
    ]
    assert (project.folder / "id").read_text().startswith("sha256:")


@pytest.mark.parametrize("output", ["type=oci,dest=full/x", "type=tar,dest=full/x", "full/x"])
def test_an_output_on_a_full_disk_leaves_nothing(project: Project, output: str) -> None:
    need_root()
    need("unshare", "mount")
    project.write({"large": os.urandom(4 << 20)}).dockerfile("FROM scratch\nCOPY large /\n")
    (project.folder / "full").mkdir()
    script = """
mount -t tmpfs -o size=1m tmpfs full || exit 77
"$@"; echo code $?
ls -A full
"""
    command = Command(project)
    words = ["unshare", "-m", "sh", "-c", script, "sh"]
    words += command.words("build", f"--output={output}", "context")
    done = run(words, cwd=project.folder, env=command.env, expect=None)
    if done.returncode == 77:
        pytest.skip("no tmpfs can be mounted")
    assert done.stdout == "code 1\n"
    assert "Traceback" not in done.stderr
    assert "No space left" in done.stderr


@pytest.mark.parametrize(
    "output",
    ["type=oci,dest=no/x", "type=docker,dest=no/x", "type=tar,dest=no/x", "type=oci,dest=context"],
)
def test_an_output_that_cannot_be_written(command: Command, output: str) -> None:
    command.project.write({"a": "a"}).dockerfile("FROM scratch\nCOPY a /\n")
    before = listing(command.project.context)
    said = command.build(f"--output={output}")
    assert_one_error(said, "cannot write")
    assert listing(command.project.context) == before
    assert not (command.project.folder / "no").exists()


def test_a_store_that_is_something_else(command: Command) -> None:
    command.project.write({"a": "a"}).dockerfile("FROM scratch\nCOPY a /\n")
    assert_one_error(command.build("--store=context"), "neither empty nor a store")
    (command.project.folder / "file").write_text("x")
    assert_one_error(command.build("--store=file"), "store")


USAGE = [
    (["build"], ""),
    (["build", "--frobnicate", "context"], "unknown option '--frobnicate'"),
    (["build", "--no-cach", "context"], "did you mean --no-cache"),
    (["build", "context", "more"], "too many arguments: 'more'"),
    (["nothing"], ""),
    (["build", "-o", "type=ocl", "context"], "unknown type 'ocl'"),
    (["build", "-t", "Bad:Tag:", "context"], "invalid image reference"),
    (["build", "--platform", "a/b/c/d", "context"], "not a platform"),
    (["build", "--build-arg", "=x", "context"], "--build-arg"),
    (["build", "--label", "x", "context"], "--label 'x': want NAME=VALUE"),
    (["build", "--secret", "src=", "context"], "id is missing"),
    (["build", "--secret", "id=x,frm=y", "context"], "unknown key 'frm'"),
    (["build", "--add-host", "x:y", "context"], "--add-host"),
    (["build", "--ulimit", "x=1", "context"], "unknown type 'x'"),
    (["build", "--ulimit", "nofile=9:1", "context"], "above the hard one"),
    (["build", "--shm-size", "much", "context"], "want a size"),
    (["build", "--allow", "everything", "context"], "unknown entitlement"),
    (["build", "--annotation", "image:a=1", "context"], "no level 'image'"),
    (["build", "--network", "bridge", "context"], "network"),
    (["build", "--jobs", "0", "context"], "jobs must be at least 1"),
    (["build", "--jobs", "many", "context"], "jobs"),
    (["build", "--progress", "loud", "context"], "progress"),
    (["build", "--push", "context"], "nothing says where to push to"),
    (["build", "--build-context", "x", "context"], "--build-context"),
    (["build", "--sandbox", "jail", "context"], "sandbox"),
    (["inspect", "Bad:Ref:"], "invalid image reference"),
    (["prune", "--keep-hours", "soon"], "keep-hours"),
]


@pytest.mark.parametrize(
    ("words", "message"), USAGE, ids=lambda v: " ".join(v) if isinstance(v, list) else ""
)
def test_a_wrong_command_line_has_exit_code_2(
    command: Command, words: list[str], message: str
) -> None:
    command.project.write({"a": "a"}).dockerfile("FROM scratch\nCOPY a /\n")
    said = command.run(*words)
    assert_one_error(said, message, code=2)
    assert not Path(command.project.folder / "out").exists()

import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from imagekit.errors import CancelledError, SandboxError
from imagekit.sandbox import BindMount, Cancellation, Folder, Overlay, Ulimit


def test_the_exit_code_of_the_command_comes_back(box: Any) -> None:
    assert box.run("exit 7").status.code == 7


def test_a_command_that_a_signal_ends_is_told_apart(box: Any) -> None:
    status = box.run("sh -c 'kill -9 $$'; exit $?").status
    assert status.code == 137
    status = box.run("trap 'exit 3' TERM; kill -TERM $$").status
    assert status.exit_code == 3


def test_a_missing_command_gives_127_and_says_so(box: Any) -> None:
    result = box.run(("nope",))
    assert result.code == 127
    assert "nope" in result.err
    assert box.run(("/nope",)).code == 127


def test_a_command_that_is_no_program_gives_126(box: Any) -> None:
    assert box.run(("/etc/passwd",)).code == 126
    assert box.run(("/etc",)).code == 126


def test_output_is_split_by_stream_and_complete(box: Any) -> None:
    result = box.run("printf 'a\\n'; printf 'b\\n' >&2; head -c 300000 /dev/zero")
    assert result.err == "b\n"
    assert result.out == "a\n" + "\0" * 300000


def test_output_is_live(box: Any, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    fifo = shared / "fifo"
    os.mkfifo(fifo)
    heard = bytearray()
    writer = os.open(fifo, os.O_RDWR)

    def output(_: str, data: bytes) -> None:
        if not heard:
            os.write(writer, b"go\n")
        heard.extend(data)

    spec = box.spec(
        "echo one; read x < /shared/fifo; echo $x",
        mounts=(BindMount(source=str(shared), target="/shared", read_only=False),),
    )
    assert box.sandbox.run(spec, output=output).exit_code == 0
    os.close(writer)
    assert heard == b"one\ngo\n"


def test_an_observer_that_raises_ends_the_step(box: Any) -> None:
    def output(_: str, __: bytes) -> None:
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        box.sandbox.run(box.spec("echo x; sleep 1000"), output=output)


def _processes_with(marker: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if marker.encode() in command.split(b"\0"):
            found.append(int(path.parent.name))
    return found


def test_cancelling_ends_everything_within_two_seconds(box: Any) -> None:
    cancellation = Cancellation()
    marker = "73501"
    spec = box.spec(f"setsid sleep {marker} & (sleep {marker} &) ; echo up; sleep {marker}")
    started = time.monotonic()

    def output(_: str, __: bytes) -> None:
        cancellation.cancel()

    with pytest.raises(CancelledError):
        box.sandbox.run(spec, output=output, cancelled=cancellation)
    assert time.monotonic() - started < 2
    assert _processes_with(marker) == []


def test_a_step_that_is_cancelled_before_it_starts_never_runs(box: Any) -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    root = box.overlay()
    with pytest.raises(CancelledError):
        box.run("sleep 1000", root=root, cancelled=cancellation)


def test_cancelling_at_any_moment_leaves_nothing(box: Any) -> None:
    marker = "73505"
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    for moment in range(40):
        cancellation = Cancellation()
        root = box.overlay()
        timer = threading.Timer(moment / 2500, cancellation.cancel)
        timer.start()
        with pytest.raises(CancelledError):
            box.run(f"sleep {marker} & sleep {marker}", root=root, cancelled=cancellation)
        timer.join()
        assert list(Path(root.work).iterdir()) == []
    assert _processes_with(marker) == []
    assert str(box.base) not in Path("/proc/self/mountinfo").read_text()
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_daemons_are_gone_when_the_command_ends(box: Any) -> None:
    marker = "73502"
    assert box.run(f"setsid sleep {marker} > /dev/null 2>&1 & exit 0").code == 0
    assert _processes_with(marker) == []


def test_a_daemon_that_keeps_the_pipes_does_not_keep_the_step(box: Any) -> None:
    assert box.run("sleep 73503 & echo done").out == "done\n"


ENGINE = """
import os, sys
sys.path[:] = {path!r}
from imagekit.sandbox import Overlay, ProcessSpec
from imagekit.sandbox.choose import choose
root = Overlay(lowers=({lower!r},), upper={upper!r}, work={work!r})
sandbox = choose({name!r})
spec = ProcessSpec(argv=("/bin/sh", "-c", "echo up; sleep {marker}; true"), root=root)
sandbox.run(spec, output=lambda *_: os.write(1, b"up"))
"""


def test_a_killed_engine_takes_its_steps_and_helpers_along(box: Any) -> None:
    root = box.overlay()
    marker = "73504"
    program = ENGINE.format(
        path=sys.path,
        lower=root.lowers[0],
        upper=root.upper,
        work=root.work,
        marker=marker,
        name=box.sandbox.name,
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as engine:
        assert engine.stdout is not None
        assert engine.stdout.read(2) == b"up"
        children = [
            int(pid)
            for pid in Path(f"/proc/{engine.pid}/task/{engine.pid}/children").read_text().split()
        ]
        watched = [os.pidfd_open(pid) for pid in (*children, *_wait_for(marker))]
        engine.kill()
    for pidfd in watched:
        assert select.select([pidfd], [], [], 2)[0]
        os.close(pidfd)


def _wait_for(marker: str) -> list[int]:
    for _ in range(10_000):
        if found := _processes_with(marker):
            return found
    raise AssertionError


def test_many_threads_may_run_steps_at_once(box: Any) -> None:
    results: list[int] = []

    def work(number: int) -> None:
        results.append(box.run(f"exit {number}").code)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(6))


def test_the_environment_is_exact(box: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "host")
    result = box.run(("/bin/env",), env=(("PATH", "/bin"), ("A", "1=2"), ("B", "\udcff")))
    assert sorted(result.out.split("\n")[:-1]) == [
        "A=1=2",
        "B=\udcff",
        "HOME=/root",
        "HOSTNAME=imagekit",
        "PATH=/bin",
    ]


def test_home_of_the_environment_wins(box: Any) -> None:
    assert box.run(("/bin/env",), env=(("HOME", "/x"),)).out.count("HOME=") == 1


def test_no_descriptor_but_the_standard_ones_reaches_the_command(box: Any) -> None:
    result = box.run("ls /proc/1/fd; readlink /proc/1/fd/0; readlink /proc/1/fd/1")
    numbers, null, pipe = result.out.split("\n0\n1\n2\n")[-1], *result.out.split("\n")[-3:-1]
    assert result.out.startswith("0\n1\n2\n"), numbers
    assert null == "/dev/null"
    assert pipe.startswith("pipe:")


def test_the_command_is_pid_1_of_a_new_session(box: Any) -> None:
    fields = box.run("cat /proc/1/stat").out.rsplit(") ", 1)[1].split()
    assert fields[1:4] == ["0", "1", "1"]


def test_standard_streams_can_be_opened_again_by_the_user(box: Any) -> None:
    user = "app" if box.sandbox.name != "single-uid" else ""
    assert box.run("echo x > /dev/stdout; echo y > /dev/stderr", user=user).out == "x\n"


def test_the_umask_is_022_and_limits_are_set(box: Any) -> None:
    result = box.run(
        "umask; ulimit -c; ulimit -n", ulimits=(Ulimit(name="nofile", soft=7, hard=9),)
    )
    assert result.out == "0022\n0\n7\n"


def test_an_unknown_limit_is_an_error(box: Any) -> None:
    with pytest.raises(SandboxError, match="no such limit"):
        box.run("true", ulimits=(Ulimit(name="nonsense", soft=1, hard=1),))


def test_signals_have_their_default_action(box: Any) -> None:
    status = box.run(("/bin/cat", "/proc/self/status")).out
    fields = dict(line.split(":", 1) for line in status.splitlines())
    assert int(fields["SigIgn"], 16) == 0
    assert int(fields["SigBlk"], 16) == 0


def test_the_host_name_and_namespaces_are_the_steps_own(box: Any) -> None:
    result = box.run("cat /proc/sys/kernel/hostname; readlink /proc/self/ns/uts", hostname="zork")
    name, namespace = result.out.split()
    assert name == "zork"
    assert namespace != Path("/proc/self/ns/uts").readlink().name


def test_a_missing_working_folder_is_made_in_the_layer(box: Any) -> None:
    result = box.run("pwd; stat -c '%a %u %g' .", cwd="/made/deep")
    assert result.out == "/made/deep\n755 0 0\n"
    assert result.changes() == {"made", "made/deep"}


def test_a_working_folder_that_is_a_file_is_an_error(box: Any) -> None:
    with pytest.raises(SandboxError) as info:
        box.run("true", cwd="/etc/passwd")
    assert info.value.code == "bad-cwd"


def test_a_plain_folder_is_written_into(box: Any, bare_root: Path) -> None:
    assert box.run("echo x > /new", root=Folder(str(bare_root))).code == 0
    assert (bare_root / "new").read_text() == "x\n"


def test_an_overlay_without_layers_is_its_upper_folder(box: Any, bare_root: Path) -> None:
    root = Overlay(lowers=(), upper=str(bare_root), work="")
    assert box.run("touch /new", root=root).code == 0
    assert (bare_root / "new").exists()


def test_many_layers_with_odd_names_are_merged(box: Any, tmp_path: Path) -> None:
    layers = []
    for number in range(60):
        layer = tmp_path / ("layer,:=\\ " + "x" * 120) / str(number)
        layer.mkdir(parents=True)
        (layer / f"f{number}").write_text(str(number))
        (layer / "top").write_text(str(number))
        layers.append(layer)
    root = box.overlay(*layers, box.lower)
    assert box.run("cat /top /f59", root=root).out == "059"


def test_deleting_and_renaming_work_and_the_work_folder_is_empty_again(box: Any) -> None:
    root = box.overlay()
    result = box.run("rm /etc/group; mkdir /a /b; echo x > /a/f; mv /a/f /b/f", root=root)
    assert result.code == 0
    assert (result.upper / "b" / "f").exists()
    assert list(Path(root.work).iterdir()) == []


def test_mounts_of_a_step_are_not_seen_by_the_host(box: Any) -> None:
    def output(_: str, __: bytes) -> None:
        assert str(box.base) not in Path("/proc/self/mountinfo").read_text()

    assert box.sandbox.run(box.spec("echo x"), output=output).exit_code == 0


def test_a_closed_sandbox_says_so(box: Any) -> None:
    from imagekit.sandbox.choose import choose  # noqa: PLC0415

    other = choose(box.sandbox.name)
    other.close()
    other.close()
    with pytest.raises(SandboxError, match="closed"):
        other.run(box.spec("true"), output=lambda *_: None)


def test_closing_the_sandbox_ends_its_steps(box: Any) -> None:
    from imagekit.sandbox.choose import choose  # noqa: PLC0415

    other = choose(box.sandbox.name)

    def output(_: str, __: bytes) -> None:
        other.close()

    with pytest.raises(CancelledError):
        other.run(box.spec("echo up; sleep 1000"), output=output)


def test_a_helper_that_dies_is_reported(box: Any) -> None:
    from imagekit.sandbox.choose import choose  # noqa: PLC0415

    with choose(box.sandbox.name) as other:
        other.ready()
        other._helper._process.send_signal(signal.SIGKILL)
        other._helper._process.wait()
        with pytest.raises(SandboxError, match="helper ended"):
            other.run(box.spec("true"), output=lambda *_: None)


def test_overlay_support_is_probed_and_leaves_nothing(box: Any, tmp_path: Path) -> None:
    assert box.sandbox.supports_overlay(str(tmp_path)) is True
    assert list(tmp_path.iterdir()) == []

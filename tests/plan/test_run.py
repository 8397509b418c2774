import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagekit.errors import DockerfileError
from imagekit.plan import Step, ops
from imagekit.plan.mounts import MountError, MountOptions, parse_mount
from tests.support.plans import traced


def step_of(line: str, **options: object) -> Step:
    plan = traced(f"FROM a\nWORKDIR /w\n{line}\n", **options).plan
    return plan.steps[plan.result]


def run_of(line: str, **options: object) -> ops.Exec:
    op = step_of(line, **options).op
    assert isinstance(op, ops.Exec)
    return op


def mount_of(options: str) -> ops.Mount:
    (mount,) = run_of(f"RUN --mount={options} x").mounts
    return mount


@pytest.mark.parametrize(
    ("line", "argv"),
    [
        ("RUN echo  $X", ("/bin/sh", "-c", "echo  $X")),
        ('RUN ["a", "$X"]', ("a", "$X")),
        ("RUN", ("/bin/sh", "-c", "")),
        ("RUN <<E\na\nb\nE", ("/bin/sh", "-c", "a\nb\n")),
        ("RUN <<-E\n\ta\n\tE", ("/bin/sh", "-c", "a\n")),
        ("RUN cat <<E >f\na\nE", ("/bin/sh", "-c", "cat <<E >f\na\nE")),
    ],
)
def test_what_is_run(line: str, argv: tuple[str, ...]) -> None:
    assert run_of(line).argv == argv


def test_a_script_with_an_interpreter_is_a_file() -> None:
    op = run_of("RUN <<E\n#!/bin/awk -f\nBEGIN {}\nE")
    assert op.argv == ("/bin/sh", "-c", "/dev/pipes/E")
    assert op.mounts == (
        ops.ScriptMount(target="/dev/pipes/E", content=b"#!/bin/awk -f\nBEGIN {}\n"),
    )


def test_names_show_variables_and_scripts_but_no_secrets() -> None:
    assert step_of("ENV V=1\nRUN a $V $UNSET 'q'").name == "[3/3] RUN a 1 $UNSET 'q'"
    assert step_of("RUN <<E\n  a\nb\nE").name == "[3/3] RUN <<E (a...)"
    hidden = "ENV T=public\nRUN --mount=type=secret,id=t,env=T x $T"
    assert step_of(hidden).name.endswith(" RUN --mount=type=secret,id=t,env=T x ****")


def test_history_lists_the_arguments_with_the_values_that_run_saw() -> None:
    plan = traced("FROM a\nARG X=1 Y\nENV X=2\nARG X\nRUN c\n").plan
    assert plan.new_history[-1].created_by == "RUN |2 X=2 Y= /bin/sh -c c # buildkit"


def test_proxies_come_in_both_cases_and_beside_the_environment() -> None:
    op = run_of("RUN x", build_args={"https_proxy": "p", "NO_PROXY": "", "Ftp_Proxy": "f"})
    assert op.proxy_env == (
        ("HTTPS_PROXY", "p"),
        ("https_proxy", "p"),
        ("FTP_PROXY", "f"),
        ("ftp_proxy", "f"),
    )
    assert "HTTPS_PROXY" not in dict(op.env)


def test_the_hostname_is_a_build_argument() -> None:
    assert run_of("RUN x", build_args={"BUILDKIT_SANDBOX_HOSTNAME": "h"}).hostname == "h"


@pytest.mark.parametrize(
    ("options", "mount"),
    [
        ("target=t", ops.BindMount(target="/w/t", input=1)),
        (
            "target=/t,source=../s,rw",
            ops.BindMount(target="/t", input=1, source="/s", read_only=False),
        ),
        ("type=cache,target=c/..//d", ops.CacheMount(target="/w/d", id="d")),
        (
            "type=cache,target=/c,id=i,sharing=LOCKED,uid=5,mode=0700,ro",
            ops.CacheMount(
                target="/c", id="i", sharing="locked", uid=5, mode=0o700, read_only=True
            ),
        ),
        (
            "type=cache,target=/c,from=img,source=/s,uid=5",
            ops.CacheMount(target="/c", id="/c", input=1, source="/s"),
        ),
        ("type=tmpfs,target=/t,size=1.5m", ops.TmpfsMount(target="/t", size=1572864)),
        ("type=secret,id=a/b", ops.SecretMount(id="a/b", target="/run/secrets/b")),
        ("type=secret,id=s,env=E", ops.SecretMount(id="s", env="E")),
        (
            "type=secret,target=/a/b,required",
            ops.SecretMount(id="b", target="/a/b", required=True),
        ),
        ("type=ssh", ops.SshMount(id="default", target="/run/buildkit/ssh_agent.0")),
        ('"target=/with,comma"', ops.BindMount(target="/with,comma", input=1)),
    ],
)
def test_mounts(options: str, mount: ops.Mount) -> None:
    # Quotes of a flag group its words; those of CSV have to be escaped.
    assert mount_of(options.replace('"', '\\"')) == mount


def test_an_agent_is_found_through_the_environment() -> None:
    op = run_of("RUN --mount=type=ssh --mount=type=ssh,id=b,target=/s x")
    assert dict(op.env)["SSH_AUTH_SOCK"] == "/run/buildkit/ssh_agent.0"
    own = run_of("ENV SSH_AUTH_SOCK=/own\nRUN --mount=type=ssh x")
    assert dict(own.env)["SSH_AUTH_SOCK"] == "/own"


def test_values_of_mounts_are_expanded() -> None:
    assert run_of("ENV T=/t\nRUN --mount=target=$T x").mounts == (
        ops.BindMount(target="/t", input=1),
    )


@pytest.mark.parametrize(
    "options",
    [
        "target=/",
        "type=nope,target=/t",
        "target=/t,nope=1",
        "target",
        "target=/t,size=1",
        "size=1,type=tmpfs,target=/t",
        "required,type=secret,id=x",
        "type=tmpfs,target=/t,size=big",
        "target=/t,uid=1",
        "type=cache,target=/c,mode=9",
        "type=cache,target=/c,uid=-1",
        "type=secret,id=a,source=b",
        "type=secret,from=a,id=b",
        "type=ssh,source=a",
        "target=/t,sharing=shared",
        "target=/t,ro=perhaps",
    ],
)
def test_mounts_that_cannot_be(options: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        mount_of(options)
    assert caught.value.code == "mount-invalid"


def test_a_mount_without_a_target_is_at_the_workdir() -> None:
    mount = mount_of("type=bind")
    assert isinstance(mount, ops.BindMount)
    assert mount.target == "/w"


def test_a_bad_sharing_has_a_class_of_its_own() -> None:
    with pytest.raises(DockerfileError) as caught:
        mount_of("type=cache,target=/c,sharing=al")
    assert caught.value.code == "sharing-invalid"


def test_a_mount_of_a_later_stage_is_refused() -> None:
    with pytest.raises(DockerfileError) as caught:
        traced("FROM a AS x\nRUN --mount=from=y,target=/t z\nFROM b AS y\nFROM x\n")
    assert caught.value.code == "stage-not-defined-yet"


@given(st.lists(st.text(alphabet='ab",= /', min_size=1, max_size=8), min_size=1, max_size=4))
def test_quoted_values_come_back_as_written(values: list[str]) -> None:
    fields = ['"target=' + value.replace('"', '""') + '"' for value in values]
    assert parse_mount(",".join(fields), str).target == values[-1]


@given(st.text(alphabet='abt=",\n$size16uidfrom', max_size=40))
def test_no_text_makes_more_than_a_mount_error(text: str) -> None:
    try:
        found = parse_mount(text, str)
    except MountError:
        return
    assert isinstance(found, MountOptions)

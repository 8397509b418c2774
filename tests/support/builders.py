"""One way to build a case of fixtures/builds with imagekit and with buildah."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.debian import debian_base
from tests.support.embedded import make_embedded_base
from tests.support.projects import Case
from tests.support.referees import Storage, buildah_build
from tests.support.registry_server import RegistryServer
from tests.support.tools import imagekit_command, imagekit_env, need, run

NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


class Job(NamedTuple):
    """One build, whoever does it: `layout` is the folder that it makes."""

    context: Path
    layout: Path
    work: Path
    build_contexts: Mapping[str, Path]
    build_args: Mapping[str, str]
    platforms: Sequence[str] = ()
    unprivileged: bool = False
    dockerfile: str = "Dockerfile"


Builder = Callable[[Job], None]


def with_imagekit(job: Job) -> None:
    """Build through the command line, in a process of its own and with a store of its own."""
    command = [*imagekit_command(), "build", "--progress=plain", f"--store={job.work}/store"]
    command += ["--tag=example/result:latest", f"--output=type=oci,tar=false,dest={job.layout}"]
    command += [f"--build-context={n}=oci-layout://{p}" for n, p in job.build_contexts.items()]
    command += [f"--build-arg={name}={value}" for name, value in job.build_args.items()]
    command += [f"--platform={','.join(job.platforms)}"] if job.platforms else []
    command += [f"--file={job.context / job.dockerfile}", os.fspath(job.context)]
    env = {**imagekit_env(), "HOME": os.fspath(job.work)}
    if job.unprivileged:
        command = as_nobody(command, job.work, env)
    run(command, cwd=job.work, env=env, timeout_s=600)


def as_nobody(command: Sequence[str], work: Path, env: Mapping[str, str]) -> list[str]:
    """The same command as an ordinary user without subordinate ids; skips where it cannot run."""
    if os.geteuid() != 0:
        return list(command)
    need("setpriv")
    os.chown(work, NOBODY, NOBODY)
    probe = run([*AS_NOBODY, *imagekit_command(), "--help"], cwd=work, env=env, expect=None)
    if probe.returncode != 0 and "Permission denied" in probe.stderr:
        pytest.skip("an ordinary user cannot read this Python or the repository")
    return [*AS_NOBODY, *command]


def with_buildah(storage: Storage, job: Job) -> None:
    """Build with buildah, platform by platform."""
    platforms = list(job.platforms) or [""]
    for platform in platforms:
        layout = buildah_layout(job.layout, platform)
        buildah_build(
            storage,
            job.context,
            layout,
            dockerfile=job.dockerfile,
            platform=platform,
            build_args=job.build_args,
            build_contexts=job.build_contexts,
        )


def buildah_layout(layout: Path, platform: str) -> Path:
    """Where the image of a platform is: buildah makes a layout for each."""
    return layout.with_name(f"{layout.name}-{platform.replace('/', '-')}") if platform else layout


def prepare(case: Case, work: Path, server: RegistryServer | None, builder: Builder) -> Job:
    """The job of a case: its context laid out, its bases made, what it is built on built."""
    context = case.materialise(work / "context")
    contexts = {name: base(kind, work) for name, kind in case.table.get("contexts", {}).items()}
    build_args = dict(case.table.get("build_args", {}))
    for argument, names in case.table.get("registry", {}).items():
        assert server is not None
        build_args[argument] = server.host
        for name in names:
            server.push_layout(base(name, work), name, "bookworm")
    for name, folder in case.table.get("before", {}).items():
        layout = work / f"before-{name}"
        builder(Job(context / folder, layout, work, contexts, {}))
        contexts[name] = layout
    return Job(
        context,
        work / "image",
        work,
        contexts,
        build_args,
        case.platforms,
        unprivileged=case.table.get("unprivileged", False),
    )


def base(kind: str, work: Path) -> Path:
    if kind != "embedded":
        return debian_base(kind)
    layout = work / "embedded"
    return layout if layout.exists() else make_embedded_base(layout)

"""Other people's programs as judges: builders, unpackers, stores and runtimes.

Each runs on folders of its own, so that nothing on the machine changes. Runtimes are probed
once: on some machines they work only in a mount namespace where cgroups look as they expect.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.embedded import make_embedded_base
from tests.support.tools import need, need_root, run

# A fresh cgroup2 hides a hybrid hierarchy, which crun and podman refuse.
FRESH_CGROUP2 = (
    'umount -R /sys/fs/cgroup 2>/dev/null; mount -t cgroup2 none /sys/fs/cgroup && exec "$@"'
)
WAYS: Mapping[str, tuple[str, ...]] = {
    "as it is": (),
    "with a cgroup2 of its own": ("unshare", "--mount", "sh", "-c", FRESH_CGROUP2, "sh"),
}
RUNTIMES = {
    "crun": ("crun", "--cgroup-manager=disabled"),
    "runc": ("runc",),
}
OCI_MEDIA_TYPES = {
    "application/vnd.docker.container.image.v1+json": "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.image.rootfs.diff.tar": "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": (
        "application/vnd.oci.image.layer.v1.tar+gzip"
    ),
}
# What Docker and podman give a container; umoci gives three.
CAPABILITIES = [
    f"CAP_{name}"
    for name in (
        "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW "
        "SETFCAP SETGID SETPCAP SETUID SYS_CHROOT"
    ).split()
]
COUNTER = itertools.count()


class Storage(NamedTuple):
    """Folders for containers-storage, in which buildah, skopeo and podman keep images."""

    root: Path
    driver: str

    @classmethod
    @contextlib.contextmanager
    def temporary(cls) -> Iterator["Storage"]:
        """A storage of its own, removed with all its images in the end."""
        root = Path(tempfile.mkdtemp(prefix="ik-"))
        for name in ("g", "r"):  # podman takes 50 bytes of path, no more
            (root / name).mkdir()
        try:
            yield cls(root, "overlay" if cls(root, "overlay").works() else "vfs")
        finally:
            # the driver mounts its own folder, to keep what it mounts below to itself
            run(["umount", "--lazy", root / "g" / "overlay"], expect=None)
            shutil.rmtree(root)

    def works(self) -> bool:
        return run(["buildah", *self.flags(), "info"], expect=None).returncode == 0

    def flags(self) -> list[str]:
        """The global flags of buildah and podman."""
        folders = ["--root", f"{self.root}/g", "--runroot", f"{self.root}/r"]
        return [*folders, "--storage-driver", self.driver]

    def reference(self, name: str) -> str:
        """How skopeo names an image in here."""
        place = f"{self.driver}@{self.root}/g+{self.root}/r"
        return f"containers-storage:[{place}]{name}"

    def load(self, layout: Path, tag: str, name: str) -> None:
        """Import an image of an OCI layout, as `localhost/NAME`.

        An image of buildah's comes in the form that it was written in, as ONBUILD, HEALTHCHECK
        and SHELL do not survive a change of form.
        """
        original = docker_form(layout)
        source = f"dir:{original}" if original.exists() else f"oci:{layout}:{tag}"
        skopeo_copy(source, self.reference(f"localhost/{name}"))


def skopeo_copy(source: str, target: str, *flags: str) -> None:
    need("skopeo")
    run(["skopeo", "copy", "--quiet", *flags, source, target])


def buildah_build(
    storage: Storage,
    context: Path,
    layout: Path,
    *,
    dockerfile: str = "Dockerfile",
    target: str = "",
    platform: str = "",
    build_args: Mapping[str, str] | None = None,
    build_contexts: Mapping[str, Path] | None = None,
) -> None:
    """Build with buildah, a fresh container a stage, into an OCI layout tagged `latest`.

    `build_contexts` are OCI layouts by name. Isolation is chroot: it needs no runtime.
    """
    need("buildah")
    need_root()
    command = ["buildah", *storage.flags(), "bud", "--isolation", "chroot", "--quiet"]
    command += ["--format", "docker", "--layers=false", "--tls-verify=false", "--tag", "result"]
    command += ["--file", os.fspath(context / dockerfile)]
    for name, source in (build_contexts or {}).items():
        storage.load(source, "latest", f"context-{name}")
        command += ["--build-context", f"{name}=docker-image://localhost/context-{name}"]
    command += [f"--build-arg={name}={value}" for name, value in (build_args or {}).items()]
    command += ["--target", target] if target else []
    command += ["--platform", platform] if platform else []
    run([*command, context], timeout_s=600)
    skopeo_copy(storage.reference("localhost/result"), f"dir:{docker_form(layout)}")
    restate(docker_form(layout), layout)


def docker_form(layout: Path) -> Path:
    """Where the image of a layout that buildah made is kept in Docker's form."""
    return layout.with_name(f"{layout.name}.docker")


def restate(docker: Path, layout: Path) -> None:
    """Write an OCI layout of an image in Docker's form, its config and layers untouched."""
    manifest = json.loads((docker / "manifest.json").read_bytes())
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for descriptor in (manifest["config"], *manifest["layers"]):
        descriptor["mediaType"] = OCI_MEDIA_TYPES[descriptor["mediaType"]]
        name = descriptor["digest"].removeprefix("sha256:")
        if not (blobs / name).exists():  # two layers may be the same
            (blobs / name).hardlink_to(docker / name)
    manifest["mediaType"] = "application/vnd.oci.image.manifest.v1+json"
    content = json.dumps(manifest).encode()
    name = hashlib.sha256(content).hexdigest()
    (blobs / name).write_bytes(content)
    top = {
        "mediaType": manifest["mediaType"],
        "digest": f"sha256:{name}",
        "size": len(content),
        "annotations": {"org.opencontainers.image.ref.name": "latest"},
    }
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def umoci_unpack(layout: Path, tag: str, bundle: Path) -> None:
    """Make a runtime bundle of an image, owners and devices as the image has them."""
    need("umoci")
    need_root()
    run(["umoci", "unpack", "--image", f"{layout}:{tag}", bundle])


def prepare_bundle(bundle: Path, entrypoint: Sequence[str], args: Sequence[str]) -> None:
    """Make umoci's bundle run without a terminal or cgroups.

    `args` stand for the CMD, after the entrypoint; empty ones leave the command of the image.
    """
    path = bundle / "config.json"
    config = json.loads(path.read_text())
    original = config["annotations"].setdefault(
        "tests.args", json.dumps(config["process"]["args"])
    )
    config["process"]["args"] = [*entrypoint, *args] if args else json.loads(original)
    config["process"]["terminal"] = False
    config["process"].pop("rlimits", None)
    sets = ("bounding", "effective", "permitted")
    config["process"]["capabilities"] = dict.fromkeys(sets, CAPABILITIES)
    config["linux"].pop("resources", None)
    config["linux"].pop("cgroupsPath", None)
    mounts = [m for m in config["mounts"] if m["destination"] != "/sys/fs/cgroup"]
    config["mounts"] = mounts
    path.write_text(json.dumps(config))


def run_bundle(
    runtime: str, bundle: Path, state: Path, *, expect: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run a bundle to its end."""
    way = working_way(runtime)
    name = f"imagekit-{os.getpid()}-{next(COUNTER)}"
    command = [*way, *RUNTIMES[runtime], "--root", state, "run", "--bundle", bundle, name]
    return run(command, expect=expect)


def podman_run(
    storage: Storage, image: str, args: Sequence[str], *, expect: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run an image with podman to its end; `args` stand for its CMD."""
    way = working_podman()
    command = [*way, *podman_command(storage), f"localhost/{image}", *args]
    return run(command, expect=expect)


def podman_command(storage: Storage) -> list[str]:
    limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]
    flags = ["--rm", "--network=none", "--cgroups=disabled", *limits]
    return ["podman", *storage.flags(), "run", *flags]


@functools.cache
def working_way(runtime: str) -> tuple[str, ...]:
    """The way in which a runtime runs `busybox true` here; skips when there is none."""
    need(runtime, "umoci")
    need_root()
    with tempfile.TemporaryDirectory(prefix="imagekit-probe-") as folder:
        work = Path(folder)
        bundle = work / "bundle"
        umoci_unpack(make_embedded_base(work / "probe"), "latest", bundle)
        prepare_bundle(bundle, [], ["true"])
        command = [
            *RUNTIMES[runtime],
            "--root",
            work / "state",
            "run",
            "--bundle",
            bundle,
            "probe",
        ]
        return first_working(runtime, command)


@functools.cache
def working_podman() -> tuple[str, ...]:
    """The way in which podman runs `busybox true` here; skips when there is none."""
    need("buildah", "podman", "skopeo")
    need_root()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="imagekit-probe-"))
        layout = make_embedded_base(Path(folder) / "probe")
        storage = stack.enter_context(Storage.temporary())
        storage.load(layout, "latest", "probe")
        return first_working("podman", [*podman_command(storage), "localhost/probe", "true"])


def first_working(name: str, command: Sequence[str | Path]) -> tuple[str, ...]:
    said = ""
    for way in WAYS.values():
        if way and shutil.which(way[0]) is None:
            continue
        done = run([*way, *command], expect=None)
        if done.returncode == 0:
            return way
        said = (done.stderr.strip().splitlines() or ["no word"])[-1]
    pytest.skip(f"{name} runs nothing on this machine: {said}")

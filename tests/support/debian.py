"""Debian base images, made by mmdebstrap once per machine and kept in a cache folder.

The machine's own configuration of apt, pip, npm and certificates goes into the image as it is
made, so that Dockerfiles say `apt-get install` and `pip install` as they would anywhere, and no
host's name stands in the repository. Where apt cannot reach its archive, the tests skip.
"""

import configparser
import datetime as dt
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import platformdirs
import pytest
from isal import igzip

from tests.support.tools import need, need_root, run

CACHE_DAYS = 7  # apt's indexes move; an older base would install over stale packages
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
LOCAL_CERTIFICATES = Path("/usr/local/share/ca-certificates")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
APT_OPTIONS = (
    "Acquire::http::Proxy",
    "Acquire::https::Proxy",
    "Acquire::https::CaInfo",
    "Acquire::Check-Valid-Until",
    "Acquire::Check-Date",
    "Acquire::Retries",
)
DROP = ("dev/", "proc/", "sys/", "run/")  # what is below these belongs to the running system


# What slim images leave out: files are what unpacking costs.
EXCLUDES = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
# Debian's npm depends on packages that serve its tests and builds; `npm ci` reads none of them.
NPM_EXCLUDES = tuple(
    f"/usr/share/nodejs/{name}/*"
    for name in (
        "@babel/runtime*",
        "@types",
        "caniuse-lite",
        "core-js*",
        "es-abstract",
        "lodash-es",
        "regenerate-unicode-properties",
    )
)


class Base(NamedTuple):
    """A base to make: its packages beyond the essential ones, and the paths that it lacks."""

    name: str
    packages: tuple[str, ...] = ()
    excludes: tuple[str, ...] = EXCLUDES


BASES = {
    base.name: base
    for base in (
        Base("debian"),
        Base("debian-build", ("gcc", "libc6-dev", "make")),
        Base("debian-node", ("nodejs", "npm"), (*EXCLUDES, *NPM_EXCLUDES)),
    )
}


def debian_base(name: str) -> Path:
    """The OCI layout of a base, tagged `latest`; skips where it cannot be made."""
    need("mmdebstrap")
    need_root()
    sources = apt_sources()
    key = recipe_key(BASES[name], sources)
    cache = cache_folder()
    folder = cache / name
    folder.mkdir(parents=True, exist_ok=True)
    layout = folder / key
    with filelock.FileLock(cache / f"{name}.lock"):
        if not (layout / "index.json").is_file():
            for stale in folder.iterdir():
                shutil.rmtree(stale)
            make_base(BASES[name], sources, layout)
    return layout


def cache_folder() -> Path:
    named = os.environ.get("IMAGEKIT_TEST_CACHE")
    return Path(named) if named else platformdirs.user_cache_path("imagekit-tests")


def recipe_key(base: Base, sources: list[Path]) -> str:
    """Names what a base is made of: packages, configuration, the code here, the week."""
    week = dt.datetime.now(tz=dt.UTC).toordinal() // CACHE_DAYS
    hasher = hashlib.sha256(repr((base, codename(), apt_options(), week)).encode())
    for path in (*sources, Path(__file__)):
        hasher.update(path.read_bytes())
    for path, content in machine_files().items():
        hasher.update(path.encode() + b"\0" + content)
    return hasher.hexdigest()[:16]


def codename() -> str:
    words = Path("/etc/os-release").read_text("utf-8").splitlines()
    release = dict(word.partition("=")[::2] for word in words)
    if release.get("ID") != "debian":
        pytest.skip("not a Debian machine, so its apt sources make no Debian base")
    return release["VERSION_CODENAME"].strip('"')


def apt_sources() -> list[Path]:
    folder = Path("/etc/apt/sources.list.d")
    found = [Path("/etc/apt/sources.list"), *folder.glob("*.list"), *folder.glob("*.sources")]
    sources = sorted(path for path in found if path.is_file() and path.read_text("utf-8").strip())
    if not sources:
        pytest.skip("apt has no sources on this machine")
    return sources


def apt_options() -> list[str]:
    """How this machine reaches its archive, as lines of apt.conf."""
    shown = run(["apt-config", "dump"]).stdout.splitlines()
    return [line for line in shown if line.partition(" ")[0] in APT_OPTIONS]


def machine_files() -> dict[str, bytes]:
    """Files that let apt, pip and npm inside the image reach what they reach outside it."""
    files = {}
    pip = {"disable-pip-version-check": "1"}
    npm = ["update-notifier=false", "fund=false", "audit=false"]
    if CERTIFICATES.is_file():
        files[os.fspath(CERTIFICATES).lstrip("/")] = CERTIFICATES.read_bytes()
        pip["cert"] = os.fspath(CERTIFICATES)
        npm.append(f"cafile={CERTIFICATES}")
    for path in sorted(LOCAL_CERTIFICATES.glob("*.crt")):  # update-ca-certificates adds these
        files[os.fspath(path).lstrip("/")] = path.read_bytes()
    index = setting(["pip", "config", "get", "global.index-url"])
    if index:
        pip["index-url"] = index
    registry = setting(["npm", "config", "get", "registry"])
    if registry:
        npm.append(f"registry={registry}")
    parser = configparser.ConfigParser()
    parser["global"] = pip
    text = io.StringIO()
    parser.write(text)
    files["etc/pip.conf"] = text.getvalue().encode()
    files["etc/npmrc"] = "".join(f"{line}\n" for line in npm).encode()
    options = "".join(f"{line}\n" for line in apt_options())
    files["etc/apt/apt.conf.d/90machine"] = options.encode()
    return files


def setting(command: list[str]) -> str:
    """What a tool answers about its configuration, or nothing."""
    if shutil.which(command[0]) is None:
        return ""
    done = run(command, cwd=Path("/"), expect=None)
    return done.stdout.strip() if done.returncode == 0 else ""


def make_base(base: Base, sources: list[Path], layout: Path) -> None:
    """Run mmdebstrap and pack what it makes; skips when the archive is out of reach."""
    work = layout.with_name(f"{layout.name}.making")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        tar = work / "root.tar"
        command = ["mmdebstrap", "--quiet", "--variant=apt", "--mode=root", "--format=tar"]
        command += [f"--aptopt={line.rstrip(';')}" for line in apt_options()]
        command += [f"--dpkgopt=path-exclude={pattern}" for pattern in base.excludes]
        if base.packages:
            command.append(f"--include={','.join(base.packages)}")
        done = subprocess.run(
            [*command, codename(), tar, *sources],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["no word"]
            pytest.skip(f"mmdebstrap cannot make {base.name}: {' | '.join(lines[-3:])}")
        pack(tar, work / "layout", base.name)
        tar.unlink()
        (work / "layout").rename(layout)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def pack(tar: Path, layout: Path, name: str) -> None:
    """Write an OCI layout of one layer: the tar without devices, with the machine's files."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    whole = filter_tar(tar)
    config = {
        "architecture": architecture(),
        "os": "linux",
        "config": {"Env": [f"PATH={PATH}"], "Cmd": ["bash"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(whole)]},
        "history": [{"created_by": f"mmdebstrap {name}"}],
    }
    layer = put(blobs, igzip.compress(whole, 1, mtime=0))
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            **put(blobs, json.dumps(config).encode()),
        },
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **layer}],
    }
    top = {
        "mediaType": manifest["mediaType"],
        **put(blobs, json.dumps(manifest).encode()),
        "annotations": {"org.opencontainers.image.ref.name": "latest"},
    }
    index = {"schemaVersion": 2, "manifests": [top]}
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (layout / "index.json").write_text(json.dumps(index))


def architecture() -> str:
    return run(["dpkg", "--print-architecture"]).stdout.strip()


def filter_tar(path: Path) -> bytes:
    out = io.BytesIO()
    added = machine_files()
    with (
        tarfile.open(path, "r:") as source,
        tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as target,
    ):
        for member in source:
            member.name = member.name.removeprefix("./")
            if member.name.startswith(DROP) or member.name in added:
                continue
            if member.name in ("etc/resolv.conf", "etc/hostname"):
                member.mode, member.size = 0o644, 0
            target.addfile(member, source.extractfile(member) if member.isreg() else None)
        add_files(target, added)
    return out.getvalue()


def add_files(target: tarfile.TarFile, files: dict[str, bytes]) -> None:
    known = set(target.getnames())
    for path, content in files.items():
        folders = [str(parent) for parent in reversed(Path(path).parents[:-1])]
        for folder in folders:
            if folder not in known:
                entry = tarfile.TarInfo(folder)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                target.addfile(entry)
                known.add(folder)
        entry = tarfile.TarInfo(path)
        entry.size = len(content)
        target.addfile(entry, io.BytesIO(content))


def put(blobs: Path, content: bytes) -> dict[str, Any]:
    (blobs / digest(content).removeprefix("sha256:")).write_bytes(content)
    return {"digest": digest(content), "size": len(content)}


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"

"""Projects as people write them, built by imagekit and judged by other people's programs.

The same Dockerfile goes through buildah, and the two images are compared entry by entry. Two of
the projects are also built by buildah twice: that the judges find nothing then, shows that they
judge well.
"""

import functools
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.support.builders import (
    Builder,
    Job,
    buildah_layout,
    prepare,
    with_buildah,
    with_imagekit,
)
from tests.support.configs import compare_configs
from tests.support.flatten import Allowed, Difference, compare, flatten
from tests.support.layout import Image, Layout
from tests.support.projects import Case, all_cases
from tests.support.referees import (
    RUNTIMES,
    Storage,
    podman_run,
    prepare_bundle,
    run_bundle,
    skopeo_copy,
    umoci_unpack,
)
from tests.support.registry_server import RegistryServer
from tests.support.schemas import schema_problems
from tests.support.tools import ToolError, need

pytestmark = pytest.mark.timeout(900)  # the first test of a case waits for its builds and bases

SELF_TESTED = ("many-stages", "permissions")

# How buildah's images differ from those that the Dockerfile's own builder makes; what only one
# project shows is in its case.toml.
ALLOWED = (
    Allowed(
        "etc/hosts",
        "missing",
        "buildah leaves the empty file that it bound the machine's over",
    ),
    Allowed(
        "etc/hostname",
        "missing",
        "buildah leaves the empty file that it bound its own over",
    ),
    Allowed(
        "etc/resolv.conf",
        "missing",
        "buildah leaves the empty file that it bound the machine's over",
    ),
)


class Built:
    """A case built once; its image is judged by many tests."""

    def __init__(
        self,
        case: Case,
        builders: tuple[Builder, Builder],
        work: Path,
        server: RegistryServer | None,
    ) -> None:
        self.case, self.builders, self.work, self.server = case, builders, work, server
        if case.table.get("network"):
            self.skip_unless_buildah_builds()
        self.layout = Layout(self.build("ours").layout)

    def skip_unless_buildah_builds(self) -> None:
        """Skip where packages cannot be fetched, as then nobody can build the case."""
        try:
            _ = self.their_job
        except ToolError as error:
            pytest.skip(f"no packages to be had: {str(error).strip().splitlines()[-1]}")

    @functools.cached_property
    def their_job(self) -> Job:
        """The job as buildah did it."""
        return self.build("theirs")

    def build(self, side: str) -> Job:
        work = self.work / side
        work.mkdir(mode=0o755)
        builder = self.builders[side == "theirs"]
        job = prepare(self.case, work, self.server, builder)
        if builder is not with_imagekit:
            job = for_buildah(self.case, job)
        builder(job)
        return job

    @property
    def platforms(self) -> list[str]:
        return self.case.platforms or [self.layout.image().platform]

    def theirs(self, platform: str) -> Image:
        named = platform if self.case.platforms else ""
        return Layout(buildah_layout(self.their_job.layout, named)).image()

    def single(self, platform: str) -> Path:
        """A layout of the image of one platform alone, tagged `latest`."""
        if len(self.layout.images) == 1:
            assert self.layout.tags == ["latest"]
            return self.layout.folder
        folder = self.work / f"single-{platform.replace('/', '-')}"
        if not folder.exists():
            system, architecture = platform.split("/")
            source = f"oci:{self.layout.folder}:latest"
            wanted = [f"--override-os={system}", f"--override-arch={architecture}"]
            need("skopeo")
            skopeo_copy(source, f"oci:{folder}:latest", *wanted)
        return folder

    @functools.cached_property
    def bundle(self) -> Path:
        """The bundle that umoci makes of the image for this machine."""
        bundle = self.work / "bundle"
        umoci_unpack(self.single(self.platforms[0]), "latest", bundle)
        return bundle


def for_buildah(case: Case, job: Job) -> Job:
    """What buildah of Debian 12 needs said otherwise."""
    build_args = {**job.build_args, **case.table.get("referee_args", {})}
    dockerfile = case.table.get("referee", job.dockerfile)
    return job._replace(dockerfile=dockerfile, build_args=build_args)


def parameters() -> list[object]:
    """The cases, slow ones first, so that no worker is left alone with one in the end."""
    cases = sorted(all_cases(), key=lambda case: "network" not in case.table)
    ours = [pytest.param((case, True), id=case.name) for case in cases]
    self_tests = [case for case in cases if case.name in SELF_TESTED]
    return [
        *ours,
        *(pytest.param((case, False), id=f"{case.name}-by-buildah") for case in self_tests),
    ]


@pytest.fixture(scope="module", params=parameters())
def built(request: pytest.FixtureRequest, storage: Storage) -> Iterator[Built]:
    case, by_imagekit = request.param
    server = request.getfixturevalue("registry") if case.table.get("registry") else None
    buildah = functools.partial(with_buildah, storage)
    builders = (with_imagekit if by_imagekit else buildah, buildah)
    work = Path(tempfile.mkdtemp(prefix=f"imagekit-{case.name}-"))
    work.chmod(0o755)  # an ordinary user builds in it
    try:
        yield Built(case, builders, work, server)
    finally:
        shutil.rmtree(work)


def test_documents_match_the_schemas(built: Built) -> None:
    assert schema_problems(built.layout) == []


def test_every_platform_asked_for_is_there(built: Built) -> None:
    assert [image.platform for image in built.layout.images] == built.platforms


def test_umoci_unpacks_it(built: Built) -> None:
    assert (built.bundle / "rootfs").is_dir()


def test_skopeo_writes_a_docker_archive_of_it(built: Built) -> None:
    need("skopeo")
    for platform in built.platforms:
        archive = built.work / f"{platform.replace('/', '-')}.tar"
        source = f"oci:{built.single(platform)}:latest"
        skopeo_copy(source, f"docker-archive:{archive}:example/result:latest")
        assert archive.stat().st_size > 0
        archive.unlink()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_runtimes_run_it(runtime: str, built: Built) -> None:
    if not built.case.runs:
        pytest.skip("the image has no command")
    entrypoint = built.layout.image().config["config"].get("Entrypoint") or []
    for wanted in built.case.runs:
        prepare_bundle(built.bundle, entrypoint, wanted.args)
        done = run_bundle(runtime, built.bundle, built.work / "state", expect=wanted.exit_code)
        assert done.stdout == wanted.stdout.lstrip("\n")


def test_podman_imports_and_runs_it(built: Built, storage: Storage) -> None:
    need("podman")
    name = f"ours-{built.case.name}"
    storage.load(built.single(built.platforms[0]), "latest", name)
    for wanted in built.case.runs:
        done = podman_run(storage, name, wanted.args, expect=wanted.exit_code)
        assert done.stdout == wanted.stdout.lstrip("\n")


def expect_explained(differences: Iterable[Difference], table: Iterable[Allowed]) -> None:
    rows = tuple(table)
    left = [str(d) for d in differences if not any(row.covers(d) for row in rows)]
    if left:
        pytest.fail(f"{len(left)} differences without a reason:\n" + "\n".join(left))


def test_the_tree_is_that_of_buildah(built: Built) -> None:
    for platform in built.platforms:
        ours, theirs = built.layout.image(platform), built.theirs(platform)
        times = built.case.table.get("times", False)
        found = compare(flatten(ours), flatten(theirs), times=times)
        expect_explained(found, (*ALLOWED, *built.case.allowed))


def test_the_config_is_that_of_buildah(built: Built) -> None:
    for platform in built.platforms:
        found = compare_configs(built.layout.image(platform), built.theirs(platform))
        expect_explained(found, built.case.allowed)

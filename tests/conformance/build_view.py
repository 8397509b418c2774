"""Verb `build`: real builds, compared with what a BuildKit daemon made of the same input.

`support.py` beside the cases makes contexts and reads layouts back.
"""

import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import imagekit
from imagekit.errors import DockerfileError, FetchError, ImagekitError, StageCycleError
from tests.support.git_server import git_server

CASES = Path(
    os.environ.get(
        "IMAGEKIT_CONFORMANCE", Path(__file__).resolve().parents[3] / "shared" / "conformance"
    )
)


def load_support() -> ModuleType:
    name = "conformance_support"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, CASES / "support.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[name] = module
    return sys.modules[name]


support = load_support()


def answer(case: dict[str, Any]) -> dict[str, Any]:
    support.fresh_base()
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        root = Path(folder)
        with prepared(case, root) as (arguments, addresses):
            archive = root / "image.tar"
            try:
                imagekit.build(
                    **arguments, output=f"type=oci,dest={archive}", store=root / "store"
                )
            except ImagekitError as exc:
                return {"error": error_of(exc)}
        images = support.read_layout(archive, "SOURCE_DATE_EPOCH" in case.get("build_args", {}))
    images = [without(addresses, image) for image in images]
    return {"image": images[0]} if len(images) == 1 else {"images": images}


def without(addresses: dict[str, str], image: dict[str, Any]) -> dict[str, Any]:
    """The image as if the servers had had the addresses that the cases give them."""
    text = json.dumps(image)
    for name, address in addresses.items():
        text = text.replace(address, name)
    restored: dict[str, Any] = json.loads(text)
    return restored


UNPLACED = {"pattern-invalid", "stage-index-invalid"}
"""Classes of errors that BuildKit's builds give no place for, as imagekit does."""


def error_of(error: ImagekitError) -> dict[str, Any]:
    """The error in the shape of the cases: of each place, builds name the first line."""
    spans = [error.span] if isinstance(error, DockerfileError) else []
    if isinstance(error, StageCycleError):
        spans = sorted(error.spans, key=lambda span: span.line)
    found = {"class": error.code, "message": error.message, "phase": "build"}
    lines = [[span.line, span.line] for span in spans if span is not None]
    if lines and error.code not in UNPLACED and not comes_from_source(error):
        found["lines"] = lines
    return found


def comes_from_source(error: BaseException | None) -> bool:
    """Whether a URL or repository is to blame, of which BuildKit does not say where it stands."""
    while error is not None:
        if isinstance(error, FetchError):
            return True
        error = error.__cause__
    return False


@contextmanager
def prepared(case: dict[str, Any], root: Path) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """The arguments of `imagekit.build` for a case, and the addresses of its running servers."""
    addresses: dict[str, str] = {}
    with ExitStack() as running:
        if "http" in case:
            web = support.Web(case["http"])
            running.callback(web.srv.server_close)
            running.callback(web.close)
            addresses["{{HTTP}}"] = web.url
        if "git" in case:
            commits = support.make_git(str(root / "git"), case["git"])
            addresses["{{GIT}}"] = f"{running.enter_context(git_server(root / 'git'))}/r.git"
            addresses |= {f"{{{{COMMIT{n}}}}}": commit for n, commit in enumerate(commits)}
        text = case["dockerfile"]
        for name, address in addresses.items():
            text = text.replace(name, address)
        yield arguments_of(case, text, root), addresses


def arguments_of(case: dict[str, Any], text: str, root: Path) -> dict[str, Any]:
    root.mkdir(parents=True, exist_ok=True)
    context, files = root / "context", root / "dockerfile"
    support.materialise(str(context), case.get("context", {}))
    files.mkdir()
    dockerfile = files / case.get("dockerfile_name", "Dockerfile")
    dockerfile.write_text(text)
    for name, content in case.get("extra_files", {}).items():
        (files / name).write_text(content)
    named = {}
    for number, (name, source) in enumerate(case.get("named", {}).items()):
        named[name] = str(root / f"named{number}")
        support.materialise(named[name], source)
    return {
        "context": context,
        "dockerfile": dockerfile,
        "target": case.get("target"),
        "platforms": [p for p in case.get("platform", "").split(",") if p],
        "build_args": case.get("build_args", {}),
        "build_contexts": named,
        "labels": case.get("labels", {}),
        "secrets": [
            imagekit.Secret(id=name, value=value.encode())
            for name, value in case.get("secrets", {}).items()
        ],
    }

"""Verb `build`: real builds, compared with what a BuildKit daemon made of the same input.

`support.py` beside the cases makes contexts and reads layouts back.
"""

import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import imagekit
from imagekit.errors import DockerfileError, ImagekitError

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
        with prepared(case, root) as arguments:
            archive = root / "image.tar"
            try:
                imagekit.build(
                    **arguments, output=f"type=oci,dest={archive}", store=root / "store"
                )
            except ImagekitError as exc:
                return {"error": error_of(exc)}
        images = support.read_layout(archive, "SOURCE_DATE_EPOCH" in case.get("build_args", {}))
    return {"image": images[0]} if len(images) == 1 else {"images": images}


def error_of(error: ImagekitError) -> dict[str, Any]:
    span = error.span if isinstance(error, DockerfileError) else None
    lines = [] if span is None else [[span.line, span.end_line]]
    return {"class": error.code, "message": error.message, "phase": "build", "lines": lines}


@contextmanager
def prepared(case: dict[str, Any], root: Path) -> Iterator[dict[str, Any]]:
    """The arguments of `imagekit.build` for a case, while its servers run."""
    text = case["dockerfile"]
    web = support.Web(case["http"]) if "http" in case else None
    try:
        if web is not None:
            text = text.replace("{{HTTP}}", web.url)
        if "git" in case:
            commits = support.make_git(str(root / "git"), case["git"])
            text = text.replace("{{GIT}}", f"file://{root}/git/r.git")
            for number, commit in enumerate(commits):
                text = text.replace(f"{{{{COMMIT{number}}}}}", commit)
        yield arguments_of(case, text, root)
    finally:
        if web is not None:
            web.close()


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

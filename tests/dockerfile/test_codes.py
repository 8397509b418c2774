"""The table of error codes: whole, and right."""

import re
from pathlib import Path

import pytest

import imagekit
from imagekit.dockerfile import parse
from imagekit.dockerfile.codes import CODES
from imagekit.errors import DockerfileError, ImagekitError
from imagekit.oci.platform import Platform
from imagekit.plan import lower, missing_bases, stage_graph

LINUX = Platform.parse("linux/amd64")
PACKAGE = Path(imagekit.__file__).parent


def plan(text: str) -> None:
    graph = stage_graph(parse(text), build_args={}, build=LINUX)
    assert not missing_bases(graph, {})
    lower(graph, {})


@pytest.mark.parametrize("code", [c for c, v in CODES.items() if v.example and not v.at_build])
def test_examples_have_their_error(code: str) -> None:
    with pytest.raises(DockerfileError) as raised:
        plan(CODES[code].example)
    assert raised.value.code == code


@pytest.mark.parametrize("code", [c for c, v in CODES.items() if v.at_build])
def test_examples_have_their_error_when_they_are_built(code: str, tmp_path: Path) -> None:
    plan(CODES[code].example)
    for name in "ab":
        (tmp_path / name).touch()
    (tmp_path / "Dockerfile").write_text(CODES[code].example)
    with pytest.raises(ImagekitError) as raised:
        imagekit.build(tmp_path, store=tmp_path / "store")
    assert raised.value.code == code


def test_every_code_of_the_language_is_in_the_table() -> None:
    used = set()
    for folder in ("dockerfile", "plan"):
        for path in (PACKAGE / folder).glob("*.py"):
            used |= set(re.findall(r'code="([a-z-]+)"', path.read_text()))
            if folder == "dockerfile" and path.name != "codes.py":
                text = re.sub(r"\s+", " ", path.read_text())
                found = re.findall(r'(?:GrammarError|fail)\([^()]*?"([a-z]+(?:-[a-z]+)+)",', text)
                used |= set(found)
    assert used - set(CODES) == set()
    assert len(used) > 40


def test_the_codes_are_sorted() -> None:
    assert list(CODES) == sorted(CODES)

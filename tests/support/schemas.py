"""OCI documents checked against the JSON schemas of the image-spec."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jsonschema import Draft4Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from tests.support.layout import Image, Layout
from tests.support.tools import reference_folder

SCHEMAS = {
    "config": "config-schema.json",
    "index": "image-index-schema.json",
    "layout": "image-layout-schema.json",
    "manifest": "image-manifest-schema.json",
}


class Schemas:
    """The schemas in one folder; they refer to each other by file name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = Registry(retrieve=self.retrieve)

    def retrieve(self, uri: str) -> Resource[Any]:
        name = urlsplit(uri).path.rpartition("/")[2]
        return DRAFT4.create_resource(json.loads((self.folder / name).read_bytes()))

    def problems(self, kind: str, document: object) -> list[str]:
        """What a document breaks of its schema, as `where: what`."""
        schema = json.loads((self.folder / SCHEMAS[kind]).read_bytes())
        validator = Draft4Validator(schema, registry=self.registry)
        return [f"{kind} {e.json_path}: {e.message}" for e in validator.iter_errors(document)]


def schema_problems(layout: Layout) -> list[str]:
    """What the documents of a layout break of their schemas; skips without the schemas."""
    schemas = Schemas(reference_folder() / "image-spec-schema")
    problems = schemas.problems("layout", layout.marker)
    for index in layout.indexes:
        problems += schemas.problems("index", index)
    for image in layout.images:
        problems += image_problems(schemas, image)
    return problems


def image_problems(schemas: Schemas, image: Image) -> list[str]:
    found = schemas.problems("manifest", image.manifest)
    found += schemas.problems("config", image.config)
    return found

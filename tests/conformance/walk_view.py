"""Verb `walk`: an ignore file and a tree."""

from typing import Any

from imagekit.dockerfile.ignore import parse_ignore
from imagekit.dockerfile.selection import Listing, select
from imagekit.errors import ContextError


def answer(case: dict[str, Any]) -> dict[str, Any]:
    links = dict(entry.split(" -> ") for entry in case["tree"] if " -> " in entry)
    plain = [entry for entry in case["tree"] if " -> " not in entry]
    listing = Listing.of(
        [entry for entry in plain if not entry.endswith("/")],
        [entry[:-1] for entry in plain if entry.endswith("/")],
        links,
    )
    try:
        kept = select(listing, parse_ignore(case["ignore"]), case.get("follow", ()))
    except ContextError as error:
        return {"error": error.code}
    return {"kept": [path + "/" * (path in listing.directories) for path in kept]}

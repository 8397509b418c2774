"""Verb `ignore`: an ignore file and paths."""

from typing import Any

from imagekit.dockerfile.ignore import Matcher, parse_ignore
from imagekit.errors import ContextError


def answer(case: dict[str, Any]) -> dict[str, Any]:
    patterns = case["patterns"] if "patterns" in case else parse_ignore(case["ignore"])
    try:
        matcher = Matcher(patterns)
    except ContextError as error:
        return {"patterns": list(patterns), "error": error.code}
    return {
        "patterns": list(patterns),
        "excluded": [matcher.excluded(path) for path in case["paths"]],
    }

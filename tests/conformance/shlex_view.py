"""Verb `shlex`: words and their expansion."""

from typing import Any

from imagekit.dockerfile.words import expand, expand_words
from imagekit.errors import ExpansionError

MODES = ("raw_quotes", "skip_quotes", "skip_unset")


def answer(case: dict[str, Any]) -> dict[str, Any]:
    env = dict(entry.partition("=")[::2] for entry in case["env"])
    modes = {mode: case[mode] for mode in MODES if mode in case}
    try:
        whole = expand(case["word"], env, escape=case["escape"], **modes)
        words = expand_words(case["word"], env, escape=case["escape"], **modes)
    except ExpansionError as error:
        return {"error": error.code, "message": error.message}
    return {"result": whole.result, "words": words, "unmatched": sorted(whole.unmatched)}

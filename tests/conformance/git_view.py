"""Verb `git`: references to git repositories."""

from typing import Any

from imagekit.dockerfile.gitref import NotGitError, read_git_reference
from imagekit.errors import UsageError

OPTIONAL = (
    "ref",
    "subdir",
    "checksum",
    "keep_git_dir",
    "submodules",
    "fetch_by_commit",
    "mtime",
    "looks_local",
)


def answer(case: dict[str, Any]) -> dict[str, Any]:
    try:
        found = read_git_reference(case["reference"])
    except NotGitError as error:
        return {"is_git": False, "error": str(error)}
    except UsageError as error:
        return {"is_git": True, "error": error.message}
    view: dict[str, Any] = {
        "is_git": True,
        "remote": found.remote,
        "short_name": found.short_name,
    }
    return view | {key: value for key in OPTIONAL if (value := getattr(found, key))}

"""What the commands have in common: how they are added, and lists in options."""

import argparse
from collections.abc import Callable, Sequence
from typing import TypeAlias

Run: TypeAlias = Callable[[argparse.Namespace], int]
"""Carries a command out; returns the exit code."""


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add the option that every command has which looks at images."""
    parser.add_argument(
        "--store",
        metavar="FOLDER",
        help="where blobs and cache are kept (IMAGEKIT_STORE, else the user's cache folder)",
    )


def split(values: Sequence[str]) -> list[str]:
    """The values of an option that may be repeated, and hold several between commas."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]

"""The command line of imagekit in a process of its own, and what it said."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tests.support.building import Project
from tests.support.tools import imagekit_command, imagekit_env


class Said(NamedTuple):
    """The exit code of a command and what it wrote."""

    code: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        return self.raw.decode()

    @property
    def lines(self) -> list[str]:
        """The lines of standard error."""
        return self.err.splitlines()


class Command:
    """Runs `imagekit` for a project: in its folder, with its store."""

    def __init__(self, project: Project, *, prefix: Sequence[str] = ()) -> None:
        self.project = project
        self.prefix = tuple(prefix)

    @property
    def env(self) -> dict[str, str]:
        home = {"HOME": os.fspath(self.project.folder)}
        return {**os.environ, **imagekit_env(), **home, "IMAGEKIT_STORE": str(self.project.store)}

    def words(self, *words: str | os.PathLike[str]) -> list[str]:
        return [*self.prefix, *imagekit_command(), *map(os.fspath, words)]

    def run(
        self,
        *words: str | os.PathLike[str],
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
    ) -> Said:
        done = subprocess.run(
            self.words(*words),
            cwd=self.project.folder,
            env={**self.env, **(env or {})},
            input=stdin,
            capture_output=True,
            timeout=120,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr.decode(errors="replace"))

    def build_words(self, *words: str | os.PathLike[str]) -> list[str | os.PathLike[str]]:
        contexts = [f"--build-context={n}={s}" for n, s in self.project.contexts.items()]
        return ["build", *contexts, *words, "context"]

    def build(
        self,
        *words: str | os.PathLike[str],
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
    ) -> Said:
        """Build the project with these options."""
        return self.run(*self.build_words(*words), env=env, stdin=stdin)

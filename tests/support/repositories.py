"""Git repositories to fetch from."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.tools import need


class Repository:
    """A repository with a work tree; commits have fixed times."""

    def __init__(self, folder: Path) -> None:
        need("git")
        self.folder = folder
        self._commits = 0
        folder.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *words: str, **environment: str) -> str:
        who = {
            f"GIT_{role}_{what}": "t@example.com"
            for role in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        }
        done = subprocess.run(
            ["git", *words],
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": "/nonexistent",
                "GIT_CONFIG_NOSYSTEM": "1",
                **who,
                **environment,
            },
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def commit(self, files: Mapping[str, str], *, message: str = "c") -> str:
        """Commit files (`-> target` makes a symlink); the id."""
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content.startswith("-> "):
                path.symlink_to(content[3:])
            else:
                path.write_text(content)
        self._commits += 1
        date = f"{1_200_000_000 + self._commits} +0000"
        self.git("add", "--all")
        self.git(
            "commit",
            "--quiet",
            "--allow-empty",
            "-m",
            message,
            GIT_AUTHOR_DATE=date,
            GIT_COMMITTER_DATE=date,
        )
        return self.git("rev-parse", "HEAD")

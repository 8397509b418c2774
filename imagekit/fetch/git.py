"""Git repositories, by the git program: which commit a name means, and its files in a folder.

The program runs with an environment of its own. No configuration of the user or the machine
counts, no hook and no filter runs, no password is asked for or found, and only network transports
work: a repository on this machine's disk, or a program as a transport, is never reached, neither
by what a Dockerfile names nor by what a submodule names (CVE-2022-39253). The address of the
repository stands in a configuration file, so it is on no command line and is never an option.

Spec: security.md C-7; dockerfile-semantics.md section 10.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from imagekit.errors import CancelledError, FetchError
from imagekit.fetch.reach import Reach, is_loopback
from imagekit.registry.calls import redact_url

_COMMIT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SCP: Final = re.compile(r"(?:[a-zA-Z0-9\-_]+)@([a-zA-Z0-9\-.]+):(.*)", re.DOTALL)
_BAD_REF: Final = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/$|\.lock$")
_TAIL: Final = 2000
_TIMEOUT_S: Final = 3600.0
_POLL_S: Final = 0.2
_LISTING: Final = 64 << 20
"""The most bytes of a list of refs."""

_SETTINGS: Final = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.symlinks=true",
    "core.autocrlf=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "credential.helper=",
    "protocol.allow=never",
    "protocol.https.allow=always",
    "protocol.http.allow=always",
    "protocol.git.allow=always",
    "protocol.ssh.allow=always",
    "protocol.file.allow=never",
    "protocol.ext.allow=never",
    "http.lowSpeedLimit=1024",
    "http.lowSpeedTime=60",
    "gc.auto=0",
    "maintenance.auto=false",
    "init.defaultBranch=master",
    "init.templateDir=",
    "advice.detachedHead=false",
)
_PASSED_ON: Final = (
    "PATH",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)
_SSH: Final = "ssh -F /dev/null -o BatchMode=yes -o ClearAllForwardings=yes"
_SSH_WITHOUT_KEYS: Final = f"{_SSH} -o IdentityAgent=none -o IdentityFile=/dev/null"


class Git:
    """Runs the git program; methods may be called from any thread."""

    def __init__(
        self,
        reach: Reach,
        *,
        agent_for: frozenset[str] = frozenset(),
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._reach = reach
        self._agent_for = agent_for
        self._cancelled = cancelled

    def commit(self, url: str, ref: str, *, pinned: bool) -> str:
        """The commit that a branch, a tag or a full ref name is now.

        A branch goes before a tag of the same name, and an annotated tag is the commit it is for,
        as in `git checkout`. The full id of a commit is taken as it is.

        Args:
            url: of the repository.
            ref: empty for the default branch.
            pinned: the commit is known to the caller, who checks it.

        Raises:
            FetchError: `git-ref-not-found`, or the repository cannot be read.
        """
        self._check(url, ref, pinned=pinned)
        if _COMMIT.fullmatch(ref):
            return ref
        names = [f"{ref}", f"{ref}^{{}}"] if ref else ["HEAD"]
        with tempfile.TemporaryDirectory(prefix="imagekit-git-") as folder:
            command = _Command(self, url, Path(folder))
            command.prepare()
            listed = command.run("ls-remote", "origin", *names)
        found = _choose(dict(_refs(listed)), ref)
        if not found:
            raise FetchError(
                f"repository {shown(url)} does not contain ref {ref or 'HEAD'}",
                hint="name a branch, a tag, or the full id of a commit",
                code="git-ref-not-found",
            )
        return found

    def checkout(
        self,
        url: str,
        ref: str,
        commit: str,
        folder: Path,
        *,
        submodules: bool,
        keep_git_dir: bool,
    ) -> int:
        """Put the files of a commit into `folder / "tree"`.

        Args:
            url: of the repository.
            ref: that the commit was found by; it is the cheapest way to fetch it.
            commit: its full id.
            folder: empty and private.
            submodules: check them out as well, and theirs.
            keep_git_dir: leave `.git` in the tree, without the traces of how it was fetched.

        Returns:
            The time of the commit, in seconds since the epoch.

        Raises:
            FetchError: it cannot be fetched, or has gone from the repository.
        """
        self._check(url, ref, pinned=True)
        tree = folder / "tree"
        tree.mkdir()
        command = _Command(self, url, folder, git_dir=tree / ".git" if keep_git_dir else None)
        command.prepare()
        self._fetch(command, ref, commit)
        command.run("checkout", "--force", "--quiet", commit)
        if submodules and (tree / ".gitmodules").is_file():
            command.run("submodule", "update", "--init", "--recursive", "--depth=1", "--force")
        time = int(command.run("log", "-1", "--format=%ct", commit))
        if keep_git_dir:
            command.clean()
        return time

    def _fetch(self, command: "_Command", ref: str, commit: str) -> None:
        """Get a commit as shallow as the server can give it."""
        wanted = ref or "HEAD"
        for options in (("--depth=1",), ()):
            for name in dict.fromkeys((wanted, commit)):
                try:
                    command.run("fetch", "--no-tags", "--force", *options, "origin", name)
                except FetchError:
                    continue
                if command.has(commit):
                    return
        command.run("fetch", "--force", "origin", "+refs/*:refs/remotes/origin/*")
        if not command.has(commit):
            raise FetchError(
                f"repository {shown(command.url)} has no commit {commit}",
                code="git-ref-not-found",
            )

    def _check(self, url: str, ref: str, *, pinned: bool) -> None:
        """Check that an address and a name are what they should be.

        Raises:
            FetchError: one is not.
        """
        if ref.startswith("-") or _BAD_REF.search(ref):
            raise FetchError(f"{ref!r} is no name of a branch or tag", code="git-ref-not-found")
        scp = None if "://" in url else _SCP.fullmatch(url)
        address = f"ssh://{scp[1]}/" if scp else url
        if url.startswith("-") or not address.startswith(
            ("http://", "https://", "git://", "ssh://")
        ):
            raise FetchError(f"{shown(url)!r} is no repository to fetch from", code="url-invalid")
        self._reach.check(address, pinned=pinned or bool(_COMMIT.fullmatch(ref)))
        self._check_addresses(address)

    def _check_addresses(self, address: str) -> None:
        """Look at where a host leads before git goes there."""
        import socket  # noqa: PLC0415 - few builds fetch a repository
        from ipaddress import ip_address  # noqa: PLC0415

        parts = self._reach.check(address, pinned=True)
        host = parts.hostname or ""
        if is_loopback(host) or _proxied(parts.scheme, host):
            return
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError as exc:
            raise FetchError(
                f"{host}: no such host", hint="check its spelling", code="unknown-host"
            ) from exc
        for *_, place in found:
            peer = ip_address(str(place[0]).partition("%")[0])
            self._reach.check_address(address, peer)

    # For `_Command`.

    def may_use_agent(self, url: str) -> bool:
        """Whether the caller's SSH agent may answer for a repository."""
        return url in self._agent_for

    def is_cancelled(self) -> bool:
        """Whether the caller has given up."""
        return self._cancelled()


class _Command:
    """Git commands on one repository of our own."""

    def __init__(self, git: Git, url: str, folder: Path, git_dir: Path | None = None) -> None:
        self.url = url
        self._git = git
        self._folder = folder
        self._git_dir = git_dir or folder / "git"
        self._tree = folder / "tree"

    def prepare(self) -> None:
        """Make the repository, knowing where to fetch from."""
        self._tree.mkdir(exist_ok=True)
        (self._folder / "home").mkdir()
        self.run("init", "--quiet")
        with (self._git_dir / "config").open("a", encoding="utf-8") as config:
            config.write(f'[remote "origin"]\n\turl = {_quoted(self.url)}\n')

    def has(self, commit: str) -> bool:
        """Whether a commit is here."""
        try:
            self.run("cat-file", "-e", f"{commit}^{{commit}}")
        except FetchError:
            return False
        return True

    def clean(self) -> None:
        """Take out of a repository that is kept what says how and when it was fetched."""
        self.run("reflog", "expire", "--all", "--expire=now")
        for name in ("FETCH_HEAD", "ORIG_HEAD"):
            (self._git_dir / name).unlink(missing_ok=True)
        shutil.rmtree(self._git_dir / "logs", ignore_errors=True)
        self.run("remote", "set-url", "origin", shown(self.url))

    def run(self, *words: str) -> str:
        """Run one command; what it wrote.

        Raises:
            FetchError: it failed, with the end of what it said.
            CancelledError: the caller has given up.
        """
        settings = [word for setting in _SETTINGS for word in ("-c", setting)]
        place = [f"--git-dir={self._git_dir}", f"--work-tree={self._tree}"]
        with _started(["git", *settings, *place, *words], self._environment(), self._tree) as done:
            output, errors = self._wait(done, words[0])
        if done.returncode != 0:
            raise self._failed(words[0], errors.decode("utf-8", "replace"))
        return output.decode("utf-8", "surrogateescape")

    def _wait(self, process: "subprocess.Popen[bytes]", what: str) -> tuple[bytes, bytes]:
        waited = 0.0
        while True:
            try:
                output, errors = process.communicate(timeout=_POLL_S)
            except subprocess.TimeoutExpired:
                waited += _POLL_S
                if self._git.is_cancelled():
                    raise CancelledError("the build was cancelled") from None
                if waited > _TIMEOUT_S:
                    raise FetchError(f"git {what} took too long", code="timeout") from None
            else:
                if len(output) > _LISTING:
                    raise FetchError(f"git {what} has too much to say", code="too-large")
                return output, errors

    def _environment(self) -> dict[str, str]:
        given = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        agent = os.environ.get("SSH_AUTH_SOCK", "")
        if agent and self._git.may_use_agent(self.url):
            given |= {"SSH_AUTH_SOCK": agent, "GIT_SSH_COMMAND": _SSH}
        else:
            given["GIT_SSH_COMMAND"] = _SSH_WITHOUT_KEYS
        return given | {
            "HOME": str(self._folder / "home"),
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_ALLOW_PROTOCOL": "https:http:git:ssh",
            "GIT_PROTOCOL_FROM_USER": "0",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "true",
            "SSH_ASKPASS": "true",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_LFS_SKIP_SMUDGE": "1",
        }

    def _failed(self, what: str, errors: str) -> FetchError:
        said = errors.replace(self.url, shown(self.url))[-_TAIL:].strip()
        last = next(
            (line for line in said.splitlines() if line.startswith(("fatal:", "error:"))), said
        )
        return FetchError(
            f"{shown(self.url)}: git {what}: {last.removeprefix('fatal: ') or 'failed'}",
            hint="" if "://" in self.url else "keys come from your SSH agent, for contexts only",
            code="git",
        )


@contextmanager
def _started(
    argv: Sequence[str], environment: dict[str, str], folder: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process whose whole group ends with the block."""
    try:
        process = subprocess.Popen(  # noqa: S603 - no shell, no word of a stranger first
            argv,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            umask=0o022,
        )
    except FileNotFoundError as exc:
        raise FetchError(
            "the git program is not there", hint="install git", code="git-missing"
        ) from exc
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()


def shown(url: str) -> str:
    """An address as people may see it."""
    return redact_url(url) if "://" in url else url


def _refs(listed: str) -> Iterator[tuple[str, str]]:
    for line in listed.splitlines():
        commit, tab, name = line.partition("\t")
        if tab and _COMMIT.fullmatch(commit):
            yield name, commit


def _choose(refs: dict[str, str], ref: str) -> str:
    """The commit of a name among what was listed; empty if it is not there."""
    if not ref:
        return refs.get("HEAD", "")
    tag = f"refs/tags/{ref.removeprefix('refs/tags/')}"
    names = (
        f"refs/{ref.removeprefix('refs/')}^{{}}",
        f"refs/{ref.removeprefix('refs/')}",
        f"refs/heads/{ref.removeprefix('refs/heads/')}",
        f"{tag}^{{}}",
        tag,
    )
    found = next((refs[name] for name in names if name in refs), "")
    return found or (refs.get("HEAD", "") if ref == "HEAD" else "")


def _quoted(value: str) -> str:
    """A value as it stands in a git configuration file."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _proxied(scheme: str, host: str) -> bool:
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415 - see above

    proxies = getproxies()
    return (scheme in proxies or "all" in proxies) and not proxy_bypass(host)

"""The narrow waist: immutable, typed operations with no Dockerfile word in them.

Everything before a `Plan` is text work; nothing after it sees a Dockerfile. Operations are fully
expanded plain data, free of global state, so that a step can be explained, stored, or sent to
another machine. A step's first input, where it has one, is the root file system that it changes.
"""

from typing import Literal

from attrs import field, frozen

from imagekit.errors import Span
from imagekit.events import Warned
from imagekit.oci.config import History, ImageConfig
from imagekit.oci.descriptor import Descriptor
from imagekit.oci.digest import Digest
from imagekit.oci.platform import Platform

# Sources: operations that start a file system.


@frozen(kw_only=True)
class Base:
    """The file system of an image; `scratch` has no layers.

    Attributes:
        reference: what it was asked for by, for people; empty for scratch.
        origin: where its blobs can be fetched: a canonical pinned reference, or
            `oci-layout://PATH`.
        manifest: None for scratch.
        layers: descriptors, lowest first, in step with `diff_ids`.
    """

    reference: str
    origin: str = ""
    platform: Platform
    manifest: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    diff_ids: tuple[Digest, ...] = ()


@frozen
class Local:
    """A folder of the caller's: the build context (empty name) or a named one."""

    name: str = ""


@frozen(kw_only=True)
class Fetch:
    """One file from a URL, or a git checkout.

    Attributes:
        url: what to fetch; of a repository without query and fragment.
        kind: `http` gives a tree of one file, `git` one of a checkout.
        filename: the name of the one file.
        unpack: if the file is a tar archive, the tree is what is in it.
        checksum: what the body, or the commit, must be; empty for anything.
        ref: branch, tag or commit; empty for the default branch.
        subdir: the folder of the repository that is the root of the tree; empty for all.
        submodules: whether they are checked out as well.
        keep_git_dir: whether `.git` is part of the tree.
        commit_times: whether files have the time of the commit instead of that of the checkout.
    """

    url: str
    kind: Literal["http", "git"]
    filename: str = ""
    unpack: bool = False
    checksum: str = ""
    ref: str = ""
    subdir: str = ""
    submodules: bool = True
    keep_git_dir: bool = False
    commit_times: bool = False

    @property
    def shown(self) -> str:
        """The URL as people may see it: no user, password or parameters (security spec N-12)."""
        head, scheme, rest = self.url.rpartition("://")
        host, slash, path = rest.partition("/")
        if scheme:
            host = host.rpartition("@")[2]
        return f"{head}{scheme}{host}{slash}{path.partition('?')[0]}"


# File operations.


@frozen(kw_only=True)
class CopySource:
    r"""One source argument of a copy.

    Attributes:
        input: position in the step's inputs of the tree that is read.
        path: absolute in that tree and cleaned; a pattern if `wildcard`.
        wildcard: whether `path` holds any of `* ? [ \`; without a match nothing is copied.
        pattern: with `Copy.parents`, what below `path` is copied, as in .dockerignore and
            relative to `path`; that relative path is kept below `dest`.
        required: with `pattern`, whether it must match something.
        unpack: extract it if it is a tar archive, by content.
    """

    input: int
    path: str
    wildcard: bool = False
    pattern: str = ""
    required: bool = False
    unpack: bool = False


@frozen(kw_only=True)
class InlineFile:
    """A file that stands in the Dockerfile itself; its name is one path component."""

    name: str
    content: bytes
    mode: int = 0o644


@frozen(kw_only=True)
class Copy:
    """Copy files into a root file system, making what directories are missing.

    Attributes:
        sources: in order; later ones win.
        dest: absolute and cleaned, a trailing slash kept: it says that a directory is meant.
        chown: `user[:group]` as written, names to be looked up in the root; empty to keep.
        chmod: octal or symbolic, empty to keep.
        exclude: patterns as in .dockerignore, relative to each source.
        parents: keep the path of each source below `dest`.
        link: make the layer as if the root were empty; it then does not depend on it.
        kind: COPY and ADD have different cache keys though they do the same.
        epoch: the time of what the step makes itself (directories, inline files); None is now.
    """

    sources: tuple[CopySource | InlineFile, ...]
    dest: str
    chown: str = ""
    chmod: str = ""
    exclude: tuple[str, ...] = ()
    parents: bool = False
    link: bool = False
    kind: Literal["copy", "add"] = "copy"
    epoch: int | None = None


@frozen(kw_only=True)
class Mkdir:
    """Make a directory and its missing parents, mode 0755, owned by `owner` (`user[:group]`).

    `epoch` is the time of what is made; None is now.
    """

    path: str
    owner: str = ""
    epoch: int | None = None


# Processes.


@frozen(kw_only=True)
class BindMount:
    """A tree, or a part of one, seen at `target`; writes are thrown away."""

    target: str
    input: int
    source: str = "/"
    read_only: bool = True


@frozen(kw_only=True)
class CacheMount:
    """A folder kept between builds and in no layer; `input` gives its first content, if any."""

    target: str
    id: str
    sharing: Literal["shared", "private", "locked"] = "shared"
    input: int | None = None
    source: str = "/"
    read_only: bool = False
    uid: int = 0
    gid: int = 0
    mode: int = 0o755


@frozen(kw_only=True)
class TmpfsMount:
    """An empty folder in memory; `size` in bytes, 0 for no limit."""

    target: str
    size: int = 0


@frozen(kw_only=True)
class SecretMount:
    """A secret as a file (`target`), an environment variable (`env`) or both."""

    id: str
    target: str = ""
    env: str = ""
    required: bool = False
    uid: int = 0
    gid: int = 0
    mode: int = 0o400


@frozen(kw_only=True)
class SshMount:
    """A socket that an SSH agent answers."""

    id: str
    target: str
    required: bool = False
    uid: int = 0
    gid: int = 0
    mode: int = 0o600


@frozen(kw_only=True)
class ScriptMount:
    """A script that stands in the Dockerfile, read-only at `target`, mode 0755."""

    target: str
    content: bytes


Mount = BindMount | CacheMount | TmpfsMount | SecretMount | SshMount | ScriptMount


@frozen(kw_only=True)
class Exec:
    """Run a process in a root file system.

    Attributes:
        argv: the program and its arguments.
        env: (name, value) pairs in order, without HOME and HOSTNAME.
        proxy_env: more of them, of which neither key nor history knows.
        cwd: absolute.
        user: as written after USER; names to be looked up in the root; empty is root.
        hostname: what the process sees as its host's name; empty to leave it to the sandbox.
        extra_hosts: (name, address) pairs for /etc/hosts.
        ulimits: (name, soft, hard) of resource limits; -1 is unlimited.
        shm_size: bytes of /dev/shm; 0 for the sandbox's default.
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    proxy_env: tuple[tuple[str, str], ...] = ()
    cwd: str = "/"
    user: str = ""
    mounts: tuple[Mount, ...] = ()
    network: Literal["default", "none", "host"] = "default"
    security: Literal["sandbox", "insecure"] = "sandbox"
    devices: tuple[str, ...] = ()
    hostname: str = ""
    extra_hosts: tuple[tuple[str, str], ...] = ()
    ulimits: tuple[tuple[str, int, int], ...] = ()
    shm_size: int = 0


Op = Base | Local | Fetch | Copy | Mkdir | Exec


@frozen(kw_only=True)
class Step:
    """An operation and its inputs.

    Attributes:
        inputs: positions of earlier steps of the plan; the first is the root file system that is
            changed, for Copy, Mkdir and Exec.
        name: as progress shows it: `[build 2/4] RUN make`.
        span: its instruction, if it comes from one.
        stage: the name of its stage or its number.
        platform: of the root; Exec runs on it.
    """

    op: Op
    inputs: tuple[int, ...] = ()
    name: str
    span: Span | None = None
    stage: str = ""
    platform: Platform


@frozen(kw_only=True)
class Plan:
    """Steps in an order in which they can run, and the config of what they make.

    Attributes:
        result: position of the step that gives the root file system of the image.
        config: complete but for `created`, `diff_ids` (empty here) and the times of new history.
        base_history: how many of the history's entries come from the base.
        platform: that the image is for.
        epoch: SOURCE_DATE_EPOCH, or None.
        filename: of the Dockerfile, for messages.
        source: its text, for excerpts.
        warnings: what is accepted and probably not meant.
    """

    steps: tuple[Step, ...]
    result: int
    config: ImageConfig
    base_history: int = 0
    platform: Platform
    epoch: int | None = None
    filename: str = "Dockerfile"
    source: str = field(default="", repr=False)
    warnings: tuple[Warned, ...] = ()

    @property
    def new_history(self) -> tuple[History, ...]:
        """The history of this build alone."""
        return self.config.history[self.base_history :]

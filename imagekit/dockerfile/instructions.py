"""One frozen class an instruction, and the stages and file that hold them.

These are the typed forms before any expansion: words still carry their quotes and variables, as
the author wrote them. What each of them means is decided in `plan`.
"""

from collections.abc import Iterator
from typing import ClassVar, TypeAlias

from attrs import frozen

from imagekit.errors import Span


@frozen(kw_only=True)
class Heredoc:
    """A body written below its instruction.

    Attributes:
        name: the terminator, unquoted.
        content: the raw body, each line with its line end.
        expand: whether variables in it are to be expanded; a quoted terminator says no.
        chomp: written `<<-`: leading tabs of each line are no part of the body.
        fd: the descriptor before `<<`; 0 when there is none.
    """

    name: str
    content: str
    expand: bool = True
    chomp: bool = False
    fd: int = 0

    @property
    def body(self) -> str:
        """The content as a file gets it: without leading tabs if written `<<-`."""
        if not self.chomp:
            return self.content
        return "".join(line.lstrip("\t") for line in self.content.splitlines(keepends=True))


@frozen(kw_only=True)
class Located:
    """What all instructions share.

    Attributes:
        span: first to last physical line; the column is where the keyword stands.
        text: the logical line: continuations joined, comments gone.
        word: the keyword as written, in its own case.
        comments: the comment lines collected for it, without `#`.
        flags: the raw flags, as written, `--name=value`.
    """

    span: Span
    text: str
    word: str = ""
    comments: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


@frozen(kw_only=True)
class From(Located):
    """`FROM [--platform=P] IMAGE [AS NAME]`.

    Attributes:
        image: the base as written, a word.
        name: of the stage, lower case; empty when it has none.
        written_name: the name in its own case.
        platform: a word; empty when not given.
    """

    keyword: ClassVar[str] = "from"
    image: str
    name: str = ""
    written_name: str = ""
    platform: str = ""


@frozen(kw_only=True)
class KeyValue:
    """One pair of ENV or LABEL; both parts are words, `legacy` says it had no `=`."""

    key: str
    value: str
    legacy: bool = False


@frozen(kw_only=True)
class ArgPair:
    """One name of ARG; `value` is a word, or None when there is no `=`.

    `doc` is the comment above that starts with the name.
    """

    key: str
    value: str | None = None
    doc: str = ""


@frozen(kw_only=True)
class Arg(Located):
    """`ARG NAME[=DEFAULT] ...`."""

    keyword: ClassVar[str] = "arg"
    pairs: tuple[ArgPair, ...]


@frozen(kw_only=True)
class Env(Located):
    """`ENV KEY=VALUE ...` or `ENV KEY REST`."""

    keyword: ClassVar[str] = "env"
    pairs: tuple[KeyValue, ...]


@frozen(kw_only=True)
class Label(Located):
    """`LABEL KEY=VALUE ...` or `LABEL KEY REST`."""

    keyword: ClassVar[str] = "label"
    pairs: tuple[KeyValue, ...]


@frozen(kw_only=True)
class Copy(Located):
    """`COPY [flags] SOURCE... DEST`.

    Attributes:
        sources: words, heredocs left out.
        heredocs: files written in place, in order; the last body of a name is that of all.
        dest: a word.
        from_: stage, index or image, never expanded; empty for the build context.
        chown: a word, or empty.
        chmod: a word, or empty.
        exclude: patterns, never expanded.
    """

    keyword: ClassVar[str] = "copy"
    sources: tuple[str, ...]
    heredocs: tuple[Heredoc, ...] = ()
    dest: str
    from_: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()


@frozen(kw_only=True)
class Add(Located):
    """`ADD [flags] SOURCE... DEST`; fields as in `Copy`.

    Attributes:
        checksum: a word, or empty.
        keep_git_dir: None when not given.
        unpack: None when not given: archives yes, downloads no.
    """

    keyword: ClassVar[str] = "add"
    sources: tuple[str, ...]
    heredocs: tuple[Heredoc, ...] = ()
    dest: str
    chown: str = ""
    chmod: str = ""
    link: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str = ""
    keep_git_dir: bool | None = None
    unpack: bool | None = None


@frozen(kw_only=True)
class Run(Located):
    """`RUN [flags] COMMAND`.

    Attributes:
        argv: the arguments of the JSON form, or one string to be given to the shell; empty for
            a shell form without text.
        shell_form: whether the shell runs it.
        heredocs: bodies below it, raw.
        mounts: the values of `--mount`, as written, in order.
        network: `default`, `none` or `host`.
        security: `sandbox` or `insecure`.
        devices: the values of `--device`, as written.
    """

    keyword: ClassVar[str] = "run"
    argv: tuple[str, ...]
    shell_form: bool
    heredocs: tuple[Heredoc, ...] = ()
    mounts: tuple[str, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    devices: tuple[str, ...] = ()


@frozen(kw_only=True)
class Cmd(Located):
    """`CMD`: what a container runs; `argv` and `shell_form` as in `Run`."""

    keyword: ClassVar[str] = "cmd"
    argv: tuple[str, ...]
    shell_form: bool


@frozen(kw_only=True)
class Entrypoint(Located):
    """`ENTRYPOINT`; `argv` and `shell_form` as in `Run`."""

    keyword: ClassVar[str] = "entrypoint"
    argv: tuple[str, ...]
    shell_form: bool


@frozen(kw_only=True)
class Shell(Located):
    """`SHELL [...]`."""

    keyword: ClassVar[str] = "shell"
    argv: tuple[str, ...]


@frozen(kw_only=True)
class Workdir(Located):
    """`WORKDIR PATH`; the path is a word."""

    keyword: ClassVar[str] = "workdir"
    path: str


@frozen(kw_only=True)
class User(Located):
    """`USER NAME[:GROUP]`; a word."""

    keyword: ClassVar[str] = "user"
    user: str


@frozen(kw_only=True)
class Volume(Located):
    """`VOLUME PATH...`; words."""

    keyword: ClassVar[str] = "volume"
    paths: tuple[str, ...]


@frozen(kw_only=True)
class Expose(Located):
    """`EXPOSE PORT...`; words, each of which may expand to several, in file order."""

    keyword: ClassVar[str] = "expose"
    ports: tuple[str, ...]


@frozen(kw_only=True)
class Stopsignal(Located):
    """`STOPSIGNAL SIGNAL`; a word."""

    keyword: ClassVar[str] = "stopsignal"
    signal: str


@frozen(kw_only=True)
class Healthcheck(Located):
    """`HEALTHCHECK`; times are in nanoseconds, 0 where not given.

    Attributes:
        test: `("NONE",)`, `("CMD-SHELL", text)` or `("CMD", arg...)`.
    """

    keyword: ClassVar[str] = "healthcheck"
    test: tuple[str, ...]
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@frozen(kw_only=True)
class Onbuild(Located):
    """`ONBUILD INSTRUCTION`.

    Attributes:
        expression: the text after the keyword, kept verbatim in the image config; a child stage
            reads it with `parse_onbuild`.
    """

    keyword: ClassVar[str] = "onbuild"
    expression: str


@frozen(kw_only=True)
class Maintainer(Located):
    """`MAINTAINER NAME`, deprecated; never expanded."""

    keyword: ClassVar[str] = "maintainer"
    maintainer: str


Command: TypeAlias = (
    Arg
    | Env
    | Label
    | Copy
    | Add
    | Run
    | Cmd
    | Entrypoint
    | Shell
    | Workdir
    | User
    | Volume
    | Expose
    | Stopsignal
    | Healthcheck
    | Onbuild
    | Maintainer
)
"""What may stand in a stage."""

Instruction: TypeAlias = From | Command
"""The closed union of all instructions."""


@frozen(kw_only=True)
class Stage:
    """A FROM and what follows it up to the next.

    Attributes:
        index: from 0, in file order.
        doc: the comment above FROM that starts with the stage's name, without it.
        commands: in file order.
    """

    index: int
    from_: From
    doc: str = ""
    commands: tuple[Command, ...] = ()

    @property
    def name(self) -> str:
        """The stage's name in lower case; empty when it has none."""
        return self.from_.name

    @property
    def base(self) -> str:
        """The image or stage that it starts from, a word."""
        return self.from_.image

    @property
    def platform(self) -> str:
        """The value of `--platform`, a word; empty when not given."""
        return self.from_.platform

    @property
    def span(self) -> Span:
        """The place of its FROM."""
        return self.from_.span


@frozen(kw_only=True)
class Directive:
    """A parser directive of the header; `name` is lower case."""

    name: str
    value: str
    line: int


@frozen(kw_only=True)
class SyntaxDirective:
    """Which frontend a file asks for: `reference` is `value` up to its first blank."""

    reference: str
    value: str
    line: int


@frozen(kw_only=True)
class EmptyContinuation:
    """A blank line inside a continued instruction, which a later version may refuse.

    `span` is the instruction's last line, as the lint rule NoEmptyContinuation places it.
    """

    span: Span


@frozen(kw_only=True)
class Node:
    """An instruction as the grammar alone sees it, before its arguments are understood.

    Attributes:
        cmd: the keyword in lower case.
        word: the keyword as written.
        original: the logical line.
        flags: raw flags, quotes removed.
        json: whether `args` came from a JSON array.
        args: elements, words or one string, as the keyword's grammar splits them; ENV and LABEL
            give triples of key, value and separator.
        start: first physical line.
        end: last physical line, heredocs counted.
        comments: collected comment lines.
        heredocs: bodies below the instruction.
        sub: the instruction in an ONBUILD.
    """

    cmd: str
    word: str
    original: str
    flags: tuple[str, ...] = ()
    json: bool = False
    args: tuple[str, ...] = ()
    start: int
    end: int
    column: int = 1
    comments: tuple[str, ...] = ()
    heredocs: tuple[Heredoc, ...] = ()
    sub: "Node | None" = None


@frozen(kw_only=True)
class SyntaxTree:
    r"""A file split into instructions; what `parse` makes its `Dockerfile` from.

    Attributes:
        source: the text; bytes that are not UTF-8 are lone surrogates.
        escape: the character that continues lines and quotes, `\\` or a backquote.
        directives: the header, as a strict reader sees it.
        syntax: the frontend that the file asks for.
        has_bom: a byte order mark stood before the text.
    """

    filename: str
    source: str
    escape: str
    directives: tuple[Directive, ...]
    syntax: SyntaxDirective | None
    nodes: tuple[Node, ...]
    warnings: tuple[EmptyContinuation, ...]
    has_bom: bool = False


@frozen(kw_only=True)
class Dockerfile:
    """A parsed file.

    Attributes:
        filename: as given to `parse`, for errors.
        source: the text without a byte order mark; bytes that are not UTF-8 are lone surrogates.
        escape: the character that continues lines and quotes in words.
        directives: the header's parser directives.
        syntax: the frontend that the file asks for, or None.
        global_args: the ARGs above the first FROM.
        stages: in file order; none if the file has only ARGs, which the stage graph refuses.
        warnings: what the grammar accepts and an author should not write.
        nodes: the untyped instructions.
        has_bom: a byte order mark stood before the text.
    """

    filename: str
    source: str
    escape: str
    directives: tuple[Directive, ...]
    syntax: SyntaxDirective | None
    global_args: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    warnings: tuple[EmptyContinuation, ...]
    nodes: tuple[Node, ...]
    has_bom: bool = False

    @property
    def instructions(self) -> Iterator[Instruction]:
        """All instructions, in file order."""
        yield from self.global_args
        for stage in self.stages:
            yield stage.from_
            yield from stage.commands

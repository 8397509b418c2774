"""Dockerfiles for hypothesis: well formed ones, ones that are a little wrong, and mutated ones.

`dockerfiles` writes files as people do, with everything that the language has, in odd layouts.
`mutants` takes real files to pieces. `words`, `environments`, `ignore_files` and `paths` are for
the languages inside the language.
"""

import functools
import os
from collections.abc import Callable
from pathlib import Path

from hypothesis import strategies as st

from tests.support.tools import FIXTURES, REPOSITORY

CONFORMANCE = Path(os.environ.get("IMAGEKIT_CONFORMANCE", REPOSITORY / "../shared/conformance"))
MAX_SEED = 4000
"""Bytes of a real file that is worth mutating: more of it only takes time."""

NAMES = st.sampled_from(["A", "B", "PATH", "VERSION", "TARGETARCH", "HTTP_PROXY", "_x", "a1"])
VALUES = st.sampled_from(
    [
        *("x", "1.2", "", "a b", "'a b'", '"a b"', '"$A"', "'$A'", "a\\ b", '"a\\"b"', "é", "\t"),
        *("$A", "${A}", "${A:-x}", "${A-x}", "${A:+x}", "${A+x}", "${A:?m}", "${A?m}", "$", "$$"),
        *("${A#x*}", "${A##*x}", "${A%x*}", "${A%%*x}", "${A/x/y}", "${A//x/$B}", "${B:-${A}}"),
        *("${A", "${}", "${A!x}", '"', "'", "\\", "`", "a`b", "#", "[", "[]", '["a"]', "<<E"),
    ]
)
PATHS = st.sampled_from(
    [
        *(".", "/", "a", "a/", "./a/../b", "/x/", "../up", "*.txt", "a?[bc]", "**/x", "$A/b", "é"),
        *("https://example.com/x.tar", "https://github.com/a/b.git#main:sub", "/a b", "C:\\x\\"),
        *("git@example.com:a/b.git", "a\\ b", '"a"', "http://[::1", "https://e/x?y=1#z"),
    ]
)
IMAGES = st.sampled_from(
    [
        *(
            "alpine",
            "alpine:3.20",
            "scratch",
            "Scratch",
            "docker.io/library/a",
            "a@sha256:" + "0" * 64,
        ),
        *("$BASE", "${BASE:-b}", "localhost:5000/x/y:z", "UPPER", "a:", "", "one", "two", "0"),
    ]
)
PLATFORMS = st.sampled_from(
    ["linux/amd64", "linux/arm/v7", "$BUILDPLATFORM", "windows/amd64", "x", "linux/$A", ""]
)
STAGES = st.sampled_from(["one", "two", "Three", "0", "1", "9", "alpine", "$A", "one ", "-"])
SHELLS = st.sampled_from(
    [
        *("echo x", "make && make install", "true; # no comment", "[ -f x ]", "a 'b c' \"d\""),
        *("echo $A", "cat <<E2", "a | b > c 2>&1", '["a", "b"]', '["a", 1]', '["a"] x', "['a']"),
        *('["\\u00e9", "\\n"]', "[", "", "x " * 30, "\\", "a\\", "a \\ b", "é \x85 ü", "a\x0bb"),
    ]
)
PORTS = st.sampled_from(["80", "80/tcp", "1-3/udp", "1:2", "$A", "127.0.0.1::80", "x", "99999"])
MOUNTS = st.sampled_from(
    [
        *(
            "type=bind,source=a,target=/b",
            "type=cache,target=/c,sharing=locked,id=$A",
            "type=tmpfs",
        ),
        *("type=secret,id=s,env=S", "type=ssh", "target=/x,from=one,rw", "type=bind,from=$A", "x"),
        *(
            "type=cache,target=/c,mode=0755,uid=1,gid=2",
            "type=tmpfs,target=/t,size=1m",
            "",
            "a=b=c",
        ),
        *('type=bind,"target=/a,b"', "type=cache,target=c,from=two,source=/s,ro=maybe"),
    ]
)
MODES = st.sampled_from(["644", "u+x,go=r", "08", "a=rX", "7777", "$A", "-1", ""])
OWNERS = st.sampled_from(["1", "1:2", "app", "app:staff", "$A:$B", ":1", "4294967296", "-1:0"])
SUMS = st.sampled_from(["sha256:" + "a" * 64, "sha256:", "md5:x", "$A", "0" * 40])
DURATIONS = st.sampled_from(["1s", "1h2m3.5s", "0", "-1s", "5", "1ns", "9" * 30 + "h", ".5s"])
COMMENTS = st.sampled_from(
    [
        "# a",
        "#",
        "  # indented",
        "#!shebang",
        "# escape=x",
        "# check=skip=all",
        "\t#\u00e9",
        "# A x",
    ]
)
DIRECTIVES = st.sampled_from(
    [
        *(
            "# syntax=docker/dockerfile:1",
            "#escape = `",
            "# escape=\\",
            "# check=skip=JSONArgsRecommended",
        ),
        *(
            "# check=error=true",
            "# Syntax=x y",
            "# unknown=1",
            "#escape=",
            "#!/bin/x",
            "// syntax=a",
        ),
    ]
)
BLANKS = st.sampled_from([" ", " ", " ", "  ", "\t", " \t ", "\v", "\f", "\u00a0", "\u2003"])


def _boolean(name: str) -> st.SearchStrategy[str]:
    values = st.sampled_from(["", "=true", "=false", "=1", "=x", "=$A"])
    return values.map(lambda value: f"--{name}{value}")


def _flag(name: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return values.map(lambda value: f"--{name}={value}")


_COPYING = [
    _flag("chown", OWNERS),
    _flag("chmod", MODES),
    _boolean("link"),
    _flag("exclude", PATHS),
]
FLAGS: dict[str, list[st.SearchStrategy[str]]] = {
    "FROM": [_flag("platform", PLATFORMS)],
    "COPY": [*_COPYING, _flag("from", STAGES), _boolean("parents")],
    "ADD": [*_COPYING, _flag("checksum", SUMS), _boolean("keep-git-dir"), _boolean("unpack")],
    "RUN": [
        _flag("mount", MOUNTS),
        _flag("network", st.sampled_from(["none", "host", "default", "x", "$A"])),
        _flag("security", st.sampled_from(["insecure", "sandbox", "x"])),
        _flag("device", st.sampled_from(["a.com/b=c", "name=x,required", ""])),
    ],
    "HEALTHCHECK": [
        _flag("interval", DURATIONS),
        _flag("start-period", DURATIONS),
        _flag("start-interval", DURATIONS),
        _flag("timeout", DURATIONS),
        _flag("retries", st.sampled_from(["3", "0", "-1", "x"])),
    ],
}
ANY_FLAG = st.sampled_from(["--", "--x", "--form=a", "--from", '--from="a b"', "--=", "--a\\ b=c"])

_PAIRS = st.tuples(NAMES, VALUES).map("=".join)
_HEREDOC_MARKS = st.sampled_from(["<<E", "<<-E", "<<'E'", '<<-"E"', "3<<E", "<< E", "<<E <<F"])
ARGUMENTS: dict[str, st.SearchStrategy[list[str]]] = {
    "RUN": st.lists(SHELLS | _HEREDOC_MARKS, max_size=2),
    "CMD": st.lists(SHELLS, max_size=1),
    "ENTRYPOINT": st.lists(SHELLS, max_size=1),
    "SHELL": st.sampled_from([["[]"], ['["sh", "-c"]'], ["sh -c"], ['["powershell", "-c"]']]),
    "COPY": st.lists(PATHS | _HEREDOC_MARKS, max_size=4) | st.just(['["a b", "/c"]']),
    "ADD": st.lists(PATHS | _HEREDOC_MARKS, max_size=4) | st.just(['["a b", "/c"]']),
    "ENV": st.lists(_PAIRS, min_size=1, max_size=4) | st.tuples(NAMES, VALUES).map(list),
    "LABEL": st.lists(_PAIRS, min_size=1, max_size=4) | st.tuples(NAMES, VALUES).map(list),
    "ARG": st.lists(_PAIRS | NAMES, min_size=1, max_size=3),
    "EXPOSE": st.lists(PORTS, max_size=3),
    "VOLUME": st.lists(PATHS, max_size=2) | st.just(['["/a", "/b"]']),
    "USER": st.lists(OWNERS, max_size=1),
    "WORKDIR": st.lists(PATHS, max_size=1),
    "STOPSIGNAL": st.lists(st.sampled_from(["SIGTERM", "9", "$A", "SIGX"]), max_size=1),
    "MAINTAINER": st.lists(VALUES, max_size=2),
    "HEALTHCHECK": st.sampled_from(
        [["NONE"], ["CMD", "true"], ["CMD", '["a"]'], ["X"], ["none a"]]
    ),
    "NOPE": st.lists(VALUES, max_size=2),
}
KEYWORDS = [*ARGUMENTS, "ONBUILD"]


@st.composite
def _instruction(draw: st.DrawFn, keywords: list[str] = KEYWORDS) -> list[str]:
    """The words of one instruction."""
    keyword = draw(st.sampled_from(keywords))
    case: Callable[[str], str] = draw(
        st.sampled_from([str, str, str, str.lower, str.title])  # most people shout
    )
    if keyword == "ONBUILD":
        return [case(keyword), *draw(_instruction([*KEYWORDS, "ONBUILD"]))]
    flags = draw(st.lists(st.one_of(*FLAGS.get(keyword, [ANY_FLAG]), ANY_FLAG), max_size=2))
    if not draw(st.booleans()):
        flags = []
    return [case(keyword), *flags, *draw(ARGUMENTS[keyword])]


@st.composite
def _gap(draw: st.DrawFn, escape: str, *, sound: bool) -> str:
    """What stands between two words: mostly a blank, now and then a new line."""
    if draw(st.integers(0, 5)):
        return draw(st.sampled_from([" ", " ", "\t", "  "]) if sound else BLANKS)
    between = draw(st.lists(COMMENTS | st.sampled_from(["", "  "]), max_size=2))
    lead = draw(st.sampled_from([" ", ""]))
    tail = draw(st.sampled_from(["", "", " ", "\t"]))
    return f"{lead}{escape}{tail}\n" + "".join(f"{line}\n" for line in between) + "  "


@st.composite
def _laid_out(draw: st.DrawFn, words: list[str], escape: str, *, sound: bool = False) -> str:
    """The lines of an instruction, its heredocs below, and what stands above it."""
    above = draw(st.lists(COMMENTS | st.just(""), max_size=2)) if draw(st.booleans()) else []
    text = words[0]
    for word in words[1:]:
        text += draw(_gap(escape, sound=sound)) + word
    body = ""
    for name in ("E", "F"):
        if f"<<{name}" in text or (name == "E" and "<<" in text):
            lines = draw(st.lists(SHELLS | COMMENTS | VALUES, max_size=3))
            end = draw(st.sampled_from([name, name, name, name, f"\t{name}", f"{name} "]))
            body += "\n".join(["", *lines, end])
    tail = draw(st.sampled_from(["", " "] if sound else ["", "", "", " ", escape, f"{escape} "]))
    lead = draw(st.sampled_from(["", "", "", " ", "\t"]))
    return "\n".join([*above, lead + text + tail + body])


@st.composite
def _stage(draw: st.DrawFn, escape: str) -> list[str]:
    name = draw(STAGES)
    words = ["FROM", draw(IMAGES)]
    words += [draw(st.sampled_from(["AS", "as", "As"])), name] if draw(st.booleans()) else []
    if draw(st.integers(0, 3)) == 0:
        words.insert(1, draw(FLAGS["FROM"][0]))
    commands = draw(st.lists(_instruction(), max_size=6))
    return [draw(_laid_out(some, escape)) for some in [words, *commands]]


@st.composite
def dockerfiles(draw: st.DrawFn) -> str:
    """A file with directives, global arguments and stages; most have a mistake somewhere."""
    escape = draw(st.sampled_from(["\\", "\\", "\\", "`"]))
    lines = draw(st.lists(DIRECTIVES, max_size=2)) if draw(st.booleans()) else []
    lines += ["# escape=`"] if escape == "`" else []
    for pair in draw(st.lists(_PAIRS | NAMES, max_size=2)):
        lines.append(f"ARG {pair}")
    for _ in range(draw(st.integers(1, 3))):
        lines += draw(_stage(escape))
    text = "\n".join(lines) + draw(st.sampled_from(["\n", "", "\n\n"]))
    text = draw(st.sampled_from(["", "", "", "\ufeff"])) + text
    return text.replace("\n", "\r\n") if draw(st.integers(0, 7)) == 0 else text


@st.composite
def sound_dockerfiles(draw: st.DrawFn) -> str:
    """A file that nothing is wrong with, so that it comes through to a plan."""
    escape = draw(st.sampled_from(["\\", "`"]))
    lines = [f"# escape={escape}", "ARG BASE=alpine"]
    names: list[str] = []
    for number in range(draw(st.integers(1, 4))):
        base = draw(st.sampled_from(["alpine", "scratch", "$BASE", "busybox:1", *names]))
        lines.append(f"FROM {base} AS s{number}")
        commands = draw(st.lists(_sound(tuple(names)), max_size=8))
        lines += [draw(_laid_out(words, escape, sound=True)) for words in commands]
        names.append(f"s{number}")
    return "\n".join(lines) + "\n"


@functools.cache
def _sound(stages: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    values = st.sampled_from(["x", "$A", "${A:-y}", "'a b'", '"$B"', "${A#x}", "${A//x/y}"])
    pair = st.tuples(st.sampled_from(["A", "B", "C"]), values).map("=".join)
    paths = st.sampled_from(["a", "b/", "*.c", "./d", "/e"])
    from_ = st.sampled_from([f"--from={name}" for name in (*stages, "alpine")])
    return st.one_of(
        pair.map(lambda p: ["ENV", p]),
        pair.map(lambda p: ["LABEL", p]),
        pair.map(lambda p: ["ARG", p]),
        paths.map(lambda p: ["WORKDIR", p]),
        paths.map(lambda p: ["VOLUME", p]),
        st.tuples(paths, paths).map(lambda p: ["COPY", *p, "/dest/"]),
        st.tuples(from_, paths).map(lambda p: ["COPY", p[0], p[1], "/dest/"]),
        paths.map(lambda p: ["ADD", "--chown=1:2", "--chmod=644", p, "/dest/"]),
        from_.map(lambda f: ["RUN", f"--mount={f[2:]},target=/m", "make", "$A"]),
        st.just(["RUN", "--mount=type=cache,target=/c", "--network=none", "make"]),
        st.just(["RUN", '["make", "all"]']),
        st.just(["CMD", '["a", "b"]']),
        st.just(["ENTRYPOINT", "exec a"]),
        st.just(["SHELL", '["sh", "-xc"]']),
        st.just(["USER", "1:2"]),
        st.just(["EXPOSE", "80", "81-83/udp"]),
        st.just(["STOPSIGNAL", "SIGINT"]),
        st.just(["HEALTHCHECK", "--interval=3s", "CMD", "true"]),
        st.just(["ONBUILD", "RUN", "make"]),
    )


@functools.cache
def seeds() -> tuple[bytes, ...]:
    """Files to mutate: those of the fixtures, and the public ones where they are at hand."""
    found = [
        *(FIXTURES / "dockerfile").glob("*/Dockerfile"),
        *(FIXTURES / "fuzz" / "plan").iterdir(),
    ]
    inputs = CONFORMANCE / "parser" / "inputs"
    if inputs.is_dir():
        found += (path for path in inputs.rglob("*") if path.is_file())
    contents = {path.read_bytes() for path in sorted(found)}
    some = (data for data in contents if 0 < len(data) <= MAX_SEED)
    return tuple(sorted(some, key=lambda data: (len(data), data)))


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """A real file with bytes changed and lines deleted, repeated, swapped or of other files."""
    lines = draw(st.sampled_from(seeds())).split(b"\n")
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(
            st.sampled_from(["byte", "byte", "cut", "delete", "repeat", "swap", "foreign"])
        ):
            case "byte":
                column = draw(st.integers(0, len(lines[at])))
                byte = draw(st.sampled_from([*b"\\`\"'<$#{}[]=-, \t\r\n", 0, 0x80, 0xC3, 0xFF]))
                lines[at] = lines[at][:column] + bytes([byte]) + lines[at][column + 1 :]
            case "cut":
                lines[at] = lines[at][: draw(st.integers(0, len(lines[at])))]
            case "delete" if len(lines) > 1:
                del lines[at]
            case "swap":
                other = draw(st.integers(0, len(lines) - 1))
                lines[at], lines[other] = lines[other], lines[at]
            case "foreign":
                others = draw(st.sampled_from(seeds())).split(b"\n")
                lines.insert(at, draw(st.sampled_from(others)))
            case _:
                lines.insert(at, lines[at])
    return b"\n".join(lines)


_WORD_PIECES = [
    *("$A", "${A}", "${A:-", "${B-", "${A:+", "${B+", "${A:?", "${A#", "${A##", "${A%", "${A%%"),
    *("${A/", "${A//", "/", "}", "{", "$", "'", '"', "\\", "`", "*", "?", "[a-c]", "[^a]", "[!a]"),
    *(
        " ",
        "\t",
        "\u00a0",
        "a",
        "b",
        "abc",
        "é",
        "<<E",
        "<<",
        ":",
        "#",
        "0",
        "_",
        "\\*",
        "\\\\",
        "]",
    ),
]


def words() -> st.SearchStrategy[str]:
    """A word with variables in every form, closed or not."""
    return st.lists(st.sampled_from(_WORD_PIECES), max_size=12).map("".join)


def environments() -> st.SearchStrategy[dict[str, str]]:
    """Variables, among them those that `words` names."""
    values = st.sampled_from(["", "x", "abc", "aabbcc", "a b", "*", "a/b/c", "é", "$B", "\\", "'"])
    return st.dictionaries(st.sampled_from(["A", "B", "Ab", "0", "_"]), values, max_size=4)


_NAMES = ["a", "b", "foo", "foo.go", ".git", "a b", "x.md", "node_modules", "é", "[x]", "-"]
_IGNORED = [
    *_NAMES,
    "*",
    "**",
    "*.md",
    "fo?",
    "[a-c]",
    "[!a]",
    "[^f]oo",
    "**a",
    "a**",
    "\\*",
    ".",
    "..",
]


@st.composite
def ignore_patterns(draw: st.DrawFn) -> str:
    """One line of an ignore file."""
    parts = draw(st.lists(st.sampled_from(_IGNORED), min_size=1, max_size=4))
    lead = draw(st.sampled_from(["", "", "", "!", "/", "!/", " ", "! ", "#", "./"]))
    return lead + "/".join(parts) + draw(st.sampled_from(["", "", "/", " ", "\t", "\r"]))


def ignore_files() -> st.SearchStrategy[str]:
    """The text of an ignore file."""
    lines = st.lists(ignore_patterns() | st.just(""), max_size=6)
    return lines.map(lambda found: "\n".join(found) + "\n")


def paths() -> st.SearchStrategy[str]:
    """A path relative to the context."""
    return st.lists(st.sampled_from(_NAMES), min_size=1, max_size=4).map("/".join)

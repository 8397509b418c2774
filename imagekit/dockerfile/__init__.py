"""Dockerfile text to typed instructions, with no file, clock or process in sight.

    bytes -> lines -> nodes -> instructions -> stages
             lines.py  parser.py  instructions.py

`lines` undoes what the physical layout does: parser directives, continuations, comments and
heredocs. The parser then splits each logical line by its keyword's own grammar and builds one
frozen class an instruction. Words keep their quotes and variables: `words` expands them later,
when the stage's environment is known. `ignore` reads `.dockerignore` files and matches paths.

    file = parse(Path("Dockerfile").read_bytes())
    for stage in file.stages: ...
    expand("${TAG:-latest}", {"TAG": "3"}).result

    lines.py         physical lines to logical lines; directives.py the header
    grammar.py       a logical line to an untyped node; flags.py the flags of each instruction
    builders.py      a node to its instruction
    words.py         quotes, variables, splitting; globs.py the patterns of `${n#p}`
    ignore.py        ignore files; patterns.py one pattern of them, gopath.py Go's wildcards
    selection.py     what an ignore file leaves of a list of paths
    gitref.py        references to git repositories

Where the documentation of Dockerfiles and BuildKit's behaviour differ, this follows BuildKit.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from imagekit.dockerfile.instructions import (
    Add,
    Arg,
    ArgPair,
    Cmd,
    Command,
    Copy,
    Directive,
    Dockerfile,
    EmptyContinuation,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Heredoc,
    Instruction,
    KeyValue,
    Label,
    Maintainer,
    Node,
    Onbuild,
    Run,
    Shell,
    Stage,
    Stopsignal,
    SyntaxDirective,
    SyntaxTree,
    User,
    Volume,
    Workdir,
)

if TYPE_CHECKING:
    from imagekit.dockerfile.gitref import GitReference, parse_git_reference
    from imagekit.dockerfile.ignore import Matcher, parse_ignore
    from imagekit.dockerfile.parser import build_file, parse, parse_onbuild, parse_tree
    from imagekit.dockerfile.words import Expansion, expand, expand_words

_LAZY = {
    "Expansion": "words",
    "GitReference": "gitref",
    "Matcher": "ignore",
    "build_file": "parser",
    "expand": "words",
    "expand_words": "words",
    "parse": "parser",
    "parse_git_reference": "gitref",
    "parse_ignore": "ignore",
    "parse_onbuild": "parser",
    "parse_tree": "parser",
}

__all__ = [
    "Add",
    "Arg",
    "ArgPair",
    "Cmd",
    "Command",
    "Copy",
    "Directive",
    "Dockerfile",
    "EmptyContinuation",
    "Entrypoint",
    "Env",
    "Expansion",
    "Expose",
    "From",
    "GitReference",
    "Healthcheck",
    "Heredoc",
    "Instruction",
    "KeyValue",
    "Label",
    "Maintainer",
    "Matcher",
    "Node",
    "Onbuild",
    "Run",
    "Shell",
    "Stage",
    "Stopsignal",
    "SyntaxDirective",
    "SyntaxTree",
    "User",
    "Volume",
    "Workdir",
    "build_file",
    "expand",
    "expand_words",
    "parse",
    "parse_git_reference",
    "parse_ignore",
    "parse_onbuild",
    "parse_tree",
]


def __getattr__(name: str) -> object:
    """Import a module when the first of its names is asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_LAZY[name]}")
    return getattr(module, name)

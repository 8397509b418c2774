"""Dockerfile text to typed instructions, with no file, clock or process in sight.

    bytes -> lines -> nodes -> instructions -> stages
             lines.py  parser.py  instructions.py

`lines` undoes what the physical layout does: parser directives, continuations, comments and
heredocs. The parser then splits each logical line by its keyword's own grammar and builds one
frozen class an instruction. Words keep their quotes and variables: `words` expands them later,
when the stage's environment is known. `ignore` reads `.dockerignore` files and matches paths.

Where the documentation of Dockerfiles and BuildKit's behaviour differ, this follows BuildKit.
"""

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
    "Expose",
    "From",
    "Healthcheck",
    "Heredoc",
    "Instruction",
    "KeyValue",
    "Label",
    "Maintainer",
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
]

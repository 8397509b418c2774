"""The codes of errors that a Dockerfile can have, each with a file that has it.

`DockerfileError.code` is stable: programs may look at it. Codes of the machine around a Dockerfile
(stores, registries, sandboxes) stand with their classes in `imagekit.errors`.
"""

from collections.abc import Mapping

from attrs import frozen


@frozen
class Code:
    """What a code says, and an example: a whole Dockerfile.

    Attributes:
        meaning: a sentence.
        example: a file that gives the error when it is planned; empty where more than a file is
            needed.
        at_build: the example gives the error only when it is built, with files `a` and `b`.
    """

    meaning: str
    example: str = ""
    at_build: bool = False


CODES: Mapping[str, Code] = {
    "base-name-blank": Code("Nothing remains of the name behind FROM.", "FROM $X\n"),
    "blank-name": Code("A variable or label has no name.", "FROM a\nENV =1\n"),
    "cannot-be-written": Code("An instruction was edited to what no text stands for."),
    "check-directive-invalid": Code(
        "The options of `# check=` are not well formed.", "# check=nope=1\nFROM scratch\n"
    ),
    "checksum-invalid": Code(
        "ADD --checksum is no digest, or what is added cannot have one.",
        "FROM scratch\nADD --checksum=x https://example.com/a /\n",
    ),
    "chmod-invalid": Code("--chmod is no mode.", "FROM scratch\nCOPY --chmod=zz a /\n"),
    "chown-invalid": Code(
        "--chown is a number that is no id.",
        "FROM scratch\nCOPY --chown=99999999999 a /\n",
        at_build=True,
    ),
    "copy-many-to-file": Code(
        "A file is where a directory must be, or the other way round.",
        "FROM scratch\nCOPY a /x\nCOPY a b /x/\n",
        at_build=True,
    ),
    "date-invalid": Code(
        "SOURCE_DATE_EPOCH is neither a number nor names anything that has a time.",
        "ARG SOURCE_DATE_EPOCH=today\nFROM scratch\n",
    ),
    "directive-repeated": Code(
        "A parser directive is given twice.", "# escape=`\n# escape=`\nFROM a\n"
    ),
    "dockerfile-not-found": Code("There is no Dockerfile where it was looked for."),
    "dockerfile-unreadable": Code("The Dockerfile is there and cannot be read."),
    "duplicate-flag": Code("A flag is given twice.", "FROM a\nCOPY --chown=1 --chown=2 a b\n"),
    "escape-directive-invalid": Code(
        "The escape character is neither a backslash nor a backquote.", "# escape=x\nFROM a\n"
    ),
    "exec-failed": Code("The command of a RUN failed."),
    "expansion": Code("A variable cannot be expanded.", "FROM scratch\nUSER ${X\n"),
    "file-too-large": Code("The file has more than a megabyte."),
    "flag-value-invalid": Code(
        "A flag is neither true nor false.", "FROM a\nCOPY --link=maybe a b\n"
    ),
    "flag-value-missing": Code("A flag lacks its value.", "FROM a\nCOPY --chown a b\n"),
    "from-arguments": Code("FROM is not IMAGE or IMAGE AS NAME.", "FROM a b\n"),
    "from-variable": Code(
        "A variable stands in --from; --expand-from allows that.",
        "ARG S=a\nFROM scratch\nCOPY --from=$S / /\n",
    ),
    "git-keep-conflict": Code(
        "ADD --keep-git-dir and the query of the repository contradict each other.",
        "FROM scratch\nADD --keep-git-dir=false https://example.com/a.git?keep-git-dir=true /\n",
    ),
    "git-reference-invalid": Code(
        "The query of a repository asks for what cannot be.",
        "FROM scratch\nADD https://example.com/a.git?nope=1 /\n",
    ),
    "healthcheck-invalid": Code("HEALTHCHECK is not well formed.", "FROM a\nHEALTHCHECK X\n"),
    "heredoc-as-destination": Code("The destination is a heredoc.", "FROM a\nCOPY a <<E\nE\n"),
    "heredoc-unterminated": Code("A heredoc is not closed.", "FROM a\nRUN <<E\nx\n"),
    "json-not-strings": Code("A JSON array holds more than strings.", "FROM a\nRUN [1]\n"),
    "json-required": Code("SHELL is not in JSON form.", "FROM a\nSHELL sh\n"),
    "line-too-long": Code("A line has more than 65,535 bytes."),
    "lint-as-error": Code(
        "There are findings, and `# check=error=true` makes them errors.",
        "# check=error=true\nFROM scratch AS A\n",
    ),
    "missing-equals": Code("A pair lacks its `=`.", "FROM a\nENV a=1 b\n"),
    "mount-invalid": Code(
        "A mount or device is not well formed.", "FROM scratch\nRUN --mount=a=b x\n"
    ),
    "needs-one-argument": Code("An argument is missing, or there are too many.", "FROM a\nUSER\n"),
    "needs-two-arguments": Code("An instruction needs two arguments.", "FROM a\nCOPY a\n"),
    "network-invalid": Code("RUN --network is unknown.", "FROM a\nRUN --network=x y\n"),
    "no-instructions": Code("The file is empty, or all comments.", "# nothing\n"),
    "no-stages": Code("An instruction stands above FROM, or there is none.", "RUN x\n"),
    "not-allowed": Code("RUN asks for what has to be allowed with --allow."),
    "onbuild-forbidden": Code("This cannot be a trigger.", "FROM a\nONBUILD FROM b\n"),
    "onbuild-trigger": Code("A trigger of a base image is not one instruction."),
    "other": Code("What has no code of its own.", "FROM scratch\nRUN --device=a/b=c x\n"),
    "pattern-invalid": Code(
        "A pattern of paths is not well formed.",
        "FROM scratch\nCOPY --exclude=[ a /\n",
        at_build=True,
    ),
    "platform-invalid": Code("A platform is not OS/ARCH.", "FROM --platform=a/b/c/d/e scratch\n"),
    "port-invalid": Code("EXPOSE has no port.", "FROM scratch\nEXPOSE x\n"),
    "reference-invalid": Code("The name of an image is not well formed.", "FROM A\n"),
    "secret-not-found": Code("A RUN needs a secret that was not given."),
    "security-invalid": Code("RUN --security is unknown.", "FROM a\nRUN --security=x y\n"),
    "sharing-invalid": Code(
        "The sharing of a cache is unknown.",
        "FROM scratch\nRUN --mount=type=cache,target=/c,sharing=x y\n",
    ),
    "signal-invalid": Code("STOPSIGNAL is no signal.", "FROM scratch\nSTOPSIGNAL nope\n"),
    "source-not-found": Code(
        "What COPY or ADD names is not there.", "FROM scratch\nCOPY c /\n", at_build=True
    ),
    "stage-cycle": Code(
        "Stages read each other.",
        "FROM scratch AS a\nCOPY --from=b / /\nFROM scratch AS b\nCOPY --from=a / /\n",
    ),
    "stage-index-invalid": Code("No stage has that number.", "FROM scratch\nCOPY --from=7 / /\n"),
    "stage-name-invalid": Code("This cannot name a stage.", "FROM a AS 1\n"),
    "stage-not-defined-yet": Code(
        "A stage is read above where it is made.",
        "FROM scratch AS a\nCOPY --from=b / /\nFROM scratch AS b\nFROM a\n",
    ),
    "target-not-found": Code("There is no stage of the name that is to be built."),
    "too-many-instructions": Code("The file has more than 10,000 instructions."),
    "unknown-flag": Code("The instruction has no such flag.", "FROM a\nCOPY --form=b a b\n"),
    "unknown-instruction": Code("There is no such instruction.", "FROM a\nRNU x\n"),
    "url-in-copy": Code("COPY cannot download.", "FROM scratch\nCOPY https://example.com/a /\n"),
    "user-unknown": Code(
        "--chown names somebody the image does not know.",
        "FROM scratch\nCOPY --chown=me a /\n",
        at_build=True,
    ),
    "volume-empty": Code("VOLUME has no path.", 'FROM a\nVOLUME [""]\n'),
}
"""Code -> what it says."""

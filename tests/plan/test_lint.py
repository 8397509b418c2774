"""Build checks: what each rule says and where, what turns them off, and how a report looks."""

import base64
import json

import pytest

from imagekit.dockerfile.ignore import Matcher
from imagekit.errors import DockerfileError, ImageNotFoundError, UsageError
from imagekit.plan import (
    RULES,
    BaseRequest,
    CheckOptions,
    CheckReport,
    ResolvedBase,
    check,
    lower,
    missing_bases,
)
from imagekit.plan.checks import as_warnings
from imagekit.plan.spelling import similar
from tests.support.plans import AMD64, base, graph_of, traced

BASE = {"Env": ["PATH=/bin"]}


def resolve(request: BaseRequest) -> ResolvedBase:
    return base(request, BASE)


def report_of(text: str, **options: object) -> CheckReport:
    given = {"build": AMD64, "resolve": resolve, **options}
    return check(text, **given)


def found(text: str, **options: object) -> list[tuple[str, int, str]]:
    report = report_of(text, **options)
    return [(f.rule.name, f.span.line, f.detail) for f in report.warnings]


def names(text: str, **options: object) -> list[str]:
    return [name for name, _, _ in found(text, **options)]


@pytest.mark.parametrize(
    ("text", "rule", "line", "detail"),
    [
        ("FROM a AS Up\n", "StageNameCasing", 1, "Stage name 'Up' should be lowercase"),
        ("FROM a as b\n", "FromAsCasing", 1, "'as' and 'FROM' keywords' casing do not match"),
        ("FROM a\nRUN x \\\n\n y\n", "NoEmptyContinuation", 4, "Empty continuation line"),
        (
            "FROM a\nrun x\nRUN y\n",
            "ConsistentInstructionCasing",
            2,
            "Command 'run' should match the case of the command majority (uppercase)",
        ),
        (
            "FROM a AS x\nFROM a AS x\n",
            "DuplicateStageName",
            2,
            'Duplicate stage name "x", stage names should be unique',
        ),
        (
            "FROM a AS context\n",
            "ReservedStageName",
            1,
            'Stage name should not use the same name as reserved stage "context"',
        ),
        (
            "FROM a\nENTRYPOINT x\n",
            "JSONArgsRecommended",
            2,
            (
                "JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related"
                " to OS signals"
            ),
        ),
        (
            "FROM a\nMAINTAINER me\n",
            "MaintainerDeprecated",
            2,
            "Maintainer instruction is deprecated in favor of using label",
        ),
        (
            "ARG TAG=1\nFROM a:1${TGA}\n",
            "UndefinedArgInFrom",
            2,
            "FROM argument 'TGA' is not declared (did you mean TAG?)",
        ),
        (
            "FROM a\nWORKDIR x\nWORKDIR y\n",
            "WorkdirRelativePath",
            2,
            'Relative workdir "x" can have unexpected results if the base image changes',
        ),
        (
            "FROM a\nENV X=$PAHT\n",
            "UndefinedVar",
            2,
            "Usage of undefined variable '$PAHT' (did you mean $PATH?)",
        ),
        (
            'FROM a\nCMD ["x"]\nCMD ["y"]\n',
            "MultipleInstructionsDisallowed",
            2,
            (
                "Multiple CMD instructions should not be used in the same stage because only the"
                " last one will be used"
            ),
        ),
        (
            "FROM a\nLABEL k v\n",
            "LegacyKeyValueFormat",
            2,
            '"LABEL key=value" should be used instead of legacy "LABEL key value" format',
        ),
        (
            "FROM --platform=$TARGETPLATFORM a\n",
            "RedundantTargetPlatform",
            1,
            (
                "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is"
                " the default behavior"
            ),
        ),
        (
            "FROM a\nARG API_TOKEN\n",
            "SecretsUsedInArgOrEnv",
            2,
            'Do not use ARG or ENV instructions for sensitive data (ARG "API_TOKEN")',
        ),
        (
            "ARG V\nFROM a:$V\n",
            "InvalidDefaultArgInFrom",
            2,
            "Default value for ARG a:$V results in empty or invalid base image name",
        ),
        (
            "FROM --platform=linux/arm64 a\n",
            "FromPlatformFlagConstDisallowed",
            1,
            'FROM --platform flag should not use constant value "linux/arm64"',
        ),
        (
            "FROM a\nADD ./key /\n",
            "CopyIgnoredFile",
            2,
            'Attempting to Add file "key" that is excluded by .dockerignore',
        ),
        (
            "# check=experimental=all\n# wrong words\nFROM a AS b\n",
            "InvalidDefinitionDescription",
            3,
            "Comment for FROM should follow the format: `# b <description>`",
        ),
        (
            "FROM a\nEXPOSE 80/TCP\n",
            "ExposeProtoCasing",
            2,
            "Defined protocol '80/TCP' in EXPOSE instruction should be lowercase",
        ),
        (
            "FROM a\nEXPOSE 1:80\n",
            "ExposeInvalidFormat",
            2,
            (
                "EXPOSE instruction should not define an IP address or host-port mapping, found"
                " '1:80'"
            ),
        ),
    ],
)
def test_what_a_rule_says(text: str, rule: str, line: int, detail: str) -> None:
    report = report_of(text, build_args={"V": "1"}, ignore=Matcher(["key"]))
    assert [(f.rule.name, f.span.line, f.detail) for f in report.warnings] == [
        (rule, line, detail)
    ]
    assert report.error is None


def test_a_base_of_another_platform() -> None:
    def wrong(request: BaseRequest) -> ResolvedBase:
        arm = BaseRequest(reference=request.reference, platform=graph_of("FROM a").platform)
        return base(arm, BASE)

    text = "FROM --platform=linux/arm64 img AS arm64\nRUN x\n"
    message = (
        'Base image img was pulled with platform "linux/amd64", expected "linux/arm64" for current'
        " build"
    )
    assert found(text, resolve=wrong) == [("InvalidBaseImagePlatform", 1, message)]


@pytest.mark.parametrize(
    "text",
    [
        "from a as b\nrun x\n",
        "FROM a\nRUN $X ${Y}\n",
        "FROM a\nARG X\nENV Y=$X\n",
        "FROM a\nARG X Y=$X\n",
        "FROM a\nARG Y\nENV X=${Y:-}\n",
        'FROM a\nSHELL ["/bin/bash", "-c"]\nCMD x\n',
        "FROM a AS b\nWORKDIR /x\nFROM b\nWORKDIR y\n",
        "FROM --platform=$BUILDPLATFORM a\n",
        "FROM --platform=linux/arm64 a AS build-arm64\n",
        "FROM a\nENV KEY_FILE=x PUBLIC_KEY=y TOKEN_VERSION=z KEYS=1 MONKEY=2\n",
        "FROM a\nARG BUILDKIT_SBOM_SCAN_STAGE\nENV X=$BUILDKIT_SBOM_SCAN_CONTEXT\n",
        "# b what it is\nFROM a AS b\n",
        "FROM a\nCOPY --from=b key /\n",
        "FROM a\nADD https://h/key /\n",
        "FROM a\nCOPY <<key /\nx\nkey\n",
        "FROM a\nCMD []\nHEALTHCHECK NONE\nFROM a\nCMD []\n",
    ],
)
def test_what_is_fine(text: str) -> None:
    assert found(text, ignore=Matcher(["key"])) == []


def test_exceptions_make_ignore_files_too_hard_to_judge() -> None:
    assert names("FROM a\nCOPY key /\n", ignore=Matcher(["key", "!key/x"])) == []


def test_each_word_that_uses_an_undefined_name_is_a_finding() -> None:
    assert names("FROM a\nENV X=$U Y=$U\n") == ["UndefinedVar"] * 2
    assert names("FROM a\nCOPY <<E /\n$U\nE\n") == ["UndefinedVar"]
    assert names("FROM a\nRUN --mount=target=/$U x\n") == ["UndefinedVar"]


def test_triggers_are_judged_at_the_from_that_runs_them() -> None:
    text = "FROM a AS b\nONBUILD ENV K v\nFROM b\n"
    assert [(n, line) for n, line, _ in found(text)] == [("LegacyKeyValueFormat", 3)]


def test_all_stages_are_checked_unless_one_is_asked_for() -> None:
    text = "FROM a AS unused\nCMD x\nFROM a AS last\n"
    assert names(text) == ["JSONArgsRecommended"]
    assert names(text, stage="last") == []
    assert traced(text).plan.warnings == ()


@pytest.mark.parametrize(
    ("directive", "expected"),
    [
        ("", ["MaintainerDeprecated", "JSONArgsRecommended"]),
        ("# check=skip=all\n", []),
        ("# check=skip=JSONArgsRecommended\n", ["MaintainerDeprecated"]),
        ("#Check = skip=JSONArgsRecommended,MaintainerDeprecated;error=true\n", []),
        ("# syntax=x\n# check=skip=JSONArgsRecommended\n", ["MaintainerDeprecated"]),
        ("# note\n# check=skip=all\n", ["MaintainerDeprecated", "JSONArgsRecommended"]),
    ],
)
def test_the_options_of_a_file(directive: str, expected: list[str]) -> None:
    assert names(f"{directive}FROM a\nMAINTAINER x\nCMD y\n") == expected


def test_the_build_argument_stands_in_for_the_options_of_the_file() -> None:
    text = "# check=skip=JSONArgsRecommended\nFROM a\nMAINTAINER x\nCMD y\n"
    given = {"BUILDKIT_DOCKERFILE_CHECK": "skip=MaintainerDeprecated"}
    assert names(text, build_args=given) == ["JSONArgsRecommended"]


def test_a_comment_right_above_speaks_for_its_instruction_alone() -> None:
    text = "FROM a\n# check=skip=JSONArgsRecommended\nCMD y\nENTRYPOINT z\n"
    assert [(n, line) for n, line, _ in found(text)] == [("JSONArgsRecommended", 4)]
    assert names("FROM a\n# check=nonsense\nCMD y\n") == ["JSONArgsRecommended"]
    text = "FROM a\n# check=experimental=InvalidDefinitionDescription\nARG X\n"
    assert names(text) == ["InvalidDefinitionDescription"]


@pytest.mark.parametrize("text", ["foo=bar", "skip", "error=perhaps", ";", "skip=a;error=1;x;y"])
def test_options_that_cannot_be_read(text: str) -> None:
    with pytest.raises(UsageError):
        CheckOptions.parse(text)
    report = report_of(f"# check={text}\nFROM a\n")
    assert report.error is not None
    assert report.error.code == "check-directive-invalid"
    assert report.warnings == ()


def test_findings_can_be_errors() -> None:
    text = "# check=error=true\nFROM a\nCMD x\nMAINTAINER me\nCMD y\n"
    with pytest.raises(DockerfileError) as caught:
        traced(text)
    assert caught.value.code == "lint-as-error"
    assert caught.value.message == (
        "lint violation found for rules: MaintainerDeprecated, JSONArgsRecommended,"
        " MultipleInstructionsDisallowed"
    )


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("FROM a AS Up\nMAINTAINER\nCMD x\n", "needs-one-argument"),
        ("FROM a AS Up\nMAINTAINER x\nNOPE\nMAINTAINER y\n", "unknown-instruction"),
        ("FROM a AS Up\nMAINTAINER x\nCOPY --from=9 a b\nCMD x\n", "stage-index-invalid"),
        ("FROM a AS Up\nMAINTAINER x\nVOLUME ''\nCMD x\n", "volume-empty"),
    ],
)
def test_what_comes_before_an_error_is_still_found(text: str, code: str) -> None:
    report = report_of(text)
    assert report.error is not None
    assert report.error.code == code
    assert [f.rule.name for f in report.warnings] == ["StageNameCasing", "MaintainerDeprecated"]


def test_a_name_that_has_no_value_counts_even_where_that_is_an_error() -> None:
    report = report_of("FROM a\nENV X=${NOPE:?empty}\n")
    assert report.error is not None
    assert [f.rule.name for f in report.warnings] == ["UndefinedVar"]


def test_a_plan_has_its_warnings_with_the_lines_that_they_are_about() -> None:
    graph = graph_of("FROM scratch\nCOPY a \\\n  # note\n  /$NOPE\n")
    assert missing_bases(graph, {}) == frozenset()
    (warning,) = lower(graph, {}).warnings
    assert warning.code == "UndefinedVar"
    assert warning.span is not None
    assert warning.span.place == "4:4"
    assert warning.excerpt == "2 | COPY a \\\n3 |   # note\n4 |   /$NOPE\n  |    ^^^^^"
    assert warning.url.endswith("/undefined-var/")
    assert lower(graph, {}).warnings == (warning,)


@pytest.mark.parametrize(
    ("text", "caret"),
    [
        ("ENV X=$AB$A", "         ^^"),
        ("ENV X=a${A:-b}c", "       ^^^^^^^"),
    ],
)
def test_the_caret_is_below_the_variable(text: str, caret: str) -> None:
    report = report_of(f"FROM scratch\nARG AB\n{text}\n")
    (warning,) = as_warnings(report.warnings, source=report.source, filename="Dockerfile")
    assert warning.excerpt.split("\n")[1] == f"  | {caret}"


def test_an_error_on_a_continuation_line_has_its_caret_there() -> None:
    lines = "".join(f" A{n}=1 \\\n" for n in range(8))
    with pytest.raises(DockerfileError) as caught:
        traced(f"FROM scratch\nENV \\\n{lines} B=${{X!}} \\\n C=1\n")
    error = caught.value
    assert error.place == "Dockerfile:11:4"
    assert error.excerpt() == (
        " 2 | ENV \\\n   : ...\n10 |  A7=1 \\\n11 |  B=${X!} \\\n   |    ^^^^^\n12 |  C=1"
    )


def test_a_report_as_text() -> None:
    report = report_of("FROM scratch\nCMD x\n\n\nENV A=1\n")
    assert not report.is_clean
    rule = "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/"
    assert report.to_text() == (
        "Check complete, 1 warning has been found!\n\n"
        f"WARNING: JSONArgsRecommended - {rule}\n"
        "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals\n"
        "Dockerfile:2\n--------------------\n"
        "   1 |     FROM scratch\n   2 | >>> CMD x\n   3 |     \n   4 |     \n"
        "--------------------\n"
    )
    clean = report_of("FROM scratch\n")
    assert clean.is_clean
    assert clean.to_text() == "Check complete, no warnings found.\n"


def test_a_report_as_json() -> None:
    report = report_of("FROM scratch\nCOPY \\\n $X /\nUSER ${Y!}\n")
    document = json.loads(json.dumps(report.to_json()))
    (warning,) = document["warnings"]
    assert warning == {
        "ruleName": "UndefinedVar",
        "description": "Variables should be defined before their use",
        "url": "https://docs.docker.com/go/dockerfile/rule/undefined-var/",
        "detail": "Usage of undefined variable '$X'",
        "location": {
            "ranges": [{"start": {"line": n}, "end": {"line": n}} for n in (2, 3)],
        },
    }
    (source,) = document["sources"]
    assert base64.b64decode(source["data"]).decode() == report.source
    assert document["buildError"]["location"]["ranges"][0]["start"] == {"line": 4}


def test_a_base_that_cannot_be_had_is_the_error_of_the_report() -> None:
    def fail(request: BaseRequest) -> ResolvedBase:
        raise ImageNotFoundError(f"no {request}")

    report = report_of("FROM a AS Up\n", resolve=fail)
    assert isinstance(report.error, ImageNotFoundError)
    assert [f.rule.name for f in report.warnings] == ["StageNameCasing"]
    assert "ERROR: no docker.io/library/a:latest" in report.to_text()


def test_the_rules_are_those_of_buildkit() -> None:
    assert len(RULES) == 22
    assert [rule.name for rule in RULES if rule.experimental] == ["InvalidDefinitionDescription"]
    assert [rule.name for rule in RULES if not rule.url] == ["InvalidBaseImagePlatform"]


@pytest.mark.parametrize(
    ("name", "known", "near"),
    [
        ("PAHT", ["HOME", "PATH"], "PATH"),
        ("GOPATH", ["PATH"], "PATH"),
        ("A", ["B", "C"], "B"),
        ("AB", ["XYZ", "AC", "ABC"], "AC"),
        ("NOTHING", ["PATH"], ""),
        ("A", [], ""),
    ],
)
def test_similar_names_are_at_most_two_edits_away(name: str, known: list[str], near: str) -> None:
    assert similar(name, known) == near

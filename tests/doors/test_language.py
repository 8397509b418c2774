"""Looking at Dockerfiles: parse, plan, check, outline, targets and pin, as API and commands."""

import base64
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

import imagekit
from imagekit.errors import DockerfileError
from imagekit.oci.platform import Platform
from tests.support.building import Project
from tests.support.commands import Command
from tests.support.registry_server import RegistryServer

TEXT = """# VERSION  of the tool
ARG VERSION=1.21
ARG UNUSED=1

# base common things
FROM scratch AS base
COPY a /

FROM base AS build
ARG VERSION
# DEBUG turns on debugging
ARG DEBUG=no
RUN --mount=type=secret,id=token,required=true --mount=type=ssh make

FROM scratch AS unused
COPY --from=build / /x

FROM base
COPY --from=build /out /
CMD ["/out"]
"""


@pytest.fixture(autouse=True)
def _project(project: Project) -> None:
    project.write({"a": "content"}).dockerfile(TEXT)


def answer(command: Command, *words: str) -> Any:
    said = command.run(*words)
    assert said.code == 0, said.err
    return json.loads(said.out)


def test_parse_takes_a_path_text_or_bytes(project: Project) -> None:
    path = project.context / "Dockerfile"
    by_path = imagekit.parse(path)
    assert by_path.filename == str(path)
    assert imagekit.parse(TEXT).stages == by_path.stages
    assert imagekit.parse(TEXT.encode()).stages == imagekit.parse(str(path)).stages
    with pytest.raises(DockerfileError, match="no Dockerfile at"):
        imagekit.parse("nowhere")


def test_parse_prints_instructions(command: Command) -> None:
    document = answer(command, "parse", "context/Dockerfile", "--format=json")
    assert [stage["name"] for stage in document["stages"]] == ["base", "build", "unused", ""]
    run = document["stages"][1]["instructions"][3]
    assert (run["instruction"], run["span"]["line"]) == ("RUN", 13)
    assert run["arguments"]["mounts"] == ["type=secret,id=token,required=true", "type=ssh"]
    assert "13 |   RUN --mount" in command.run("parse", "context/Dockerfile").out


def test_parse_reads_standard_input(command: Command) -> None:
    said = command.run("parse", "-", "--format=json", stdin=b"FROM a\nCOPY <<E /\n\xff\nE\n")
    copy = json.loads(said.out)["stages"][0]["instructions"][1]
    assert copy["heredocs"][0]["content"] == "\ufffd\n"


def test_all_errors_of_a_file_are_told(command: Command) -> None:
    command.project.dockerfile("FROM a\nRNU x\nCOPY --form=b a b\nENV a=1\nUSER\n")
    said = command.run("parse", "context/Dockerfile")
    assert said.code == 1
    errors = [line for line in said.lines if ": error: " in line]
    assert [line.split(":")[1] for line in errors] == ["2", "3", "5"]
    assert said.lines[-1] == "3 errors"


def test_plan_says_what_a_build_would_do(command: Command) -> None:
    (plan,) = answer(command, "plan", "context", "--format=json")["plans"]
    assert [step["op"]["type"] for step in plan["steps"]] == [
        "base",
        "local",
        "copy",
        "exec",
        "copy",
    ]
    assert plan["steps"][-1]["inputs"] == [2, 3]
    assert plan["config"]["config"]["Cmd"] == ["/out"]
    assert [s["name"] for s in plan["stages"] if not s["reached"]] == ["unused"]
    assert plan["stages"][1]["args"] == {"VERSION": "1.21", "DEBUG": "no"}
    text = command.run("plan", "context", "--target=build").out
    assert "[build 1/1] RUN" in text
    assert "not needed: unused, stage 3" in text


def test_plan_takes_the_options_of_a_build(command: Command) -> None:
    words = ("--build-arg=VERSION=2", "--platform=linux/arm64,linux/amd64", "--label=k=v")
    plans = answer(command, "plan", "context", "--format=json", *words)["plans"]
    assert [plan["platform"] for plan in plans] == ["linux/arm64", "linux/amd64"]
    assert plans[0]["stages"][1]["args"]["VERSION"] == "2"
    assert plans[0]["config"]["config"]["Labels"] == {"k": "v"}


def test_plan_runs_nothing_and_fetches_no_layer(busybox: Project) -> None:
    busybox.dockerfile("FROM busybox\nRUN exit 1\n")
    planned = imagekit.plan_build(
        busybox.context, build_contexts=busybox.contexts, store=busybox.store
    )
    (plan,) = planned.to_json()["plans"]
    assert plan["steps"][1]["op"]["argv"] == ["/bin/sh", "-c", "exit 1"]
    with imagekit.Store(busybox.store) as store:
        digests = [layer["digest"] for layer in plan["steps"][0]["op"]["layers"]]
        blobs = {path.name for path in store.path.rglob("*") if path.is_file()}
    assert not blobs & {digest.partition(":")[2] for digest in digests}


def test_the_graph_is_drawn(command: Command) -> None:
    mermaid = command.run("plan", "context", "--format=mermaid").out
    assert mermaid.startswith("flowchart LR\n")
    assert '["build<br/>3 instructions"]' in mermaid
    assert "-->|COPY|" in mermaid
    assert "unused" in mermaid
    picture = ET.fromstring(command.run("plan", "context", "--format=svg").out)
    space = "{http://www.w3.org/2000/svg}"
    texts = [text.text for text in picture.iter(f"{space}text")]
    assert {"base", "build", "unused", "stage 3", "scratch"} <= set(texts)
    boxes = [rect.attrib for rect in picture.iter(f"{space}rect") if "x" in rect.attrib]
    assert len(boxes) == 5
    assert sum("stroke-dasharray" in box for box in boxes) == 1


def test_boxes_of_a_drawing_do_not_overlap(tmp_path: Path) -> None:
    text = "FROM scratch AS s0\n" + "".join(
        f"FROM {'scratch' if n % 3 else f's{n - 1}'} AS s{n}\nCOPY --from=s{n // 2} / /\n"
        for n in range(1, 30)
    )
    (tmp_path / "Dockerfile").write_text(text)
    picture = ET.fromstring(imagekit.plan_build(tmp_path, store=tmp_path / "store").to_svg())
    boxes = []
    for rect in picture.iter("{http://www.w3.org/2000/svg}rect"):
        if "x" in rect.attrib:
            x, y, w, h = (float(rect.attrib[k]) for k in ("x", "y", "width", "height"))
            boxes.append((x, y, x + w, y + h))
    assert len(boxes) == 31
    assert not [
        (one, two)
        for one in boxes
        for two in boxes
        if one < two
        and one[0] < two[2]
        and two[0] < one[2]
        and one[1] < two[3]
        and two[1] < one[3]
    ]


def test_the_outline_has_the_shape_of_buildkit(command: Command) -> None:
    outline = answer(command, "build", "--call=outline,format=json", "context")
    assert [arg["name"] for arg in outline["args"]] == ["VERSION", "DEBUG"]
    assert outline["args"][0] == {
        "name": "VERSION",
        "description": "of the tool",
        "value": "1.21",
        "location": {"ranges": [{"start": {"line": 2}, "end": {"line": 2}}]},
    }
    assert outline["secrets"][0]["name"] == "token"
    assert outline["secrets"][0]["required"] is True
    assert outline["ssh"][0]["name"] == "default"
    assert base64.b64decode(outline["sources"][0]).decode() == TEXT
    assert "name" not in outline
    assert "expandFrom" not in outline


def test_the_outline_is_of_the_target_and_says_what_goes_beyond_buildkit(command: Command) -> None:
    words = ("--target=base", "--expand-from")
    assert command.run("build", "--call=outline", *words, "context").out == (
        "TARGET:      base\nDESCRIPTION: common things\n\n"
        "Variables in COPY --from and RUN --mount from= are expanded.\n\n"
    )


def test_targets_are_listed(command: Command) -> None:
    assert command.run("build", "--call=targets", "context").out == (
        "TARGET      DESCRIPTION\nbase        common things\nbuild       \nunused      \n"
        "(default)   \n"
    )
    targets = answer(command, "build", "--call=targets,format=json", "context")["targets"]
    assert targets[-1] == {
        "default": True,
        "base": "base",
        "location": {"ranges": [{"start": {"line": 18}, "end": {"line": 18}}]},
    }


def test_expand_from_builds(project: Project) -> None:
    text = "ARG S=one\nFROM scratch AS one\nCOPY a /one\nFROM scratch\nCOPY --from=$S / /\n"
    assert sorted(project.build(text, expand_from=True).tree) == ["one"]
    with pytest.raises(DockerfileError) as raised:
        project.build(text)
    assert raised.value.code == "from-variable"


UGLY = b"""FROM scratch as Base\r
env A 1  2 \\\r
   # why\r
   3\r
FROM base\r
MAINTAINER "me" $x\r
EXPOSE 80/TCP 81\r
CMD ["a"]\r
COPY a \\\r
\r
  /b\r
CMD ["b"]\r
"""
CLEAN = b"""FROM scratch AS base\r
ENV A="1  2 \\\r
   # why\r
   3"\r
FROM base\r
LABEL org.opencontainers.image.authors="\\"me\\" \\$x"\r
EXPOSE 80/tcp 81\r
COPY a \\\r
  /b\r
CMD ["b"]\r
"""


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_check_mends_and_disturbs_nothing_else(command: Command, mark: bytes) -> None:
    command.project.write({"Dockerfile": mark + UGLY})
    assert command.run("check", "context").code == 1
    assert command.build("--check").code == 1
    said = command.run("check", "--fix", "context")
    assert said.out == "Check complete, no warnings found.\n", said.out
    assert said.code == 0
    assert "context/Dockerfile:1: fixed FromAsCasing" in said.lines
    fixed = (command.project.context / "Dockerfile").read_bytes()
    assert fixed == mark + CLEAN


def test_what_cannot_be_mended_stays_and_fails(command: Command) -> None:
    text = "FROM scratch\nCMD echo\n"
    command.project.dockerfile(text)
    assert command.run("check", "--fix", "context").code == 1
    assert (command.project.context / "Dockerfile").read_text() == text
    report = command.build("--call=check,format=json")
    assert report.code == 1
    warnings = json.loads(report.out)["warnings"]
    assert [warning["ruleName"] for warning in warnings] == ["JSONArgsRecommended"]


@pytest.mark.parametrize("call", ["nope", "outline,format=xml", "check,json"])
def test_a_call_that_is_none_is_a_wrong_command_line(command: Command, call: str) -> None:
    assert command.build(f"--call={call}").code == 2


def test_pin_writes_digests(command: Command, registry: RegistryServer) -> None:
    image = f"{registry.host}/pinned/a"
    command.project.dockerfile("FROM scratch\nCOPY a /\n")
    pushed = command.build(f"-o=type=registry,name={image}:1", f"-t={image}:1")
    assert pushed.code == 0, pushed.err
    digest = imagekit.inspect(f"docker://{image}:1", store=command.project.store).document
    name = f"{image}:1@{digest.descriptor.digest}"
    text = (
        f"ARG V=1\nFROM  {image}:1 \\\n  AS one\nFROM {image}:$V\nCOPY --from=one / /\n"
        f"COPY --from={image}:1 / /\nRUN --mount=target=/m,from={image}:1 x\n"
        f"FROM {name}\nFROM one\n"
    )
    command.project.dockerfile(text)
    said = command.run("pin", "context/Dockerfile")
    want = text.replace(f"{image}:1 ", f"{name} ").replace(f"{image}:$V", "KEEP")
    assert said.out.replace(f"{image}:$V", "KEEP") == want
    assert f"context/Dockerfile:4: {image}:$V has variables and stays as it is" in said.lines
    assert command.run("pin", "--write", "context/Dockerfile").code == 0
    assert (command.project.context / "Dockerfile").read_text() == said.out


def test_pin_says_which_image_cannot_be_had(command: Command, registry: RegistryServer) -> None:
    command.project.dockerfile(f"FROM scratch\nFROM {registry.host}/no/such:1\n")
    said = command.run("pin", "context/Dockerfile")
    assert said.code == 1
    assert said.lines[0].startswith("context/Dockerfile:2:")


def test_platforms_may_be_values(project: Project) -> None:
    options = {"platforms": [Platform.parse("linux/arm64")], "store": project.store}
    assert imagekit.outline(project.context, **options).args[0].name == "VERSION"
    assert len(imagekit.targets(project.context, store=project.store).targets) == 4
    assert imagekit.check(project.context, store=project.store).is_clean

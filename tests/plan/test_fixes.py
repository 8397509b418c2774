"""What build checks find, mended in place."""

import pytest

from imagekit.dockerfile import parse
from imagekit.oci.platform import Platform
from imagekit.plan.fixes import fix
from imagekit.plan.report import check

LINUX = Platform.parse("linux/amd64")


def fixed(text: str) -> str:
    report = check(text, build=LINUX, resolve=lambda _: pytest.fail("no base is needed"))
    assert report.error is None, report.error
    return fix(parse(text), report.warnings).text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("ENV a b", "ENV a=b"),
        ("ENV a   b  ", "ENV a=b  "),
        ("ENV a b c", 'ENV a="b c"'),
        ("ENV a $PATH:/x y", 'ENV a="$PATH:/x y"'),
        ("ENV a 'b  c' d", "ENV a='b  c'\\ d"),
        ('ENV a "b c"', 'ENV a="b c"'),
        ("ENV a b\\ c d", "ENV a=b\\ c\\ d"),
        ("LABEL a b \\\n  # c\n  d", 'LABEL a="b \\\n  # c\n  d"'),
        ("EXPOSE 80/TCP 81/Udp", "EXPOSE 80/tcp 81/udp"),
        ("RUN a \\\n\n  b", "RUN a \\\n  b"),
        ('CMD ["a"]\nCMD ["b"]', 'CMD ["b"]'),
        ("MAINTAINER a $b", 'LABEL org.opencontainers.image.authors="a \\$b"'),
        (
            "ENV a b\nMAINTAINER m\nRuN x",
            'ENV a=b\nLABEL org.opencontainers.image.authors="m"\nRUN x',
        ),
    ],
)
def test_one_instruction_is_mended(before: str, after: str) -> None:
    text = "# top\nFROM scratch\n{}\n# end\nUSER u\n"
    assert fixed(text.format(before)) == text.format(after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("FROM scratch as a", "FROM scratch AS a"),
        ("FROM scratch AS Build", "FROM scratch AS build"),
        ("FROM --platform=$TARGETPLATFORM  scratch AS a", "FROM scratch AS a"),
        ("from scratch as a", "FROM scratch AS a"),
        ("FROM scratch \\\n # x\n as \\\n a", "FROM scratch \\\n # x\n AS \\\n a"),
    ],
)
def test_a_from_is_mended(before: str, after: str) -> None:
    assert fixed(f"{before}\nUSER u\nUSER v\n") == f"{after}\nUSER u\nUSER v\n"


def test_what_is_skipped_stays() -> None:
    text = "# check=skip=all\nFROM scratch as A\n"
    assert fixed(text) == text

"""Coverage-guided fuzzing with atheris, a command a language:

    python tests/fuzz/fuzz.py plan -max_total_time=300      Dockerfiles, from text to plan
    python tests/fuzz/fuzz.py words -max_total_time=300     quotes and variables
    python tests/fuzz/fuzz.py ignore -max_total_time=300    .dockerignore
    python tests/fuzz/fuzz.py tar -max_total_time=300       layers and archives

Options behind the name are libFuzzer's. It starts from `fixtures/fuzz/TARGET`; what it finds to
be new goes to `build/fuzz/TARGET`, an input that fails to `build/fuzz/TARGET-*`. A file in place
of options replays that file. What a target checks is in `tests/support/fuzzing.py`; an input that
failed belongs into the fixtures before it is mended, where `test_corpus.py` replays it for ever.
"""

import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[2]


def main(target: str, options: list[str]) -> None:
    """Fuzz until a limit of the options is reached."""
    sys.path.insert(0, str(ROOT))
    with atheris.instrument_imports(include=["imagekit"]):
        from tests.support.fuzzing import TARGETS  # noqa: PLC0415 - instrumented as imported
    test = TARGETS[target]

    def one(data: bytes) -> None:
        test(data)

    found = ROOT / "build" / "fuzz" / target
    found.mkdir(parents=True, exist_ok=True)
    places = [str(found), str(ROOT / "fixtures" / "fuzz" / target)]
    if any(not option.startswith("-") for option in options):
        places = []
    atheris.Setup([target, *places, f"-artifact_prefix={found}-", "-timeout=10", *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

"""Answer conformance cases: `adapter.py VERB`, JSON lines in, JSON lines out.

A verb is a module beside this file, `VERB_view.py`, with `answer(case) -> dict`. It maps the
public API to the shapes of the cases and decides nothing. A verb without a module: status 3.
"""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
Answer = Callable[[dict[str, Any]], dict[str, Any]]


def load(verb: str) -> Answer | None:
    """Return the function that answers the cases of a verb, None if there is none."""
    path = HERE / f"{verb}_view.py"
    if not verb.isidentifier() or not path.is_file():
        return None
    spec = importlib.util.spec_from_file_location(f"conformance_{verb}_view", path)
    if spec is None or spec.loader is None:
        raise ImportError(str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    answer: Answer = module.answer
    return answer


def main(verb: str) -> int:
    """Answer each line of standard input on standard output."""
    sys.path.insert(0, str(HERE.parents[1]))
    answer = load(verb)
    if answer is None:
        return 3
    for line in sys.stdin:
        if line.strip():
            sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

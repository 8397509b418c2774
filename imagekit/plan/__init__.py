"""What a Dockerfile means: stages, and from them a `Plan` of typed operations.

    Dockerfile -> StageGraph -> Plan
                  stages.py     lower.py: settings.py files.py run.py, and key.py for the cache

`stage_graph` links the stages and finds the target. `missing_bases` says which images have to be
known; it is asked until it has no more, since a base brings ONBUILD triggers and these may name
further images. `lower` then folds the instructions of each needed stage into steps and a config.
Nothing here touches a file, a socket or a clock, and the order of mappings never matters.

    graph = stage_graph(file, build_args=args, build=platform)
    bases = {}
    while missing := missing_bases(graph, bases):
        bases |= {request: resolve(request) for request in missing}
    plan = lower(graph, bases)

`check` does all of that for the build checks and makes no plan. A plan has what they found, too:
`rules.py` says what they are, `checks.py` collects, `lint.py` looks at text and stages.

`ops` is the waist: no word of a Dockerfile is known behind it.
"""

from imagekit.plan.bases import BaseRequest, ResolvedBase
from imagekit.plan.checks import CheckOptions, Checks, Finding
from imagekit.plan.contexts import NamedContext
from imagekit.plan.lint import open_checks, parse_checked
from imagekit.plan.lower import StageResult, Trace, lower, trace
from imagekit.plan.ops import Plan, Step
from imagekit.plan.report import CheckReport, check
from imagekit.plan.rules import RULES, Rule
from imagekit.plan.stages import StageGraph, StageNode, missing_bases, stage_graph

__all__ = [
    "RULES",
    "BaseRequest",
    "CheckOptions",
    "CheckReport",
    "Checks",
    "Finding",
    "NamedContext",
    "Plan",
    "ResolvedBase",
    "Rule",
    "StageGraph",
    "StageNode",
    "StageResult",
    "Step",
    "Trace",
    "check",
    "lower",
    "missing_bases",
    "open_checks",
    "parse_checked",
    "stage_graph",
    "trace",
]

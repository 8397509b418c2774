"""How tests spread over the workers of pytest-xdist."""

from typing import Any

import pytest


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist=loadscope`, keep the tests of a file together, or those of a real build.

    A real build is done once for all the tests that judge it, and there are many in one file.
    """
    if config.getvalue("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415 - there without xdist too

    class ByFileOrBuild(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, name = nodeid.partition("::")
            if not file.endswith("test_real_builds.py"):
                return file
            case = name.partition("[")[2].removesuffix("]")
            return f"{file}[{case.removesuffix('-crun').removesuffix('-runc')}]"

    return ByFileOrBuild(config, log)

"""Which folder may import what, which modules are pure, and what code may not do anywhere."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import imagekit

PACKAGE = Path(imagekit.__file__).parent

EVERYONES = {"errors", "events"}
MAY_IMPORT = {
    "errors": set[str](),
    "events": set[str](),
    "oci": set[str](),
    "dockerfile": set[str](),
    "plan": {"oci", "dockerfile"},
    "layer": {"oci"},
    "store": {"oci"},
    "disk": {"oci", "layer", "dockerfile.ignore", "dockerfile.globs", "store"},
    "registry": {"oci", "store.roles"},
    "sandbox": {"oci"},
    "fetch": {"oci", "registry.calls", "registry.transport"},
    "executor": {"oci", "dockerfile", "plan", "layer", "disk", "store", "sandbox"},
    "packer": {"oci", "store"},
}
"""Folder -> folders or modules of the package that it may import, itself left out."""

PURE = (
    "errors.py",
    "events.py",
    "oci/*.py",
    "dockerfile/*.py",
    "plan/*.py",
    "layer/*.py",
    "store/roles.py",
    *(f"registry/{name}.py" for name in ("flows", "auth", "calls", "problems", "challenge")),
    *(f"registry/{name}.py" for name in ("realm", "access", "retry", "uploads", "session")),
    "packer/image.py",
    "packer/index.py",
    "packer/spec.py",
    "sandbox/base.py",
    "fetch/reach.py",
)
IMPURE_IMPORTS = {"os", "pathlib", "socket", "subprocess", "time", "httpx", "shutil", "tempfile"}

FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "os.system",
    "pickle.load",
    "pickle.loads",
    "marshal.load",
    "marshal.loads",
    "shutil.unpack_archive",
    "yaml.load",
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text())


def imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or "", node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def folder_of(relative: str) -> str:
    head, slash, _ = relative.partition("/")
    return head if slash else head.removesuffix(".py")


@pytest.mark.parametrize("folder", sorted(MAY_IMPORT))
def test_folders_import_only_what_lies_before_them(folder: str) -> None:
    allowed = MAY_IMPORT[folder] | EVERYONES | {folder}
    wrong = []
    for relative, tree in modules():
        if folder_of(relative) != folder:
            continue
        for name, line in imports(tree):
            parts = name.split(".")
            if parts[0] != "imagekit" or len(parts) < 2:
                continue
            target = parts[1:]
            if not any(target[: len(a.split("."))] == a.split(".") for a in allowed) and not (
                len(target) == 1 and any(a.startswith(f"{target[0]}.") for a in allowed)
            ):
                wrong.append(f"{relative}:{line} imports {name}")
    assert wrong == []


def test_pure_modules_import_nothing_that_touches_the_world() -> None:
    wrong = [
        f"{relative}:{line} imports {name}"
        for relative, tree in modules()
        if any(Path(relative).match(pattern) for pattern in PURE)
        and folder_of(relative) in {folder_of(p) for p in PURE}
        for name, line in imports(tree)
        if name.split(".")[0] in IMPURE_IMPORTS
    ]
    assert wrong == []


def test_nothing_runs_a_shell_or_unpickles_or_extracts_with_tarfile() -> None:
    wrong = []
    for relative, tree in modules():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            shell = name.startswith("subprocess.") and any(
                k.arg == "shell" and getattr(k.value, "value", None) is not False
                for k in node.keywords
            )
            if name in FORBIDDEN_CALLS or shell or name.endswith((".extractall", ".extract_all")):
                wrong.append(f"{relative}:{node.lineno} calls {name}")
    assert wrong == []


def test_no_assert_and_no_bare_except_in_the_package() -> None:
    wrong = [
        f"{relative}:{node.lineno}"
        for relative, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
        or (isinstance(node, ast.ExceptHandler) and node.type is None)
    ]
    assert wrong == []


def test_only_the_command_line_and_progress_write_to_the_terminal() -> None:
    wrong = [
        f"{relative}:{node.lineno}"
        for relative, tree in modules()
        if relative not in {"progress.py", "terminal.py"} and folder_of(relative) != "cli"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"print", "sys.exit"}
        if relative != "__main__.py" and not relative.startswith("sandbox/helper")
    ]
    assert wrong == []


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ["httpx", "rich", "cryptography", "asyncio", "zstandard", "dockerfile_parse"]
    code = f"import sys, imagekit; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"

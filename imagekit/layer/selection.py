"""What a source argument of a copy names, and which of it is copied.

Wildcards, symlinks in the argument, --exclude and --parents are settled here, for `copying` and
for `content_digest` alike, so that a cache key covers just what is copied.

Spec: dockerfile-semantics.md section 9.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from attrs import frozen

from imagekit.errors import PathError
from imagekit.layer.patterns import compile_name, has_wildcard, is_pattern
from imagekit.layer.tree import Directory, Entry, Node, Tree, entry_of, find, sorted_names

Ignore = Callable[[tuple[str, ...]], Callable[[str], bool]]
"""Patterns as in .dockerignore -> whether they match a path or one of its parents."""


@frozen(kw_only=True)
class Source:
    """One source argument.

    Attributes:
        tree: where it is read.
        path: absolute and cleaned; a pattern if `wildcard`. For --parents, `/./` may part what is
            dropped from what is kept.
        wildcard: whether `path` may hold `* ? [..]`; without a match nothing is copied.
        unpack: whether to extract it if it is an archive.
    """

    tree: Tree
    path: str
    wildcard: bool = False
    unpack: bool = False


class Match(NamedTuple):
    """One file or directory that a source argument names.

    Attributes:
        path: as named, for its base name.
        within: `path` from where the wildcards start; empty without wildcards.
        real: where it is, all symlinks followed.
        node: what it is, never a symlink.
    """

    path: str
    within: str
    real: str
    node: Node

    @property
    def entry(self) -> Entry:
        """The entry of the node."""
        return entry_of(self.node)


class Selected(NamedTuple):
    """Something in a copied directory.

    Attributes:
        path: from that directory.
        entry: as it is in the source.
        whole: False for a directory that is made only since something below it is copied.
    """

    path: str
    entry: Entry
    whole: bool


@frozen(kw_only=True)
class Filter:
    """Which of the paths in a copied directory are copied.

    Attributes:
        include: tells what is copied, or None for everything.
        prefix: where all that `include` can match begins, as path components.
        exclude: tells what is not copied after all, or None for nothing.
        reincludes: whether something below an excluded directory may be copied.
    """

    include: Callable[[str], bool] | None = None
    prefix: tuple[str, ...] = ()
    exclude: Callable[[str], bool] | None = None
    reincludes: bool = False

    def select(self, top: Directory) -> Iterator[Selected]:
        """What is copied of a directory, parents first, without the directory itself."""
        if self.include is None and self.exclude is None:
            yield from _everything(top, "")
        else:
            yield from self._some(top, "", [])

    def _some(self, top: Directory, prefix: str, waiting: list[Selected]) -> Iterator[Selected]:
        for name in sorted_names(top.children):
            node, path = top.children[name], prefix + name
            excluded = self.exclude is not None and self.exclude(path)
            wanted = not excluded and (self.include is None or self.include(path))
            if wanted:
                yield from waiting
                waiting.clear()
                yield Selected(path, entry_of(node), whole=True)
            if isinstance(node, Directory) and (wanted or self._worth(path, excluded=excluded)):
                if not wanted:
                    waiting.append(Selected(path, node.entry, whole=False))
                yield from self._some(node, f"{path}/", waiting)
                if waiting:
                    waiting.pop()

    def _worth(self, path: str, *, excluded: bool) -> bool:
        """Whether something below a directory that is not copied may be."""
        if excluded and not self.reincludes:
            return False
        parts = tuple(path.split("/"))
        depth = min(len(parts), len(self.prefix))
        return parts[:depth] == self.prefix[:depth]


def _everything(top: Directory, prefix: str) -> Iterator[Selected]:
    for name in sorted_names(top.children):
        node = top.children[name]
        if isinstance(node, Directory):
            yield Selected(prefix + name, node.entry, whole=True)
            yield from _everything(node, f"{prefix}{name}/")
        else:
            yield Selected(prefix + name, node, whole=True)


def join(directory: str, path: str) -> str:
    """A path below a directory, either of which may be empty."""
    return f"{directory}/{path}" if directory and path else directory or path


def matches(source: Source, exclude: Callable[[str], bool] | None = None) -> tuple[Match, ...]:
    """What a source argument names, in the order of names; symlinks are followed.

    Args:
        source: the argument.
        exclude: what of that which wildcards name is not meant; a plain name always is.

    Raises:
        PathError: there is nothing of that name, or a symlink leads nowhere, code
            `source-not-found`; no well-formed pattern, code `pattern-invalid`.
    """
    parts = [part for part in source.path.split("/") if part not in ("", ".")]
    if not source.wildcard or not any(is_pattern(part) for part in parts):
        return (_followed(source.tree, "/".join(parts), ""),)
    first = next(n for n, part in enumerate(parts) if is_pattern(part))
    tests = [compile_name(part) for part in parts[first:]]
    base = source.tree.resolve("/".join(parts[:first]))
    top = find(source.tree.root, base.path)
    found = tuple(_glob(top, tests)) if isinstance(top, Directory) and base.entry else ()
    if not found and not any(has_wildcard(part) for part in parts):
        raise _not_found(source.tree, "/".join(parts))
    return tuple(
        _followed(source.tree, join(base.path, within), within)
        for within in found
        if exclude is None or not exclude(within)
    )


def kept_parents(source: Source, ignore: Ignore) -> Iterator[tuple[Match, Filter]]:
    """What a source argument names with --parents: directories, and what of them is copied.

    Raises:
        PathError: as for `matches`.
    """
    pivot, found, pattern = source.path.partition("/./")
    if not found:
        pivot, pattern = "", source.path
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    wild = [source.wildcard and is_pattern(part) for part in parts]
    prefix = parts[: wild.index(True)] if any(wild) else parts
    for top in matches(Source(tree=source.tree, path=f"/{pivot}", wildcard=source.wildcard)):
        if not any(wild):
            _followed(source.tree, join(top.real, "/".join(parts)), "")
        include = ignore(("/".join(parts),)) if parts else None
        yield top, Filter(include=include, prefix=tuple(prefix))


def _glob(top: Directory, tests: list[Callable[[str], bool]]) -> Iterator[str]:
    test, *rest = tests
    for name in sorted_names(top.children):
        if not test(name):
            continue
        node = top.children[name]
        if not rest:
            yield name
        elif isinstance(node, Directory):
            for below in _glob(node, rest):
                yield f"{name}/{below}"


def _followed(tree: Tree, path: str, within: str) -> Match:
    try:
        real = tree.resolve(path)
    except PathError as exc:
        raise PathError(exc.message, path=path, code="source-not-found") from exc
    node = find(tree.root, real.path)
    if real.entry is None or node is None:
        raise _not_found(tree, path)
    return Match(path, within, real.path, node)


def _not_found(tree: Tree, path: str) -> PathError:
    close = _nearest(tree, path)
    hint = f"did you mean /{close}?" if close else "is it excluded by .dockerignore?"
    return PathError(f"/{path}: not found", path=path, hint=hint, code="source-not-found")


def _nearest(tree: Tree, path: str) -> str:
    """The path most like one that is not there, or nothing."""
    from difflib import get_close_matches  # noqa: PLC0415 - only a failed build pays for it

    try:
        gone = tree.resolve(path)
    except PathError:
        return ""
    parent = gone.path.split("/")[: -len(gone.missing)]
    directory = find(tree.root, "/".join(parent))
    if not isinstance(directory, Directory):
        return ""
    by_case = {name.casefold(): name for name in directory.children}
    close = get_close_matches(gone.missing[0].casefold(), by_case, n=1)
    if not close:
        return ""
    guess = "/".join([*parent, by_case[close[0]], *gone.missing[1:]])
    return guess if find(tree.root, guess) is not None else ""

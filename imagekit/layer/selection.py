"""What a source argument of a copy names, and which of it is copied.

Wildcards, symlinks in the argument, --exclude and --parents are settled here, for `copying` and
for `content_digest` alike, so that a cache key covers just what is copied.

Spec: dockerfile-semantics.md section 9.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

from attrs import evolve, frozen

from imagekit.errors import PathError
from imagekit.layer.tree import Directory, Entry, Node, Tree, entry_of, find, sorted_names

_WILDCARDS: Final = frozenset("*?[\\")
_NO_STATE: Final = 0


class PathMatcher(Protocol):
    """Patterns of .dockerignore syntax, the last that matches a path or one above it deciding."""

    def step(self, path: str, state: int, /) -> tuple[bool, int]:
        """Whether an entry of a directory with a state is matched, and its own state."""

    def prunes(self, directory: str) -> bool:
        """Whether nothing below a matched directory can be unmatched."""

    def cannot_match_below(self, directory: str) -> bool:
        """Whether nothing below an unmatched directory can be matched."""


@frozen(kw_only=True)
class Patterns:
    """What patterns mean, which is for whoever knows Dockerfiles to say.

    Attributes:
        matcher: compiles patterns of .dockerignore syntax.
        matches: whether a wildcard pattern matches the whole name of a file.
    """

    matcher: Callable[[tuple[str, ...]], PathMatcher]
    matches: Callable[[str, str], bool]


@frozen(kw_only=True)
class Source:
    r"""One source argument.

    Attributes:
        tree: where it is read.
        path: absolute and cleaned; a pattern if `wildcard`.
        wildcard: whether `path` holds any of `* ? [ \`; without a match nothing is copied.
        pattern: with --parents, what below `path` is copied, in .dockerignore syntax; its path
            from `path` on is kept. Empty for a copy without --parents.
        required: with `pattern`, whether that is a plain path which must be there.
        unpack: whether to extract it if it is an archive.
    """

    tree: Tree
    path: str
    wildcard: bool = False
    pattern: str = ""
    required: bool = False
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
        include: matches what is copied, or None for everything.
        exclude: matches what is not copied after all, or None for nothing.
    """

    include: PathMatcher | None = None
    exclude: PathMatcher | None = None

    def select(self, top: Directory) -> Iterator[Selected]:
        """What is copied of a directory, parents first, without the directory itself."""
        if self.include is None and self.exclude is None:
            return _everything(top)
        return self._some(top)

    def _some(self, top: Directory) -> Iterator[Selected]:
        stack = [_Open("", top, _NO_STATE, _NO_STATE, iter(sorted_names(top.children)))]
        waiting: list[Selected] = []
        while stack:
            prefix, directory, in_state, ex_state, names = stack[-1]
            for name in names:
                node, path = directory.children[name], prefix + name
                included, excluded, below_in, below_ex = True, False, in_state, ex_state
                if self.include is not None:
                    included, below_in = self.include.step(path, in_state)
                if self.exclude is not None:
                    excluded, below_ex = self.exclude.step(path, ex_state)
                if included and not excluded:
                    yield from waiting
                    waiting.clear()
                    yield Selected(path, entry_of(node), whole=True)
                if not isinstance(node, Directory):
                    continue
                if excluded or not included:
                    if self._nothing_below(path, included=included, excluded=excluded):
                        continue
                    waiting.append(Selected(path, node.entry, whole=False))
                inside = iter(sorted_names(node.children))
                stack.append(_Open(f"{path}/", node, below_in, below_ex, inside))
                break
            else:
                stack.pop()
                if waiting and f"{waiting[-1].path}/" == prefix:
                    waiting.pop()

    def _nothing_below(self, path: str, *, included: bool, excluded: bool) -> bool:
        """Whether nothing below a directory that is not copied can be."""
        if excluded and self.exclude is not None and self.exclude.prunes(path):
            return True
        return not included and self.include is not None and self.include.cannot_match_below(path)


class _Open(NamedTuple):
    """A directory that is being gone through.

    Attributes:
        prefix: its path with a slash, or nothing at the top.
        directory: itself.
        included: its state for `Filter.include`.
        excluded: its state for `Filter.exclude`.
        names: what is still to come.
    """

    prefix: str
    directory: Directory
    included: int
    excluded: int
    names: Iterator[str]


def _everything(top: Directory) -> Iterator[Selected]:
    return (Selected(path, entry, whole=True) for path, entry in Tree(top).walk())


def join(directory: str, path: str) -> str:
    """A path below a directory, either of which may be empty."""
    return f"{directory}/{path}" if directory and path else directory or path


def chosen(
    source: Source, exclude: tuple[str, ...], patterns: Patterns
) -> tuple[tuple[Match, Filter], ...]:
    """What a source argument names, in the order of names, and what of each is copied.

    Symlinks in the argument are followed; those below a directory that is named are not. What an
    argument names, by wildcards too, is never excluded itself.

    Args:
        source: the argument.
        exclude: the patterns of --exclude.
        patterns: what patterns mean.

    Raises:
        PathError: there is nothing of that name, or a symlink leads nowhere; code
            `source-not-found`.
        ContextError: no well-formed pattern; code `pattern-invalid`.
    """
    rules = Filter(exclude=patterns.matcher(exclude) if exclude else None)
    found = _matches(source, patterns)
    if not source.pattern:
        return tuple((match, rules) for match in found)
    if source.required:
        for match in found:
            _followed(source.tree, join(match.real, source.pattern), "")
    rules = evolve(rules, include=patterns.matcher((source.pattern,)))
    return tuple((match, rules) for match in found)


def _matches(source: Source, patterns: Patterns) -> tuple[Match, ...]:
    parts = [part for part in source.path.split("/") if part not in ("", ".")]
    if not source.wildcard:
        return (_followed(source.tree, "/".join(parts), ""),)
    wild = [not _WILDCARDS.isdisjoint(part) for part in parts]
    first = wild.index(True) if any(wild) else len(parts)
    for part in parts[first:]:
        patterns.matches(part, "")  # raises for a bad pattern, even if no name is tried
    base = source.tree.resolve("/".join(parts[:first]))
    top = find(source.tree.root, base.path)
    if base.entry is None or not isinstance(top, Directory):
        return ()
    return tuple(
        _followed(source.tree, join(base.path, within), within)
        for within in _glob(top, parts[first:], patterns)
    )


def _glob(top: Directory, parts: list[str], patterns: Patterns) -> Iterator[str]:
    pattern, *rest = parts
    for name in sorted_names(top.children):
        if not patterns.matches(pattern, name):
            continue
        node = top.children[name]
        if not rest:
            yield name
        elif isinstance(node, Directory):
            for below in _glob(node, rest, patterns):
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

    gone = tree.resolve(path)
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

"""`.dockerignore` files, and paths matched against their patterns.

A pattern matches a path or any directory above it, the last pattern that matches decides, and
`!` takes back. Directories are walked with the result of their parent at hand:

    excluded, state = matcher.step(path, state_of_the_directory)
    if excluded and matcher.prunes(path): do not open the directory

The same matcher serves `COPY --exclude` and `COPY --parents`.
"""

import re
from collections.abc import Iterable

from imagekit.dockerfile.gopath import clean, go_match, parent
from imagekit.dockerfile.patterns import Kind, Pattern, compile_pattern
from imagekit.dockerfile.words import BLANKS
from imagekit.errors import ContextError

__all__ = ["NO_STATE", "Matcher", "go_match", "parse_ignore"]

NO_STATE = 0
"""The state of the root, which no pattern matches."""

_WILDCARDS = "*[]?^\\"
_ENDS_WITH = re.compile(r"\*\*/\*([^*?\[\]\\/^]+)")


def parse_ignore(text: str | bytes) -> tuple[str, ...]:
    """Return the patterns of an ignore file, cleaned, in order, `!` kept in front.

    Lines that start with `#` and blank lines are no patterns. One leading slash is cut.

    Spec: moby/patternmatcher, ignorefile.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    patterns: list[str] = []
    for line in text.removeprefix("\ufeff").split("\n"):
        pattern = line.strip(BLANKS)
        if line.startswith("#") or not pattern:
            continue
        sign = "!" if pattern.startswith("!") else ""
        pattern = pattern.removeprefix("!").strip(BLANKS)
        if pattern:
            pattern = clean(pattern)
        if len(pattern) > 1:
            pattern = pattern.removeprefix("/")
        patterns.append(sign + pattern)
    return tuple(patterns)


class Matcher:
    """Patterns compiled to be matched against many paths.

    Paths are relative to the root that the patterns are about, with single slashes between
    their parts and none at their ends.

    Attributes:
        patterns: as given.
        has_exceptions: whether one starts with `!`.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        """Compile the patterns.

        Raises:
            ContextError: one is not well formed (`pattern-invalid`).
        """
        self.patterns = tuple(patterns)
        runs: list[tuple[bool, list[Pattern]]] = []
        texts: list[tuple[bool, str]] = []
        for pattern in self.patterns:
            text = pattern.strip(BLANKS)
            if not text:
                continue
            text = clean(text)
            takes_back = text.startswith("!")
            if text == "!":
                raise ContextError(
                    "! alone is no pattern",
                    hint="name what is not to be ignored behind it",
                    code="pattern-invalid",
                )
            text = text.removeprefix("!")
            texts.append((takes_back, text))
            if not runs or runs[-1][0] is not takes_back:
                runs.append((takes_back, []))
            runs[-1][1].append(compile_pattern(text))
        self._runs = tuple(
            (1 << index, takes_back, _Run(compiled))
            for index, (takes_back, compiled) in enumerate(runs)
        )
        excluding = [run for takes_back, run in runs if not takes_back]
        # Most paths are matched by nothing, which one look tells, however many runs there are.
        self._excluding = _Run([pattern for run in excluding for pattern in run])
        self.has_exceptions = any(takes_back for takes_back, _ in texts)
        self._exceptions = _roots(text for takes_back, text in texts if takes_back)
        self._inclusions = _roots(text for takes_back, text in texts if not takes_back)

    def excluded(self, path: str) -> bool:
        """Whether the last pattern that matches the path, or a directory above it, excludes."""
        paths = [path, *_directories(path)]
        if not any(map(self._excluding.matches, paths)):
            return False
        matched = False
        for _, takes_back, run in self._runs:
            if takes_back is matched and any(map(run.matches, paths)):
                matched = not takes_back
        return matched

    def step(self, path: str, state: int) -> tuple[bool, int]:
        """Match one entry of a directory whose state is known.

        Returns:
            Whether it is excluded, and its own state, to be handed to its entries.
        """
        if not state and not self._excluding.matches(path):
            return False, NO_STATE
        matched = False
        own = state
        for bit, takes_back, run in self._runs:
            if state & bit:
                matched = not takes_back
            elif takes_back is matched and run.matches(path):
                matched = not takes_back
                own |= bit
        return matched, own

    def prunes(self, directory: str) -> bool:
        """Whether nothing below an excluded directory can be taken back.

        It says no wherever an exception has a wildcard before its last part.
        """
        return _misses(self._exceptions, directory)

    def cannot_match_below(self, directory: str) -> bool:
        """Whether no pattern can match below a directory that is not matched itself.

        For patterns that say what to take, not what to leave.
        """
        return _misses(self._inclusions, directory)


class _Run:
    """Patterns of one sign in a row, whose order does not matter."""

    def __init__(self, patterns: list[Pattern]) -> None:
        by_kind = {
            kind: [pattern.text for pattern in patterns if pattern.kind is kind] for kind in Kind
        }
        suffixes = by_kind[Kind.SUFFIX]
        rooted = [text[1:] for text in suffixes if text.startswith("/")]
        self._exact = frozenset((*by_kind[Kind.EXACT], *rooted))
        self._prefixes = tuple(by_kind[Kind.PREFIX])
        self._suffixes = tuple(suffixes)
        self._slow = tuple(p.slow for p in patterns if p.slow is not None)
        expressions = [pattern for pattern in patterns if pattern.source]
        self._all = _alternatives(expressions)
        # `**/*.x` is a test of the end, unless there is a newline, which its dot does not match.
        endings = [_ENDS_WITH.fullmatch(pattern.text) for pattern in expressions]
        self._endings = (*suffixes, *(found[1] for found in endings if found))
        by_depth: dict[int, list[Pattern]] = {}
        for pattern, found in zip(expressions, endings, strict=True):
            if not found:
                by_depth.setdefault(pattern.depth, []).append(pattern)
        self._anywhere = _alternatives(by_depth.pop(-1, []))
        self._by_depth = {depth: _alternatives(some) for depth, some in by_depth.items()}

    def matches(self, path: str) -> bool:
        if (
            path in self._exact
            or (self._endings and path.endswith(self._endings) and "\n" not in path)
            or (self._prefixes and path.startswith(self._prefixes))
        ):
            return True
        if "\n" in path:
            return path.endswith(self._suffixes) or self._matches_any(self._all, path)
        if self._by_depth:
            regex = self._by_depth.get(path.count("/"))
            if regex is not None and regex.match(path) is not None:
                return True
        return self._matches_any(self._anywhere, path)

    def _matches_any(self, regex: re.Pattern[str] | None, path: str) -> bool:
        if regex is not None and regex.match(path) is not None:
            return True
        return any(slow(path) for slow in self._slow) if self._slow else False


def _alternatives(patterns: list[Pattern]) -> re.Pattern[str] | None:
    if not patterns:
        return None
    return re.compile(f"(?:{'|'.join(pattern.source for pattern in patterns)})\\Z")


def _roots(texts: Iterable[str]) -> frozenset[str] | None:
    """Return the patterns and all directories above them; None if one has an early wildcard."""
    roots: set[str] = set()
    for text in texts:
        root = text.removesuffix("/**").removesuffix("/*")
        if any(char in _WILDCARDS for char in root):
            return None
        roots.add(root)
        roots.update(root[:at] for at, char in enumerate(root) if char == "/")
    return frozenset(roots)


def _misses(roots: frozenset[str] | None, directory: str) -> bool:
    return roots is not None and directory not in roots


def _directories(path: str) -> list[str]:
    """Return the directories above a path, outermost first."""
    above = parent(path)
    if above == ".":
        return []
    return [*(above[:at] for at, char in enumerate(above) if char == "/"), above]

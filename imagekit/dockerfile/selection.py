"""What of a build context is sent, worked out on a list of its entries.

This is the meaning of a context walk with an ignore file, without a disk. A walk over real
directories asks the same `Matcher` the same questions in the same order.
"""

from collections.abc import Iterable, Mapping

from attrs import frozen

from imagekit.dockerfile.gopath import clean, go_match, has_wildcard, parent
from imagekit.dockerfile.ignore import NO_STATE, Matcher


@frozen
class Listing:
    """The entries of a context.

    Attributes:
        directories: paths, those above other entries too.
        links: path to target; whatever is neither here nor in `directories` is a file.
        paths: all entries, each directory's names in byte order, below their directory.
    """

    directories: frozenset[str]
    links: Mapping[str, str]
    paths: tuple[str, ...]

    @classmethod
    def of(
        cls, files: Iterable[str], directories: Iterable[str], links: Mapping[str, str]
    ) -> "Listing":
        """Make a listing, adding the directories above each entry."""
        entries = {*files, *links}
        folders = set(directories)
        for path in [*entries, *folders]:
            folders.update(path[:at] for at, char in enumerate(path) if char == "/")
        order = sorted(entries | folders, key=lambda path: path.split("/"))
        return cls(frozenset(folders), dict(links), tuple(order))


def select(listing: Listing, ignore: Iterable[str], follow: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the paths that are sent, in walk order.

    A directory that holds something kept is kept, even if it is itself excluded.

    Args:
        listing: the context.
        ignore: patterns of the ignore file.
        follow: paths, with wildcards, that alone are wanted, with the links on the way to them;
            none means all.

    Raises:
        ContextError: a pattern is not well formed (`pattern-invalid`).
    """
    excludes = Matcher(ignore)
    wanted = follow_links(listing, follow)
    includes = Matcher(wanted) if wanted else None
    states: dict[str, tuple[int, int]] = {"": (NO_STATE, NO_STATE)}
    kept: dict[str, None] = {}
    for path in listing.paths:
        above = path.rpartition("/")[0]
        if above not in states:
            continue  # The directory was pruned.
        include_state, exclude_state = states[above]
        skipped = False
        is_directory = path in listing.directories
        if includes is not None:
            matched, include_state = includes.step(path, include_state)
            skipped = not matched
            if skipped and is_directory and includes.cannot_match_below(path):
                continue
        excluded, exclude_state = excludes.step(path, exclude_state)
        if excluded and is_directory and excludes.prunes(path):
            continue
        if is_directory:
            states[path] = (include_state, exclude_state)
        if not (skipped or excluded):
            kept.update((path[:at], None) for at, char in enumerate(path) if char == "/")
            kept[path] = None
    return tuple(kept)


def follow_links(listing: Listing, paths: Iterable[str]) -> tuple[str, ...]:
    """Return the paths and every link on the way to them, sorted, none below another.

    Empty if nothing is asked for, or all of the context is.

    Spec: tonistiigi/fsutil, FollowLinks.
    """
    resolved: set[str] = set()
    todo = [clean("/" + path)[1:] or "." for path in paths]
    while todo:
        _follow(listing, todo.pop(), resolved, todo)
    found: list[str] = []
    for path in sorted(resolved):
        if path == ".":
            return ()
        if not found or not path.startswith(found[-1] + "/"):
            found.append(path)
    return tuple(found)


def _follow(listing: Listing, path: str, resolved: set[str], todo: list[str]) -> None:
    """Go along one path to its first link; queue what that leads to."""
    current = ""
    parts = path.split("/")
    for index, part in enumerate(parts):
        current = f"{current}/{part}" if current else part
        targets = _targets(listing, current)
        if targets is None and index + 1 < len(parts):
            continue
        if current in resolved:
            return
        resolved.add(current)
        rest = "/".join(parts[index + 1 :])
        todo.extend(clean(f"/{target}/{rest}")[1:] or "." for target in targets or ())
        return


def _targets(listing: Listing, path: str) -> list[str] | None:
    """Return where a link, or the links that a wildcard matches, point; None for no link."""
    above, _, name = path.rpartition("/")
    if not has_wildcard(name):
        target = listing.links.get(path)
        if target is None:
            return None
        return [target if target.startswith("/") else f"{parent('/' + path)}/{target}"]
    found = [
        target
        for entry in listing.links
        if entry.rpartition("/")[0] == above and go_match(name, entry.rpartition("/")[2])
        for target in _targets(listing, entry) or ()
    ]
    return found or None

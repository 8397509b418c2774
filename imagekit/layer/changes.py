"""What one layer does to the tree below it."""

from collections.abc import Mapping

from attrs import field, frozen

from imagekit.layer.tree import Entry


@frozen(kw_only=True)
class Changes:
    """The changes of one layer (image-spec layer.md, Change Types).

    Attributes:
        entries: path -> what is put there; a directory's entry carries its metadata only. The
            root, if it has an entry, has the empty path.
        whiteouts: paths that lower layers had and that are gone.
        opaque: directories of which nothing of lower layers is left.
        implied: directories that some entry needs but that the archive did not carry; they have no
            entry, and are made with mode 0755 where lower layers do not have them.
    """

    entries: Mapping[str, Entry] = field(factory=dict)
    whiteouts: frozenset[str] = frozenset()
    opaque: frozenset[str] = frozenset()
    implied: frozenset[str] = frozenset()

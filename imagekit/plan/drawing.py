"""The stage graph as a drawing: what stages start from and copy from, as Mermaid or SVG.

Boxes are stages, rounded ones images and named contexts. A heavy arrow leads from a base to the
stages that start from it, a light one from where COPY and mounts read. What the target does not
need is dashed. The SVG is laid out in layers from left to right: each box right of all that it
needs, long arrows led through gaps between boxes, boxes moved next to their neighbours.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final, Literal
from xml.sax.saxutils import escape

from attrs import frozen

from imagekit.dockerfile.instructions import Copy
from imagekit.dockerfile.lines import printable
from imagekit.errors import InvalidReferenceError
from imagekit.oci.reference import Reference
from imagekit.plan.stages import StageGraph, StageNode

_CHAR: Final = 7.4
_LINE: Final = 18
_BOX: Final = 46
_GAP_X: Final = 76
_GAP_Y: Final = 22
_THIN: Final = 12
_MARGIN: Final = 20
_MAX_LABEL: Final = 48
_SWEEPS: Final = 8
_FROM: Final = "2b5d8c"
_READ: Final = "c2410c"
_UNUSED: Final = "a8a8a0"
_CONTROL: Final = re.compile("[\x00-\x1f\x7f\ufffe\uffff]")


@frozen(kw_only=True)
class Box:
    """A stage or an image: two lines of text, the second perhaps empty."""

    title: str
    detail: str = ""
    is_stage: bool
    is_target: bool = False
    is_needed: bool


@frozen(kw_only=True)
class Arrow:
    """From the box that is read to the one that reads."""

    source: int
    target: int
    kind: Literal["FROM", "COPY", "RUN"]
    is_needed: bool


@frozen(kw_only=True)
class Drawing:
    """Boxes and arrows between them, by position."""

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


def drawing_of(graph: StageGraph) -> Drawing:
    """The stages of a graph, with the images and named contexts that they read."""
    return _Drawer(graph).draw()


class _Drawer:
    def __init__(self, graph: StageGraph) -> None:
        self._graph = graph
        self._reached = graph.reached
        self._boxes: list[Box] = []
        self._stages: dict[int, int] = {}
        self._images: dict[str, int] = {}

    def draw(self) -> Drawing:
        nodes = [node for node in self._graph.nodes if not node.is_empty]
        for node in nodes:
            if not node.implicit:
                self._stages[node.index] = len(self._boxes)
                self._boxes.append(self._stage(node))
        arrows: dict[tuple[int, int, str], Arrow] = {}
        for node in nodes:
            for source, kind in self._reads(node) if not node.implicit else ():
                arrow = Arrow(
                    source=source,
                    target=self._stages[node.index],
                    kind=kind,
                    is_needed=node.index in self._reached,
                )
                arrows.setdefault((arrow.source, arrow.target, kind), arrow)
        needed = {arrow.source for arrow in arrows.values() if arrow.is_needed}
        boxes = tuple(
            box if box.is_stage else Box(title=box.title, is_stage=False, is_needed=at in needed)
            for at, box in enumerate(self._boxes)
        )
        return Drawing(boxes=boxes, arrows=tuple(arrows.values()))

    def _stage(self, node: StageNode) -> Box:
        count = len(node.commands)
        platform = f", {node.platform}" if node.platform else ""
        return Box(
            title=printable(node.name) or f"stage {node.index}",
            detail=f"{count} instruction{'s' * (count != 1)}{platform}",
            is_stage=True,
            is_target=node.index == self._graph.target,
            is_needed=node.index in self._reached,
        )

    def _reads(self, node: StageNode) -> Iterable[tuple[int, Literal["FROM", "COPY", "RUN"]]]:
        parent = node.parent
        yield (self._image(node) if parent is None else self._stages[parent]), "FROM"
        for linked in node.commands:
            kind: Literal["COPY", "RUN"] = "COPY" if isinstance(linked.command, Copy) else "RUN"
            for index in linked.sources:
                source = self._graph.nodes[index]
                if source.is_empty:
                    continue
                if source.implicit:
                    yield self._image(source), kind
                else:
                    yield self._stages[index], kind

    def _image(self, node: StageNode) -> int:
        name = node.base
        if node.context is not None:
            name = f"context {node.context.name}"
        else:
            try:
                name = Reference.parse(node.base).familiar
            except InvalidReferenceError:
                name = node.asked or node.base
        if name not in self._images:
            self._images[name] = len(self._boxes)
            self._boxes.append(Box(title=printable(name), is_stage=False, is_needed=False))
        return self._images[name]


def to_mermaid(drawing: Drawing) -> str:
    """The text of a Mermaid flowchart."""
    lines = ["flowchart LR"]
    for index, box in enumerate(drawing.boxes):
        label = _mermaid_text("<br/>".join(filter(None, (box.title, box.detail))))
        left, right = ("[", "]") if box.is_stage else ("([", "])")
        lines.append(f'    n{index}{left}"{label}"{right}')
    for arrow in drawing.arrows:
        link = "==>" if arrow.kind == "FROM" else f"-->|{arrow.kind}|"
        if not arrow.is_needed:
            link = "-.->" if arrow.kind == "FROM" else f"-.->|{arrow.kind}|"
        lines.append(f"    n{arrow.source} {link} n{arrow.target}")
    unused = [f"n{index}" for index, box in enumerate(drawing.boxes) if not box.is_needed]
    targets = [f"n{index}" for index, box in enumerate(drawing.boxes) if box.is_target]
    if unused:
        lines.append("    classDef unused stroke-dasharray: 5 5,color:#777")
        lines.append(f"    class {','.join(unused)} unused")
    lines.append("    classDef target stroke-width:3px")
    lines.append(f"    class {','.join(targets)} target")
    return "\n".join(lines) + "\n"


def _mermaid_text(text: str) -> str:
    return text.replace("#", "#35;").replace('"', "#quot;")


def to_svg(drawing: Drawing) -> str:
    """A picture of the graph, as an SVG document that needs nothing else."""
    layout = _Layout(drawing)
    parts = [_line(arrow, way) for arrow, way in layout.ways]
    parts += [_label(arrow, *way[-1]) for arrow, way in layout.ways if arrow.kind != "FROM"]
    parts += [_box(box, *layout.place(index)) for index, box in enumerate(drawing.boxes)]
    width, height = layout.size
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" font-family="sans-serif" font-size="13">\n'
        "<title>Stages</title>\n"
        f"<defs>{''.join(map(_head, (_FROM, _READ, _UNUSED)))}</defs>\n"
        f'<rect width="{width:g}" height="{height:g}" fill="#fff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _box(box: Box, x: float, y: float, width: float) -> str:
    fill, stroke = ("#eaf2fb", "#2b5d8c") if box.is_stage else ("#f4f4f1", "#77776e")
    text = "#1c1c1a"
    if box.is_target:
        fill, stroke = "#fff3d6", "#a06a00"
    dash = ""
    if not box.is_needed:
        dash, text, fill = ' stroke-dasharray="5 4"', "#77776e", "#fff"
    radius = 5 if box.is_stage else _BOX / 2
    middle = x + width / 2
    first = y + _BOX / 2 + (-3 if box.detail else 4.5)
    bold = ' font-weight="bold"' if box.is_stage else ""
    title = f'<text x="{middle:g}" y="{first:g}" text-anchor="middle" fill="{text}"{bold}>'
    lines = [f"{title}{_short(box.title)}</text>"]
    if box.detail:
        lines.append(
            f'<text x="{middle:g}" y="{first + _LINE - 2:g}" text-anchor="middle" font-size="11" '
            f'fill="{text}">{_short(box.detail)}</text>'
        )
    weight = 2.5 if box.is_target else 1.5
    return (
        f"<g><title>{escape(_CONTROL.sub(' ', f'{box.title} {box.detail}'.strip()))}</title>"
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{_BOX}" rx="{radius:g}" '
        f'fill="{fill}" stroke="{stroke}" stroke-width="{weight:g}"{dash}/>{"".join(lines)}</g>'
    )


def _short(text: str) -> str:
    text = _CONTROL.sub("\ufffd", text)
    return escape(text if len(text) <= _MAX_LABEL else f"{text[: _MAX_LABEL - 1]}…")


def _head(colour: str) -> str:
    return (
        f'<marker id="head-{colour}" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="8" '
        'markerHeight="8" markerUnits="userSpaceOnUse" orient="auto">'
        f'<path d="M0 0 8 4 0 8z" fill="#{colour}"/></marker>'
    )


def _colour(arrow: Arrow) -> str:
    if not arrow.is_needed:
        return _UNUSED
    return _FROM if arrow.kind == "FROM" else _READ


def _label(arrow: Arrow, x: float, y: float) -> str:
    return (
        f'<text x="{x - 12:g}" y="{y - 5:g}" text-anchor="end" font-size="10" stroke="#fff" '
        f'stroke-width="3" paint-order="stroke" fill="#{_colour(arrow)}">{arrow.kind}</text>'
    )


def _line(arrow: Arrow, way: Sequence[tuple[float, float]]) -> str:
    (x, y), *rest = way
    path = [f"M{x:g} {y:g}"]
    for at, (to_x, to_y) in enumerate(rest):
        if at % 2:  # through a gap between boxes, straight
            path.append(f"L{to_x:g} {to_y:g}")
        else:
            half = (to_x - x) / 2
            path.append(f"C{x + half:g} {y:g} {to_x - half:g} {to_y:g} {to_x:g} {to_y:g}")
        x, y = to_x, to_y
    colour = _colour(arrow)
    dash = "" if arrow.is_needed else ' stroke-dasharray="5 4"'
    weight = 2.2 if arrow.kind == "FROM" else 1.4
    return (
        f'<path d="{"".join(path)}" fill="none" stroke="#{colour}" stroke-width="{weight:g}"'
        f'{dash} marker-end="url(#head-{colour})"/>'
    )


class _Layout:
    """Places boxes in columns.

    A slot is a box, or the gap that an arrow goes through in a column between its ends.
    """

    def __init__(self, drawing: Drawing) -> None:
        self._drawing = drawing
        self._columns = _columns(drawing)
        self._slots: list[list[int]] = [[] for _ in range(max(self._columns, default=0) + 1)]
        for box, column in enumerate(self._columns):
            self._slots[column].append(box)
        self._chains: list[tuple[Arrow, list[int]]] = []
        self._count = len(drawing.boxes)
        for arrow in drawing.arrows:
            self._chains.append((arrow, self._chain(arrow)))
        self._order()
        self._place()

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the picture."""
        right = self._lefts[-1] + self._widths[-1] if self._lefts else 0
        return right + _MARGIN, self._height + _MARGIN

    @property
    def ways(self) -> list[tuple[Arrow, list[tuple[float, float]]]]:
        """Each arrow with its points: its start, both sides of each gap, its end."""
        found = []
        for arrow, chain in self._chains:
            first, *inner, last = chain
            x, y, width = self.place(first)
            points = [(x + width, y + _BOX / 2)]
            for slot in inner:
                column = self._column_of[slot]
                left, at = self._lefts[column], self._tops[slot] + _THIN / 2
                points += [(left, at), (left + self._widths[column], at)]
            x, y, _ = self.place(last)
            points.append((x, y + _port(self._entries[last], arrow)))
            found.append((arrow, points))
        return found

    def place(self, box: int) -> tuple[float, float, float]:
        """Left, top and width of a box."""
        column = self._columns[box]
        return self._lefts[column], self._tops[box], self._widths[column]

    def _chain(self, arrow: Arrow) -> list[int]:
        start, end = self._columns[arrow.source], self._columns[arrow.target]
        gaps = []
        for column in range(start + 1, end):
            gaps.append(self._count)
            self._slots[column].append(self._count)
            self._count += 1
        return [arrow.source, *gaps, arrow.target]

    def _order(self) -> None:
        """Move slots next to their neighbours: the median of these, column by column."""
        before: dict[int, list[int]] = {slot: [] for slot in range(self._count)}
        after: dict[int, list[int]] = {slot: [] for slot in range(self._count)}
        for _, chain in self._chains:
            for one, other in pairwise(chain):
                after[one].append(other)
                before[other].append(one)
        rank = {slot: at for slots in self._slots for at, slot in enumerate(slots)}
        for sweep in range(_SWEEPS):
            columns, near = self._slots[1:], before
            if sweep % 2:
                columns, near = self._slots[-2::-1], after
            for column in columns:
                wanted = {
                    slot: _mean([rank[n] for n in near[slot]], rank[slot]) for slot in column
                }
                column.sort(key=wanted.__getitem__)
                rank |= {slot: at for at, slot in enumerate(column)}
        self._entries: dict[int, list[Arrow]] = {}
        for arrow, chain in sorted(self._chains, key=lambda pair: rank[pair[1][-2]]):
            self._entries.setdefault(chain[-1], []).append(arrow)

    def _place(self) -> None:
        self._column_of = {s: at for at, slots in enumerate(self._slots) for s in slots}
        boxes = self._drawing.boxes
        heights = [
            sum(_height(slot, len(boxes)) + _GAP_Y for slot in slots) - _GAP_Y
            for slots in self._slots
        ]
        self._height = max(heights, default=0) + _MARGIN
        self._lefts: list[float] = []
        self._widths: list[float] = []
        self._tops: dict[int, float] = {}
        left = float(_MARGIN)
        for slots, height in zip(self._slots, heights, strict=True):
            texts = [boxes[slot] for slot in slots if slot < len(boxes)]
            width = max((_text_width(box) for box in texts), default=0.0)
            self._lefts.append(left)
            self._widths.append(width)
            left += width + _GAP_X
            top = _MARGIN + (self._height - _MARGIN - height) / 2
            for slot in slots:
                self._tops[slot] = top
                top += _height(slot, len(boxes)) + _GAP_Y


def _columns(drawing: Drawing) -> list[int]:
    """The column of each box: right of all that it reads; a circle is cut anywhere."""
    reads: Mapping[int, list[int]] = {index: [] for index in range(len(drawing.boxes))}
    for arrow in drawing.arrows:
        reads[arrow.target].append(arrow.source)
    columns: dict[int, int] = {}
    met: set[int] = set()
    for start in reads:
        stack = [] if start in met else [(start, iter(reads[start]))]
        met.add(start)
        while stack:
            box, ahead = stack[-1]
            following = next((source for source in ahead if source not in met), None)
            if following is not None:
                met.add(following)
                stack.append((following, iter(reads[following])))
                continue
            stack.pop()
            columns[box] = 1 + max((columns.get(s, -1) for s in reads[box]), default=-1)
    return [columns[index] for index in range(len(drawing.boxes))]


def _mean(places: Sequence[int], own: int) -> float:
    return sum(places) / len(places) if places else float(own)


def _port(entries: Sequence[Arrow], arrow: Arrow) -> float:
    """Where on the left side of a box an arrow ends: they share it evenly."""
    return _BOX * (entries.index(arrow) + 1) / (len(entries) + 1)


def _height(slot: int, boxes: int) -> float:
    return _BOX if slot < boxes else _THIN


def _text_width(box: Box) -> float:
    longest = max(len(box.title[:_MAX_LABEL]), len(box.detail[:_MAX_LABEL]) * 0.85)
    return max(90.0, longest * _CHAR * (1.08 if box.is_stage else 1.0) + 28)

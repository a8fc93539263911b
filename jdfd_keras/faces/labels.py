"""Positions of labels beside boxes, so that no label covers another one.

Takes rectangles and sizes in pixels; draws nothing.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple


class Rect(NamedTuple):
    """A rectangle of whole pixels; `right` and `bottom` are behind its last ones."""

    left: int
    top: int
    right: int
    bottom: int

    def intersects(self, other: "Rect") -> bool:
        """Return whether they share a pixel."""
        return self.overlap(other) > 0

    def overlap(self, other: "Rect") -> int:
        """Return the number of pixels that they share."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0) * max(height, 0)

    def distance(self, other: "Rect") -> int:
        """Return the distance of their edges, the larger one of both directions; 0 if they touch.

        Example:
            >>> Rect(0, 0, 4, 4).distance(Rect(9, 1, 12, 3))
            5
        """
        across = max(other.left - self.right, self.left - other.right, 0)
        return max(across, other.top - self.bottom, self.top - other.bottom)


def place_labels(
    boxes: Sequence[Rect],
    sizes: Sequence[Sequence[tuple[int, int]]],
    frame: tuple[int, int],
    reserved: Sequence[Rect] = (),
) -> list[tuple[int, Rect] | None]:
    """Choose a position for the label of each box; always the same for the same input.

    The labels are placed in their order. A label is above, below, inside or beside its box, where
    it covers the least of the other boxes; if each of these positions is occupied or outside of the
    frame, it is at the free position that is nearest to the box. If the longest form of a label
    fits nowhere, the next one is tried; a label of which no form fits is omitted.

    Args:
        boxes: The boxes, which may extend beyond the frame.
        sizes: Width and height of the forms of each label, the preferred one first.
        frame: Width and height of the frame.
        reserved: Rectangles that no label may cover.

    Returns:
        For each label the index of its form and its position; None if it is omitted. Labels do
        not share a pixel with another one or with a reserved rectangle.

    Example:
        >>> box = Rect(10, 30, 40, 70)
        >>> place_labels([box, box], [[(30, 10)], [(30, 10)]], (100, 100))
        [(0, Rect(left=10, top=20, right=40, bottom=30)), (0, Rect(left=10, top=70, ...))]
    """
    occupied, placed = list(reserved), []
    for index, (box, forms) in enumerate(zip(boxes, sizes, strict=True)):
        others = [other for number, other in enumerate(boxes) if number != index]
        found = (
            (form, place)
            for form, size in enumerate(forms)
            if (place := _place(box, size, frame, occupied, others))
        )
        label = next(found, None)
        placed.append(label)
        if label:
            occupied.append(label[1])
    return placed


def _place(
    box: Rect,
    size: tuple[int, int],
    frame: tuple[int, int],
    occupied: Sequence[Rect],
    others: Sequence[Rect],
) -> Rect | None:
    def is_free(rect: Rect) -> bool:
        is_inside = (
            rect.left >= 0 <= rect.top and rect.right <= frame[0] and rect.bottom <= frame[1]
        )
        return is_inside and not any(map(rect.intersects, occupied))

    def covered(rect: Rect) -> int:
        return sum(map(rect.overlap, others))

    beside = list(filter(is_free, _beside(box, size, frame[0])))
    if beside:  # the first one of those that cover the least
        return min(beside, key=covered)
    free = filter(is_free, _anywhere(size, frame, (*occupied, box)))
    return min(free, key=lambda rect: (box.distance(rect), covered(rect), rect), default=None)


def _beside(box: Rect, size: tuple[int, int], frame_width: int) -> Iterator[Rect]:
    """Yield the positions above, below, inside and beside a box, the preferred one first."""
    width, height = size
    # Aligned with the left or the right edge, and moved so that it does not leave the frame.
    columns = [max(min(left, frame_width - width), 0) for left in (box.left, box.right - width)]
    for top in (box.top - height, box.bottom, box.top, box.bottom - height):
        for left in columns:
            yield Rect(left, top, left + width, top + height)
    for top in (box.top, box.bottom - height):
        for left in (box.right, box.left - width):
            yield Rect(left, top, left + width, top + height)


def _anywhere(
    size: tuple[int, int], frame: tuple[int, int], obstacles: Iterable[Rect]
) -> Iterator[Rect]:
    """Yield positions that touch obstacles or the edges of the frame.

    If a free position exists, one of these is free: any other can be moved to the left and upwards
    until it touches something.
    """
    (width, height), obstacles = size, list(obstacles)
    columns = {0, frame[0] - width} | {rect.right for rect in obstacles}
    columns |= {rect.left - width for rect in obstacles}
    rows = {0, frame[1] - height} | {rect.bottom for rect in obstacles}
    rows |= {rect.top - height for rect in obstacles}
    for left in sorted(columns):
        for top in sorted(rows):
            yield Rect(left, top, left + width, top + height)

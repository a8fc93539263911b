"""Tables of results in Markdown."""

from collections.abc import Sequence

from tabulate import tabulate


def table(header: Sequence[object], rows: Sequence[Sequence[object]], align: str = "") -> str:
    """Return a Markdown table; `align` has `l` or `r` for each column; all left by default."""
    sides = [{"l": "left", "r": "right"}[side] for side in align or "l" * len(header)]
    return tabulate(rows, header, "pipe", colalign=sides, disable_numparse=True)

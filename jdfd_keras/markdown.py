"""Tables in Markdown, for every report."""

from collections.abc import Sequence


def table(header: Sequence, rows: Sequence[Sequence], align: str = "") -> str:
    """Write a table.

    Args:
        header: A word for each column.
        rows: As many values each; written as they print, on one line.
        align: `l` or `r` for each column; all to the left if not given.
    """
    rules = [":---" if side == "l" else "---:" for side in align or "l" * len(header)]
    lines = [header, rules, *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def cell(value) -> str:
    """Write a value so that it neither ends a line nor a cell."""
    return " ".join(str(value).split()).replace("|", "\\|")

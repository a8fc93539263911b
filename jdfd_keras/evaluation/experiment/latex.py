"""Tables in LaTeX, for papers.

Takes cells as text; gives a `table` that stands by itself in any document with booktabs.
"""

from collections.abc import Sequence

_NAMES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "–": "--",
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}


def escape(text: object) -> str:
    """Write text so that LaTeX prints it as it is."""
    return "".join(_NAMES.get(sign, sign) for sign in " ".join(str(text).split()))


def table(
    header: Sequence[tuple[str, int]],
    second: Sequence[str],
    blocks: Sequence[Sequence[Sequence[str]]],
    *,
    caption: str,
    label: str,
    num_text: int,
    notes: Sequence[str] = (),
) -> str:
    """Write a table.

    Args:
        header: Words of the first line, escaped, and how many columns each is above.
        second: Words of the second line, escaped, one for each column.
        blocks: Rows of escaped cells; between blocks there is a rule.
        caption: Escaped.
        label: What `ref` finds it by.
        num_text: Columns at the left that are words; the others are numbers.
        notes: Plain text, put above as comments.
    """
    width = sum(count for _, count in header)
    heads, rules, column = [], [], 1
    for words, count in header:
        heads.append(rf"\multicolumn{{{count}}}{{c}}{{{words}}}" if count > 1 else words)
        if count > 1:
            rules.append(rf"\cmidrule(lr){{{column}-{column + count - 1}}}")
        column += count
    lines = [
        r"% Needs \usepackage{booktabs}.",
        *(f"% {' '.join(note.split())}" for note in notes),
        r"\begin{table}",
        r"\centering\footnotesize",
        rf"\caption{{{caption}}}",
        rf"\label{{{label}}}",
        rf"\begin{{tabular}}{{{'l' * num_text}{'r' * (width - num_text)}}}",
        r"\toprule",
        " & ".join(heads) + r" \\",
        *rules,
        " & ".join(second) + r" \\",
    ]
    for rows in blocks:
        lines.append(r"\midrule")
        lines += [" & ".join(row) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"

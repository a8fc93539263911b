"""Tables in LaTeX, for papers.

Takes cells as text; gives a `table` that stands by itself in any document with booktabs.

The report of an experiment as pages: Markdown, CSV and LaTeX.

Takes the dict that `summary.summarize` gives; computes nothing.
"""

import csv
import io
from collections.abc import Sequence

from jdfd_keras.experiments.plan import is_best
from jdfd_keras.experiments.sets import end_page, name_set
from jdfd_keras.reporting import markdown

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


def latex_table(
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


COLUMNS = (
    *("experiment", "kind", "method", "train", "test", "decoder", "share_percent", "seed"),
    *("frame_auc_percent", "frame_low_percent", "frame_high_percent"),
    *("video_auc_percent", "video_low_percent", "video_high_percent", "source"),
)
OURS = "JDFD"
LABELS = {
    "cross-dataset": ("Method", "Train data"),
    "ablation": ("Train data", "Method"),
    "foreign-data": ("Train data", "Unlabelled, of each other"),
}
NOT_RUN = "not run"
MARKS = ("**{}**", "*{}*")  # Markdown has no underline
LATEX_MARKS = (r"\textbf{{{}}}", r"\underline{{{}}}")


def render_markdown(report: dict) -> str:
    """Write the report as a person reads it; a line feed is at its end."""
    captions = [_say_caption(report)]
    if report["others"]:
        captions.append(
            "Other methods stand as published, their numbers in brackets being the paper's "
            "references. Of published figures, the best of Table 2 are in italics within a "
            "data set (underlined there) and bold across two."
        )
    labels, tests = LABELS[report["experiment"]], [name_set(test) for test in report["tests"]]
    header = (*labels, *tests)
    others = []
    for other in report["others"]:
        cells = [markdown.Marked(_mark_other(other, test, MARKS)) for test in report["tests"]]
        others.append([other["name"], name_set(other["train"]), *cells])
    ours, videos = [], []
    for row in report["rows"]:
        cells = row["cells"].values()
        figures = [markdown.Marked(_cell(report, row, test)) for test in row["cells"]]
        ours.append([*_label(report, row), *figures])
        videos.append([*_label(report, row), *(_measure(report, cell, "video") for cell in cells)])
    sections = [
        f"# {report['title']}",
        markdown.table(header, [*others, *ours]),
        "\n".join(captions),
        "## AUC over videos",
        markdown.table(header, videos),
        "In per cent; the paper has none.",
    ]
    if report.get("figure"):
        sections.append(f"![{report['title']}]({report['figure']})")
    return "\n\n".join([*sections, *end_page(report, "Without a figure")]) + "\n"


def render_csv(report: dict) -> str:
    """Write one row for each cell and seed, each published figure and each failure."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for other in report["others"]:
        for test, percent in other["percent"].items():
            if percent is not None:
                about = {"method": other["name"], "train": other["train"], "test": test}
                figure = {"frame_auc_percent": percent, "source": "Table 2"}
                writer.writerow(_start(report, "published") | about | figure)
    for row in report["rows"]:
        for test, cell in row["cells"].items():
            about = {"method": OURS, "train": row["data"], "test": test}
            about |= {"decoder": row["decoder"], "share_percent": row["share_percent"]}
            for result in cell["results"]:
                figures = {"seed": result["seed"], "source": result["report"]}
                for level in ("frame", "video"):
                    low, high = result[f"{level}_interval_percent"] or ("", "")
                    figures[f"{level}_auc_percent"] = result[f"{level}_auc_percent"]
                    figures |= {f"{level}_low_percent": low, f"{level}_high_percent": high}
                writer.writerow(_start(report, "measured") | about | figures)
            for published in cell["published"]:
                figure = {"frame_auc_percent": published["percent"], "source": published["source"]}
                writer.writerow(_start(report, "published") | about | figure)
            for reason in cell["failed"]:
                failure = {"source": " ".join(reason.split())}
                writer.writerow(_start(report, "failed") | about | failure)
    return file.getvalue()


def render_latex(report: dict) -> str:
    """Write the table of faces for a paper; ours and its figures in columns of their own."""
    labels, tests = LABELS[report["experiment"]], report["tests"]
    header = [("", 1)] * len(labels) + [(escape(name_set(test)), 2) for test in tests]
    second = [*map(escape, labels), *["ours", "paper"] * len(tests)]
    others = []
    for other in report["others"]:
        cells = [escape(other["name"]), escape(name_set(other["train"]))]
        for test in tests:
            cells += ["", _mark_other(other, test, LATEX_MARKS)]
        others.append(cells)
    ours = []
    for row in report["rows"]:
        cells = [escape(words) for words in _label(report, row)]
        for test in tests:
            cell = row["cells"][test]
            cells.append(escape(_measure(report, cell, "frame")))
            cells.append(" / ".join(_mark_published(report, row, test, LATEX_MARKS)))
        ours.append(cells)
    return latex_table(
        header,
        second,
        [block for block in (others, ours) if block],
        caption=escape(f"{report['title']}. {_say_caption(report)}"),
        label=f"tab:{report['experiment']}",
        num_text=len(labels),
        notes=[*report["notes"], *report.get("failed", ())],
    )


def _say_caption(report: dict) -> str:
    seeds = len(report["protocol"]["seeds"])
    how = f"mean ± sample standard deviation of {seeds} seeds" if seeds > 1 else "one seed"
    is_table = report["experiment"] != "foreign-data"
    both = " (its Tables 2 and 3 differ in one cell)" if is_table else ""
    return f"AUC in per cent over faces, the paper's measure; {how}, beside the paper's{both}."


def _label(report: dict, row: dict) -> tuple[str, str]:
    data = name_set(row["data"])
    if report["experiment"] == "cross-dataset":
        return OURS, data
    if report["experiment"] == "ablation":
        return data, OURS if row["decoder"] else "Baseline, no decoder"
    return data, f"{row['share_percent']} %"


def _cell(report: dict, row: dict, test: str) -> str:
    cell = row["cells"][test]
    figures = _mark_published(report, row, test, MARKS)
    if len(figures) > 1:
        sources = [figure["source"] for figure in cell["published"]]
        figures = [f"{text} ({source})" for text, source in zip(figures, sources, strict=True)]
    ours = _measure(report, cell, "frame")
    return f"{ours}; paper {' / '.join(figures)}" if figures else ours


def _mark_other(other: dict, test: str, marks: tuple[str, str]) -> str:
    if test not in other["percent"]:
        return ""  # a data set that the paper does not have
    return _mark_best(other["train"], test, other["percent"][test], *marks)


def _mark_published(report: dict, row: dict, test: str, marks: tuple[str, str]) -> list[str]:
    """Write the paper's figures of its own method; those of Table 2 with the marks they have."""
    texts = []
    for figure in row["cells"][test]["published"]:
        percent = figure["percent"]
        is_marked = report["others"] and figure["source"] in ("Table 2", "Tables 2 and 3")
        texts.append(
            _mark_best(row["data"], test, percent, *marks) if is_marked else f"{percent:.1f}"
        )
    return texts


def _measure(report: dict, cell: dict, level: str) -> str:
    found, asked = cell[level], len(report["protocol"]["seeds"])
    if found is None:
        return NOT_RUN
    text = f"{found['mean_percent']:.1f}"
    if found["spread_percent"] is not None:
        text += f" ± {found['spread_percent']:.1f}"
    if found["interval_percent"]:
        text += " [{:.1f}, {:.1f}]".format(*found["interval_percent"])
    if found["seeds"] == asked:  # as the caption says
        return text
    return f"{text} ({found['seeds']} of {asked} seeds)"


def _mark_best(train: str, test: str, percent: float | None, bold: str, underline: str) -> str:
    if percent is None:
        return "-"
    text = f"{percent:.1f}"
    if not is_best(train, test, percent):
        return text
    return (underline if train == test else bold).format(text)


def _start(report: dict, kind: str) -> dict:
    return {"experiment": report["experiment"], "kind": kind}

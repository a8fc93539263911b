"""The tables of an experiment as Markdown, CSV and LaTeX.

Takes the `AucReport` of an experiment and returns text; computes nothing.
"""

import csv
import io
from collections.abc import Sequence

from jdfd_keras.experiments.cells import (
    AucReport,
    AucSummary,
    ReportCell,
    ReportRow,
)
from jdfd_keras.experiments.plan import OtherMethod, is_best
from jdfd_keras.experiments.sets import ExperimentReport, dataset_name
from jdfd_keras.reporting import markdown

_LATEX_CHARACTERS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "–": "--",
} | {character: f"\\{character}" for character in "&%$#_{}"}


def escape(text: object) -> str:
    r"""Escape text for LaTeX.

    Example:
        >>> print(escape("a_b & 50 %"))
        a\_b \& 50 \%
    """
    return "".join(
        _LATEX_CHARACTERS.get(character, character) for character in " ".join(str(text).split())
    )


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
    r"""Return a LaTeX table that needs only the package booktabs.

    Args:
        header: Escaped words of the first line, each with the number of columns that it spans.
        second: Escaped words of the second line, one per column.
        blocks: Blocks of rows of escaped cells, separated by rules.
        caption: Escaped caption.
        label: Label for `ref`.
        num_text: Number of text columns, which come first; the others hold numbers.
        notes: Plain text, written above the table as comments.

    Example:
        >>> text = latex_table(
        ...     [("Data", 1), ("AUC", 2)],
        ...     ["", "ours", "paper"],
        ...     [[["FF++", "97.0", "98.2"]]],
        ...     caption="AUC",
        ...     label="tab:auc",
        ...     num_text=1,
        ... )
        >>> r"FF++ & 97.0 & 98.2 \\" in text
        True
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
    "foreign-data": ("Train data", "Unlabelled share of each other dataset"),
}
NOT_RUN = "not run"
MARKS = ("**{}**", "*{}*")  # Markdown cannot underline
LATEX_MARKS = (r"\textbf{{{}}}", r"\underline{{{}}}")


def render_markdown(report: AucReport) -> str:
    """Return the page of an experiment as Markdown.

    Example:
        >>> print(render_markdown(experiment("ablation", data, "out")))  # doctest: +SKIP
    """
    captions = [_caption(report)]
    if report.others:
        captions.append(
            "Other methods are shown as published; numbers in brackets are the paper's references. "
            "Among the published AUCs, the best of Table 2 are in italics within a dataset "
            "(underlined in the paper) and in bold across datasets."
        )
    labels, tests = LABELS[report.experiment], [dataset_name(test) for test in report.tests]
    header = (*labels, *tests)
    others = []
    for other in report.others:
        cells = [markdown.Marked(_mark_other(other, test, MARKS)) for test in report.tests]
        others.append([other.name, dataset_name(other.train), *cells])
    ours, videos = [], []
    for row in report.rows:
        label = _label(report, row)
        cells = [markdown.Marked(_render_cell(report, row, test)) for test in row.cells]
        ours.append([*label, *cells])
        videos.append([*label, *(_render_auc(report, c.video) for c in row.cells.values())])
    sections = [
        f"# {report.title}",
        markdown.table(header, [*others, *ours]),
        "\n".join(captions),
        "## AUC by videos",
        markdown.table(header, videos),
        "In per cent; the paper publishes none.",
    ]
    if report.figure:
        sections.append(f"![{report.title}]({report.figure})")
    return "\n\n".join([*sections, *closing_sections(report)]) + "\n"


def closing_sections(report: ExperimentReport) -> list[str]:
    """Return the Markdown sections that the page of every experiment ends with."""
    sections = {"Protocol": report.notes, "Missing results": report.failed}
    return [
        text
        for title, lines in sections.items()
        if lines
        for text in (f"## {title}", "\n".join(f"- {markdown.cell(line)}" for line in lines))
    ]


def render_csv(report: AucReport) -> str:
    """Return CSV with one row per cell and seed, per published AUC and per failure.

    Example:
        >>> rows = render_csv(experiment("ablation", data, "out")).splitlines()  # doctest: +SKIP
    """
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")

    def write(kind: str, values: dict[str, object]) -> None:
        writer.writerow({"experiment": report.experiment, "kind": kind} | values)

    writer.writeheader()
    for other in report.others:
        for test, percent in other.percent.items():
            if percent is not None:
                method = {"method": other.name, "train": other.train, "test": test}
                write("published", method | {"frame_auc_percent": percent, "source": "Table 2"})
    for row in report.rows:
        for test, cell in row.cells.items():
            training = row.training
            about = {"method": OURS, "train": training.data, "test": test}
            about |= {"decoder": training.decoder, "share_percent": training.share_percent}
            for result in cell.results:
                values = {"seed": result.seed, "source": result.report}
                for level in ("frame", "video"):
                    low, high = getattr(result, f"{level}_interval_percent") or ("", "")
                    values[f"{level}_auc_percent"] = getattr(result, f"{level}_auc_percent")
                    values |= {f"{level}_low_percent": low, f"{level}_high_percent": high}
                write("measured", about | values)
            for auc in cell.published:
                write("published", about | {"frame_auc_percent": auc.percent, "source": auc.source})
            for reason in cell.failed:
                write("failed", about | {"source": " ".join(reason.split())})
    return file.getvalue()


def render_latex(report: AucReport) -> str:
    """Return the table of AUCs by faces as LaTeX, with our and the paper's AUCs side by side.

    Example:
        >>> text = render_latex(experiment("ablation", data, "out"))  # doctest: +SKIP
    """
    labels, tests = LABELS[report.experiment], report.tests
    header = [("", 1)] * len(labels) + [(escape(dataset_name(test)), 2) for test in tests]
    second = [*map(escape, labels), *["ours", "paper"] * len(tests)]
    others = []
    for other in report.others:
        cells = [escape(other.name), escape(dataset_name(other.train))]
        for test in tests:
            cells += ["", _mark_other(other, test, LATEX_MARKS)]
        others.append(cells)
    ours = []
    for row in report.rows:
        cells = [escape(words) for words in _label(report, row)]
        for test in tests:
            cells.append(escape(_render_auc(report, row.cells[test].frame)))
            cells.append(" / ".join(_mark_published(report, row, test, LATEX_MARKS)))
        ours.append(cells)
    return latex_table(
        header,
        second,
        [block for block in (others, ours) if block],
        caption=escape(f"{report.title}. {_caption(report)}"),
        label=f"tab:{report.experiment}",
        num_text=len(labels),
        notes=[*report.notes, *report.failed],
    )


def _caption(report: AucReport) -> str:
    seeds = len(report.protocol.seeds)
    how = f"mean ± sample standard deviation of {seeds} seeds" if seeds > 1 else "one seed"
    is_table = report.experiment != "foreign-data"
    differ = " (its Tables 2 and 3 differ in one cell)" if is_table else ""
    return f"AUC by faces in per cent, the paper's measure; {how}, next to the paper's AUC{differ}."


def _label(report: AucReport, row: ReportRow) -> tuple[str, str]:
    data = dataset_name(row.training.data)
    if report.experiment == "cross-dataset":
        return OURS, data
    if report.experiment == "ablation":
        return data, OURS if row.training.decoder else "Baseline, no decoder"
    return data, f"{row.training.share_percent} %"


def _render_cell(report: AucReport, row: ReportRow, test: str) -> str:
    cell: ReportCell = row.cells[test]
    published = _mark_published(report, row, test, MARKS)
    if len(published) > 1:
        sources = [auc.source for auc in cell.published]
        published = [f"{text} ({source})" for text, source in zip(published, sources, strict=True)]
    ours = _render_auc(report, cell.frame)
    return f"{ours}; paper {' / '.join(published)}" if published else ours


def _mark_other(other: OtherMethod, test: str, marks: tuple[str, str]) -> str:
    if test not in other.percent:
        return ""  # not a dataset of the paper
    return _mark_best(other.train, test, other.percent[test], *marks)


def _mark_published(
    report: AucReport, row: ReportRow, test: str, marks: tuple[str, str]
) -> list[str]:
    """Return the paper's AUCs of its own method, those of Table 2 with the paper's marks."""
    texts = []
    for auc in row.cells[test].published:
        is_marked = report.others and auc.source in ("Table 2", "Tables 2 and 3")
        texts.append(
            _mark_best(row.training.data, test, auc.percent, *marks)
            if is_marked
            else f"{auc.percent:.1f}"
        )
    return texts


def _render_auc(report: AucReport, auc: AucSummary | None) -> str:
    if auc is None:
        return NOT_RUN
    num_seeds = len(report.protocol.seeds)
    text = f"{auc.mean_percent:.1f}"
    if auc.std_percent is not None:
        text += f" ± {auc.std_percent:.1f}"
    if auc.interval_percent:
        text += " [{:.1f}, {:.1f}]".format(*auc.interval_percent)
    if auc.num_seeds == num_seeds:  # the number in the caption
        return text
    return f"{text} ({auc.num_seeds} of {num_seeds} seeds)"


def _mark_best(train: str, test: str, percent: float | None, bold: str, underline: str) -> str:
    if percent is None:
        return "-"
    text = f"{percent:.1f}"
    if not is_best(train, test, percent):
        return text
    return (underline if train == test else bold).format(text)

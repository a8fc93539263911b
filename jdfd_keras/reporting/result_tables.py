"""Tables of the results of experiments, as Markdown and LaTeX, and their protocol in words.

`render_split_aucs` writes the page of an experiment that the paper does not have; the tables with
the paper's values are in `experiment_report`.
"""

import re
from typing import Any

import pandas as pd

from jdfd_keras.experiments.experiment import AucReport
from jdfd_keras.experiments.plan import METHOD_NAMES, NAMES
from jdfd_keras.experiments.sets import ExperimentReport, dataset_name
from jdfd_keras.experiments.statistics import CountReport
from jdfd_keras.io.console import plural
from jdfd_keras.options import OptimizerOptions, TrainOptions, list_unused
from jdfd_keras.reporting.templating import cell, render_template

NOT_RUN = "not run"
MEAN = "Mean"
METHOD = "Method"
DATASET, TRAINED_ON = "Dataset", "Trained on"
# Experiment to the labels of its rows, and the field that its columns are by.
LAYOUTS = {
    "leave-one-out": ([DATASET], "held_out"),
    "cross-compression": ([DATASET, TRAINED_ON], "test_compression"),
}
LATEX_MARKS = (
    (r"\*\*(.+?)\*\*", r"\\textbf{\1}"),
    (r"\*(.+?)\*", r"\\underline{\1}"),
    (r"(\d\}?) \(Table \d\)", r"\1"),  # too wide for a cell; the caption has it
)


def render_split_aucs(report: AucReport) -> tuple[str, str]:
    """Return the page of `leave-one-out` or `cross-compression` as Markdown, and its LaTeX table.

    Example:
        >>> from jdfd_keras.experiments.experiment import experiment
        >>> report = experiment("leave-one-out", {"ff": "nowhere"}, "experiments")
        >>> render_split_aucs(report)[0].splitlines()[-1]
        '- ff -> ff: dataset ff cannot be used: nowhere does not exist'
    """
    protocol = describe_experiment(report)
    caption = render_template("experiment_splits_caption.md.j2", report=report).strip()
    videos, frames = (_tabulate(report, metric) for metric in ("video_auc", "frame_auc"))
    page = render_template(
        "experiment_splits.md.j2",
        report=report,
        caption=caption,
        videos=to_markdown(videos, numbers="left"),
        frames=to_markdown(frames, numbers="left"),
        protocol=protocol,
    )
    latex_caption = f"{report.title}. AUC by videos {caption}"
    return page, to_latex(report, videos, None, latex_caption, protocol)


def _tabulate(report: AucReport, metric: str) -> pd.DataFrame:
    """Return the text of each cell, and of the mean of each row in `leave-one-out`."""
    labels, field = LAYOUTS[report.experiment]
    rows = pd.DataFrame([row.to_dict() for row in report.results])
    rows[DATASET], rows[TRAINED_ON] = rows.train.map(dataset_name), rows.train_compression
    names = rows.loc[:, labels].drop_duplicates()
    columns = [value for value in rows[field].unique() if value]
    rows = rows.loc[(rows.metric == metric) | (rows.kind == "failed")]
    num_seeds = len(report.protocol.seeds)
    texts = []
    for values in names.to_numpy():
        own = rows.loc[(rows[labels] == values).all(axis=1)]
        cells = {value: own.loc[own[field].isin([value, ""])] for value in columns}
        # A dataset that cannot be used has one row, with no value; others lack some of the values.
        written = {v: format_auc(cells[v], num_seeds) if len(cells[v]) else "" for v in columns}
        if report.experiment == "leave-one-out":
            written[MEAN] = _format_mean(own, num_seeds)
        texts.append(written)
    return pd.DataFrame(texts, pd.MultiIndex.from_frame(names))


def _format_mean(rows: pd.DataFrame, num_seeds: int) -> str:
    """Return the mean AUC over the held-out manipulations, of the seeds that have all of them."""
    measured = rows.loc[rows.kind == "measured"]
    if measured.empty:
        return NOT_RUN
    num_cells = rows.held_out.nunique()
    by_seed = measured.astype({"percent": float}).groupby("seed").percent.agg(["mean", "count"])
    whole = by_seed.loc[by_seed["count"] == num_cells, "mean"]
    if whole.empty:
        return f"- ({measured.held_out.nunique()} of {num_cells} were run)"
    spread = f" ± {whole.std():.1f}" if len(whole) > 1 else ""
    seeds = f" ({len(whole)} of {num_seeds} seeds)" if len(whole) < num_seeds else ""
    return f"{whole.mean():.1f}{spread}{seeds}"


def format_auc(rows: pd.DataFrame, num_seeds: int) -> str:
    """Return the AUC of one cell: mean and standard deviation, or of one seed its interval.

    Args:
        rows: Rows of an `AucReport`, one for each seed.
        num_seeds: Number of seeds; the text states if fewer were run.

    Example:
        >>> rows = pd.DataFrame({"kind": "measured", "percent": [80.0, 90.0]})
        >>> format_auc(rows, 3)
        '85.0 ± 7.1 (2 of 3 seeds)'
    """
    measured = rows.loc[rows.kind == "measured"]
    aucs = measured.percent.astype(float)
    if aucs.empty:
        return NOT_RUN
    text = f"{aucs.mean():.1f}"
    if len(aucs) > 1:
        text += f" ± {aucs.std():.1f}"
    elif measured.low_percent.notna().all():
        text += f" [{measured.low_percent.iloc[0]:.1f}, {measured.high_percent.iloc[0]:.1f}]"
    if len(aucs) < num_seeds:  # the number in the caption
        text += f" ({len(aucs)} of {num_seeds} seeds)"
    return text


def describe_experiment(report: AucReport | CountReport) -> str:
    """Return the protocol of an experiment as a Markdown list.

    Example:
        >>> from jdfd_keras.experiments.experiment import experiment
        >>> describe_experiment(experiment("statistics", {"ff": "prepared"}, ".")).splitlines()[0]
        '- FF++ (ff): official split, 4 frames per video, detector dlib, ...'
    """
    return render_template(
        "experiment_protocol.md.j2", report=report, dataset_name=dataset_name, names=list(NAMES)
    )


def describe_methods(report: AucReport) -> str:
    """Return the settings of compared methods as a Markdown table; empty if none were compared.

    Example:
        >>> from jdfd_keras.experiments.experiment import experiment
        >>> from jdfd_keras.options import ExperimentOptions
        >>> report = experiment("cross-dataset", {}, "results", ExperimentOptions(methods="fwa"))
        >>> print(describe_methods(report).splitlines()[-1])
        | FWA      | fwa        | sgd         | 0.001           | times 0.95 every epoch | 64 ...
    """
    rows = [
        {METHOD: METHOD_NAMES[name], "--method": name} | _describe_settings(name, groups)
        for name, groups in report.protocol.methods.items()
    ]
    if not rows:
        return ""
    table = pd.DataFrame(rows).set_index(METHOD).fillna("")
    return to_markdown(table, numbers="left")


def _describe_settings(method: str, groups: dict[str, Any]) -> dict[str, str]:
    """Return those settings of a training in which methods differ most."""
    unused = list_unused(method)
    optimizer, train, pipeline = (groups[name] for name in ("optimizer", "train", "pipeline"))
    if (TrainOptions, "epochs") in unused:
        return {"Optimizer": "support vector machine", "Training fakes": "labelled"}
    rate, own = optimizer.learning_rate, optimizer.classifier_learning_rate
    has_own = (OptimizerOptions, "classifier_learning_rate") not in unused and own != rate
    every = plural(optimizer.decay_epochs, "epoch").removeprefix("1 ")
    fakes = ["labelled"] * pipeline.labelled_fakes
    fakes += [f"blended ({pipeline.fakes})"] * (pipeline.fakes != "none")
    changes = [name for name, is_used in vars(groups["augment"]).items() if is_used]
    return {
        "Optimizer": optimizer.optimizer,
        "Learning rate": f"{rate:g}" + f", classifier {own:g}" * has_own,
        "Schedule": "constant"
        if optimizer.decay_rate == 1
        else f"times {optimizer.decay_rate:g} every {every}",
        "Faces per step": str(train.batch_size),
        "Training fakes": " and ".join(fakes),
        "Augmentation": ", ".join(changes) or "none",
        "Initial weights": str(groups["model"].encoder_weights),
    }


def list_unscored(report: AucReport) -> list[str]:
    """Return a sentence for each method that has no score for some faces of a test dataset.

    A method is compared with the one that has the most scores for this dataset.

    Example:
        >>> from jdfd_keras.experiments.experiment import experiment
        >>> list_unscored(experiment("cross-dataset", {}, "results"))
        []
    """
    counts: dict[str, dict[str, set[int]]] = {}
    for row in report.results:
        if row.num_faces is not None:
            counts.setdefault(row.test, {}).setdefault(row.method_key, set()).add(row.num_faces)
    sentences = []
    for test, by_method in counts.items():
        most = max(max(numbers) for numbers in by_method.values())
        for method, numbers in by_method.items():
            if min(numbers) < most:
                sentences.append(
                    f"{METHOD_NAMES[method]} has a score for {min(numbers)} of "
                    f"{plural(most, 'test face')} of {dataset_name(test)}; its AUC is of these."
                )
    return sentences


def to_markdown(table: pd.DataFrame, *, numbers: str) -> str:
    """Return a table with its index as Markdown, whose values are shown literally in the index.

    Args:
        table: Texts; the index has names.
        numbers: Alignment of the columns, `left` or `right`.

    Example:
        >>> table = pd.DataFrame({"FF++": ["98.2"]}, pd.Index(["JDFD"], name="Method"))
        >>> print(to_markdown(table, numbers="right"))
        | Method   |   FF++ |
        |:---------|-------:|
        | JDFD     |   98.2 |
    """
    align = ["left"] * table.index.nlevels + [numbers] * len(table.columns)
    table = table.rename(index=cell, columns=cell).reset_index()
    return table.to_markdown(index=False, disable_numparse=True, colalign=align)


def to_latex(
    report: ExperimentReport,
    ours: pd.DataFrame,
    paper: pd.DataFrame | None,
    caption: str,
    protocol: str,
) -> str:
    r"""Return a LaTeX table: the paper's column beside each of ours, and the protocol in comments.

    Args:
        report: Its name is the label of the table; what failed is in the comments.
        ours: Texts in Markdown.
        paper: The same of the paper; None if it has no such table.
        caption: Caption of the table.
        protocol: Lines for the comments.

    Example:
        >>> report = ExperimentReport(experiment="ablation", title="", versions={}, datasets={})
        >>> table = pd.DataFrame({"FF++": ["98.2"]}, pd.Index(["JDFD"], name="Method"))
        >>> to_latex(report, table, None, "AUC", "").splitlines()[1]
        '\\begin{table}'
    """
    columns, table, num_labels = ours.columns, ours, ours.index.nlevels
    if paper is not None:
        columns = pd.MultiIndex.from_product([ours.columns, ["ours", "paper"]])
        table = pd.concat({"ours": ours, "paper": paper}, axis=1).swaplevel(axis=1)
    table = table.reindex(columns=columns).reset_index()
    text = table.to_latex(
        index=False,
        escape=True,
        caption=caption,
        label=f"tab:{report.experiment}",
        column_format="l" * num_labels + "r" * len(columns),
        multicolumn_format="c",
    ).replace("±", r"$\pm$")
    text = text.replace("\\begin{table}\n", "\\begin{table}\n\\centering\\footnotesize\n")
    if paper is not None:
        starts = range(num_labels + 1, table.shape[1] + 1, 2)  # of pairs of columns, from 1
        rules = "".join(rf"\cmidrule(lr){{{start}-{start + 1}}}" for start in starts)
        text = text.replace("\\\\\n", f"\\\\\n{rules}\n", 1)
    for mark, command in LATEX_MARKS:
        text = re.sub(mark, command, text)
    comments = [r"Needs \usepackage{booktabs}.", *protocol.splitlines(), *report.failed]
    return "".join(f"% {' '.join(line.lstrip('-').split())}\n" for line in comments) + text

"""An audit as a person reads it: Markdown. Takes the dict that `audit` gives; computes nothing."""

from jdfd_keras.datasets.videos import CLASSES, SPLITS
from jdfd_keras.reporting.markdown import table

MOST_ROWS = 50  # of a table of findings


def render_audit(report: dict) -> str:
    """Write an audit as a person reads it.

    Args:
        report: What `audit` gave.

    Returns:
        Markdown, with a line feed at its end.
    """
    verdict = (
        f"**Leaks: {'; '.join(report['failed'])}.**"
        if "failed" in report
        else "**No leak found**: no source and no near-duplicate face lies in two splits."
    )
    sections = [
        f"# Audit of {', '.join(entry['name'] for entry in report['sets'])}",
        verdict,
        "## Faces in training and testing",
        _statistics(report["sets"]),
        "## Leaks",
        _leaks(report["leaks"]),
        *(["## Between data sets", _across(report)] if len(report["sets"]) > 1 else []),
    ]
    for entry in report["sets"]:
        sections += [f"## {entry['name']}", _describe_set(entry)]
    return "\n\n".join(sections) + "\n"


def _statistics(sets: list[dict]) -> str:
    """The paper's Table 1 in its form, with validation between, where there is any."""
    rows = []
    for entry in sets:
        faces = {(split, name): 0 for split in SPLITS for name in CLASSES}
        for group in entry["counts"]:
            if group["label"] in CLASSES:
                faces[group["split"], group["label"]] += group["faces"]
        rows.append((entry["name"], entry["split"], *faces.values()))
    header = ["data set", "split"]
    header += [f"{split} {name}" for split in SPLITS for name in CLASSES]
    return table(header, rows, "ll" + "r" * 6)


def _leaks(leaks: dict) -> str:
    sources, near = leaks["shared_sources"], leaks["near_duplicates"]
    parts = [f"Sources in two splits: {sources['count']}."]
    if sources["count"]:
        parts.append(
            table(
                ("source", "lies in", "such as"),
                [
                    (
                        entry["source"],
                        ", ".join(f"{side} ({len(v)})" for side, v in entry["places"].items()),
                        ", ".join(videos[0] for videos in entry["places"].values()),
                    )
                    for entry in sources["sources"][:MOST_ROWS]
                ],
            )
        )
        parts += _say_more(sources["count"])
    parts.append(
        "Pairs of videos with near-duplicate faces in two splits, sources above left out: "
        f"{near['count']}."
    )
    if near["count"]:
        parts.append(
            table(
                ("splits", "videos", "pairs of faces", "bits that differ, of 256"),
                [
                    (" / ".join(p["splits"]), " / ".join(p["videos"]), p["faces"], p["bits"])
                    for p in near["pairs"][:MOST_ROWS]
                ],
                "llrr",
            )
        )
        parts += _say_more(near["count"])
    if "picture" in near:
        parts.append(f"![Pairs of nearly the same face]({near['picture']})")
    return "\n\n".join(parts)


def _across(report: dict) -> str:
    shared = report["across"]["shared_sources"]
    parts = [
        "\n".join(
            f"- {' and '.join(entry['sets'])} share {entry['count']} sources, such as "
            f"{', '.join(entry['sources'][:5])}."
            for entry in shared
        )
        or "No source lies in two of the data sets."
    ]
    if len(set(report["alignments"].values())) > 1:
        laid = "; ".join(f"{name}: {how}" for name, how in report["alignments"].items())
        parts.append(
            f"Their crops are laid differently ({laid}): near-duplicates between them are found "
            "badly or not at all."
        )
    return "\n\n".join(parts)


def _describe_set(entry: dict) -> str:
    shares = ", ".join(
        f"{split} {share:.0%}" for split, share in entry["fake_share"].items() if share is not None
    )
    without = entry["without_faces"]
    lines = [
        f"- {entry['faces']} faces of {entry['videos']} videos, split by the rule "
        f"`{entry['split']}`.",
        f"- Share of fakes: {shares or 'unknown'}.",
        f"- Videos without a face: {without['count']}"
        + "".join(f", {count} {label}" for label, count in without["by_label"].items())
        + ".",
        f"- Of the layout, {entry['missing']} files are missing and {entry['unknown']} unknown.",
        *(f"- Left out: {count} videos, {why}." for why, count in entry["left_out"].items()),
    ]
    return "\n\n".join(
        [
            "\n".join(lines),
            table(
                ("split", "label", "manipulation", "compression", "videos", "faces"),
                [tuple(group.values()) for group in entry["counts"]],
                "llllrr",
            ),
            "What tells fake from real videos without looking at a face, each by itself. AUC 0.5 "
            "is chance; above, fakes have more of it; below, less.",
            table(
                ("measure", "videos", "AUC", ""),
                [
                    (
                        row["measure"],
                        row["videos"],
                        "undefined" if row["auc"] is None else f"{row['auc']:.3f}",
                        "a shortcut" if row["is_shortcut"] else "",
                    )
                    for row in entry["shortcuts"]
                ],
                "lrrl",
            ),
            *_name_videos(without),
        ]
    )


def _name_videos(without: dict) -> list[str]:
    if not without["videos"]:
        return []
    rows = [(video["video_id"], video["reason"]) for video in without["videos"][:MOST_ROWS]]
    return [table(("without a face", "reason"), rows), *_say_more(without["count"])]


def _say_more(count: int) -> list[str]:
    return [f"And {count - MOST_ROWS} more, in audit.json."] if count > MOST_ROWS else []

"""Report of `speed.py`: targets, measured values and the page. Runs nothing itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

from tables import table

OURS, OURS_TENSORFLOW, REFERENCE = "this build", "this build on TensorFlow", "reference build"
TENSORFLOW = "tensorflow float32"
# Variants of `training.py`.
OWN_STEP, PLAIN_STEP, TORCH_STEP = "in memory", "plain Keras, float32", "PyTorch, bfloat16"
SAME_TRACKS = 0.9  # smallest intersection over union of the boxes of two builds


@dataclass(frozen=True)
class Target:
    """A measurement with its bound, set beforehand."""

    part: str  # of the report
    text: str
    bound: float
    is_minimum: bool
    measure: Callable[[dict], float | None]  # from the part of the report; None if not measured
    decimals: int = 2

    def row(self, report: dict) -> tuple[str, str, str, str]:
        """Return the row of the table: text, target, measured value and whether it is met."""
        part = report.get(self.part)
        value = None if part is None else self.measure(part)
        bound = f"at {'least' if self.is_minimum else 'most'} {self.bound:g}"
        if value is None:
            return self.text, bound, "", "not measured"
        is_met = value >= self.bound if self.is_minimum else value <= self.bound
        return self.text, bound, f"{value:.{self.decimals}f}", "met" if is_met else "**not met**"


def _ratio(key: str, name: str, base: str) -> Callable[[dict], float | None]:
    """Return the function that divides the median of a variant by that of another."""

    def measure(part: dict) -> float | None:
        values = part.get(key, {})
        return median(values[name]) / median(values[base]) if {name, base} <= set(values) else None

    return measure


def _slowest_step(base: str, *batches: str) -> Callable[[dict], float | None]:
    """Return the function that divides the seconds of our step by those of another.

    Of several batches, the larger quotient counts.
    """

    def measure(part: dict) -> float | None:
        measured = [part["batches"][batch] for batch in batches if batch in part["batches"]]
        ratios = [_ratio("seconds", OWN_STEP, base)(batch) for batch in measured]
        return max((ratio for ratio in ratios if ratio is not None), default=None)

    return measure


def _largest_loss(part: dict) -> float | None:
    sets = part.get("quality", {}).get("sets", ())
    losses = [one[name]["value"] for one in sets for name in ("frame_loss", "video_loss")]
    return max(losses, default=None)


def _largest_move(part: dict) -> float | None:
    return max((o["largest_move"] for o in part.get("quality", {}).get("sets", ())), default=None)


PREDICT = "time of `predict`, 32 frames of a 15 s clip of 480p, cold start / of the reference build"
TARGETS = (
    Target("predict", PREDICT, 0.33, False, _ratio("wall_s", OURS, REFERENCE)),
    Target(
        "scoring",
        "faces/s in bfloat16 / of TensorFlow in float32",
        2.4,
        True,
        _ratio("per_s", "openvino bfloat16", TENSORFLOW),
    ),
    Target(
        "scoring",
        "faces/s in int8 / of TensorFlow in float32",
        3.5,
        True,
        _ratio("per_s", "openvino int8", TENSORFLOW),
    ),
    Target(
        "int8",
        "the same of an exported model whose loss is known",
        3.5,
        True,
        _ratio("per_s", "openvino int8", TENSORFLOW),
    ),
    Target("int8", "its largest loss of AUC by int8", 0.005, False, _largest_loss, 4),
    Target("int8", "its largest move of a video's score", 0.05, False, _largest_move, 3),
    *(
        Target(
            "training",
            f"time of a training step, batch {batch} / of PyTorch, channels last, in bfloat16",
            1.0,
            False,
            _slowest_step(TORCH_STEP, batch),
        )
        for batch in ("4", "16")
    ),
    Target(
        "training",
        "the same / of a plain Keras step in float32, the larger of both",
        0.55,
        False,
        _slowest_step(PLAIN_STEP, "4", "16"),
    ),
    Target(
        "tracking",
        "frames/s of detection and tracking, 1080p / of the reference build",
        1.5,
        True,
        _ratio("per_s", OURS, REFERENCE),
    ),
    Target(
        "tracking",
        "the same tracks: smallest overlap of the boxes of a face",
        SAME_TRACKS,
        True,
        lambda part: part.get("overlap"),
    ),
    Target(
        "memory",
        "peak memory of `predict`, 10 minutes of 1080p, MB",
        700,
        False,
        lambda part: part["peak_mb"],
        0,
    ),
)


def render(report: Mapping[str, dict]) -> str:
    """Render the measured values beside their targets as Markdown."""
    rows = [target.row(dict(report)) for target in TARGETS]
    lines = ["# Speed", table(("measurement", "target", "measured", ""), rows, "lrrl")]
    if any(part["is_dry"] for part in report.values()):
        lines.append("**Mechanics only**: sizes are tiny in some parts.")
    for name, show in SECTIONS.items():
        if name in report:
            lines += [*show(report[name])]
    return "\n\n".join(lines) + "\n"


def _show_machine(part: dict) -> str:
    machine = part["machine"]
    return (
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores; Python "
        f"{machine['python']}."
    )


def _show_predict(part: dict) -> list[str]:
    compared = f" Reference build: {part['reference']}." if part["reference"] else ""
    rows = [
        (
            name,
            part["engine"][name],
            f"{median(part['wall_s'][name]):.2f}",
            f"{min(part['wall_s'][name]):.2f} to {max(part['wall_s'][name]):.2f}",
            f"{median(part['cpu_s'][name]):.2f}",
            part["faces"][name],
            f"{part['score'][name]:.4f}",
        )
        for name in part["wall_s"]
    ]
    return [
        "## A verdict",
        f"{_show_machine(part)} `predict` of a clip of {part['clip_s']:g} s in a new process each, "
        f"from its start to its end; a detector of {part['size']} pixels with random weights, "
        f"exported by each build; medians of {_count_turns(part['wall_s'])} turns.{compared}",
        table(
            ("variant", "engine", "s", "fastest to slowest", "processor s", "faces", "score"),
            rows,
            "llrrrrr",
        ),
    ]


def _show_scoring(part: dict) -> list[str]:
    model = "with random weights, whose int8 has value ranges of noise"
    return ["## Scoring", *_show_engines(part, model)]


def _show_int8(part: dict) -> list[str]:
    if "skipped" in part:
        return ["## int8", f"Not measured: {part['skipped']}."]
    quality = part["quality"]
    rows = [
        (
            "validation" if index == 0 else "foreign",
            f"{one['num_real']} + {one['num_fake']}",
            f"{one['frame_auc']['value']:.4f}",
            f"{one['frame_loss']['value']:+.4f}",
            f"{one['video_auc']['value']:.4f}",
            f"{one['video_loss']['value']:+.4f}",
            f"{one['largest_move']:.3f}",
        )
        for index, one in enumerate(quality["sets"])
    ]
    return [
        "## int8",
        *_show_engines(part, "whose loss by int8 was measured when it was exported"),
        f"{len(quality['kept'])} of {quality['num_layers']} layers are not quantised. AUC in "
        "float32, and what int8 loses of it:",
        table(
            (
                "videos",
                "real + fake",
                "frame AUC",
                "loss",
                "video AUC",
                "loss ",
                "largest move of a video's score",
            ),
            rows,
            "lrrrrrr",
        ),
    ]


def _show_engines(part: dict, model: str) -> list[str]:
    base = median(part["per_s"][TENSORFLOW])
    rows = [
        (part["engine"][name], f"{median(values):.1f}", f"{median(values) / base:.2f}")
        for name, values in part["per_s"].items()
    ]
    return [
        f"{_show_machine(part)} {part['faces']} faces of {part['size']} pixels through "
        f"`load_predictor`, by a detector {model}; medians of {_count_turns(part['per_s'])} turns, "
        "a new process each.",
        table(("engine", "faces/s", "/ TensorFlow"), rows, "lrr"),
    ]


def _show_training(part: dict) -> list[str]:
    rows = [
        (batch, name, f"{values[0]:.3f}", f"{int(batch) / values[0]:.2f}")
        for batch, measured in part["batches"].items()
        for name, values in measured["seconds"].items()
    ]
    return [
        "## A training step",
        f"{_show_machine(part)} Measured by training.py: faces of {part['size']} pixels; the first "
        f"variants compute as `train`, here in {part['precision']}, PyTorch with channels last; "
        f"medians of the steps of {_count_processes(part['processes'])} each.",
        table(("batch", "variant", "seconds per step", "faces/s"), rows, "rlrr"),
    ]


def _show_tracking(part: dict) -> list[str]:
    compared = f" Reference build: {part['reference']}." if part["reference"] else ""
    rows = [
        (name, f"{median(values):.1f}", part["tracks"][name])
        for name, values in part["per_s"].items()
    ]
    return [
        "## Detection and tracking",
        f"{_show_machine(part)} `extract_faces` with every frame and every track of "
        f"{part['clip_s']:g} s of 1080p with one person; medians of {_count_turns(part['per_s'])} "
        f"turns, a new process each; imports and loading are not timed.{compared}",
        table(("build", "frames/s", "tracks"), rows, "lrr"),
    ]


def _show_memory(part: dict) -> list[str]:
    processes = " + ".join(map(str, part["processes_mb"]))
    return [
        "## Memory",
        f"{_show_machine(part)} `predict` of {part['clip_s'] / 60:.1f} minutes of 1080p with one "
        f"person, {part['faces']} faces scored by {part['engine'] or 'TensorFlow'}, in "
        f"{part['seconds']:.0f} s: {part['peak_mb']} MB at most, the sum of the resident memory of "
        f"its processes ({processes} MB), read every 50 ms. Memory that they share counts in each.",
    ]


def _count_processes(count: int) -> str:
    return f"{count} process{'' if count == 1 else 'es'}"


def _count_turns(values: dict[str, list[float]]) -> int:
    return len(next(iter(values.values())))


SECTIONS: Mapping[str, Callable[[dict], list[str]]] = {
    "predict": _show_predict,
    "scoring": _show_scoring,
    "int8": _show_int8,
    "training": _show_training,
    "tracking": _show_tracking,
    "memory": _show_memory,
}

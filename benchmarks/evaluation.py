"""Benchmark of evaluation: metrics of a million faces, and scoring.

Metrics run on one core in a process of their own, compared with a loop of scikit-learn;
`predict_dataset` runs in turns with a bare `model.predict` of the same faces in memory. Scores and
faces are synthetic. Linux only.

    python benchmarks/evaluation.py                   # about a quarter of an hour on two cores
    python benchmarks/evaluation.py --only metrics    # or scoring; keeps the result of the other
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the package next to this folder
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

HERE = Path(__file__).parent
TARGETS = {  # set before the first run
    "auc_s": ("AUC with intervals, faces and videos, s", "less than", 20.0),
    "all_s": ("all metrics with intervals, faces and videos, s", "less than", 60.0),
    "peak_mb": ("peak memory, MB", "less than", 1500.0),
    "scoring": ("faces/s of `predict_dataset` divided by those of `predict`", "at least", 0.95),
}
KINDS = {
    "no ties": "float64, no ties",
    "ties": "float32 with 3 decimals, ties",
}
LOOP_RESAMPLES = 3  # timed with scikit-learn, where all take minutes
TIMED_RESAMPLES = 20  # timed with `Ranking`
SCORING = {
    "predict_dataset": "`predict_dataset` over `load_faces`",
    "predict": "`predict` of the classifier alone, faces in memory",
    "predict_dataset, decoder": "`predict_dataset` with reconstructions",
    "predict, decoder": "`predict` of both outputs, faces in memory",
}


def main() -> None:
    """Run the requested parts and write the results."""
    arguments = _parse()
    if arguments.variant:
        print(json.dumps(VARIANTS[arguments.variant](arguments)))
        return
    from face_report import describe_machine

    out = Path(arguments.out)
    report = json.loads(out.read_text(encoding="utf-8")) if arguments.only and out.is_file() else {}
    report["machine"] = describe_machine() | {"cores": str(os.cpu_count())}
    for name, measure in {"metrics": measure_metrics, "scoring": measure_scoring}.items():
        if arguments.only in ("", name):
            report[name] = measure(arguments)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    page = render(report)
    out.with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)


def measure_metrics(arguments: argparse.Namespace) -> dict:
    """Time the metrics and a loop of scikit-learn on the same scores, with and without ties."""
    sizes = {
        name: getattr(arguments, name) for name in ("videos", "faces_per_video", "n_resamples")
    }
    kinds = {kind: _run("ours", arguments, kind) | _run("loop", arguments, kind) for kind in KINDS}
    return sizes | {"kinds": kinds}


def measure_scoring(arguments: argparse.Namespace) -> dict:
    """Time scoring on synthetic faces."""
    from training import prepare_set

    with tempfile.TemporaryDirectory(dir=arguments.scratch) as directory:
        arguments.data = Path(directory) / "set"
        prepare_set(arguments.data, arguments.size, arguments.faces)
        return _run("scoring", arguments)


def make_scores(kind: str, num_videos: int, faces_per_video: int) -> dict[str, np.ndarray]:
    """Draw scores like those of a detector: fakes score higher, faces of one video are similar.

    Args:
        kind: One of KINDS.
        num_videos: Number of videos; every second one is fake.
        faces_per_video: Faces per video.

    Returns:
        `video`: int64[n], from 0; `label`: int64[n]; `score`: float64[n] or float32[n], in [0, 1].
    """
    rng = np.random.default_rng(0)
    video = np.repeat(np.arange(num_videos), faces_per_video)
    label = video % 2
    logit = 2.0 * label - 1 + rng.normal(0, 1, num_videos)[video] + rng.normal(0, 1, len(video))
    score = 1 / (1 + np.exp(-logit))
    if kind == "ties":
        score = np.round(score.astype(np.float32), 3)
    return {"video": video, "label": label, "score": score}


def time_metrics(arguments: argparse.Namespace) -> dict:
    """Time every metric of faces and of videos, with intervals, and measure peak memory."""
    import pyarrow as pa

    from jdfd_keras.evaluation.metrics import Ranking, measure
    from jdfd_keras.evaluation.scores import Scores, score_videos

    _pin_to_one_core()
    before_mb = _peak_mb()
    drawn = make_scores(arguments.kind, arguments.videos, arguments.faces_per_video)
    names = pa.array([f"synthetic/{number:05d}" for number in range(arguments.videos)])
    settings = {"threshold": 0.5, "n_resamples": arguments.n_resamples, "seed": 0}
    begun = time.perf_counter()
    scores = Scores.from_faces(
        video_id=names.take(drawn["video"]), label=drawn["label"], score=drawn["score"]
    )
    joined = time.perf_counter()
    frame = measure(scores.label, scores.score, video=scores.video, **settings)
    framed = time.perf_counter()
    video = measure(scores.videos.label, score_videos(scores), **settings)
    done = time.perf_counter()
    peak_mb = _peak_mb()

    sorting = time.perf_counter()
    ranking = Ranking(scores.label, scores.score, scores.video, 0.5)
    sorted_s = time.perf_counter() - sorting
    rng = np.random.default_rng(0)
    times = [rng.integers(3, size=arguments.videos) for _ in range(TIMED_RESAMPLES)]
    resample_s = statistics.median(_time(lambda t=t: ranking.measure(t)) for t in times)
    return {
        "distinct": len(np.unique(scores.score)),
        "table_s": round(joined - begun, 2),
        "frame_s": round(framed - joined, 5),
        "video_s": round(done - framed, 2),
        "sort_ms": round(1000 * sorted_s),
        "resample_ms": round(1000 * resample_s, 2),
        "import_mb": round(before_mb),
        "peak_mb": round(peak_mb),
        "frame_auc": [frame.auc.value, frame.auc.low, frame.auc.high],
        "video_auc": [video.auc.value, video.auc.low, video.auc.high],
    }


def time_loop(arguments: argparse.Namespace) -> dict:
    """Time the AUC of resampled faces with scikit-learn."""
    from sklearn.metrics import roc_auc_score

    _pin_to_one_core()
    drawn = make_scores(arguments.kind, arguments.videos, arguments.faces_per_video)
    label, score = drawn["label"], drawn["score"]
    rng = np.random.default_rng(0)

    def resample() -> None:
        rows = rng.integers(len(label), size=len(label))
        roc_auc_score(label[rows], score[rows])

    loop_auc = float(roc_auc_score(label, score))
    seconds = [_time(resample) for _ in range(LOOP_RESAMPLES)]
    return {"loop_resample_s": round(statistics.median(seconds), 4), "loop_auc": loop_auc}


def time_scoring(arguments: argparse.Namespace) -> dict:
    """Time `predict_dataset` and `predict` in turns, without and with the decoder."""
    import keras

    from jdfd_keras.datasets.pipeline import load_faces
    from jdfd_keras.inference.dataset_scores import predict_dataset
    from jdfd_keras.model.methods import build_detector
    from jdfd_keras.model.network import classifier_branch
    from jdfd_keras.options import ModelOptions

    model = build_detector(ModelOptions(image_size=arguments.size, encoder_weights="none"))

    def load():
        return load_faces(arguments.data, "train", batch_size=arguments.batch_size)

    faces = np.concatenate([image.numpy() for image, _ in load()])

    def both() -> keras.Model:
        # A new model, as `classifier_branch` returns: every pass of every variant traces its graph.
        return keras.Model(model.input, model.output)

    def predict(predictor: keras.Model):
        return predictor.predict(faces, batch_size=arguments.batch_size, verbose=0)

    variants = {
        "predict_dataset": lambda: predict_dataset(model, load()).score,
        "predict": lambda: predict(classifier_branch(model))[:, 0],
        "predict_dataset, decoder": lambda: predict_dataset(both(), load(), reconstruct=True).score,
        "predict, decoder": lambda: predict(both())["classification"][:, 0],
    }
    expected = predict(classifier_branch(model))[:, 0]  # also starts threads
    times: dict[str, list[float]] = {name: [] for name in variants}
    differs = 0.0
    for turn in range(arguments.turns):
        for name, predict_all in variants.items():
            print(f"{name}, turn {turn + 1} ...", file=sys.stderr, flush=True)
            begun = time.perf_counter()
            score = predict_all()
            times[name].append(time.perf_counter() - begun)
            differs = max(differs, float(np.abs(score - expected).max()))
    return {
        "faces": len(faces),
        "size": arguments.size,
        "batch_size": arguments.batch_size,
        "turns": arguments.turns,
        "seconds": {name: [round(second, 3) for second in of] for name, of in times.items()},
        "scores_differ": differs,
        "scores_spread": float(np.ptp(expected)),
    }


def _time(function: Callable[[], object]) -> float:
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def _pin_to_one_core() -> None:
    # Otherwise existing threads, such as those of pyarrow or OpenBLAS, keep their cores.
    core = min(os.sched_getaffinity(0))
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), {core})


def _peak_mb() -> float:
    # Not getrusage, whose peak is inherited from the parent process (Linux).
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


VARIANTS = {"ours": time_metrics, "loop": time_loop, "scoring": time_scoring}
SIZES = ("videos", "faces_per_video", "n_resamples", "size", "faces", "batch_size", "turns")


def _run(variant: str, arguments: argparse.Namespace, kind: str = "") -> dict:
    """Run a variant in a process of its own; metrics with one thread."""
    print(f"{variant} {kind} ...", file=sys.stderr, flush=True)
    command = [sys.executable, __file__, "--variant", variant]
    command += ["--kind", kind] if kind else ["--data", str(arguments.data)]
    for name in SIZES:
        command += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = os.environ | threads if kind else None
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def find_results(report: dict) -> dict[str, float]:
    """Return the result for each measured target; of several kinds of scores the worst."""
    results = {}
    if metrics := report.get("metrics"):
        kinds = metrics["kinds"].values()
        # AUC and the other metrics are computed together, so both times are equal.
        results["auc_s"] = results["all_s"] = max(k["frame_s"] + k["video_s"] for k in kinds)
        results["peak_mb"] = max(k["peak_mb"] for k in kinds)
    if scoring := report.get("scoring"):
        seconds = {name: statistics.median(of) for name, of in scoring["seconds"].items()}
        results["scoring"] = seconds["predict"] / seconds["predict_dataset"]
    return results


def render(report: dict) -> str:
    """Return the results next to their targets, as Markdown."""
    from tables import table

    machine = report["machine"]
    lines = [
        "# Evaluation",
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores; Python "
        f"{machine['python']}.",
    ]
    rows = []
    for name, value in find_results(report).items():
        measured, relation, bound = TARGETS[name]
        is_met = value < bound if relation == "less than" else value >= bound
        text = f"{value:.3f}".rstrip("0").rstrip(".")
        met = "met" if is_met else "**not met**"
        rows.append((measured, f"{relation} {bound:g}", text, met))
    lines.append(table(("measurement", "target", "measured", ""), rows, "lrrl"))
    if metrics := report.get("metrics"):
        lines += _render_metrics(metrics)
    if scoring := report.get("scoring"):
        lines += _render_scoring(scoring)
    return "\n\n".join(lines) + "\n"


def _render_metrics(metrics: dict) -> list[str]:
    from tables import table

    kinds, n_resamples = metrics["kinds"], metrics["n_resamples"]

    def line(name: str, format_kind: Callable[[dict], str]) -> tuple[str, ...]:
        return (name, *(format_kind(kind) for kind in kinds.values()))

    rows = [
        line("distinct scores", lambda k: f"{k['distinct']:,}"),
        line("all metrics with intervals, faces, s", lambda k: f"{k['frame_s']:.2f}"),
        line("all metrics with intervals, videos, s", lambda k: f"{k['video_s']:.2f}"),
        line("checking the table of scores before, s", lambda k: f"{k['table_s']:.2f}"),
        line("sorting the faces once, ms", lambda k: k["sort_ms"]),
        line("one resample of the faces, ms", lambda k: f"{k['resample_ms']:.2f}"),
        line("peak memory, MB", lambda k: k["peak_mb"]),
        line("peak memory without imports, MB", lambda k: k["peak_mb"] - k["import_mb"]),
        line(
            "scikit-learn, AUC of faces only: one resample, ms",
            lambda k: f"{1000 * k['loop_resample_s']:.0f}",
        ),
        line(
            f"scikit-learn: {n_resamples} resamples, extrapolated, s",
            lambda k: f"{n_resamples * k['loop_resample_s']:.0f}",
        ),
        line(
            "scikit-learn, extrapolated, divided by all metrics of faces",
            lambda k: f"{n_resamples * k['loop_resample_s'] / k['frame_s']:.0f}",
        ),
    ]
    differs = max(abs(k["frame_auc"][0] - k["loop_auc"]) for k in kinds.values())
    return [
        "## Metrics",
        f"{metrics['videos'] * metrics['faces_per_video']:,} faces of {metrics['videos']:,} "
        f"videos, half of them fake; {n_resamples} bootstrap resamples of videos; one core, one "
        "thread. AUC is computed together with the other metrics, so the first two rows above are "
        "one time: `measure` of faces and of videos, with the slower kind of scores. scikit-learn "
        f"computes `roc_auc_score` of faces resampled one by one; {LOOP_RESAMPLES} resamples are "
        f"timed. The AUCs of all faces differ by {differs:.1g}.",
        table(("on one core", *(KINDS[kind] for kind in kinds)), rows, "l" + "r" * len(kinds)),
    ]


def _render_scoring(scoring: dict) -> list[str]:
    from tables import table

    seconds = {name: statistics.median(of) for name, of in scoring["seconds"].items()}
    saved = 1 - seconds["predict_dataset"] / seconds["predict_dataset, decoder"]
    ratio = seconds["predict, decoder"] / seconds["predict_dataset, decoder"]
    return [
        "## Scoring",
        f"{scoring['faces']} faces of {scoring['size']} pixels, batches of "
        f"{scoring['batch_size']}, random weights; medians over {scoring['turns']} turns of the "
        f"four variants; every pass traces its graph once. With the decoder `predict_dataset` "
        f"reaches {ratio:.3f} of the speed of `predict`; without it {saved:.1%} of the time is "
        f"saved. Scores of the same face differ by at most {scoring['scores_differ']:.1g} between "
        f"the variants, and by {scoring['scores_spread']:.1g} between faces.",
        table(
            ("variant", "seconds", "faces/s"),
            [
                (SCORING[name], f"{second:.2f}", f"{scoring['faces'] / second:.2f}")
                for name, second in seconds.items()
            ],
            "lrr",
        ),
    ]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Benchmark of evaluation.")
    parser.add_argument(
        "--only", choices=("metrics", "scoring"), default="", help="run one part only"
    )
    parser.add_argument("--videos", type=int, default=10_000, help="scored videos (%(default)s)")
    parser.add_argument("--faces-per-video", type=int, default=100, help="(%(default)s)")
    parser.add_argument(
        "--n-resamples", type=int, default=1000, help="bootstrap resamples (%(default)s)"
    )
    parser.add_argument(
        "--size", type=int, default=299, help="width of a face in pixels (%(default)s)"
    )
    parser.add_argument("--faces", type=int, default=256, help="faces to score (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="(%(default)s)")
    parser.add_argument(
        "--turns", type=int, default=3, help="repetitions per variant (%(default)s)"
    )
    parser.add_argument("--scratch", help="folder for temporary files")
    parser.add_argument("--out", default=HERE / "results" / "evaluation.json", help="JSON file")
    parser.add_argument("--variant", choices=tuple(VARIANTS), help=argparse.SUPPRESS)
    parser.add_argument("--kind", choices=tuple(KINDS), help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""How fast detectors are evaluated: metrics of a million faces, and faces to scores.

Metrics run on one core in a process of their own, beside a loop of scikit-learn; `score_dataset`
runs by turns with a bare `model.predict` of the same faces in memory. Makes its own scores and
faces. Linux only.

    python benchmarks/evaluation.py                   # a quarter of an hour or so on two cores
    python benchmarks/evaluation.py --only metrics    # or scoring; the result of the other stays
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

sys.path.insert(0, str(Path(__file__).parents[1]))  # the package beside this folder
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

HERE = Path(__file__).parent
REACH = {  # written down before the first run
    "auc_s": ("AUC with intervals, of faces and of videos, s", "less than", 20.0),
    "all_s": ("all metrics with intervals, of faces and of videos, s", "less than", 60.0),
    "peak_mb": ("peak of memory meanwhile, MB", "less than", 1500.0),
    "scoring": ("faces/s of `score_dataset` over those of `predict`", "at least", 0.95),
}
KINDS = {
    "no ties": "float64, no ties",
    "ties": "float32 of 3 decimals, ties",
}
LOOP_ROUNDS = 3  # of the usual way, which takes minutes for all
SOME_ROUNDS = 20  # of ours, to time one
SCORING = {
    "score_dataset": "`score_dataset` over `load_faces`",
    "predict": "`predict` of the classifier alone, faces in memory",
    "score_dataset, decoder": "`score_dataset` with reconstructions",
    "predict, decoder": "`predict` of both outputs, faces in memory",
}


def main() -> None:
    """Run the parts that were asked for and write what came."""
    arguments = _parse()
    if arguments.way:
        print(json.dumps(WAYS[arguments.way](arguments)))
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
    """Time the metrics and the usual way on the same scores, with ties and without."""
    sizes = {name: getattr(arguments, name) for name in ("videos", "faces_per_video", "rounds")}
    kinds = {kind: _run("ours", arguments, kind) | _run("loop", arguments, kind) for kind in KINDS}
    return sizes | {"kinds": kinds}


def measure_scoring(arguments: argparse.Namespace) -> dict:
    """Time faces to scores by turns, on faces made for it."""
    from training import prepare_set

    with tempfile.TemporaryDirectory(dir=arguments.scratch) as directory:
        arguments.data = Path(directory) / "set"
        prepare_set(arguments.data, arguments.size, arguments.faces)
        return _run("scoring", arguments)


def make_scores(kind: str, num_videos: int, faces_per_video: int) -> dict[str, np.ndarray]:
    """Make scores as a detector gives them: fakes higher, and faces of one video alike.

    Args:
        kind: One of KINDS.
        num_videos: Every second one is fake.
        faces_per_video: Of each.

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
    """Time every metric of faces and of videos, with intervals, and watch the memory."""
    import pyarrow as pa

    from jdfd_keras.evaluation.metrics import Ranking, measure
    from jdfd_keras.evaluation.scores import Scores, score_videos

    _take_one_core()
    before_mb = _peak_mb()
    made = make_scores(arguments.kind, arguments.videos, arguments.faces_per_video)
    names = pa.array([f"made/{number:05d}" for number in range(arguments.videos)])
    settings = {"threshold": 0.5, "rounds": arguments.rounds, "seed": 0}
    begun = time.perf_counter()
    scores = Scores.from_faces(
        video_id=names.take(made["video"]), label=made["label"], score=made["score"]
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
    times = [rng.integers(3, size=arguments.videos) for _ in range(SOME_ROUNDS)]
    round_s = statistics.median(_time(lambda t=t: ranking.measure(t)) for t in times)
    return {
        "distinct": len(np.unique(scores.score)),
        "table_s": round(joined - begun, 2),
        "frame_s": round(framed - joined, 5),
        "video_s": round(done - framed, 2),
        "sort_ms": round(1000 * sorted_s),
        "round_ms": round(1000 * round_s, 2),
        "import_mb": round(before_mb),
        "peak_mb": round(peak_mb),
        "frame_auc": frame.auc,
        "video_auc": video.auc,
    }


def time_loop(arguments: argparse.Namespace) -> dict:
    """Time the usual way: draw faces, compute the AUC of those drawn, again and again."""
    from sklearn.metrics import roc_auc_score

    _take_one_core()
    made = make_scores(arguments.kind, arguments.videos, arguments.faces_per_video)
    label, score = made["label"], made["score"]
    rng = np.random.default_rng(0)

    def go() -> None:
        rows = rng.integers(len(label), size=len(label))
        roc_auc_score(label[rows], score[rows])

    loop_auc = float(roc_auc_score(label, score))
    seconds = [_time(go) for _ in range(LOOP_ROUNDS)]
    return {"loop_round_s": round(statistics.median(seconds), 4), "loop_auc": loop_auc}


def time_scoring(arguments: argparse.Namespace) -> dict:
    """Time `score_dataset` and `predict` by turns, without the decoder and with it."""
    import keras

    from jdfd_keras.datasets.pipeline import load_faces
    from jdfd_keras.inference.backends import score_dataset
    from jdfd_keras.model.network import build_detector, classifier_of
    from jdfd_keras.options import ModelOptions

    model = build_detector(ModelOptions(image_size=arguments.size, encoder_weights="none"))

    def load():
        return load_faces(arguments.data, "train", batch_size=arguments.batch_size)

    faces = np.concatenate([image.numpy() for image, _ in load()])

    def both() -> keras.Model:
        # A model not run yet, as `classifier_of` makes one each time: every pass of every way
        # traces its graph once.
        return keras.Model(model.input, model.output)

    def predict(scorer: keras.Model):
        return scorer.predict(faces, batch_size=arguments.batch_size, verbose=0)

    ways = {
        "score_dataset": lambda: score_dataset(model, load()).score,
        "predict": lambda: predict(classifier_of(model))[:, 0],
        "score_dataset, decoder": lambda: score_dataset(both(), load(), reconstruct=True).score,
        "predict, decoder": lambda: predict(both())["classification"][:, 0],
    }
    expected = predict(classifier_of(model))[:, 0]  # starts threads, too
    times: dict[str, list[float]] = {name: [] for name in ways}
    differs = 0.0
    for turn in range(arguments.turns):
        for name, go in ways.items():
            print(f"{name}, turn {turn + 1} ...", file=sys.stderr, flush=True)
            begun = time.perf_counter()
            score = go()
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


def _time(go: Callable[[], object]) -> float:
    begun = time.perf_counter()
    go()
    return time.perf_counter() - begun


def _take_one_core() -> None:
    # Threads that are there already, such as pyarrow's or OpenBLAS's, keep their cores otherwise.
    core = min(os.sched_getaffinity(0))
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), {core})


def _peak_mb() -> float:
    # Not getrusage: its peak is inherited from the process that started this one (Linux).
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


WAYS = {"ours": time_metrics, "loop": time_loop, "scoring": time_scoring}
SIZES = ("videos", "faces_per_video", "rounds", "size", "faces", "batch_size", "turns")


def _run(way: str, arguments: argparse.Namespace, kind: str = "") -> dict:
    """Run a way in a process of its own; metrics with one thread."""
    print(f"{way} {kind} ...", file=sys.stderr, flush=True)
    words = [sys.executable, __file__, "--way", way]
    words += ["--kind", kind] if kind else ["--data", str(arguments.data)]
    for name in SIZES:
        words += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = os.environ | threads if kind else None
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def find_reached(report: dict) -> dict[str, float]:
    """Work out what REACH speaks of, as far as it was measured; of the kinds the worst counts."""
    came = {}
    if metrics := report.get("metrics"):
        kinds = metrics["kinds"].values()
        # One and the same: AUC and the others come out of one run along the ranking.
        came["auc_s"] = came["all_s"] = max(k["frame_s"] + k["video_s"] for k in kinds)
        came["peak_mb"] = max(k["peak_mb"] for k in kinds)
    if scoring := report.get("scoring"):
        seconds = {name: statistics.median(of) for name, of in scoring["seconds"].items()}
        came["scoring"] = seconds["predict"] / seconds["score_dataset"]
    return came


def render(report: dict) -> str:
    """Write what came beside what was asked."""
    from jdfd_keras.reporting.markdown import Marked, table

    machine = report["machine"]
    lines = [
        "# Evaluation",
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores; Python "
        f"{machine['python']}.",
    ]
    rows = []
    for name, value in find_reached(report).items():
        measured, side, bound = REACH[name]
        is_met = value < bound if side == "less than" else value >= bound
        came = f"{value:.3f}".rstrip("0").rstrip(".")
        met = "met" if is_met else Marked("**not met**")
        rows.append((Marked(measured), f"{side} {bound:g}", came, met))
    lines.append(table(("measured", "asked", "came", ""), rows, "lrrl"))
    if metrics := report.get("metrics"):
        lines += _render_metrics(metrics)
    if scoring := report.get("scoring"):
        lines += _render_scoring(scoring)
    return "\n\n".join(lines) + "\n"


def _render_metrics(metrics: dict) -> list[str]:
    from jdfd_keras.reporting.markdown import table

    kinds, rounds = metrics["kinds"], metrics["rounds"]

    def line(words: str, give: Callable[[dict], str]) -> tuple[str, ...]:
        return (words, *(give(kind) for kind in kinds.values()))

    rows = [
        line("distinct scores", lambda k: f"{k['distinct']:,}"),
        line("all metrics with intervals, of faces, s", lambda k: f"{k['frame_s']:.2f}"),
        line("the same of videos, s", lambda k: f"{k['video_s']:.2f}"),
        line("columns into a checked table before, s", lambda k: f"{k['table_s']:.2f}"),
        line("sorting the faces, once, ms", lambda k: k["sort_ms"]),
        line("one round over the faces, ms", lambda k: f"{k['round_ms']:.2f}"),
        line("peak of memory, all in all, MB", lambda k: k["peak_mb"]),
        line("above what imports take, MB", lambda k: k["peak_mb"] - k["import_mb"]),
        line(
            "usual way, AUC of faces alone: one round, ms",
            lambda k: f"{1000 * k['loop_round_s']:.0f}",
        ),
        line(
            f"usual way: {rounds} rounds, extrapolated, s",
            lambda k: f"{rounds * k['loop_round_s']:.0f}",
        ),
        line(
            "usual way, extrapolated, over all metrics of faces",
            lambda k: f"{rounds * k['loop_round_s'] / k['frame_s']:.0f} times",
        ),
    ]
    differs = max(abs(k["frame_auc"][0] - k["loop_auc"]) for k in kinds.values())
    return [
        "## Metrics",
        f"{metrics['videos'] * metrics['faces_per_video']:,} faces of {metrics['videos']:,} "
        f"videos, half of them fake; {rounds} rounds of the bootstrap over videos; one core, one "
        f"thread. AUC is not computed apart from the other metrics, so the first two rows above "
        f"are one time: `measure` of faces and of videos, the slower kind of scores. The usual "
        f"way is scikit-learn's `roc_auc_score` of faces drawn one by one, {LOOP_ROUNDS} rounds "
        f"timed. "
        f"The AUCs of all faces differ by {differs:.1g}.",
        table(("on one core", *(KINDS[kind] for kind in kinds)), rows, "l" + "r" * len(kinds)),
    ]


def _render_scoring(scoring: dict) -> list[str]:
    from jdfd_keras.reporting.markdown import Marked, table

    seconds = {name: statistics.median(of) for name, of in scoring["seconds"].items()}
    saved = 1 - seconds["score_dataset"] / seconds["score_dataset, decoder"]
    ratio = seconds["predict, decoder"] / seconds["score_dataset, decoder"]
    return [
        "## Scoring",
        f"{scoring['faces']} faces of {scoring['size']} pixels, batches of "
        f"{scoring['batch_size']}, random weights; medians over {scoring['turns']} turns of the "
        f"four ways; every pass traces its graph once. With the decoder `score_dataset` reaches "
        f"{ratio:.3f} of `predict`; leaving it out saves {saved:.1%} of the time. Scores of the "
        f"same face differ by {scoring['scores_differ']:.1g} at most between the ways, by "
        f"{scoring['scores_spread']:.1g} between faces.",
        table(
            ("way", "seconds", "faces/s"),
            [
                (Marked(SCORING[name]), f"{second:.2f}", f"{scoring['faces'] / second:.2f}")
                for name, second in seconds.items()
            ],
            "lrr",
        ),
    ]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How fast detectors are evaluated.")
    parser.add_argument("--only", choices=("metrics", "scoring"), default="", help="one part")
    parser.add_argument("--videos", type=int, default=10_000, help="to measure (%(default)s)")
    parser.add_argument("--faces-per-video", type=int, default=100, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=1000, help="of the bootstrap (%(default)s)")
    parser.add_argument("--size", type=int, default=299, help="pixels of a face (%(default)s)")
    parser.add_argument("--faces", type=int, default=256, help="to score (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="(%(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="of each way (%(default)s)")
    parser.add_argument("--scratch", help="folder for what is made; the system's if not given")
    parser.add_argument("--out", default=HERE / "results" / "evaluation.json", help="JSON file")
    parser.add_argument("--way", choices=tuple(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--kind", choices=tuple(KINDS), help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()

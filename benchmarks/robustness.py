"""Benchmark of `experiment robustness --quick`: the time of degraded cells next to plain scoring.

Each degradation is scored at its middle strength, in turns with the same faces as they are, so that
the load of the machine affects both alike. Faces are noisy photographs; the model is the one that
comes with the package. Linux only.

    python benchmarks/robustness.py                   # hours on two cores
    python benchmarks/robustness.py --faces 200       # a quick trial
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the package next to this folder
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

HERE = Path(__file__).parent
MODEL = HERE.parent / "saved_models" / "jdfd-faces"
TARGET = 1.5  # set before the first run
AS_IS = "as they are"


def main() -> None:
    """Run the benchmark and write the results."""
    arguments = _parse()
    from face_report import describe_machine

    report = {"machine": describe_machine() | {"cores": str(os.cpu_count())}}
    report |= measure(arguments)
    out = Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    page = render(report)
    out.with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)


def measure(arguments: argparse.Namespace) -> dict:
    """Time each degradation, in turns with the faces as they are."""
    from training import prepare_set

    from jdfd_keras.datasets.synthetic.degradations import DEGRADATIONS
    from jdfd_keras.evaluation.crop_scores import score_crops
    from jdfd_keras.evaluation.eval_data import load_eval_sets
    from jdfd_keras.inference.backends import load_predictor

    seconds: dict[str, list[dict[str, float]]] = {}
    predictor = load_predictor(arguments.model)
    size = predictor.metadata.faces.face_size
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as directory:
        data = Path(directory) / "set"
        prepare_set(data, size, arguments.faces)
        sets = load_eval_sets([data], "train")

        def run(name: str, degradation: tuple[str, float] | None) -> None:
            begun, cpu = time.perf_counter(), time.process_time()
            score_crops(predictor, sets, size, degradation=degradation, description=name)
            spent = {"wall_s": time.perf_counter() - begun, "cpu_s": time.process_time() - cpu}
            seconds.setdefault(name, []).append(spent)

        predictor(_first_crops(sets))  # compiles
        for name, one in DEGRADATIONS.items():
            if one.is_of_videos:  # its scores are known
                continue
            run(AS_IS, None)
            run(name, (name, float(one.strengths[2])))
        run(AS_IS, None)
    engine = predictor.engine.describe()
    predictor.close()
    facts = {"faces": arguments.faces, "size": size, "engine": engine}
    return facts | {"model": Path(arguments.model).name, "seconds": seconds}


def _first_crops(sets: list):
    from jdfd_keras.evaluation.crop_scores import read_crop_batch

    return read_crop_batch(sets[0], range(4))


def find_ratios(report: dict) -> dict[str, dict[str, float]]:
    """Divide the time of each degradation by the mean of the plain runs before and after it.

    The cells of frame-drop need no scoring; they are not counted, so that the mean is an upper
    bound.
    """
    ratios = {}
    degraded = [name for name in report["seconds"] if name != AS_IS]
    for index, name in enumerate(degraded):
        around = report["seconds"][AS_IS][index : index + 2]
        (spent,) = report["seconds"][name]
        ratios[name] = {
            clock: spent[clock] / statistics.mean(run[clock] for run in around)
            for clock in ("wall_s", "cpu_s")
        }
    return ratios


def render(report: dict) -> str:
    """Return the page of the results as Markdown."""
    from tables import table

    ratios = find_ratios(report)
    mean = {
        clock: statistics.mean(ratio[clock] for ratio in ratios.values())
        for clock in ("wall_s", "cpu_s")
    }
    is_met = "met" if mean["wall_s"] <= TARGET else "**not met**"
    goal = table(
        ["measurement", "target", "measured", ""],
        [
            [
                "time of a degraded cell divided by plain scoring, mean over degradations",
                f"at most {TARGET:g}",
                f"{mean['wall_s']:.2f}",
                is_met,
            ]
        ],
        "lrrl",
    )
    plain = [run["wall_s"] for run in report["seconds"][AS_IS]]
    rows = [
        [
            name,
            f"{report['seconds'][name][0]['wall_s']:.1f}",
            f"{r['wall_s']:.2f}",
            f"{r['cpu_s']:.2f}",
        ]
        for name, r in ratios.items()
    ]
    rows.insert(0, [AS_IS, f"{statistics.median(plain):.1f}", "1", "1"])
    rows.append(["mean of the degradations", "", f"{mean['wall_s']:.2f}", f"{mean['cpu_s']:.2f}"])
    detail = table(["faces", "s", "wall time, ratio", "CPU time, ratio"], rows, "lrrr")
    machine = report["machine"]
    return (
        "# Robustness\n\n"
        f"{report['faces']:,} faces of {report['size']} px, model {report['model']}, "
        f"{report['engine']}; {machine['processor']}, {machine['cores']} cores, "
        f"{machine['date']}.\n\n{goal}\n\n"
        f"Each degradation at the third of its five strengths:\n\n{detail}\n"
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=int, default=10_000)
    parser.add_argument("--model", default=str(MODEL), help="exported model")
    parser.add_argument("--out", default=str(HERE / "results" / "robustness.json"))
    parser.add_argument("--scratch", default=None, help="folder of temporary files")
    return parser.parse_args()


if __name__ == "__main__":
    main()

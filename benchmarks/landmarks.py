"""Landmark models next to dlib's 68 landmarks: how far they move an aligned crop.

Takes photographs of one person each. In every photograph dlib's detector finds the largest face,
and each model its points. A crop is aligned by the points of the model, and another by dlib's; the
result is the distance between the positions that a point of the face has in the two crops, as a
share of the distance between the eyes, for the five points of alignment. Where a model has
constants that were fitted to every second face, the others are its test.

    python benchmarks/landmarks.py --portraits DIR
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the package beside this folder

import cv2
import numpy as np
from face_report import describe_machine
from tables import table

from jdfd_keras.faces.align import canonical_points
from jdfd_keras.faces.detect import Box, face_detector, import_dlib
from jdfd_keras.faces.face_mesh import find_mesh_landmarks
from jdfd_keras.faces.landmarks import (
    find_landmarks,
    fit_similarity,
    five_points,
    model_file,
    transform_points,
)

HERE = Path(__file__).parent
FACE = canonical_points(299, 1.3)
EYE_DISTANCE = float(np.linalg.norm(FACE[1] - FACE[0]))
TARGET = 2.0  # per cent of the distance between the eyes, in the median
MAX_SHIFT = 0.5  # of MTCNN's face from dlib's, in widths of the box
MESH, MIRRORED, MTCNN = "face mesh", "dlib, 68 points, mirrored photograph", "MTCNN"
FIVE, EYES = "dlib, 5 points, their mean positions", "dlib, 68 points, eyes and nose only"


def main() -> None:
    """Measure every model on every photograph and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--portraits", required=True, help="folder of photographs")
    parser.add_argument("--out", default=str(HERE / "results/landmarks.json"))
    arguments = parser.parse_args()
    photographs = sorted(Path(arguments.portraits).iterdir())
    report = {"machine": describe_machine(), **measure(photographs)}
    out = Path(arguments.out)
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    out.with_suffix(".md").write_text(render(report), encoding="utf-8")
    print(render(report))


def measure(photographs: list[Path]) -> dict:
    """Return the shifts of each model in per cent, and its time per face."""
    shifts: dict[str, dict[str, list[list[float]]]] = {}
    seconds: dict[str, list[float]] = {"dlib, 68 points": [], MESH: []}
    predictor = import_dlib().shape_predictor(model_file("shape_predictor_5_face_landmarks.dat"))
    corners: list[tuple[np.ndarray, np.ndarray]] = []  # of dlib's five points
    num_faces = num_photographs = 0
    for path in photographs:
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        if pixels is None:
            continue
        num_photographs += 1
        boxes = face_detector("dlib").find([pixels])[0]
        if not boxes:
            continue
        box = max(boxes, key=lambda box: box.area)
        reference = five_points(_time(find_landmarks, pixels, box, seconds["dlib, 68 points"]))
        half = "even" if num_faces % 2 == 0 else "odd"
        num_faces += 1
        mesh = five_points(_time(find_mesh_landmarks, pixels, box, seconds[MESH]))
        found = {
            MESH: (mesh, FACE),
            MIRRORED: (_find_mirrored(pixels, box), FACE),
            MTCNN: (_find_mtcnn(pixels, box), FACE),
            EYES: (reference[:3], FACE[:3]),
        }
        for name, (points, target) in found.items():
            if points is not None:
                matrix = fit_similarity(points, target)
                shifts.setdefault(name, {}).setdefault(half, []).append(_shift(reference, matrix))
        shape = predictor(pixels, import_dlib().rectangle(*box[:4]))
        corners.append((reference, np.array([(p.x, p.y) for p in shape.parts()], float)))
    # dlib's other model has neither the tip of the nose nor the mouth: its template is the mean
    # position of its own points in crops by the 68.
    aligned = [transform_points(fit_similarity(r, FACE), points) for r, points in corners]
    template = np.median(aligned[::2], axis=0)
    odd = [_shift(r, fit_similarity(points, template)) for r, points in corners[1::2]]
    shifts[FIVE] = {"odd": odd}
    return {
        "num_photographs": num_photographs,
        "num_faces": num_faces,
        "shifts": {name: _summarize(found) for name, found in shifts.items()},
        "ms_per_face": {name: 1000 * float(np.median(times)) for name, times in seconds.items()},
    }


def _time(
    find: Callable[..., np.ndarray], pixels: np.ndarray, box: Box, seconds: list[float]
) -> np.ndarray:
    start = time.thread_time()
    points = find(pixels, box)
    seconds.append(time.thread_time() - start)
    return points.astype(np.float64)


def _shift(reference: np.ndarray, matrix: np.ndarray) -> list[float]:
    """Return the shifts of the five points of a face, in per cent of the eyes' distance."""
    expected = transform_points(fit_similarity(reference, FACE), reference)
    shift = np.linalg.norm(transform_points(matrix, reference) - expected, axis=1)
    return (100 * shift / EYE_DISTANCE).tolist()


def _find_mirrored(pixels: np.ndarray, box: Box) -> np.ndarray:
    width = pixels.shape[1]
    mirrored = box._replace(left=width - box.right, right=width - box.left)
    points = find_landmarks(np.ascontiguousarray(pixels[:, ::-1]), mirrored).astype(np.float64)
    return five_points(points)[[1, 0, 2, 4, 3]] * [-1, 1] + [width - 1, 0]


def _find_mtcnn(pixels: np.ndarray, box: Box) -> np.ndarray | None:
    """Return the five points of MTCNN's face in a box of dlib; None if it finds none there."""
    from jdfd_keras.faces.detect import _mtcnn_detector

    found = None
    for face in _mtcnn_detector().detect_faces([pixels])[0]:
        left, top, width, height = face["box"]
        shift = np.hypot(left + width / 2 - box.center[0], top + height / 2 - box.center[1])
        if shift < MAX_SHIFT * box.width:
            names = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
            found = np.array([face["keypoints"][name] for name in names], np.float64)
    if found is not None and found[0, 0] > found[1, 0]:
        found = found[[1, 0, 2, 4, 3]]
    return found


def _summarize(found: dict[str, list[list[float]]]) -> dict:
    halves = {half: np.array(values) for half, values in found.items()}
    both = np.concatenate(list(halves.values()))
    return {
        "num_faces": len(both),
        "median": float(np.median(both)),
        "median_odd": float(np.median(halves["odd"])),
        "p90": float(np.percentile(both, 90)),
    }


def compare_with_targets(report: dict) -> dict[str, float]:
    """Return what the targets limit."""
    return {"mesh": report["shifts"][MESH]["median_odd"]}


def render(report: dict) -> str:
    """Render the report as Markdown."""
    rows = [
        [name, one["num_faces"], *(f"{one[key]:.2f} %" for key in ("median", "median_odd", "p90"))]
        for name, one in report["shifts"].items()
    ]
    machine = report["machine"]
    header = ["model", "faces", "median", "median, other half", "90th percentile"]
    speed = [[name, f"{value:.1f} ms"] for name, value in report["ms_per_face"].items()]
    mesh = compare_with_targets(report)["mesh"]
    verdict = "reached" if mesh < TARGET else "not reached"
    return (
        "\n\n".join(
            [
                "# Landmarks",
                f"{report['num_faces']} faces of {report['num_photographs']} photographs; "
                f"{machine['date']}, {machine['processor']}, Python {machine['python']}.",
                table(header, rows, "lrrrr"),
                f"Target: below {TARGET:g} % for the face mesh on the other half: {mesh:.2f} %, "
                f"{verdict}.",
                table(["landmarks of one face", "processor time"], speed, "lr"),
            ]
        )
        + "\n"
    )


if __name__ == "__main__":
    main()

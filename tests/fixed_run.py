"""One small run with a fixed seed, printed as digests: is the behaviour still the same?

Run it before and after a change that should not change behaviour, on one machine, and compare:

    python tests/fixed_run.py > before.json
    python tests/fixed_run.py > after.json
    diff before.json after.json

It prepares and splits made-up clips, trains one epoch from random weights, evaluates, calibrates,
exports, and predicts with the export. Digests are over numbers and bytes alone, so that new names
of keys and files leave them as they are. Another CPU or TensorFlow may give other digests.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

SEED = 7
SUBJECTS = 8
METRICS = ("auc", "eer", "ap", "accuracy", "tpr", "fpr", "tpr_at_1_fpr", "tpr_at_5_fpr")
FACE_COLUMNS = (
    "frame_index",
    "time_s",
    "box",
    "landmarks",
    "alignment_residual",
    "sharpness",
    "phash",
    "label",
    "video_id",
    "offset",
)


def main() -> None:
    """Make the run in a temporary folder and print its digests as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(digest_run(Path(folder)), indent=2))


def digest_run(folder: Path) -> dict[str, object]:
    """Make the run in a folder.

    Args:
        folder: An empty folder.

    Returns:
        SHA-256 digests by stage, and the figures that a person can compare.
    """
    make_videos(folder / "videos")
    prepared, run = folder / "prepared", folder / "run"
    jdfd(
        *("prepare", "folder", folder / "videos", "--out", prepared),
        *("--frames-per-video", 4, "--face-size", 96, "--workers", 1, "--max-failed", 1),
    )
    jdfd("split", prepared, "--seed", SEED, "--name", "fixed")
    table = ("--split-table", "fixed")
    jdfd(
        *("train", prepared, *table, "--out", run, "--encoder-weights", "none", "--epochs", 1),
        *("--optimizer", "adam", "--learning-rate", 0.0005, "--seed", SEED, "--allow-leak"),
        *("--classifier-learning-rate", 0.0005, "--batch-size", 8, "--flip", "--jpeg"),
    )
    jdfd("calibrate", run, prepared, *table, "--allow-leak")
    report = jdfd(
        *("evaluate", run, prepared, *table, "--out", folder / "report"),
        *("--reconstruction", "--allow-leak"),
    )
    jdfd("export", run, "--name", "fixed", "--saved-models", folder / "models")
    clips = sorted((folder / "videos").rglob("*.mp4"))[::5]
    verdicts = jdfd("predict", *clips, "--model", folder / "models" / "fixed")
    manifest = pq.read_table(prepared / "manifest.parquet")
    scores = pq.read_table(folder / "report" / "scores.parquet")
    calibration = json.loads((run / "calibration.json").read_text())["calibration"]
    history = (run / "history.csv").read_text().splitlines()[1:]
    return {
        "shards": digest(path.read_bytes() for path in sorted(prepared.rglob("*.tfrecord"))),
        "splits": digest([(prepared / "splits" / "fixed.csv").read_bytes()]),
        "faces": digest(repr(manifest[name].to_pylist()) for name in FACE_COLUMNS),
        "num_faces": manifest.num_rows,
        "history": digest(history),
        "scores": digest([scores["score"].to_numpy(), scores["reconstruction_error"].to_numpy()]),
        "metrics": digest(
            repr(value if not isinstance(value, dict) else list(value.values()))
            for level in ("frame", "video")
            for value in (report[level][name] for name in METRICS)
        ),
        "frame_auc": report["frame"]["auc"]["value"],
        "calibration": digest(
            repr(calibration[name])
            for name in ("temperature", "threshold", "uncertain_from", "uncertain_to")
        ),
        "temperature": calibration["temperature"],
        "verdicts": digest(
            repr((entry["verdict"], entry["score"], [face["score"] for face in entry["faces"]]))
            for entry in verdicts["files"]
        ),
        "video_scores": [entry["score"] for entry in verdicts["files"]],
    }


def make_videos(directory: Path) -> None:
    """Make one real and one fake clip of each of some subjects."""
    from skimage.data import astronaut

    from jdfd_keras.datasets.synthetic.clips import make_clips, vary_portrait

    subjects = vary_portrait(astronaut(), SUBJECTS, SEED)
    for _ in make_clips(subjects, directory, num_frames=8, seed=SEED):
        pass


def jdfd(*words: object) -> dict:
    """Run a command to its end and return its JSON result."""
    command = [sys.executable, "-m", "jdfd_keras", *map(str, words), "--format", "json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def digest(parts) -> str:
    """Compute the SHA-256 of parts: bytes, text, or arrays, one after the other."""
    sha256 = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        sha256.update(np.ascontiguousarray(data).tobytes() if not isinstance(data, bytes) else data)
    return sha256.hexdigest()


if __name__ == "__main__":
    main()

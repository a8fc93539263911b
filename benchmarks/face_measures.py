"""Two ways to take the faces of a video, timed; and how right each is.

Takes a clip and, where they are known, its true faces; gives seconds, counts and differences.
Knows nothing of how clips are made or of tables.

* The usual way, as DeepfakeBench's preprocessing does it: dlib's detector on every frame enlarged
  twofold, its 68 landmarks, an aligned crop, and detector and landmarks once more on the crop.
  Only the largest face of a frame is taken. Decoding and writing are not counted.
* Ours: `extract_faces` with every frame and every person, and each crop written as PNG, as
  `prepare` encodes it. Decoding and writing are counted.
"""

import cProfile
import json
import os
import pstats
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import dlib
import numpy as np
from face_clips import TrueFace

from jdfd_keras.faces.align import align_face
from jdfd_keras.faces.decode import read_frames
from jdfd_keras.faces.detect import Box, face_detector, overlap
from jdfd_keras.faces.extract import Extraction, encode_png, extract_faces
from jdfd_keras.faces.landmarks import model_file
from jdfd_keras.faces.track import Sighting, track_faces
from jdfd_keras.options import FaceOptions

PACKAGE_ROOT = Path(__file__).parents[1]
OPTIONS = FaceOptions(every=1, tracks="all")
SAME_FACE = 0.5  # intersection over union of a found box and a true one
OUTER_EYE_CORNERS = (36, 45)
# Where our time goes: files and functions of the package, and one of this file.
STAGES = {
    "decode": {("decode.py", "read_frames")},
    "search whole frames": {("detect.py", "find")},
    "follow": {("detect.py", "find_near")},
    "landmarks": {("landmarks.py", "_predict")},
    "patches, descriptors": {
        ("identity.py", f) for f in ("take_patch", "take_chip", "describe_chip")
    },
    "scene cuts": {("track.py", "_is_steady")},
    "align": {("align.py", "align_face")},
    "quality": {("quality.py", f) for f in ("measure_sharpness", "estimate_yaw")},
    "keep crops": {("extract.py", "append"), ("extract.py", "__getitem__")},
    "PNG": {("face_measures.py", "write_png")},
}


class Stopwatch:
    """Adds up the wall time and the processor time of `with` blocks, in seconds."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def __exit__(self, *error) -> None:
        self.wall_s += time.perf_counter() - self._start[0]
        self.cpu_s += time.process_time() - self._start[1]


def use_one_core() -> None:
    """Bind every thread of this process, and those to come, to one core."""
    core = max(os.sched_getaffinity(0))
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), {core})
    cv2.setNumThreads(1)


@dataclass(frozen=True)
class UsualFace:
    """One face of one frame.

    Attributes:
        box: As dlib gave it.
        landmarks: float32[68, 2], whole pixels, as dlib's predictor gives them.
    """

    box: Box
    landmarks: np.ndarray


class UsualWay:
    """Detection of every frame."""

    def __init__(self) -> None:
        self.detector = dlib.get_frontal_face_detector()
        self.predictor = dlib.shape_predictor(
            str(model_file("shape_predictor_68_face_landmarks.dat"))
        )

    def run(self, path: Path, watch: Stopwatch, others: Stopwatch) -> list[list[UsualFace]]:
        """Take the faces of a video.

        Args:
            path: The video.
            watch: Gets the time of what the usual way does: the largest face of each frame.
            others: Gets what it would take besides to do the same for the other faces.

        Returns:
            All faces that were seen in each frame.
        """
        taken = []
        for frame in read_frames(path, 1, every=1):
            with watch:
                boxes = sorted(self.detector(frame.pixels, 1), key=lambda box: -box.area())
                faces = [self._take(frame.pixels, box) for box in boxes[:1]]
            with others:
                faces += [self._take(frame.pixels, box) for box in boxes[1:]]
            taken.append(faces)
        return taken

    def measure_noise(self, path: Path) -> list[float]:
        """Measure how far this way is from itself when a frame loses 5 columns and 3 rows.

        Nearer to it than that nobody need be. Every tenth frame is tried.

        Returns:
            Landmark distances, one a face found in both.
        """
        distances = []
        for frame in read_frames(path, 1, every=10):
            whole, cut = self._see(frame.pixels), self._see(frame.pixels, 5, 3)
            pairs = pair_faces(whole, cut)
            distances += [landmark_distance(b.landmarks, a.landmarks) for a, b in pairs]
        return distances

    def _see(self, pixels: np.ndarray, left: int = 0, top: int = 0) -> list[UsualFace]:
        """Find the faces of a frame without its first columns and rows, in its own pixels."""
        pixels = np.ascontiguousarray(pixels[top:, left:])
        faces = []
        for box in self.detector(pixels, 1):
            edges = box.left() + left, box.top() + top, box.right() + left, box.bottom() + top
            faces.append(UsualFace(Box(*edges, 0.0), self._predict(pixels, box) + (left, top)))
        return faces

    def _take(self, pixels: np.ndarray, box: dlib.rectangle) -> UsualFace:
        landmarks = self._predict(pixels, box)
        size, margin = OPTIONS.face_size, OPTIONS.margin
        crop = align_face(pixels, landmarks, size=size, margin=margin, mode="deepfakebench").crop
        again = self.detector(crop, 1)
        if again:
            self._predict(crop, again[0])
        edges = box.left(), box.top(), box.right(), box.bottom()
        return UsualFace(Box(*edges, 0.0), landmarks)

    def _predict(self, pixels: np.ndarray, box: dlib.rectangle) -> np.ndarray:
        shape = self.predictor(pixels, box)
        return np.array([(point.x, point.y) for point in shape.parts()], dtype=np.float32)


def write_png(path: Path, crop: np.ndarray) -> None:
    """Write a crop, uint8[size, size, 3] RGB, encoded as `prepare` does it."""
    path.write_bytes(encode_png(crop))


def take_and_write(path: Path) -> Extraction:
    """Do all that is counted of our way."""
    with tempfile.TemporaryDirectory() as directory:
        extraction = extract_faces(path, OPTIONS)
        for face in extraction.faces:
            write_png(Path(directory, f"{face.frame_index:06d}-{face.track_id}.png"), face.crop)
    return extraction


def find_ours(path: Path) -> list[list[Sighting]]:
    """Find the same faces once more, for their landmarks in the frame."""
    frames = read_frames(path, 1, every=1)
    return [sightings for _, sightings in track_faces(frames, face_detector(OPTIONS.detector))]


def profile_ours(path: Path) -> dict[str, float]:
    """Say where our time goes: seconds of each stage, and of the rest, with a profiler watching."""
    profiler = cProfile.Profile()
    profiler.runcall(take_and_write, path)
    statistics = pstats.Stats(profiler)
    stages = dict.fromkeys(STAGES, 0.0)
    for (file, _, function), (*_, cumulative_s, _) in statistics.stats.items():
        for stage, functions in STAGES.items():
            if (Path(file).name, function) in functions:
                stages[stage] += cumulative_s
    return stages | {"rest": statistics.total_tt - sum(stages.values())}


def measure_memory(path: Path) -> dict:
    """Take all faces of a clip in a process of its own, and look at the largest it grew to."""
    code = "import sys, face_measures; face_measures.report_memory(sys.argv[1])"
    folders = os.pathsep.join(str(folder) for folder in (Path(__file__).parent, PACKAGE_ROOT))
    environment = os.environ | {"PYTHONPATH": folders}
    command = [sys.executable, "-c", code, str(path)]
    answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout
    return json.loads(answer)


def report_memory(path: str) -> None:
    """Be that process: print frames, faces, seconds and megabytes as JSON."""
    use_one_core()
    before_mb = _peak_mb()
    watch = Stopwatch()
    with watch:
        extraction = extract_faces(path, OPTIONS)
    answer = {
        "frames": extraction.num_frames,
        "faces": len(extraction.faces),
        "seconds": watch.wall_s,
        "before_mb": before_mb,
        "peak_mb": _peak_mb(),
        "tensorflow": "tensorflow" in sys.modules,
    }
    print(json.dumps(answer))


def _peak_mb() -> float:
    # Not getrusage: its peak is inherited from the process that started this one (Linux, after
    # fork and exec), and would be that of whoever wrote the clip.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def measure_clip(path: Path, truth: list[list[TrueFace]] | None, usual: UsualWay) -> dict:
    """Run both ways on a clip, ours before and after the other.

    Returns:
        Frames and seconds; what each found of the truth, where it is known; the landmark
        differences, one number a face.
    """
    usual_watch, others_watch, our_watch = Stopwatch(), Stopwatch(), Stopwatch()
    with our_watch:
        extraction = take_and_write(path)
    usual_faces = usual.run(path, usual_watch, others_watch)
    with our_watch:
        take_and_write(path)
    our_faces = find_ours(path)
    result = {
        "frames": len(usual_faces),
        "usual_s": usual_watch.wall_s,
        "usual_cpu_s": usual_watch.cpu_s,
        "usual_each_s": usual_watch.wall_s + others_watch.wall_s,
        "our_s": our_watch.wall_s / 2,
        "our_cpu_s": our_watch.cpu_s / 2,
        "tracks": len(extraction.tracks),
        "usual_boxes": sum(map(len, usual_faces)),
        "our_boxes": sum(map(len, our_faces)),
        "difference": compare_landmarks(usual_faces, our_faces),
        "noise": usual.measure_noise(path),
    }
    taken = [(face.frame_index, face.track_id, face.box) for face in extraction.faces]
    followed = [
        (index, face.track_id, face.box) for index, faces in enumerate(our_faces) for face in faces
    ]
    if taken != followed:
        raise ValueError(
            f"Expected the same faces of {path.name} on every run; got {len(taken)} with crops "
            f"and {len(followed)} without. Following is no longer deterministic."
        )
    if truth is not None:
        people = {face.role for faces in truth for face in faces if face.is_whole}
        result |= {"people": len(people), **count_found(truth, usual_faces, "usual")}
        result |= count_found(truth, our_faces, "our")
        result["mixed_tracks"] = count_mixed_tracks(truth, our_faces)
    return result


def compare_landmarks(usual: list[list[UsualFace]], ours: list[list[Sighting]]) -> list[float]:
    """Measure how far our landmarks are from theirs, for each face that both ways found.

    Returns:
        Mean distance over the 68 points as a share of that of the outer eye corners, one each.
    """
    differences = []
    for usual_faces, our_faces in zip(usual, ours, strict=True):
        for theirs, face in pair_faces(usual_faces, our_faces):
            differences.append(landmark_distance(face.landmarks, theirs.landmarks))
    return differences


def landmark_distance(landmarks: np.ndarray, reference: np.ndarray) -> float:
    """Measure the mean distance of 68 points by that of the reference's outer eye corners."""
    left, right = reference[list(OUTER_EYE_CORNERS)]
    distance = np.linalg.norm(landmarks - reference, axis=1).mean()
    return float(distance / np.linalg.norm(right - left))


def count_found(truth: list[list[TrueFace]], found: list[list], name: str) -> dict:
    """Count true faces, those found and boxes that are nobody's; measure the landmarks' errors.

    A face partly beyond the frame need not be found, and is no mistake if it is.
    """
    counts, errors = dict.fromkeys(("true", f"{name}_found", f"{name}_false"), 0), []
    for true_faces, faces in zip(truth, found, strict=True):
        pairs = pair_faces(true_faces, faces)
        counts["true"] += sum(face.is_whole for face in true_faces)
        counts[f"{name}_found"] += sum(true.is_whole for true, _ in pairs)
        counts[f"{name}_false"] += len(faces) - len(pairs)
        errors += [landmark_distance(face.landmarks, true.landmarks) for true, face in pairs]
    return counts | {f"{name}_error": errors}


def count_mixed_tracks(truth: list[list[TrueFace]], ours: list[list[Sighting]]) -> int:
    """Count the tracks that hold more than one person."""
    owners = defaultdict(set)
    for true_faces, faces in zip(truth, ours, strict=True):
        for true, face in pair_faces(true_faces, faces):
            owners[face.track_id].add(true.role)
    return sum(len(roles) > 1 for roles in owners.values())


def pair_faces(faces: Sequence, others: Sequence) -> list[tuple]:
    """Pair faces that lie on each other, the best overlap first, each at most once."""
    overlaps = sorted(
        (
            (overlap(face.box, other.box), index, place)
            for index, face in enumerate(faces)
            for place, other in enumerate(others)
        ),
        reverse=True,
    )
    pairs: dict[int, int] = {}
    for shared, index, place in overlaps:
        if shared >= SAME_FACE and index not in pairs and place not in pairs.values():
            pairs[index] = place
    return [(faces[index], others[place]) for index, place in pairs.items()]

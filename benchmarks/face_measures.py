"""Time and accuracy of two methods of face extraction.

Takes a clip and, if known, its true faces; returns seconds, counts and differences. Knows nothing
of the generation of clips or of tables.

* The usual method, as in DeepfakeBench's preprocessing: dlib's detector on every frame, upsampled
  twofold, its 68 landmarks, an aligned crop, then detector and landmarks once more on the crop.
  Only the largest face of a frame is cropped. Decoding and writing are not timed.
* Ours: `extract_faces` with every frame and every track, and each crop written as PNG, as in
  `prepare`. Decoding and writing are timed.

Reading a sample of frames is timed apart, next to OpenCV.
"""

import cProfile
import dataclasses
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
from jdfd_keras.faces.media import sample_frame_indices
from jdfd_keras.faces.track import TrackedFace, track_faces
from jdfd_keras.io.worker_process import ENVIRONMENT
from jdfd_keras.options import FaceOptions

PACKAGE_ROOT = Path(__file__).parents[1]
OPTIONS = FaceOptions(every=1, tracks="all")
NUM_SAMPLED = FaceOptions.frames_per_video
SAME_FACE_IOU = 0.5  # of a detected box and a true one
OUTER_EYE_CORNERS = (36, 45)
# Stages of our method: files and functions of the package, and one of this file.
STAGES = {
    "decode": {("video.py", "read"), ("image.py", "read")},
    "search of whole frames": {("detect.py", "find")},
    "search of changes": {("detect.py", "find_in_window"), ("changes.py", "find_changes")},
    "local search": {("detect.py", "find_near")},
    "landmarks": {("landmarks.py", "_predict")},
    "patches, embeddings": {
        ("reid.py", f) for f in ("extract_patch", "extract_chip", "embed_face")
    },
    "cut detection": {("track.py", "_is_same_scene")},
    "align": {("align.py", "align_face")},
    "quality": {("quality.py", f) for f in ("measure_sharpness", "estimate_yaw")},
    "crop storage": {("extract.py", "append"), ("extract.py", "__getitem__")},
    "PNG": {("face_measures.py", "write_png")},
}


class Stopwatch:
    """Sums the wall time and the processor time of `with` blocks, in seconds."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def __exit__(self, *error) -> None:
        self.wall_s += time.perf_counter() - self._start[0]
        self.cpu_s += time.process_time() - self._start[1]


def work_as_worker() -> None:
    """Start this program again with the environment of the processes of `prepare`."""
    if os.environ | ENVIRONMENT != dict(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ENVIRONMENT)


def use_one_core() -> None:
    """Bind all threads of this process, also future ones, to one core."""
    core = max(os.sched_getaffinity(0))
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), {core})
    cv2.setNumThreads(1)


@dataclass(frozen=True)
class UsualFace:
    """One face of one frame.

    Attributes:
        box: Box of dlib's detector.
        landmarks: float32[68, 2], the whole pixels of dlib's predictor.
    """

    box: Box
    landmarks: np.ndarray


class UsualMethod:
    """Detection in every frame."""

    def __init__(self) -> None:
        self.detector = dlib.get_frontal_face_detector()
        self.predictor = dlib.shape_predictor(
            str(model_file("shape_predictor_68_face_landmarks.dat"))
        )

    def run(self, path: Path, watch: Stopwatch, others: Stopwatch) -> list[list[UsualFace]]:
        """Extract the faces of a video.

        Args:
            path: The video.
            watch: Sums the time of the usual method: the largest face of each frame.
            others: Sums the additional time of the same steps for the other faces.

        Returns:
            All detected faces of each frame.
        """
        found = []
        for frame in read_frames(path, 1, every=1):
            with watch:
                boxes = sorted(self.detector(frame.pixels, 1), key=lambda box: -box.area())
                faces = [self._crop(frame.pixels, box) for box in boxes[:1]]
            with others:
                faces += [self._crop(frame.pixels, box) for box in boxes[1:]]
            found.append(faces)
        return found

    def measure_noise(self, path: Path) -> list[float]:
        """Measure how far the landmarks move if a frame is cropped by 5 columns and 3 rows.

        No other method can be expected to be closer. Every tenth frame is used.

        Returns:
            Landmark distances, one per face that is found in both.
        """
        distances = []
        for frame in read_frames(path, 1, every=10):
            whole, cropped = self._detect(frame.pixels), self._detect(frame.pixels, 5, 3)
            pairs = pair_faces(whole, cropped)
            distances += [landmark_distance(b.landmarks, a.landmarks) for a, b in pairs]
        return distances

    def _detect(self, pixels: np.ndarray, left: int = 0, top: int = 0) -> list[UsualFace]:
        """Find the faces of a frame without its first columns and rows, in pixels of the frame."""
        pixels = np.ascontiguousarray(pixels[top:, left:])
        faces = []
        for box in self.detector(pixels, 1):
            edges = box.left() + left, box.top() + top, box.right() + left, box.bottom() + top
            faces.append(UsualFace(Box(*edges, 0.0), self._predict(pixels, box) + (left, top)))
        return faces

    def _crop(self, pixels: np.ndarray, box: dlib.rectangle) -> UsualFace:
        landmarks = self._predict(pixels, box)
        edges = box.left(), box.top(), box.right(), box.bottom()
        options = dataclasses.replace(OPTIONS, alignment="deepfakebench")
        crop = align_face(pixels, landmarks, Box(*edges, 0.0), options).crop
        boxes = self.detector(crop, 1)
        if boxes:
            self._predict(crop, boxes[0])
        return UsualFace(Box(*edges, 0.0), landmarks)

    def _predict(self, pixels: np.ndarray, box: dlib.rectangle) -> np.ndarray:
        shape = self.predictor(pixels, box)
        return np.array([(point.x, point.y) for point in shape.parts()], dtype=np.float32)


def write_png(path: Path, crop: np.ndarray) -> None:
    """Write a crop, uint8[size, size, 3] RGB, encoded as in `prepare`."""
    path.write_bytes(encode_png(crop))


def extract_and_write(path: Path) -> Extraction:
    """Run all timed steps of our method."""
    with tempfile.TemporaryDirectory() as directory:
        extraction = extract_faces(path, OPTIONS)
        for face in extraction.faces:
            write_png(Path(directory, f"{face.frame_index:06d}-{face.track_id}.png"), face.crop)
    return extraction


def find_ours(path: Path) -> list[list[TrackedFace]]:
    """Track the faces again, for their landmarks in pixels of the frame."""
    frames = read_frames(path, 1, every=1)
    return [faces for _, faces in track_faces(frames, face_detector(OPTIONS.detector))]


def profile_ours(path: Path) -> dict[str, float]:
    """Profile our method; return the seconds of each stage and of the rest."""
    profiler = cProfile.Profile()
    profiler.runcall(extract_and_write, path)
    statistics = pstats.Stats(profiler)
    stages = dict.fromkeys(STAGES, 0.0)
    for (file, _, function), (*_, cumulative_s, _) in statistics.stats.items():
        for stage, functions in STAGES.items():
            if (Path(file).name, function) in functions:
                stages[stage] += cumulative_s
    return stages | {"rest": statistics.total_tt - sum(stages.values())}


def measure_memory(path: Path) -> dict:
    """Extract all faces of a clip in another process and return its peak memory."""
    code = "import sys, face_measures; face_measures.report_memory(sys.argv[1])"
    folders = os.pathsep.join(str(folder) for folder in (Path(__file__).parent, PACKAGE_ROOT))
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": folders}
    command = [sys.executable, "-c", code, str(path)]
    output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout
    return json.loads(output)


def report_memory(path: str) -> None:
    """Run in that process: print frames, faces, seconds and megabytes as JSON."""
    use_one_core()
    before_mb = _peak_mb()
    watch = Stopwatch()
    with watch:
        extraction = extract_faces(path, OPTIONS)
    report = {
        "frames": extraction.num_frames,
        "faces": len(extraction.faces),
        "seconds": watch.wall_s,
        "before_mb": before_mb,
        "peak_mb": _peak_mb(),
        "tensorflow": "tensorflow" in sys.modules,
    }
    print(json.dumps(report))


def _peak_mb() -> float:
    # Not getrusage: on Linux its peak is inherited from the parent process over fork and exec, and
    # would be that of the process that wrote the clip.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def measure_sampling(path: Path) -> dict[str, float]:
    """Time 32 evenly spread frames of a clip by OpenCV, which decodes it once, and by ours.

    OpenCV takes the number of frames from the header and converts only the sampled ones; ours
    also hashes the file and reads all its packets first.
    """
    opencv_watch, our_watch = Stopwatch(), Stopwatch()
    for _ in range(3):
        with opencv_watch:
            capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
            num_frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            sampled = set(sample_frame_indices(num_frames, NUM_SAMPLED).tolist())
            for index in range(num_frames):
                capture.grab()
                if index in sampled:
                    cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB)
            capture.release()
        with our_watch:
            for _ in read_frames(path, NUM_SAMPLED):
                pass
    return {"opencv_sampling_s": opencv_watch.cpu_s, "our_sampling_s": our_watch.cpu_s}


def measure_clip(path: Path, truth: list[list[TrueFace]] | None, usual: UsualMethod) -> dict:
    """Run both methods on a clip, ours before and after the other.

    Returns:
        Frames and seconds; counts of true faces found by each, if the truth is known; landmark
        differences, one number per face.
    """
    usual_watch, others_watch, our_watch = Stopwatch(), Stopwatch(), Stopwatch()
    with our_watch:
        extraction = extract_and_write(path)
    usual_faces = usual.run(path, usual_watch, others_watch)
    with our_watch:
        extract_and_write(path)
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
        **measure_sampling(path),
    }
    extracted = [(face.frame_index, face.track_id, face.box) for face in extraction.faces]
    tracked = [
        (index, face.track_id, face.box) for index, faces in enumerate(our_faces) for face in faces
    ]
    if extracted != tracked:
        raise ValueError(
            f"Expected the same faces of {path.name} on every run; got {len(extracted)} with "
            f"crops and {len(tracked)} without. Check why tracking is no longer deterministic."
        )
    if truth is not None:
        people = {face.role for faces in truth for face in faces if face.is_whole}
        result |= {"people": len(people), **count_found(truth, usual_faces, "usual")}
        result |= count_found(truth, our_faces, "our")
        result["mixed_tracks"] = count_mixed_tracks(truth, our_faces)
    return result


def compare_landmarks(usual: list[list[UsualFace]], ours: list[list[TrackedFace]]) -> list[float]:
    """Compute the landmark distance of each face that both methods found.

    Returns:
        Mean distance of the 68 points divided by that of the outer eye corners, one per face.
    """
    differences = []
    for usual_faces, our_faces in zip(usual, ours, strict=True):
        for theirs, face in pair_faces(usual_faces, our_faces):
            differences.append(landmark_distance(face.landmarks, theirs.landmarks))
    return differences


def landmark_distance(landmarks: np.ndarray, reference: np.ndarray) -> float:
    """Compute the mean distance of 68 points, divided by that of the reference's eye corners."""
    left, right = reference[list(OUTER_EYE_CORNERS)]
    distance = np.linalg.norm(landmarks - reference, axis=1).mean()
    return float(distance / np.linalg.norm(right - left))


def count_found(truth: list[list[TrueFace]], found: list[list], name: str) -> dict:
    """Count true faces, found faces and false boxes, and compute the landmark errors.

    A face partly outside the frame is neither required nor counted as false.
    """
    counts, errors = dict.fromkeys(("true", f"{name}_found", f"{name}_false"), 0), []
    for true_faces, faces in zip(truth, found, strict=True):
        pairs = pair_faces(true_faces, faces)
        counts["true"] += sum(face.is_whole for face in true_faces)
        counts[f"{name}_found"] += sum(true.is_whole for true, _ in pairs)
        counts[f"{name}_false"] += len(faces) - len(pairs)
        errors += [landmark_distance(face.landmarks, true.landmarks) for true, face in pairs]
    return counts | {f"{name}_error": errors}


def count_mixed_tracks(truth: list[list[TrueFace]], ours: list[list[TrackedFace]]) -> int:
    """Count the tracks that contain more than one person."""
    owners = defaultdict(set)
    for true_faces, faces in zip(truth, ours, strict=True):
        for true, face in pair_faces(true_faces, faces):
            owners[face.track_id].add(true.role)
    return sum(len(roles) > 1 for roles in owners.values())


def pair_faces(faces: Sequence, others: Sequence) -> list[tuple]:
    """Pair overlapping faces, the largest overlap first, each at most once."""
    overlaps = sorted(
        (
            (overlap(face.box, other.box), index, other_index)
            for index, face in enumerate(faces)
            for other_index, other in enumerate(others)
        ),
        reverse=True,
    )
    pairs: dict[int, int] = {}
    for iou, index, other_index in overlaps:
        if iou >= SAME_FACE_IOU and index not in pairs and other_index not in pairs.values():
            pairs[index] = other_index
    return [(faces[index], others[other_index]) for index, other_index in pairs.items()]

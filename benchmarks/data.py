"""Speed of writing and reading shards, and of auditing a large manifest.

Makes its own dataset from variations of one public-domain portrait; prints a table and writes it
as JSON and Markdown. Alternatives run in turns in one process, so that their ratio does not depend
on the load of the machine. Linux only.

    python benchmarks/data.py                  # about ten minutes
    python benchmarks/data.py --only audit     # one part; the results of the others are kept
"""

import argparse
import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the package beside this folder

import cv2
import numpy as np

HERE = Path(__file__).parent
TARGETS = {  # set before the first run
    "pipeline": ("at least 0.80 of the speed of a bare loop that reads and decodes", 0.80),
    "augmented": ("at least 100 faces of 299 px per second and core, with all augmentation", 100.0),
    "pairs": ("at least 60 pairs of 160 px per second on two cores, with all augmentation", 60.0),
    "workers": ("at least 90 % of linear speed with two processes on two cores", 0.90),
    "audit_s": ("a million rows audited in less than 60 s", 60.0),
    "audit_mb": ("with less than 2,000 MB", 2000.0),
}
ROUNDS = 5
SIZE = 299
PAIR_SIZE = 160


def main() -> None:
    """Run the requested parts and write the results."""
    arguments = _parse()
    if arguments.audit_rows:
        print(json.dumps(audit_rows(arguments.audit_rows)))
        return
    parts = {
        "pipeline": measure_pipeline,
        "pairs": measure_pairs,
        "files": measure_files,
        "prepare": measure_prepare,
        "audit": measure_audit,
        "hashes": measure_hashes,
    }
    from face_report import describe_machine

    out = Path(arguments.out)
    report = json.loads(out.read_text(encoding="utf-8")) if arguments.only and out.is_file() else {}
    report["machine"] = describe_machine() | {"cores": str(os.cpu_count())}
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as directory:
        for name, measure in parts.items():
            if arguments.only in ("", name):
                print(f"{name} ...", file=sys.stderr, flush=True)
                report[name] = measure(Path(directory), arguments)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    page = render(report)
    out.with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)


def write_set(directory: Path, num_faces: int, size: int = SIZE) -> Path:
    """Write a prepared dataset with a training split: photographs with sensor noise."""
    from skimage import data

    from jdfd_keras.datasets.manifest import FaceRow, to_table, write_table
    from jdfd_keras.datasets.records import encode_face, frame_record
    from jdfd_keras.datasets.synthetic.clips import vary_portrait
    from jdfd_keras.io.files import OPTIONS, save_options
    from jdfd_keras.options import FaceOptions

    out = directory / f"set{num_faces}"
    (out / "shards").mkdir(parents=True)
    rng = np.random.default_rng(0)
    portraits = [p.pixels[30:230, 120:320] for p in vary_portrait(data.astronaut(), 16, 0)]
    rows = []
    for start in range(0, num_faces, 256):
        shard = f"{start // 256:05d}.tfrecord"
        with open(out / "shards" / shard, "wb") as file:
            for number in range(start, min(start + 256, num_faces)):
                crop = cv2.resize(portraits[number % 16], (size, size)).astype(np.float32)
                crop = np.clip(crop + rng.normal(0, 2, crop.shape), 0, 255).astype(np.uint8)
                record = encode_face(crop, label=number % 2, video_id="a/b", frame_index=number)
                rows.append(_row(number, shard, file.tell()))
                file.write(frame_record(record))
    with open(out / "manifest.parquet", "wb") as file:
        write_table(file, FaceRow, [to_table(rows, FaceRow)])
    save_options(out / OPTIONS, faces=FaceOptions(face_size=size))
    return out


def _row(number: int, shard: str, offset: int):
    from jdfd_keras.datasets.manifest import FaceRow

    fillers = {"str": "", "int": number, "float": 0.0, "tuple": ()}
    values = {
        name: fillers[getattr(kind, "__name__", "tuple")]
        for name, kind in _annotations(FaceRow).items()
    }
    named = {"video_id": "a/b", "label": number % 2, "split": "train"}
    named |= {"shard": shard, "offset": offset}
    return FaceRow(**values | named)


def _annotations(kind: type) -> dict:
    return {field.name: field.type for field in dataclasses.fields(kind)}


def measure_pipeline(directory: Path, arguments: argparse.Namespace) -> dict:
    """Compare our pipeline to a loop that only reads and decodes; on one core, warm."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        import tensorflow as tf

        from jdfd_keras.datasets.pipeline import load_faces
        from jdfd_keras.options import AugmentOptions, PipelineOptions

        num_faces = arguments.faces
        out = write_set(directory, num_faces)
        paths = sorted(map(str, (out / "shards").glob("*")))

        bare = tf.data.TFRecordDataset(paths).map(_decode, num_parallel_calls=tf.data.AUTOTUNE)
        every = AugmentOptions(*[True] * len(_annotations(AugmentOptions)))
        ways = {
            "bare loop": bare.prefetch(tf.data.AUTOTUNE),
            "ours": load_faces(out, "all", batch_size=32),
            "ours, shuffled": load_faces(out, "all", batch_size=32, shuffle=True),
            "ours, balanced": load_faces(
                out, "all", batch_size=32, shuffle=True, options=PipelineOptions(balance=True)
            ),
            "ours, all augmentation": load_faces(
                out, "all", batch_size=32, shuffle=True, augment=every
            ),
        }
        for name in _annotations(AugmentOptions):
            one = AugmentOptions(**{name: True})
            ways[f"ours, {name}"] = load_faces(out, "all", batch_size=32, shuffle=True, augment=one)

        def run(dataset) -> Callable[[], None]:
            # In the graph, so that neither includes a Python loop over batches or faces.
            return lambda: dataset.reduce(np.int64(0), lambda n, *_: n + 1).numpy() and None

        times = time_in_turns({name: run(dataset) for name, dataset in ways.items()})
    finally:
        os.sched_setaffinity(0, cores)
    rates = {name: num_faces / statistics.median(of) for name, of in times.items()}
    return {
        "faces": num_faces,
        "bytes_per_face": round(sum(map(os.path.getsize, paths)) / num_faces),
        "faces_per_s": {name: round(rate, 1) for name, rate in rates.items()},
        "ratio": _ratio(times["bare loop"], times["ours"]),
        "augmented": round(rates["ours, all augmentation"], 1),
    }


def measure_pairs(directory: Path, arguments: argparse.Namespace) -> dict:
    """Measure pairs of a real face and its blended fake, beside plain faces; on two cores, warm."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    from skimage import data

    from jdfd_keras.datasets.face_index import COLUMNS, add_fakes, index_faces
    from jdfd_keras.datasets.manifest import read_faces
    from jdfd_keras.datasets.pipeline import stream_faces
    from jdfd_keras.datasets.synthetic.clips import vary_portrait
    from jdfd_keras.options import FAKE_KINDS, AugmentOptions, PipelineOptions

    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[:2])
    try:
        num_faces = arguments.faces
        out = write_set(directory / "pairs", num_faces, PAIR_SIZE)
        faces = index_faces(out, read_faces(out, split_table="", columns=COLUMNS))
        points = [
            (p.landmarks - (120, 30)) * PAIR_SIZE / 200
            for p in vary_portrait(data.astronaut(), 16, 0)
        ]
        person = np.arange(num_faces) % 16
        faces = dataclasses.replace(
            faces,
            label=np.zeros(num_faces, np.int64),
            landmarks=np.stack(points)[person].astype(np.float32),
            person=person,
        )
        pairs = add_fakes(faces, FAKE_KINDS)
        every = AugmentOptions(*[True] * len(_annotations(AugmentOptions)))
        clean = PipelineOptions(reconstruct="clean")
        ways = {
            "faces": (faces, {}),
            "faces, all augmentation": (faces, {"augment": every}),
            "pairs": (pairs, {}),
            "pairs, all augmentation": (pairs, {"augment": every}),
            "pairs, all augmentation, reconstruct clean": (
                pairs,
                {"augment": every, "options": clean},
            ),
        }

        def run(some, options) -> Callable[[], None]:
            stream = stream_faces(some, batch_size=32, seed=0, **options).take(num_faces // 32)
            return lambda: stream.reduce(np.int64(0), lambda n, *_: n + 1).numpy() and None

        times = time_in_turns({name: run(*way) for name, way in ways.items()})
    finally:
        os.sched_setaffinity(0, cores)
    rates = {
        name: num_faces / (2 if name.startswith("pairs") else 1) / statistics.median(of)
        for name, of in times.items()
    }
    return {
        "date": time.strftime("%Y-%m-%d"),
        "faces": num_faces,
        "per_s": {name: round(rate, 1) for name, rate in rates.items()},
    }


def _decode(record):
    """Decode the image of a record."""
    import tensorflow as tf

    key = "image/encoded"
    parsed = tf.io.parse_single_example(record, {key: tf.io.FixedLenFeature([], tf.string)})
    return tf.io.decode_png(parsed[key], channels=3)


def measure_files(directory: Path, arguments: argparse.Namespace) -> dict:
    """Compare shards to the same crops as single PNG files, with a warm and a cold page cache."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    from jdfd_keras.datasets.manifest import read_faces
    from jdfd_keras.datasets.records import read_framed, read_png, read_record

    out = write_set(directory / "files", arguments.faces)
    shards = sorted((out / "shards").glob("*"))
    files = []
    for shard in shards:
        with open(shard, "rb") as file:
            for framed in read_framed(file):
                files.append(directory / "files" / f"{len(files):06d}.png")
                files[-1].write_bytes(read_png(framed))

    faces = read_faces(out, columns=["shard", "offset"]).to_pylist()
    records = [(out / "shards" / face["shard"], face["offset"]) for face in faces]

    def read(index: tf.Tensor) -> tf.Tensor:  # as in datasets.pipeline
        record = tf.numpy_function(lambda i: read_record(*records[i]), [index], tf.string)
        return tf.ensure_shape(record, ())

    of_shards = tf.data.Dataset.range(len(records)).map(read, num_parallel_calls=tf.data.AUTOTUNE)
    of_files = tf.data.Dataset.from_tensor_slices(list(map(str, files)))
    # Reading alone as well: decoding, which is the same for both, hides the difference.
    ways = {
        "shards, read": of_shards,
        "files, read": of_files.map(tf.io.read_file, num_parallel_calls=tf.data.AUTOTUNE),
        "shards, decoded": of_shards.map(_decode, num_parallel_calls=tf.data.AUTOTUNE),
        "files, decoded": of_files.map(
            lambda path: tf.io.decode_png(tf.io.read_file(path), channels=3),
            num_parallel_calls=tf.data.AUTOTUNE,
        ),
    }

    def run(name: str, is_cold: bool) -> Callable[[], None]:
        dataset = ways[name].prefetch(tf.data.AUTOTUNE)

        def read_all() -> None:
            dataset.reduce(np.int64(0), lambda n, _: n + 1).numpy()

        read_all.prepare = lambda: _drop_page_cache([*shards, *files]) if is_cold else None
        return read_all

    result = {}
    for state, is_cold in (("warm", False), ("cold", True)):
        times = time_in_turns({name: run(name, is_cold) for name in ways})
        rates = {name: round(len(files) / statistics.median(of), 1) for name, of in times.items()}
        result[state] = {
            "faces_per_s": rates,
            "ratio_read": _ratio(times["files, read"], times["shards, read"]),
            "ratio_decoded": _ratio(times["files, decoded"], times["shards, decoded"]),
        }
    return {"faces": len(files), **result}


def _drop_page_cache(paths: list[Path]) -> None:
    """Drop files from the page cache of the system."""
    for path in paths:
        file_descriptor = os.open(path, os.O_RDONLY)
        os.fsync(file_descriptor)
        os.posix_fadvise(file_descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file_descriptor)


def measure_prepare(directory: Path, arguments: argparse.Namespace) -> dict:
    """Prepare the same clips with one process and with two, without their start-up time."""
    from face_clips import KINDS, read_people, write_clip
    from skimage import data

    portrait = directory / "astronaut.png"
    cv2.imwrite(str(portrait), cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR))
    people = read_people([portrait], 1)
    kind = dataclasses.replace(KINDS[0], num_frames=arguments.frames)
    root = directory / "clips"
    for number in range(arguments.clips):
        path = root / ("real", "fake")[number % 2] / f"{number // 2:03d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_clip(path, kind, people, number)

    from jdfd_keras.datasets.prepare_tasks import ExtractVideo, VideoFile
    from jdfd_keras.datasets.videos import Video
    from jdfd_keras.io.storage import LocalStore
    from jdfd_keras.io.workers import run_all
    from jdfd_keras.options import FaceOptions, FilterOptions

    items = []
    for path in sorted(root.rglob("*.mp4")):
        name = path.relative_to(root).as_posix()
        video = Video(f"clips/{name}", name, 0, "", "", (name,), "train")
        items.append(VideoFile(video, path.stat().st_size))
    cores = os.sched_getaffinity(0)

    def seconds(workers: int) -> float:
        """Return the time per video, on as many cores as processes."""
        out = Path(tempfile.mkdtemp(dir=directory))
        stores = LocalStore(str(root)), LocalStore(str(out))
        task = ExtractVideo(*stores, FaceOptions(), FilterOptions())
        os.sched_setaffinity(0, sorted(cores)[:workers])
        cv2.setNumThreads(1)
        try:
            # The clock starts after two videos, when the processes have started.
            for done, _ in enumerate(run_all(task, items, workers)):
                if done == 1:
                    start = time.perf_counter()
            return (time.perf_counter() - start) / (len(items) - 2)
        finally:
            os.sched_setaffinity(0, cores)
            cv2.setNumThreads(-1)

    seconds(2)  # reads the files into the page cache
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(3):
        for workers, of in times.items():
            of.append(seconds(workers))
    return {
        "clips": len(items),
        "frames_each": arguments.frames,
        "videos_per_s": {str(w): round(1 / statistics.median(t), 2) for w, t in times.items()},
        "share_of_linear": round(_ratio(times[1], times[2]) / 2, 3),
    }


def measure_audit(directory: Path, arguments: argparse.Namespace) -> dict:
    """Audit a manifest of a million rows in its own process."""
    words = [sys.executable, __file__, "--audit-rows", str(directory / "large")]
    write_large_manifest(directory / "large", arguments.rows)
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return {"rows": arguments.rows, **json.loads(done.stdout.splitlines()[-1])}


def write_large_manifest(out: Path, num_rows: int) -> None:
    """Write the tables of a prepared dataset of many faces, 32 per video, without shards.

    Hashes are the signs of random projections of twenty numbers per video, so that their bits are
    correlated like those of real faces, plus noise for each face.
    """
    import pandas as pd
    import pyarrow as pa

    from jdfd_keras.datasets.manifest import FaceRow, VideoRow, schema_of, to_table, write_table
    from jdfd_keras.datasets.split_tables import OFFICIAL, write_split_table
    from jdfd_keras.io.files import OPTIONS, save_options
    from jdfd_keras.io.storage import LocalStore
    from jdfd_keras.options import FaceOptions, FilterOptions, PrepareOptions, SplitOptions

    out.mkdir()
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(20, 256)).astype(np.float32)

    def tables():
        for start in range(0, num_rows, 32_000):
            count = min(32_000, num_rows - start)
            video = np.arange(start, start + count) // 32
            base = np.stack([_latent(number) for number in np.unique(video)])
            latent = np.repeat(base, 32, axis=0)[:count]
            signal = latent @ mix + rng.normal(0, 0.45, (count, 256)).astype(np.float32)
            hashes = np.packbits(signal > 0, axis=1)
            fake = video % 2
            columns = {
                "video_id": [f"large/{v:06d}" for v in video],
                "path": [f"{v:06d}.mp4" for v in video],
                "label": fake,
                "manipulation": ["Deepfakes" if f else "" for f in fake],
                "compression": ["c23"] * count,
                "source_ids": [[f"{v // 2:06d}"] for v in video],
                "split": [_split_of(v) for v in video],
                "frame_index": np.arange(count) % 32,
                "time_s": np.zeros(count),
                "track_id": np.zeros(count, int),
                "box": [[0, 0, 90 + int(x), 90 + int(x)] for x in rng.integers(0, 99, count)],
                "detector": ["dlib"] * count,
                "detector_score": np.ones(count),
                "landmarks": [[0.0]] * count,
                "alignment_residual": np.zeros(count),
                "sharpness": rng.uniform(5, 90, count),
                "outside": np.zeros(count),
                "yaw_deg": np.zeros(count),
                "phash": [row.tobytes().hex() for row in hashes],
                "shard": ["00000.tfrecord"] * count,
                "offset": list(range(count)),
            }
            schema = schema_of(FaceRow)
            arrays = [pa.array(columns[field.name], field.type) for field in schema]
            yield pa.Table.from_arrays(arrays, schema=schema)

    with open(out / "manifest.parquet", "wb") as file:
        write_table(file, FaceRow, tables())
    videos = [
        VideoRow(
            video_id=f"large/{v:06d}",
            path=f"{v:06d}.mp4",
            label=v % 2,
            manipulation="Deepfakes" if v % 2 else "",
            compression="c23",
            source_ids=(f"{v // 2:06d}",),
            split=_split_of(v),
            file_bytes=int(rng.integers(1e5, 1e7)),
            width=854,
            height=480,
            jpeg_quality=0,
            num_frames=32,
            num_tracks=1,
            num_faces=32,
            filtered={},
            warning="",
            reason="",
        )
        for v in range(-(-num_rows // 32))
    ]
    with open(out / "videos.parquet", "wb") as file:
        write_table(file, VideoRow, [to_table(videos, VideoRow)])
    names, splits = zip(*((video.video_id, video.split) for video in videos), strict=True)
    table = pd.DataFrame({"video_id": names, "split": splits, "reason": ""})
    write_split_table(LocalStore(str(out)), OFFICIAL, table, SplitOptions())
    lists = '{"missing": [], "unrecognized": [], "excluded": {}, "notes": []}'
    (out / "listing.json").write_text(lists)
    groups = {"faces": FaceOptions(), "filters": FilterOptions(), "prepare": PrepareOptions()}
    save_options(out / OPTIONS, **groups)


def _split_of(video: int) -> str:
    """Assign 70, 15 and 15 % of the sources to the splits, as `prepare` does by default."""
    return "train" if (group := video // 2 % 20) < 14 else "val" if group < 17 else "test"


def _latent(video: int) -> np.ndarray:
    return np.random.default_rng(video).normal(size=20).astype(np.float32)


def audit_rows(directory: Path) -> dict:
    """Audit a dataset in this process; return the seconds, the peak memory and the leaks."""
    from jdfd_keras.datasets.audit import audit

    start = time.perf_counter()
    report = audit([directory])
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "leaks": len(report.failed),
    }


def measure_hashes(directory: Path, arguments: argparse.Namespace) -> dict | None:
    """Measure how many modified copies of photographs are found, and how different people are.

    Copies are decoded, detected, aligned and hashed like originals.
    """
    from jdfd_keras.datasets.hashing import MAX_BITS, find_near_duplicates, hash_face, unpack_hashes
    from jdfd_keras.faces.extract import extract_faces

    if not arguments.portraits:
        print("hashes: skipped without --portraits", file=sys.stderr)
        return None

    def jpeg(quality: int):
        flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
        return lambda image: cv2.imdecode(cv2.imencode(".jpg", image, flags)[1], cv2.IMREAD_COLOR)

    copies = {
        "JPEG, quality 70": jpeg(70),
        "JPEG, quality 40": jpeg(40),
        "half the size": lambda image: cv2.resize(
            image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA
        ),
        "brighter by 15 %": lambda image: cv2.convertScaleAbs(image, alpha=1.15, beta=8),
        "5 % cropped from each side": lambda image: image[
            len(image) // 20 : -(len(image) // 20),
            image.shape[1] // 20 : -(image.shape[1] // 20),
        ],
        "mirrored": lambda image: image[:, ::-1],
    }

    def hash_image(image: np.ndarray) -> str | None:
        path = directory / "copy.png"
        cv2.imwrite(str(path), image)
        faces = extract_faces(path).faces
        return hash_face(faces[0].crop) if faces else None

    originals, bits_of = [], {name: [] for name in copies}
    for path in sorted(Path(arguments.portraits).iterdir()):
        image = cv2.imread(str(path))
        original = None if image is None else hash_image(image)
        if original is None:
            continue
        originals.append(original)
        for name, change in copies.items():
            copy = hash_image(change(image))
            pair = unpack_hashes([original, copy]) if copy else None
            bits = np.bitwise_count(pair[0] ^ pair[1]).sum() if copy else 256
            bits_of[name].append(int(bits))
    numbers = unpack_hashes(originals)
    one, other, bits = find_near_duplicates(numbers, numbers, 100)
    return {
        "portraits": len(originals),
        "max_bits": MAX_BITS,
        "min_bits_of_two_people": int(bits[one != other].min()),
        "found": {n: round(float(np.mean(np.array(b) <= MAX_BITS)), 3) for n, b in bits_of.items()},
    }


def time_in_turns(functions: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    """Time each function ROUNDS times, in turns, after a warm-up round."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(ROUNDS + 1):
        for name, function in functions.items():
            getattr(function, "prepare", lambda: None)()
            start = time.perf_counter()
            function()
            if number:
                times[name].append(time.perf_counter() - start)
    return times


def _ratio(one: list[float], other: list[float]) -> float:
    return round(statistics.median(one) / statistics.median(other), 3)


def render(report: dict) -> str:
    """Render the measurements and the targets as Markdown."""
    from tables import table

    machine = report["machine"]
    lines = [
        "# Data: shards, pipeline, audit",
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores; Python "
        f"{machine['python']}, OpenCV {machine['opencv']}.",
    ]
    measured = []
    if pipeline := report.get("pipeline"):
        measured += [("pipeline", pipeline["ratio"]), ("augmented", pipeline["augmented"])]
        rows = list(pipeline["faces_per_s"].items())
        lines += [
            "## Reading shards, on one core",
            f"{pipeline['faces']} faces of {SIZE} pixels, {pipeline['bytes_per_face'] / 1000:.0f} "
            "kB each.",
            table(("pipeline", "faces/s"), rows, "lr"),
        ]
    if pairs := report.get("pairs"):
        measured.append(("pairs", pairs["per_s"]["pairs, all augmentation"]))
        rows = list(pairs["per_s"].items())
        lines += [
            "## Blended pairs, on two cores",
            f"{pairs['date']}; {pairs['faces']} real faces of {PAIR_SIZE} pixels, and pairs of one "
            "and a blended fake of any kind.",
            table(("pipeline", "faces or pairs/s"), rows, "lr"),
        ]
    if files := report.get("files"):
        rows = [
            (state, way, rate)
            for state in ("warm", "cold")
            for way, rate in files[state]["faces_per_s"].items()
        ]
        ratios = "; ".join(
            f"{state}: {files[state]['ratio_read']:.2f} read, "
            f"{files[state]['ratio_decoded']:.2f} decoded"
            for state in ("warm", "cold")
        )
        lines += [
            "## Shards and single PNG files",
            f"Speed of shards relative to {files['faces']} single files, {ratios}.",
            table(("page cache", "format", "faces/s"), rows, "llr"),
        ]
    if prepare := report.get("prepare"):
        measured.append(("workers", prepare["share_of_linear"]))
        lines += [
            "## Writing shards",
            f"{prepare['clips']} clips of {prepare['frames_each']} frames of 480p, 32 faces each.",
            table(("processes", "videos/s"), list(prepare["videos_per_s"].items()), "rr"),
        ]
    if hashes := report.get("hashes"):
        rows = [(name, f"{share:.0%}") for name, share in hashes["found"].items()]
        lines += [
            "## Near-duplicates",
            f"{hashes['portraits']} photographs of as many people: share of the copies whose hash "
            f"differs in at most {hashes['max_bits']} of 256 bits. The hashes of any two people "
            f"differ in at least {hashes['min_bits_of_two_people']} bits.",
            table(("copy", "found"), rows, "lr"),
        ]
    if audit := report.get("audit"):
        measured += [("audit_s", audit["seconds"]), ("audit_mb", audit["peak_mb"])]
    rows = []
    for name, value in measured:
        target, limit = TARGETS[name]
        is_met = value <= limit if name.startswith("audit") else value >= limit
        rows.append((target, f"{value:g}", "met" if is_met else "**not met**"))
    lines.insert(2, table(("target", "measured", ""), rows))
    return "\n\n".join(lines) + "\n"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed of shards and audits.")
    parser.add_argument(
        "--only",
        choices=("pipeline", "pairs", "files", "prepare", "audit", "hashes"),
        default="",
        help="one part",
    )
    parser.add_argument("--portraits", help="folder of photographs for the part hashes")
    parser.add_argument(
        "--faces", type=int, default=1024, help="number of faces to read (%(default)s)"
    )
    parser.add_argument(
        "--clips", type=int, default=40, help="number of clips to prepare (%(default)s)"
    )
    parser.add_argument("--frames", type=int, default=100, help="frames of each clip (%(default)s)")
    parser.add_argument(
        "--rows", type=int, default=1_000_000, help="number of rows to audit (%(default)s)"
    )
    parser.add_argument("--scratch", help="folder for temporary files; default: the system's")
    parser.add_argument("--out", default=HERE / "results" / "data.json", help="JSON file")
    parser.add_argument("--audit-rows", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()

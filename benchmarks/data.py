"""How fast faces go into shards and come out of them, and how fast a large manifest is audited.

Makes its own data set of one public-domain portrait, varied; prints a table and writes it as JSON
and Markdown. What is compared runs in turns in one process, so that only the ratio needs
believing. Linux only.

    python benchmarks/data.py                  # about ten minutes
    python benchmarks/data.py --only audit     # or another part; the results of the others stay
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
REACH = {  # written down before the first run
    "pipeline": ("at least 0.80 of the speed of a bare loop that reads and decodes", 0.80),
    "augmented": ("at least 100 faces of 299 px per second and core, all changes on", 100.0),
    "workers": ("at least 90 % of linear speed with two processes on two cores", 0.90),
    "audit_s": ("a million rows audited in less than 60 s", 60.0),
    "audit_mb": ("with less than 2,000 MB", 2000.0),
}
ROUNDS = 5
SIZE = 299


def main() -> None:
    """Run the parts that were asked for and write what came."""
    arguments = _parse()
    if arguments.audit_rows:
        print(json.dumps(audit_rows(arguments.audit_rows)))
        return
    parts = {
        "pipeline": measure_pipeline,
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


def write_set(directory: Path, num_faces: int) -> Path:
    """Write a prepared data set of one split, as `prepare` would: photographs with sensor noise."""
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
        shard = f"train-{start // 256:05d}.tfrecord"
        with open(out / "shards" / shard, "wb") as file:
            for number in range(start, min(start + 256, num_faces)):
                crop = cv2.resize(portraits[number % 16], (SIZE, SIZE)).astype(np.float32)
                crop = np.clip(crop + rng.normal(0, 2, crop.shape), 0, 255).astype(np.uint8)
                record = encode_face(crop, label=number % 2, video_id="a/b", frame_index=number)
                rows.append(_row(number, shard, file.tell()))
                file.write(frame_record(record))
    with open(out / "manifest.parquet", "wb") as file:
        write_table(file, "parquet", FaceRow, [to_table(rows, FaceRow)])
    save_options(out / OPTIONS, faces=FaceOptions(face_size=SIZE))
    return out


def _row(number: int, shard: str, offset: int):
    from jdfd_keras.datasets.manifest import FaceRow

    what = {"str": "", "int": number, "float": 0.0, "tuple": ()}
    values = {
        name: what[getattr(kind, "__name__", "tuple")]
        for name, kind in _annotations(FaceRow).items()
    }
    named = {"video_id": "a/b", "label": number % 2, "split": "train"}
    named |= {"shard": shard, "offset": offset}
    return FaceRow(**values | named)


def _annotations(kind: type) -> dict:
    return {field.name: field.type for field in dataclasses.fields(kind)}


def measure_pipeline(directory: Path, arguments: argparse.Namespace) -> dict:
    """Set our pipeline beside a loop that only reads and decodes; on one core, warm."""
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
            "ours": load_faces(out, "train", batch_size=32),
            "ours, shuffled": load_faces(out, "train", batch_size=32, shuffle=True),
            "ours, balanced": load_faces(
                out, "train", batch_size=32, shuffle=True, options=PipelineOptions(balance=True)
            ),
            "ours, all changes": load_faces(
                out, "train", batch_size=32, shuffle=True, augment=every
            ),
        }
        for name in _annotations(AugmentOptions):
            one = AugmentOptions(**{name: True})
            ways[f"ours, {name}"] = load_faces(
                out, "train", batch_size=32, shuffle=True, augment=one
            )

        def run(dataset) -> Callable[[], None]:
            # In the graph, so that Python's loop over batches or faces counts for neither.
            return lambda: dataset.reduce(np.int64(0), lambda n, *_: n + 1).numpy() and None

        times = take_turns({name: run(dataset) for name, dataset in ways.items()})
    finally:
        os.sched_setaffinity(0, cores)
    rates = {name: num_faces / statistics.median(of) for name, of in times.items()}
    return {
        "faces": num_faces,
        "bytes_per_face": round(sum(map(os.path.getsize, paths)) / num_faces),
        "faces_per_s": {name: round(rate, 1) for name, rate in rates.items()},
        "ratio": _ratio(times["bare loop"], times["ours"]),
        "augmented": round(rates["ours, all changes"], 1),
    }


def _decode(record):
    """Decode a record and do nothing else."""
    import tensorflow as tf

    key = "image/encoded"
    parsed = tf.io.parse_single_example(record, {key: tf.io.FixedLenFeature([], tf.string)})
    return tf.io.decode_png(parsed[key], channels=3)


def measure_files(directory: Path, arguments: argparse.Namespace) -> dict:
    """Set shards beside the same crops as single PNG files, in memory and out of it."""
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
    places = [(out / "shards" / face["shard"], face["offset"]) for face in faces]

    def read(index: tf.Tensor) -> tf.Tensor:  # as data.pipeline does
        record = tf.numpy_function(lambda i: read_record(*places[i]), [index], tf.string)
        return tf.ensure_shape(record, ())

    of_shards = tf.data.Dataset.range(len(places)).map(read, num_parallel_calls=tf.data.AUTOTUNE)
    of_files = tf.data.Dataset.from_tensor_slices(list(map(str, files)))
    # Reading alone as well: decoding is the same for both and hides what differs.
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

        def go() -> None:
            dataset.reduce(np.int64(0), lambda n, _: n + 1).numpy()

        go.prepare = lambda: _forget([*shards, *files]) if is_cold else None
        return go

    result = {}
    for state, is_cold in (("warm", False), ("cold", True)):
        times = take_turns({name: run(name, is_cold) for name in ways})
        rates = {name: round(len(files) / statistics.median(of), 1) for name, of in times.items()}
        result[state] = {
            "faces_per_s": rates,
            "ratio_read": _ratio(times["files, read"], times["shards, read"]),
            "ratio_decoded": _ratio(times["files, decoded"], times["shards, decoded"]),
        }
    return {"faces": len(files), **result}


def _forget(paths: list[Path]) -> None:
    """Let the system forget what it holds of files in memory."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def measure_prepare(directory: Path, arguments: argparse.Namespace) -> dict:
    """Prepare the same clips with one process and with two; their start is left out."""
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

    from jdfd_keras.datasets.extraction_task import Take
    from jdfd_keras.datasets.videos import Video
    from jdfd_keras.io.storage import LocalStore
    from jdfd_keras.io.workers import run_all
    from jdfd_keras.options import FaceOptions, FilterOptions

    works = []
    for path in sorted(root.rglob("*.mp4")):
        name = path.relative_to(root).as_posix()
        video = Video(f"clips/{name}", name, 0, "", "", (name,), "train")
        works.append((video, path.stat().st_size))
    cores = os.sched_getaffinity(0)

    def seconds(workers: int) -> float:
        """Time one video, on as many cores as processes."""
        out = Path(tempfile.mkdtemp(dir=directory))
        take = Take(LocalStore(str(root)), LocalStore(str(out)), FaceOptions(), FilterOptions())
        os.sched_setaffinity(0, sorted(cores)[:workers])
        cv2.setNumThreads(1)
        try:
            # The first videos pay for the start of the processes: the clock runs from then on.
            for done, _ in enumerate(run_all(take, works, workers)):
                if done == 1:
                    begun = time.perf_counter()
            return (time.perf_counter() - begun) / (len(works) - 2)
        finally:
            os.sched_setaffinity(0, cores)
            cv2.setNumThreads(-1)

    seconds(2)  # the files come into memory
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(3):
        for workers, of in times.items():
            of.append(seconds(workers))
    return {
        "clips": len(works),
        "frames_each": arguments.frames,
        "videos_per_s": {str(w): round(1 / statistics.median(t), 2) for w, t in times.items()},
        "share_of_linear": round(_ratio(times[1], times[2]) / 2, 3),
    }


def measure_audit(directory: Path, arguments: argparse.Namespace) -> dict:
    """Audit a manifest of a million rows in a process of its own."""
    words = [sys.executable, __file__, "--audit-rows", str(directory / "large")]
    write_large_manifest(directory / "large", arguments.rows)
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return {"rows": arguments.rows, **json.loads(done.stdout.splitlines()[-1])}


def write_large_manifest(out: Path, num_rows: int) -> None:
    """Write the tables of a prepared data set of many faces, 32 a video, without its shards.

    Hashes are signs of sums of twenty numbers a video, so that their bits depend on one another as
    those of real faces do, with a tenth as much chance for each face.
    """
    import pyarrow as pa

    from jdfd_keras.datasets.manifest import FaceRow, VideoRow, schema_of, to_table, write_table
    from jdfd_keras.io.files import OPTIONS, save_options
    from jdfd_keras.options import FaceOptions, FilterOptions, PrepareOptions, SplitOptions

    out.mkdir()
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(20, 256)).astype(np.float32)

    def pieces():
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
                "shard": ["train-00000.tfrecord"] * count,
                "offset": list(range(count)),
            }
            schema = schema_of(FaceRow)
            arrays = [pa.array(columns[field.name], field.type) for field in schema]
            yield pa.Table.from_arrays(arrays, schema=schema)

    with open(out / "manifest.parquet", "wb") as file:
        write_table(file, "parquet", FaceRow, pieces())
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
            dropped={},
            warning="",
            reason="",
        )
        for v in range(-(-num_rows // 32))
    ]
    with open(out / "videos.parquet", "wb") as file:
        write_table(file, "parquet", VideoRow, [to_table(videos, VideoRow)])
    (out / "listing.json").write_text('{"missing": [], "unknown": [], "left_out": {}}')
    save_options(
        out / OPTIONS,
        faces=FaceOptions(),
        filters=FilterOptions(),
        prepare=PrepareOptions(),
        split=SplitOptions(),
    )


def _split_of(video: int) -> str:
    """Give 70, 15 and 15 % of the sources to the splits, as `prepare` does by itself."""
    return "train" if (part := video // 2 % 20) < 14 else "val" if part < 17 else "test"


def _latent(video: int) -> np.ndarray:
    return np.random.default_rng(video).normal(size=20).astype(np.float32)


def audit_rows(directory: Path) -> dict:
    """Audit a data set in this process; gives seconds, the peak of memory and what leaked."""
    from jdfd_keras.datasets.audit import audit

    begun = time.perf_counter()
    report = audit([directory])
    return {
        "seconds": round(time.perf_counter() - begun, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "leaks": len(report.get("failed", [])),
    }


def measure_hashes(directory: Path, arguments: argparse.Namespace) -> dict | None:
    """Say how many copies of photographs are found again, and how unlike different people are.

    Copies go the whole way: decoded, detected, aligned and hashed anew.
    """
    from jdfd_keras.datasets.hashing import NEAR, find_near, hash_face, unpack_hashes
    from jdfd_keras.faces.extract import extract_faces

    if not arguments.portraits:
        print("hashes: no --portraits, left out", file=sys.stderr)
        return None

    def jpeg(quality: int):
        how = [cv2.IMWRITE_JPEG_QUALITY, quality]
        return lambda picture: cv2.imdecode(cv2.imencode(".jpg", picture, how)[1], cv2.IMREAD_COLOR)

    copies = {
        "JPEG, quality 70": jpeg(70),
        "JPEG, quality 40": jpeg(40),
        "half the size": lambda picture: cv2.resize(
            picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA
        ),
        "brighter by 15 %": lambda picture: cv2.convertScaleAbs(picture, alpha=1.15, beta=8),
        "5 % cut off each side": lambda picture: picture[
            len(picture) // 20 : -(len(picture) // 20),
            picture.shape[1] // 20 : -(picture.shape[1] // 20),
        ],
        "mirrored": lambda picture: picture[:, ::-1],
    }

    def look_at(picture: np.ndarray) -> str | None:
        path = directory / "copy.png"
        cv2.imwrite(str(path), picture)
        faces = extract_faces(path).faces
        return hash_face(faces[0].crop) if faces else None

    originals, found = [], {name: [] for name in copies}
    for path in sorted(Path(arguments.portraits).iterdir()):
        picture = cv2.imread(str(path))
        original = None if picture is None else look_at(picture)
        if original is None:
            continue
        originals.append(original)
        for name, change in copies.items():
            copy = look_at(change(picture))
            pair = unpack_hashes([original, copy]) if copy else None
            bits = np.bitwise_count(pair[0] ^ pair[1]).sum() if copy else 256
            found[name].append(int(bits))
    numbers = unpack_hashes(originals)
    one, other, bits = find_near(numbers, numbers, 100)
    return {
        "portraits": len(originals),
        "most_bits": NEAR,
        "least_bits_of_two_people": int(bits[one != other].min()),
        "found_again": {n: round(float(np.mean(np.array(b) <= NEAR)), 3) for n, b in found.items()},
    }


def take_turns(ways: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    """Time each way ROUNDS times, in turns, after a first time that does not count."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS + 1):
        for name, go in ways.items():
            getattr(go, "prepare", lambda: None)()
            begun = time.perf_counter()
            go()
            if number:
                times[name].append(time.perf_counter() - begun)
    return times


def _ratio(one: list[float], other: list[float]) -> float:
    return round(statistics.median(one) / statistics.median(other), 3)


def render(report: dict) -> str:
    """Write what came beside what was expected."""
    from jdfd_keras.reporting.markdown import Marked, table

    machine = report["machine"]
    lines = [
        "# Data: shards, pipeline, audit",
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores; Python "
        f"{machine['python']}, OpenCV {machine['opencv']}.",
    ]
    came = []
    if pipeline := report.get("pipeline"):
        came += [("pipeline", pipeline["ratio"]), ("augmented", pipeline["augmented"])]
        rows = list(pipeline["faces_per_s"].items())
        lines += [
            "## Out of shards, on one core",
            f"{pipeline['faces']} faces of {SIZE} pixels, {pipeline['bytes_per_face'] / 1000:.0f} "
            "kB each.",
            table(("way", "faces/s"), rows, "lr"),
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
            "## Shards beside single PNG files",
            f"Speed of shards over that of {files['faces']} files, {ratios}.",
            table(("files in memory", "way", "faces/s"), rows, "llr"),
        ]
    if prepare := report.get("prepare"):
        came.append(("workers", prepare["share_of_linear"]))
        lines += [
            "## Into shards",
            f"{prepare['clips']} clips of {prepare['frames_each']} frames of 480p, 32 faces each.",
            table(("processes", "videos/s"), list(prepare["videos_per_s"].items()), "rr"),
        ]
    if hashes := report.get("hashes"):
        rows = [(name, f"{share:.0%}") for name, share in hashes["found_again"].items()]
        lines += [
            "## Near-duplicates",
            f"{hashes['portraits']} photographs of as many people: copies whose hash differs in "
            f"{hashes['most_bits']} bits of 256 at most, from single pictures. Any two people "
            f"differ in {hashes['least_bits_of_two_people']} bits or more.",
            table(("copy", "found again"), rows, "lr"),
        ]
    if audit := report.get("audit"):
        came += [("audit_s", audit["seconds"]), ("audit_mb", audit["peak_mb"])]
    reach = []
    for name, value in came:
        expected, limit = REACH[name]
        is_met = value <= limit if name.startswith("audit") else value >= limit
        reach.append((expected, f"{value:g}", "met" if is_met else Marked("**not met**")))
    lines.insert(2, table(("expected beforehand", "came", ""), reach))
    return "\n\n".join(lines) + "\n"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Faces into shards and out of them, and audits.")
    parser.add_argument(
        "--only",
        choices=("pipeline", "files", "prepare", "audit", "hashes"),
        default="",
        help="one part",
    )
    parser.add_argument("--portraits", help="folder of photographs, for the part hashes")
    parser.add_argument("--faces", type=int, default=1024, help="faces read (%(default)s)")
    parser.add_argument("--clips", type=int, default=40, help="clips prepared (%(default)s)")
    parser.add_argument("--frames", type=int, default=100, help="frames of each (%(default)s)")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows audited (%(default)s)")
    parser.add_argument("--scratch", help="folder for what is made; the system's if not given")
    parser.add_argument("--out", default=HERE / "results" / "data.json", help="JSON file")
    parser.add_argument("--audit-rows", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()

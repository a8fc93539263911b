"""What the domain of a calibration flags: files like those of validation, and files unlike them.

Clips are made from portraits, each of one person: camera motion, blur and noise of several
strengths, H.264 of several rates, real and with a swapped face. The people are split: some train
the detector, some are validation, from which the domain is fitted, and the others are held out.
Then the held-out portraits are blurred, made small, drawn, or framed in other ways.

    python benchmarks/domain.py --portraits DIR --scratch DIR             # trains a detector
    python benchmarks/domain.py --portraits DIR --scratch DIR --run RUN   # a run with a decoder
    python benchmarks/domain.py --scratch DIR --people 80 --epochs 0      # one portrait, varied
    python benchmarks/domain.py --picture docs/domain-kinds.jpg           # examples

An interrupted benchmark goes on where it stopped when the same command is given again.
"""

import argparse
import dataclasses
import functools
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the package beside this folder
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np

from jdfd_keras.client.domain import Domain, FileMeasures, fit_domain
from jdfd_keras.client.likelihood import clopper_pearson
from jdfd_keras.datasets.synthetic.clips import Portrait, read_portraits, vary_portrait
from jdfd_keras.datasets.synthetic.drawings import DRAWINGS, draw_face
from jdfd_keras.faces.align import canonical_points
from jdfd_keras.faces.extract import Extraction, extract_faces
from jdfd_keras.faces.landmarks import fit_similarity, five_points, transform_points
from jdfd_keras.inference.file_measures import measure_file
from jdfd_keras.inference.tracks import check_evidence
from jdfd_keras.io.console import track
from jdfd_keras.options import FaceOptions

HERE = Path(__file__).parent
FACE_SIZE = 128
STANDARD_MARGIN = FaceOptions.margin
FRAMES = 10  # of a clip of validation, and of a held-out one
TRAINING_FRAMES, ODD_FRAMES = 3, 4
SHARES = {"training": 0.393, "validation": 0.31}  # of the people; the others are held out
MAX_SIDE = 480  # of a clip, in pixels
EYE_DISTANCES = (55, 150)  # between the outer corners, in pixels
BLURS = (0.2, 1.2)  # of the camera, sigma per 100 px of eye distance
NOISES = (0.5, 5.0)
RATES = (18, 23, 28, 33)  # of H.264
GENERATOR_EYE_DISTANCES = (20, 60)
STRONG_BLURS = (5.0, 8.0, 12.0)  # sigma per 100 px of eye distance
SMALL_EYE_DISTANCES = (14, 24)  # boxes are 1.66 times as wide
FRAMINGS: dict[str, dict] = {
    "margin 1.0": {"margin": 1.0},
    "margin 1.8": {"margin": 1.8},
    "margin 2.5": {"margin": 2.5},
    "not aligned, tilted by 20 degrees": {"turn": 20.0},
    "off-centre by a quarter": {"shift": (0.25, 0.0)},
    "eyes only": {"margin": 0.55, "shift": (0.0, 0.18)},
    "chin only": {"margin": 0.55, "shift": (0.0, -0.55)},
}
GOALS = {"like validation": 0.05, "other": 0.9}  # at most, and at least


def render_frames(
    subject: Portrait,
    rng: np.random.Generator,
    num_frames: int,
    *,
    forge: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    eye_distance: tuple[float, float] = EYE_DISTANCES,
    side: int = MAX_SIDE,
    extra_blur: float = 0.0,
    is_drawn: bool = False,
) -> Iterator[np.ndarray]:
    """Render a clip: smooth motion and exposure, blur and noise of the camera.

    Args:
        subject: The portrait.
        rng: Source of randomness.
        num_frames: Frames.
        forge: Function from a frame and its landmarks to a forged frame; none for real footage.
        eye_distance: Range of the distance between the outer eye corners in pixels.
        side: Most pixels of a side.
        extra_blur: Sigma of a further blur, per 100 px of eye distance.
        is_drawn: Without blur and noise, which drawings do not have.
    """
    width = np.linalg.norm(subject.landmarks[45] - subject.landmarks[36])
    eye = np.exp(rng.uniform(*np.log(eye_distance)))
    scale = eye / width
    side = int(min(side, min(subject.pixels.shape[:2]) * scale / 1.1)) // 2 * 2
    blur = np.exp(rng.uniform(*np.log(BLURS))) * eye / 100
    noise = rng.uniform(*NOISES)
    if is_drawn:
        blur, noise = 0.1, 0.0
    centre = subject.landmarks.mean(axis=0)
    phases, periods = rng.uniform(0, 2 * np.pi, 5), rng.uniform(30, 90, 5)
    for index in range(num_frames):
        x, y, turn, zoom, light = np.sin(2 * np.pi * index / periods + phases)
        matrix = cv2.getRotationMatrix2D(centre.tolist(), 5 * turn, scale * (1 + 0.06 * zoom))
        matrix[:, 2] += side / 2 - centre + 0.04 * side * np.array([x, y])
        frame = cv2.warpAffine(
            subject.pixels,
            matrix,
            (side, side),
            flags=cv2.INTER_AREA,
            borderMode=cv2.BORDER_REFLECT,
        )
        if forge is not None:
            frame = forge(frame, transform_points(matrix, subject.landmarks))
        frame = cv2.GaussianBlur(frame, (0, 0), float(np.hypot(blur, extra_blur * eye / 100)))
        seen = frame * (1 + 0.1 * light) + rng.normal(0, noise, frame.shape)
        yield np.clip(np.round(seen), 0, 255).astype(np.uint8)


def write_clip(path: Path, frames: Iterator[np.ndarray], rate: int) -> None:
    """Write frames as H.264, unless the file exists."""
    import av

    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}")
    with av.open(str(unfinished), "w", format="mp4") as container:
        stream = None
        for frame in frames:
            if stream is None:
                stream = container.add_stream("libx264", rate=25)
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt, stream.thread_count = "yuv420p", 1
                stream.options = {"crf": str(rate), "preset": "fast"}
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")):
                container.mux(packet)
        if stream is not None:
            for packet in stream.encode():
                container.mux(packet)
    unfinished.rename(path)


def make_people_clips(people: dict[str, list[tuple[int, Portrait]]], scratch: Path) -> None:
    """Write the clips of all people: real ones, and fakes of those that do not train."""
    from jdfd_keras.datasets.synthetic.blending import rerender_face, swap_face

    for part, members in people.items():
        folder = scratch / "clips" / part
        for place, (number, subject) in enumerate(
            track(members, f"clips of {part}", len(members), "people")
        ):
            is_training = part == "fit/train"
            count = TRAINING_FRAMES if part.startswith("fit") else FRAMES
            rng = np.random.default_rng((0, number))
            rate = int(rng.choice(RATES))
            write_clip(
                folder / "real" / f"{subject.name}.mp4", render_frames(subject, rng, count), rate
            )
            if is_training:
                continue  # fakes are made while training
            partner = members[place ^ 1 if (place ^ 1) < len(members) else place - 1][1]
            rng = np.random.default_rng((1, number))
            rate = int(rng.choice(RATES))
            resolution = float(np.exp(rng.uniform(*np.log(GENERATOR_EYE_DISTANCES))))
            face = rerender_face(partner.pixels, partner.landmarks, resolution)
            donor = {"source": face, "source_landmarks": partner.landmarks}
            name = f"{subject.name}_{partner.name}.mp4"
            write_clip(
                folder / "fake" / name,
                render_frames(subject, rng, count, forge=functools.partial(swap_face, **donor)),
                rate,
            )


def split_people(portraits: Sequence[Portrait]) -> dict[str, list[tuple[int, Portrait]]]:
    """Split numbered portraits into those of training, its own validation, and the other two."""
    order = np.random.default_rng(0).permutation(len(portraits)).tolist()
    count = round(SHARES["training"] * len(order))
    own = max(round(0.1 * count), 1)
    end = count + round(SHARES["validation"] * len(order))
    parts = {
        "fit/train": order[: count - own],
        "fit/val": order[count - own : count],
        "held/val": order[count:end],
        "held/test": order[end:],
    }
    return {part: [(i, portraits[i]) for i in numbers] for part, numbers in parts.items()}


def list_odd_clips() -> dict[str, tuple[str, dict, Callable[[np.ndarray], np.ndarray] | None]]:
    """List clips unlike validation: name to kind, options of the camera, change of the portrait."""
    odd: dict[str, tuple[str, dict, Callable[[np.ndarray], np.ndarray] | None]] = {
        f"blur of {blur:g}": ("strong blur", {"extra_blur": blur}, None) for blur in STRONG_BLURS
    }
    odd["under 40 px"] = ("faces under 40 px", {"eye_distance": SMALL_EYE_DISTANCES}, None)
    for name in DRAWINGS:
        kind = "smoothed photographs" if name.startswith("smoothed") else "drawn faces"
        odd[name] = (kind, {"is_drawn": True}, functools.partial(draw_face, drawing=name))
    return odd


def measure_odd_clips(
    members: Sequence[tuple[int, Portrait]], scratch: Path, reconstruct_error
) -> dict[str, list[dict]]:
    """Write, extract and measure the clips of all kinds; name to a record for each clip."""
    records = {}
    for name, (_, camera, change) in list_odd_clips().items():
        path = scratch / "measures" / f"{name.replace(', ', '-').replace(' ', '-')}.json"
        if not path.is_file():
            found = []
            for number, subject in track(members, name, len(members), "people"):
                rng = np.random.default_rng((5, number))
                rate = int(rng.choice(RATES))
                pixels = change(subject.pixels) if change else subject.pixels
                portrait = Portrait(subject.name, pixels, subject.landmarks)
                clip = scratch / "odd" / path.stem / f"{subject.name}.mp4"
                write_clip(clip, render_frames(portrait, rng, ODD_FRAMES, **camera), rate)
                options = FaceOptions(face_size=FACE_SIZE, frames_per_video=ODD_FRAMES)
                found.append(describe_file(extract_faces(clip, options), reconstruct_error))
            write_json(path, found)
        records[name] = json.loads(path.read_text(encoding="utf-8"))
    return records


def describe_file(extraction: Extraction, reconstruct_error) -> dict:
    """Measure a file as `predict` does, and state whether anybody in it is judged."""
    faces = extraction.faces
    if not faces:
        return {"has_face": False}
    reasons = check_evidence(
        np.array([face.track_id for face in faces]),
        np.array([face.quality.detector_score for face in faces]),
        np.array([face.quality.size_px for face in faces]),
        np.array([face.quality.sharpness for face in faces]),
        extraction.num_frames,
    )
    kept = [face for face in faces if not reasons[face.track_id]]
    # Without judged faces the measures of all show what the domain alone would state.
    measures = measure_file(extraction, kept or faces, reconstruct_error)
    values = measures.to_dict() | {"texture": list(measures.texture)}
    return {"has_face": True, "is_judged": bool(kept), "measures": values}


def is_too_large(kind: str, record: dict) -> bool:
    """Return whether a clip of small faces shows larger ones than the kind states."""
    return (
        kind == "faces under 40 px" and record["has_face"] and record["measures"]["size_px"] >= 40
    )


def frame_face(portrait: Portrait, framing: dict, size: int = 256) -> np.ndarray:
    """Crop a portrait in the standard framing, or scaled, turned and shifted from it."""
    five = five_points(portrait.landmarks)
    standard = fit_similarity(five, canonical_points(size, STANDARD_MARGIN))
    middle = (size - 1) / 2
    zoom = STANDARD_MARGIN / framing.get("margin", STANDARD_MARGIN)
    change = cv2.getRotationMatrix2D((middle, middle), framing.get("turn", 0.0), zoom)
    change[:, 2] += np.array(framing.get("shift", (0.0, 0.0))) * size
    matrix = (np.vstack([change, [0, 0, 1]]) @ np.vstack([standard, [0, 0, 1]]))[:2]
    return cv2.warpAffine(
        portrait.pixels, matrix, (size, size), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT
    )


def measure_framings(
    people: dict[str, list[tuple[int, Portrait]]], scratch: Path
) -> dict[str, list[FileMeasures]]:
    """Measure JPEG files of crops that are taken as they are: name of the framing to measures."""
    path = scratch / "measures" / "framings.json"
    if not path.is_file():
        records = {}
        parts = {"validation": ("held/val", {}), "standard framing": ("held/test", {})}
        parts |= {name: ("held/test", framing) for name, framing in FRAMINGS.items()}
        options = FaceOptions(face_size=FACE_SIZE, detector="none")
        for name, (part, framing) in parts.items():
            records[name] = []
            for number, portrait in track(people[part], name, len(people[part]), "people"):
                quality = int(np.random.default_rng((7, number)).integers(75, 96))
                crop = scratch / "crops" / "crop.jpg"
                crop.parent.mkdir(exist_ok=True)
                pixels = frame_face(portrait, framing)[..., ::-1]
                cv2.imwrite(str(crop), pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
                extraction = extract_faces(crop, options)
                records[name].append(measure_file(extraction, extraction.faces).to_dict())
        write_json(path, records)
    stored = json.loads(path.read_text(encoding="utf-8"))
    return {name: [FileMeasures.from_dict(one) for one in found] for name, found in stored.items()}


def write_picture(path: Path) -> None:
    """Write examples of all kinds, made of a photograph in the public domain."""
    from skimage.data import astronaut

    (portrait,) = vary_portrait(astronaut(), 1, seed=0)
    standard = frame_face(portrait, {})
    # The outer eye corners are about 0.35 of the width of a crop apart.
    scale = 0.35 * len(standard) / 100
    small = cv2.resize(standard, (44, 44), interpolation=cv2.INTER_AREA)
    tiles = [standard]
    tiles += [cv2.GaussianBlur(standard, (0, 0), blur * scale) for blur in STRONG_BLURS[:1]]
    tiles.append(cv2.resize(small, standard.shape[1::-1], interpolation=cv2.INTER_NEAREST))
    tiles += [draw_face(standard, name) for name in DRAWINGS]
    tiles += [frame_face(portrait, framing) for framing in FRAMINGS.values()]
    tiles = [cv2.resize(tile, (160, 160), interpolation=cv2.INTER_AREA) for tile in tiles]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % 7)
    rows = [np.hstack(tiles[start : start + 7]) for start in range(0, len(tiles), 7)]
    cv2.imwrite(str(path), np.vstack(rows)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


def count_flagged(domain: Domain, files: Sequence[FileMeasures]) -> dict:
    """Count the files beyond a domain, with an exact 95 % interval, and the reasons."""
    reasons = [domain.check(measures) for measures in files]
    count = sum(map(bool, reasons))
    low, high = clopper_pearson(count, len(files))
    measures = Counter(one.split(" (")[0] for found in reasons for one in found)
    return {
        "files": len(files),
        "flagged": count,
        "interval": [low, high],
        "reasons": dict(measures.most_common()),
    }


def run(arguments: argparse.Namespace) -> dict:
    """Run all stages; return the report."""
    from face_report import describe_machine

    from jdfd_keras.datasets.prepare import prepare
    from jdfd_keras.evaluation.calibrate import find_judged_faces
    from jdfd_keras.evaluation.domain_fit import DrawnFaces, fit_drawn_domain, measure_videos
    from jdfd_keras.evaluation.eval_data import load_eval_sets
    from jdfd_keras.inference.backends import load_predictor

    scratch = arguments.scratch
    if arguments.portraits:
        portraits = read_portraits(arguments.portraits, arguments.people)
    else:
        from skimage.data import astronaut

        portraits = vary_portrait(astronaut(), arguments.people, seed=0)
    people = split_people(portraits)
    parts = {"held": FRAMES}
    if arguments.epochs and not arguments.run:
        parts["fit"] = TRAINING_FRAMES
    for name, frames in parts.items():
        make_people_clips({p: m for p, m in people.items() if p.startswith(name)}, scratch)
        prepare(
            scratch / "clips" / name,
            scratch / "prepared" / name,
            FaceOptions(face_size=FACE_SIZE, frames_per_video=frames),
        )
    model = arguments.run or (train_detector(arguments) if arguments.epochs else None)
    reconstruct_error = load_predictor(model).reconstruct_error if model else None
    held = {}
    for split in ("val", "test"):
        sets = load_eval_sets([scratch / "prepared" / "held"], split)
        held[split] = measure_videos(sets, find_judged_faces(sets), reconstruct_error)
    measures, drawn = held["val"]
    domain = fit_drawn_domain(measures, drawn)
    members = people["held/test"][-arguments.odd_people :]
    records = measure_odd_clips(members, scratch, reconstruct_error)
    kinds, without_family = {}, {}
    for name, found in records.items():
        kind = list_odd_clips()[name][0]
        found = [one for one in found if not is_too_large(kind, one)]
        files = [FileMeasures.from_dict(one["measures"]) for one in found if one["has_face"]]
        counted = count_flagged(domain, files)
        counted["no_face"] = len(found) - len(files)
        has_evidence = [one.get("is_judged", False) for one in found if one["has_face"]]
        counted["not_judged"] = has_evidence.count(False)
        counted["not_used"] = sum(
            not is_enough or bool(domain.check(one))
            for is_enough, one in zip(has_evidence, files, strict=True)
        )
        kinds[name] = {"kind": kind} | counted
        if kind == "drawn faces":
            family = name.split(",")[0]
            kept = np.array([other.split(",")[0] != family for other in drawn.drawing])
            names = [other for other in drawn.drawing if other.split(",")[0] != family]
            others = DrawnFaces(names, drawn.video[kept], drawn.texture[kept])
            without_family[name] = count_flagged(fit_drawn_domain(measures, others), files)
    framings = measure_framings(people, scratch)
    framing_domain = fit_domain(framings.pop("validation"))
    return {
        "machine": describe_machine() | {"cores": str(os.cpu_count())},
        "source": "portraits" if arguments.portraits else "one portrait, varied",
        "people": {part: len(members) for part, members in people.items()},
        "decoder": bool(reconstruct_error),
        "limit": domain.limit,
        "spreads": [spread.to_dict() for spread in domain.spreads],
        "held_out": count_flagged(domain, held["test"][0]),
        "kinds": kinds,
        "without_family": without_family,
        "framing_validation": framing_domain.num_files,
        "framings": {name: count_flagged(framing_domain, f) for name, f in framings.items()},
    }


def train_detector(arguments: argparse.Namespace) -> Path:
    """Train a detector with a decoder on the people of training."""
    from jdfd_keras.options import RECIPES
    from jdfd_keras.training.train import train

    out = arguments.scratch / "run"
    if not (out / "best.keras").is_file():
        groups = dict(RECIPES["robust"])
        weights = arguments.encoder_weights
        groups["model"] = dataclasses.replace(groups["model"], encoder_weights=weights)
        groups["train"] = dataclasses.replace(groups["train"], epochs=arguments.epochs)
        train(arguments.scratch / "prepared" / "fit", out, **groups)
    return out


def summarize(report: dict) -> dict[str, dict]:
    """Sum the files of each kind that has a goal, with the share that is flagged."""
    rows = {"like validation": [report["held_out"]]}
    for counted in report["kinds"].values():
        rows.setdefault(counted["kind"], []).append(counted)
    rows["crops of another framing"] = [
        counted for name, counted in report["framings"].items() if name != "standard framing"
    ]
    rows["crops of the standard framing"] = [report["framings"]["standard framing"]]
    return {
        kind: {name: sum(one[name] for one in found) for name in ("files", "flagged")}
        for kind, found in rows.items()
    }


def render(report: dict) -> str:
    """Return the Markdown page of a report."""
    machine, people = report["machine"], report["people"]
    lines = [
        "# Domain: what is flagged as unlike validation\n",
        f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, OpenCV "
        f"{machine['opencv']}, dlib {machine['dlib']}, {machine['date']}. Source: "
        f"{report['source']}; {people['fit/train'] + people['fit/val']} people for training, "
        f"{people['held/val']} for validation, {people['held/test']} held out.\n",
        "| files | number | flagged | 95 % interval | goal |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind, counted in summarize(report).items():
        goal = "-"
        if kind in ("like validation", "crops of the standard framing"):
            goal = f"at most {GOALS['like validation']:.0%}"
        elif kind != "smoothed photographs":
            goal = f"at least {GOALS['other']:.0%}"
        lines.append(f"| {kind} | {_shares(counted)} | {goal} |")
    lines += [
        "\n## Clips, in detail\n",
        "| clips | with a face | flagged | 95 % interval | flagged or nobody judged | reasons |",
        "| --- | --- | --- | --- | --- | --- |",
        f"| held out, like validation | {_shares(report['held_out'])} | - | "
        f"{_list_reasons(report['held_out'])} |",
    ]
    for name, counted in report["kinds"].items():
        used = f"{counted['not_used'] / max(counted['files'], 1):.0%}"
        lines.append(f"| {name} | {_shares(counted)} | {used} | {_list_reasons(counted)} |")
    lines += [
        "\n## Drawings of a family that the weights were fitted without\n",
        "| clips | with a face | flagged | 95 % interval |",
        "| --- | --- | --- | --- |",
        *(f"| {name} | {_shares(one)} |" for name, one in report["without_family"].items()),
        "\n## Crops taken as they are\n",
        "| framing | crops | flagged | 95 % interval | reasons |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {name} | {_shares(one)} | {_list_reasons(one)} |"
            for name, one in report["framings"].items()
        ),
    ]
    return "\n".join(lines) + "\n"


def _shares(counted: dict) -> str:
    low, high = clopper_pearson(counted["flagged"], counted["files"])
    share = counted["flagged"] / max(counted["files"], 1)
    return f"{counted['files']} | {share:.1%} | {low:.1%} to {high:.1%}"


def _list_reasons(counted: dict) -> str:
    return "; ".join(f"{reason}: {count}" for reason, count in counted["reasons"].items()) or "-"


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically."""
    from jdfd_keras.io.files import write_text_atomically

    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, json.dumps(content, indent=1) + "\n")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What the domain of a calibration flags.")
    parser.add_argument("--portraits", type=Path, help="photographs, one per person")
    parser.add_argument("--people", type=int, default=10_000, help="most people")
    parser.add_argument("--odd-people", type=int, default=30, help="held-out people per odd kind")
    parser.add_argument("--scratch", type=Path, help="folder of clips and datasets")
    parser.add_argument("--picture", type=Path, help="write only a picture of the kinds")
    parser.add_argument("--run", type=Path, help="run folder of a detector with a decoder")
    parser.add_argument("--epochs", type=int, default=10, help="of the training; 0: no decoder")
    parser.add_argument("--encoder-weights", default="imagenet")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "domain.json")
    arguments = parser.parse_args()
    if not (arguments.picture or arguments.scratch):
        parser.error("expected --scratch; got none")
    return arguments


def main() -> None:
    """Run the benchmark and write the results as JSON and Markdown."""
    arguments = _parse()
    if arguments.picture:
        write_picture(arguments.picture)
        return
    report = run(arguments)
    write_json(arguments.out, report)
    arguments.out.with_suffix(".md").write_text(render(report), encoding="utf-8")
    print(render(report))


if __name__ == "__main__":
    main()

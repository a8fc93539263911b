"""Image folders, tables and published crops, from the files to a report, with the commands.

Every video is a smooth random texture, so that no two videos are near-duplicates.
"""

import json

import cv2
import numpy as np
import pytest

from jdfd_keras.cli.main import main
from jdfd_keras.datasets.layouts.faceforensics import read_clips
from jdfd_keras.datasets.manifest import read_videos

SIZE = 71
CROPS = ["--detector", "none", "--face-size", str(SIZE), "--frames-per-video", "3"]
TRAIN = ["--encoder-weights", "none", "--epochs", "1", "--batch-size", "16"]


def write_frames(video, *paths):
    """Write similar images that belong to one video, or one such video file."""
    rng = np.random.default_rng(video)
    texture = cv2.resize(rng.integers(0, 256, (9, 9, 3), np.uint8), (SIZE + 1, SIZE + 1))
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        frame = np.clip(texture.astype(int) + 2 * number, 0, 255).astype(np.uint8)
        if path.suffix != ".mp4":
            cv2.imwrite(str(path), frame)
            continue
        code = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(path), code, 25, frame.shape[1::-1])
        for _ in range(4):
            writer.write(frame)
        writer.release()


def pairs_of_split(split, count):
    """Return pairs of clips of FaceForensics++ of one official split, each once."""
    clips = {name: clip for name, clip in read_clips().items() if clip.split == split}
    whole = [name for name, clip in clips.items() if clip.source == name]  # of their own footage
    pairs = [(name, clips[name].partner) for name in whole if name < clips[name].partner]
    return [pair for pair in pairs if pair[1] in whole][:count]


def arrange_kaggle(root):
    number = 0
    for split, count in (("train", 8), ("valid", 4), ("test", 4)):
        for kind in ("real", "fake"):
            for _ in range(count):
                number += 1
                path = root / f"real_vs_fake/real-vs-fake/{split}/{kind}/{number:05d}.jpg"
                write_frames(number, path)
    (root / "real_vs_fake/train.csv").write_text("id,path\n")
    return ["folder", root]


def arrange_flat(root):
    for subject in range(8):
        for kind, name in (("0_real", "id{0}_0001"), ("1_fake", "id{0}_id{1}_0001")):
            stem = name.format(subject, subject + 20)
            paths = [root / f"{kind}/{stem}_{number:05d}.png" for number in range(3)]
            write_frames(100 * (kind == "1_fake") + subject, *paths)
    return ["folder", root]


def arrange_table(root):
    rows = ["path;label;split;source_id;manipulation"]
    splits = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    for number, split in enumerate(splits):
        for label, kind in enumerate(("Real", "FAKE")):
            path = f"images/{kind}{number}x.webp"
            write_frames(10 * number + label, root / path)
            manipulation = "AB"[number % 2] if label else ""
            rows.append(f"{path};{kind};{split};s{number};{manipulation}")
    (root / "files.csv").write_text("\n".join(rows) + "\n")
    return ["table", root / "files.csv", "--root", root]


def arrange_deepfakebench(root):
    number = 0
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        for one, other in pairs_of_split(split, count):
            reals = [f"original_sequences/youtube/c23/frames/{clip}" for clip in (one, other)]
            below = "manipulated_sequences/Deepfakes/c23/frames"
            for folder in (*reals, f"{below}/{one}_{other}", f"{below}/{other}_{one}"):
                number += 1
                base = root / "FaceForensics++" / folder
                write_frames(number, *(base / f"{index:03d}.png" for index in (0, 12, 9)))
                beside = root / "FaceForensics++" / folder.replace("/frames/", "/landmarks/")
                beside.mkdir(parents=True)
                for index in (0, 9, 12):
                    np.save(beside / f"{index:03d}.npy", np.full((81, 2), 36))
    return ["deepfakebench", root]


def arrange_df40(root):
    pairs = [*pairs_of_split("train", 6), *pairs_of_split("test", 2)]
    for number, (one, other) in enumerate(pairs):
        tree = "DF40_train/simswap/frames" if number < 6 else "DF40/simswap/ff/frames"
        real = "FaceForensics++/original_sequences/youtube/c23/frames"
        for kind, folder in enumerate((f"{tree}/{one}_{other}", f"{real}/{one}")):
            paths = [root / folder / f"{index:03d}.png" for index in range(3)]
            write_frames(2 * number + kind, *paths)
    return ["df40", root]


def arrange_celebdf(root):
    lines = []
    for number in range(8):
        partner = number ^ 1
        real, fake = f"id{number}_0000.mp4", f"id{number}_id{partner}_0000.mp4"
        method = ("FaceSwap/BlendFace", "TalkingFace/EchoMimic")[number // 2 % 2]
        paths = [f"Celeb-real/{real}", f"Celeb-synthesis/{method}/{fake}"]
        for label, path in enumerate(paths):
            write_frames(2 * number + label, root / path)
            if number < 2:
                lines.append(f"{1 - label} {path}")
    (root / "List_of_testing_videos.txt").write_text("\n".join(lines) + "\n")
    return ["celebdf++", root]


KINDS = {
    "kaggle": arrange_kaggle,
    "flat": arrange_flat,
    "table": arrange_table,
    "deepfakebench": arrange_deepfakebench,
    "df40": arrange_df40,
    "celebdf++": arrange_celebdf,
}
UNKNOWN = {"kaggle"}  # kinds of unknown sources
# Number of videos of each split, real and fake together, where the publication states them.
PUBLISHED = {
    "kaggle": {"train": 16, "val": 8, "test": 8},
    "table": {"train": 12, "val": 4, "test": 4},
    "deepfakebench": {"train": 8, "val": 4, "test": 4},
}


def run(capfd, *words):
    """Run a command without error and return its result."""
    assert main([*map(str, words), "--format", "json"]) == 0, capfd.readouterr().err
    return json.loads(capfd.readouterr().out)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_a_tree_or_table_of_each_kind_goes_from_files_to_a_report(kind, tmp_path, stand_in, capfd):
    prepared, table = tmp_path / "prepared", "again"
    layout = KINDS[kind](tmp_path / "root")
    made = run(capfd, "prepare", *layout, "--out", prepared, *CROPS)
    rows = read_videos(prepared)
    assert all(row.num_faces for row in rows)
    assert sum(made["faces"].values()) == sum(max(1, len(row.frames)) for row in rows) or any(
        row.path.endswith(".mp4") for row in rows
    )
    if kind in PUBLISHED:
        found = dict.fromkeys(PUBLISHED[kind], 0)
        for row in read_videos(prepared, split_table="official"):
            found[row.split] += 1
        assert found == PUBLISHED[kind]
    (split,) = run(capfd, "split", prepared, "--seed", "3", "--name", table)["tables"]
    assert all(min(counts.values()) > 0 for counts in split["counts"].values()), split
    audited = run(capfd, "audit", prepared, "--split-table", table)
    is_unknown = audited["datasets"][0]["unknown_sources"] > 0
    assert is_unknown == (kind in UNKNOWN) or kind in ("celebdf++", "df40")
    assert audited["leakage"] == ("not ruled out" if is_unknown else "none")
    words = ["--split-table", table]
    run(capfd, "train", prepared, "--out", tmp_path / "run", *TRAIN, *words)
    report = run(
        capfd, "evaluate", tmp_path / "run", prepared, "--out", tmp_path / "report", *words
    )
    assert report["frame"]["num_real"] and report["frame"]["num_fake"]
    assert report["protocol"]["leakage"].startswith("not ruled" if is_unknown else "none between")
    assert 0 <= report["video"]["auc"]["value"] <= 1


def test_one_manipulation_of_a_table_is_held_out(tmp_path, stand_in, capfd):
    run(capfd, "prepare", *arrange_table(tmp_path), "--out", tmp_path / "set", *CROPS)
    tables = run(capfd, "split", tmp_path / "set", "--strategy", "leave-one-out")["tables"]
    assert [table["name"] for table in tables] == ["leave-one-out-A", "leave-one-out-B"]
    for table, held_out in zip(tables, "AB", strict=True):
        for row in read_videos(tmp_path / "set", split_table=table["name"]):
            if row.manipulation and row.split:
                assert (row.split == "test") == (row.manipulation == held_out)


def test_masked_videos_are_prepared_for_testing_only(tmp_path, capfd):
    root = tmp_path / "root"
    for number in range(2):
        actor = f"{number + 1:02d}"
        fake = f"{actor}_03__kitchen_pan__ABCDEFG{number}.mp4"
        below = root / "manipulated_sequences/DeepFakeDetection"
        write_frames(
            number, root / f"original_sequences/actors/c23/videos/{actor}__kitchen_pan.mp4"
        )
        write_frames(10 + number, below / "c23/videos" / fake)
        write_frames(20 + number, below / "masks/videos" / fake)
    made = run(capfd, "prepare", "dfd", root, "--out", tmp_path / "set", *CROPS)
    assert (made["videos"], made["unrecognized"]) == (4, [])
    assert {row.split for row in read_videos(tmp_path / "set")} == {"test"}
    assert run(capfd, "audit", tmp_path / "set")["leakage"] == "none"

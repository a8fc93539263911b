import json
import re
from collections import Counter

import pytest

from jdfd_keras.datasets.layouts.deepfakebench import list_deepfakebench
from jdfd_keras.datasets.layouts.faceforensics import list_faceforensics, read_clips
from jdfd_keras.datasets.videos import DatasetFiles, read_dataset_files
from jdfd_keras.io.storage import LocalStore

REAL = "FaceForensics++/original_sequences/youtube/c23"
FAKE = "FaceForensics++/manipulated_sequences/Deepfakes/c23"
CELEB = "Celeb-DF-v2"
# Two frames of each video; the first number is the greater one by name.
NUMBERS = ("1000", "999")


def frames(unit, *videos, numbers=NUMBERS):
    return [f"{unit}/frames/{video}/{number}.png" for video in videos for number in numbers]


def named(*files, location="/data/rgb"):
    """List a tree by its file names alone."""
    name = location.rpartition("/")[2]
    return list_deepfakebench(DatasetFiles(LocalStore(location), name, tuple(sorted(files))))


def listed(root, **options):
    return list_deepfakebench(read_dataset_files(LocalStore(str(root))), **options)


def entry(label, paths):
    return {"label": label, "frames": list(paths)}


def by_id(listing):
    return {
        video.video_id: (video.label, video.manipulation, video.source_ids, video.split)
        for video in listing.videos
    }


def test_frames_have_the_ids_and_sources_of_the_original_videos():
    """Those that the layout faceforensics gives to the videos themselves."""
    kinds = ["Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter"]
    folders = [f"manipulated_sequences/{kind}/c23" for kind in kinds]
    pairs = dict.fromkeys(folders, ("071_054", f"606_{read_clips()['606'].partner}"))
    pairs["original_sequences/youtube/c23"] = ("071", "606")
    found = named(
        *(
            path
            for folder, names in pairs.items()
            for path in frames(f"FaceForensics++/{folder}", *names)
        )
    )
    videos = tuple(
        f"{folder}/videos/{name}.mp4" for folder, names in pairs.items() for name in names
    )
    original = list_faceforensics(DatasetFiles(LocalStore("."), "FF++", videos))
    keys = ("video_id", "label", "manipulation", "compression", "source_ids", "split")
    described = [
        sorted(tuple(getattr(video, key) for key in keys) for video in listing.videos)
        for listing in (found, original)
    ]
    assert described[0] == described[1]
    assert len(described[0]) == 12
    assert found.unrecognized == []


def test_a_whole_tree_has_the_published_split():
    clips = read_clips()
    files = frames(REAL, *clips) + frames(FAKE, *(f"{a}_{of.partner}" for a, of in clips.items()))
    counts = Counter((video.label, video.split) for video in named(*files).videos)
    assert counts == {
        (label, split): count
        for label in (0, 1)
        for split, count in (("train", 720), ("val", 140), ("test", 140))
    }


def test_frames_are_in_the_order_of_their_numbers_with_their_landmarks():
    files = [*frames(FAKE, "000_003"), f"{FAKE}/landmarks/000_003/999.npy"]
    found = named(*files)
    (video,) = found.videos
    folder = f"{FAKE}/frames/000_003"
    assert video.path == folder
    assert found.frames == {video.video_id: (f"{folder}/999.png", f"{folder}/1000.png")}
    assert found.landmarks == {video.video_id: (f"{FAKE}/landmarks/000_003/999.npy", "")}


@pytest.mark.parametrize(
    ("location", "files"),
    [
        ("/data/rgb", frames(FAKE, "000_003")),
        ("/data/rgb/FaceForensics++", frames(FAKE.partition("/")[2], "000_003")),
        (f"/data/{FAKE.rpartition('/')[0]}", frames("c23", "000_003")),
        (f"/data/{FAKE}", ["frames/000_003/999.png", "frames/000_003/1000.png"]),
        (f"/data/{FAKE}/frames", ["000_003/999.png", "000_003/1000.png"]),
    ],
)
def test_the_root_may_be_any_folder_above_the_videos(location, files):
    found = named(*files, location=location)
    assert by_id(found) == {"ffpp/Deepfakes/c23/000_003": (1, "Deepfakes", ("000", "003"), "test")}
    assert len(found.frames["ffpp/Deepfakes/c23/000_003"]) == 2


def test_every_file_is_used_or_known_or_unrecognized():
    known = [
        *frames(FAKE, "000_003"),
        f"{FAKE}/masks/000_003/999.png",
        f"{FAKE}/videos/000_003.mp4",
        f"{FAKE}/landmarks/000_003/999.npy",
        "FaceForensics++/train.json",
    ]
    others = [
        f"{FAKE}/landmarks/000_003/5.npy",  # of no frame
        f"{FAKE}/frames/000_003/mask.png",
        f"{FAKE}/frames/000_003/3.txt",
        f"{FAKE}/frames_all/000_003/3.png",
        "FaceForensics++/notes.docx",
    ]
    found = named(*known, *others)
    assert sorted(found.unrecognized) == sorted(others)
    assert found.notes == ["The frames are read, not 1 file in videos/."]


def test_actors_are_listed_beside_faceforensics_only_on_request():
    actors = "FaceForensics++/original_sequences/actors/c23"
    swaps = "FaceForensics++/manipulated_sequences/DeepFakeDetection/c23"
    files = [
        *frames(REAL, "000"),
        *frames(FAKE, "000_003"),
        *frames(actors, "01__hugging_happy"),
        *frames(swaps, "01_02__hugging_happy__YVGY8LOK"),
    ]
    root = DatasetFiles(LocalStore("/data/rgb"), "rgb", tuple(sorted(files)))
    ids = {"ffpp/youtube/c23/000", "ffpp/Deepfakes/c23/000_003"}
    assert set(by_id(list_deepfakebench(root))) == ids
    assert len(list_deepfakebench(root).excluded) == 2
    asked = list_deepfakebench(root, manipulations=["DeepFakeDetection"])
    assert set(asked.excluded) == ids
    assert {video.source_ids for video in asked.videos} == {("actor01",), ("actor01", "actor02")}
    assert {video.split for video in asked.videos} == {"test"}
    assert "no published split" in asked.notes[0]


CELEB_FILES = [
    *frames(f"{CELEB}/Celeb-real", "id0_0000", "id1_0003"),
    *frames(f"{CELEB}/YouTube-real", "00170"),
    *frames(f"{CELEB}/Celeb-synthesis", "id0_id1_0000", "id1_id0_0003"),
]
TEST_LIST = """\
1 YouTube-real/00170.mp4
1 YouTube-real/00171.mp4
0 Celeb-synthesis/id1_id0_0003.mp4
"""


def test_celeb_df_has_its_names_and_its_test_list(folder):
    root = folder(*CELEB_FILES, texts={f"{CELEB}/List_of_testing_videos.txt": TEST_LIST})
    found = listed(root)
    assert by_id(found) == {
        "celebdf/v2/Celeb-real/id0_0000": (0, "", ("id0_0000",), "train"),
        "celebdf/v2/Celeb-real/id1_0003": (0, "", ("id1_0003",), "train"),
        "celebdf/v2/YouTube-real/00170": (0, "", ("youtube00170",), "test"),
        "celebdf/v2/Celeb-synthesis/id0_id1_0000": (1, "Celeb-synthesis", ("id0_0000",), "train"),
        "celebdf/v2/Celeb-synthesis/id1_id0_0003": (1, "Celeb-synthesis", ("id1_0003",), "test"),
    }
    assert found.subjects["celebdf/v2/Celeb-synthesis/id1_id0_0003"] == ("id1", "id0")
    assert found.missing == [f"{CELEB}/YouTube-real/frames/00171"]
    assert found.unrecognized == []


def test_celeb_df_without_its_list_has_no_split():
    found = named(*CELEB_FILES)
    assert {video.split for video in found.videos} == {""}
    assert found.notes == ["No published split is known."]


def test_uadfv_beside_published_splits_is_for_testing():
    uadfv = [*frames("UADFV/real", "0000"), *frames("UADFV/fake", "0000_fake")]
    alone = named(*uadfv)
    assert by_id(alone) == {
        "uadfv/real/0000": (0, "", ("0000",), ""),
        "uadfv/fake/0000_fake": (1, "FakeApp", ("0000",), ""),
    }
    together = named(*uadfv, *frames(REAL, "071"))
    assert {video.video_id: video.split for video in together.videos} == {
        "uadfv/real/0000": "test",
        "uadfv/fake/0000_fake": "test",
        "ffpp/youtube/c23/071": "train",
    }
    assert together.notes == ["Videos without a published split are for testing: 2 of uadfv."]


def test_dfdc_has_the_labels_of_its_metadata_and_of_its_test_list(folder):
    part = "DFDC/train/dfdc_train_part_0"
    metadata = {
        "a.mp4": {"label": "FAKE", "split": "train", "original": "b.mp4"},
        "b.mp4": {"label": "REAL", "split": "train"},
    }
    root = folder(
        *frames(part, "a", "b"),
        *frames("DFDC/test", "c", "d"),
        texts={
            f"{part}/metadata.json": json.dumps(metadata),
            "DFDC/test/labels.csv": "filename,label\nc.mp4,0\nd.mp4,1\n",
        },
    )
    assert by_id(listed(root)) == {
        "dfdc/dfdc_train_part_0/a": (1, "DFDC", ("b",), "train"),
        "dfdc/dfdc_train_part_0/b": (0, "", ("b",), "train"),
        "dfdc/test/c": (0, "", ("c",), "test"),
        "dfdc/test/d": (1, "DFDC", (), "test"),
    }
    assert {video.split for video in listed(root / "DFDC/train").videos} == {""}


def test_dfdc_preview_has_the_split_and_the_subjects_of_its_list(folder):
    info = {
        "original_videos/7/7_A_001.mp4": {"label": "real", "set": "test", "target_id": 7},
        "method_A/7/8/7_A_002.mp4": {
            "label": "fake",
            "set": "train",
            "target_id": 7,
            "swapped_id": 8,
        },
    }
    root = folder(
        *frames("DFDCP/original_videos", "7_A_001"),
        *frames("DFDCP/method_A", "7_A_002"),
        texts={"DFDCP/dataset.json": json.dumps(info)},
    )
    found = listed(root)
    assert by_id(found) == {
        "dfdcp/original_videos/7_A_001": (0, "", (), "test"),
        "dfdcp/method_A/7_A_002": (1, "method_A", (), "train"),
    }
    assert found.subjects["dfdcp/method_A/7_A_002"] == ("7", "8")


def test_a_json_file_tells_the_labels_and_splits_of_an_unknown_dataset(folder):
    a, b = frames("mine/set1", "a"), frames("mine/set2", "b")
    content = {
        "mine": {
            "mine_Real": {"train": {"a": entry("mine_Real", [f"./datasets\\{p}" for p in a])}},
            "mine_Fake": {"test": {"c23": {"b": entry("mine_Fake", [f"/x/{p}" for p in b])}}},
        }
    }
    root = folder(*a, *b, texts={"mine.json": json.dumps(content)})
    found = listed(root)
    assert by_id(found) == {
        "mine/mine/set1/frames/a": (0, "", (), "train"),
        "mine/mine/set2/frames/b": (1, "mine_Fake", (), "test"),
    }
    assert (found.unrecognized, found.missing) == ([], [])
    assert {v.video_id.split("/")[0] for v in listed(root, name="lab").videos} == {"lab"}


def test_frames_without_a_label_raise_an_error_that_names_their_folders(folder):
    root = folder(*frames("mine/set1", "a"), *frames(REAL, "000"))
    with pytest.raises(ValueError, match=r"1 video without a label in mine/set1/frames\. Copy"):
        listed(root)


def published_json(*videos):
    """As DeepfakeBench writes it: test videos are in every split, others in training only."""
    labels = {"Celeb-synthesis": "CelebDFv2_fake"}
    content = {
        name: {s: {} for s in ("train", "val", "test")}
        for name in ("CelebDFv2_real", "CelebDFv2_fake")
    }
    for unit, video, is_test in videos:
        label = labels.get(unit, "CelebDFv2_real")
        paths = [f"{CELEB}\\{unit}\\frames\\{video}\\{number}.png" for number in NUMBERS]
        for split in ("train", "val", "test")[: 3 if is_test else 1]:
            content[label][split][video] = entry(label, paths)
    return json.dumps({CELEB: content})


PUBLISHED = [
    ("Celeb-real", "id0_0000", False),
    ("Celeb-real", "id1_0003", False),
    ("YouTube-real", "00170", True),
    ("Celeb-synthesis", "id0_id1_0000", False),
    ("Celeb-synthesis", "id1_id0_0003", True),
]


def test_a_video_in_several_splits_of_a_json_file_is_for_testing(folder):
    root = folder(*CELEB_FILES, texts={"Celeb-DF-v2.json": published_json(*PUBLISHED)})
    found = listed(root)
    assert {video.video_id.split("/")[-1]: video.split for video in found.videos} == {
        name: "test" if is_test else "train" for _, name, is_test in PUBLISHED
    }
    assert "has 2 videos of Celeb-DF-v2 in several splits" in found.notes[0]


def test_a_json_file_with_all_videos_in_all_splits_publishes_no_split(folder):
    unit = [(unit, name, True) for unit, name, _ in PUBLISHED]
    found = listed(folder(*CELEB_FILES, texts={"Celeb-DF-v2.json": published_json(*unit)}))
    assert {video.split for video in found.videos} == {""}
    assert "every video of Celeb-DF-v2 in every split" in found.notes[0]


def test_a_listed_video_that_its_folder_lacks_raises_an_error(folder):
    more = [("Celeb-real", f"id2_000{number}", False) for number in range(4)]
    root = folder(*CELEB_FILES, texts={"x/C.json": published_json(*PUBLISHED, *more)})
    with pytest.raises(ValueError, match=re.escape("x/C.json; got none of 4 videos: ")) as error:
        listed(root)
    assert "id2_0000" in str(error.value) and "id2_0003" not in str(error.value)


def test_a_listed_frame_that_is_missing_is_named(folder):
    files = [
        path for path in CELEB_FILES if not path.endswith("Celeb-real/frames/id0_0000/999.png")
    ]
    found = listed(folder(*files, texts={"C.json": published_json(*PUBLISHED)}))
    assert found.missing == [f"{CELEB}/Celeb-real/frames/id0_0000/999.png"]


def test_a_listed_folder_that_the_whole_tree_lacks_is_a_note(folder):
    files = [path for path in CELEB_FILES if "YouTube" not in path]
    found = listed(folder(*files, texts={"C.json": published_json(*PUBLISHED)}))
    (note,) = [note for note in found.notes if "lacks" in note]
    assert note.startswith("C.json lists 1 video in 1 folder that")
    assert "Celeb-DF-v2/YouTube-real/frames" in note


@pytest.mark.parametrize(
    ("label", "split", "message"),
    [
        ("FF-real", "train", "which is fake; got real"),
        ("FF-DF", "train", "which is test; got train"),
    ],
)
def test_a_json_file_that_contradicts_the_published_dataset_raises_an_error(
    folder, label, split, message
):
    paths = frames(FAKE, "000_003")
    content = {"FF-DF": {label: {split: {"c23": {"000_003": entry(label, paths)}}}}}
    root = folder(*paths, texts={"FF-DF.json": json.dumps(content)})
    with pytest.raises(ValueError, match=f"Expected FF-DF.json to agree .*{message}"):
        listed(root)


def test_frames_that_are_real_and_fake_raise_an_error(folder):
    paths = frames("mine/all", "a")
    content = {"mine": {word: {"train": {"a": entry(word, paths)}} for word in ("real", "fake")}}
    root = folder(*paths, texts={"mine.json": json.dumps(content)})
    with pytest.raises(ValueError, match=r"one label .*mine/all/frames/a; got real from mine.json"):
        listed(root)


def test_two_json_files_that_contradict_raise_an_error_that_names_both(folder):
    paths = frames("mine/all", "a")
    texts = {
        f"{split}1.json": json.dumps({"mine": {"real": {split: {"a": entry("real", paths)}}}})
        for split in ("train", "test")
    }
    with pytest.raises(ValueError, match=r"got test from test1.json and train from train1.json"):
        listed(folder(*paths, texts=texts))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"mine": ', "Expected JSON in .*mine.json"),
        (
            json.dumps({"mine": {"odd": {"train": {"a": entry("odd", ["x/frames/a/1.png"])}}}}),
            "mine.json; got 'odd'",
        ),
    ],
)
def test_an_invalid_json_file_raises_an_error_that_names_it(folder, text, message):
    with pytest.raises(ValueError, match=message):
        listed(folder(*frames(REAL, "000"), texts={"mine.json": text}))


def test_a_json_file_of_another_kind_is_unrecognized(folder):
    root = folder(*frames(REAL, "000"), texts={"config.json": '{"size": 7}'})
    assert listed(root).unrecognized == ["config.json"]


def test_a_tree_without_frames_raises_an_error():
    with pytest.raises(ValueError, match="Expected frames of DeepfakeBench in /data/rgb"):
        named(f"{REAL}/videos/000.mp4")


def test_a_listed_video_that_a_folder_of_an_unknown_dataset_lacks_raises_an_error(folder):
    paths = frames("mine/set1", "a")
    videos = {name: entry("real", frames("/x/mine/set1", name)) for name in ("a", "b")}
    root = folder(*paths, texts={"mine.json": json.dumps({"mine": {"real": {"train": videos}}})})
    with pytest.raises(ValueError, match=r"got none of 1 video: /x/mine/set1/frames/b"):
        listed(root)


def test_a_json_file_of_another_manipulation_does_not_describe_a_folder_like_its_own(folder):
    """Both have a folder c23/frames/000_003 below that of the manipulation."""
    swap = "FaceForensics++/manipulated_sequences/FaceSwap"
    content = {
        "FF-DF": {"FF-real": {"test": {"c23": {"a": entry("FF-real", frames(FAKE, "000_003"))}}}}
    }
    root = folder(*frames(f"{swap}/c23", "000_003"), texts={f"{swap}/D.json": json.dumps(content)})
    found = listed(root / f"{swap}")
    assert by_id(found) == {"ffpp/FaceSwap/c23/000_003": (1, "FaceSwap", ("000", "003"), "test")}
    assert found.notes[0].startswith("D.json lists 1 video in 1 folder that")

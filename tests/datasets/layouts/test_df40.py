import pytest

from jdfd_keras.datasets.layouts.df40 import METHODS, REENACTMENTS, SWAPS, WHOLE_IMAGES, list_df40
from jdfd_keras.datasets.videos import DatasetFiles
from jdfd_keras.io.storage import LocalStore

REAL = "FaceForensics++/original_sequences/youtube/c23/frames"


def listed(*files, location="/data/sets"):
    name = location.rpartition("/")[2]
    return list_df40(DatasetFiles(LocalStore(location), name, tuple(sorted(files))))


def test_there_are_40_methods():
    assert (len(SWAPS), len(REENACTMENTS), len(WHOLE_IMAGES)) == (10, 13, 12 + 5)
    assert len(set(METHODS.values())) == 40


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            "DF40/simswap/ff/frames/000_003/000.png",
            ("ffpp/df40/simswap/ff/000_003", 1, "simswap", ("000", "003"), "test"),
        ),
        (
            "DF40_train/simswap/frames/001_870/000.png",
            ("ffpp/df40_train/simswap/001_870", 1, "simswap", ("001", "870"), "train"),
        ),
        (  # 606 was cut from the video of 605
            "DF40/wav2lip/ff/frames/606/000.png",
            ("ffpp/df40/wav2lip/ff/606", 1, "wav2lip", ("605",), "test"),
        ),
        (
            "DF40/blendface/blendface/cdf/frames/id0_id16_0003/153.png",
            ("celebdf/df40/blendface/cdf/id0_id16_0003", 1, "blendface", ("id0_0003",), "test"),
        ),
        (
            "DF40/sadtalker/cdf/frames/id0_id16_0003/153.png",
            ("celebdf/df40/sadtalker/cdf/id0_id16_0003", 1, "sadtalker", (), "test"),
        ),
        (
            "DF40/DiT/cdf/YouTube-real/00043/458.png",
            ("celebdf/df40/DiT/cdf/youtube-real/00043", 1, "DiT", (), "test"),
        ),
        (
            "DF40_train/StyleGAN2/001/seed0188.png",
            ("ffpp/df40_train/StyleGAN2/001", 1, "StyleGAN2", (), "train"),
        ),
        (
            "DF40/e4e/cdf/Celeb-real/inversions/0001.jpg",
            ("celebdf/df40/e4e/cdf/celeb-real/inversions/0001", 1, "e4e", (), "test"),
        ),
        ("DF40/stargan/real/7.jpg", ("df40/stargan/real/7", 0, "", (), "test")),
        ("DF40/stargan/fake/7.jpg", ("df40/stargan/fake/7", 1, "stargan", (), "test")),
        (
            "DF40/whichfaceisreal/fake/7.jpg",
            ("df40/whichfaceisreal/fake/7", 1, "whichfaceisreal", (), "test"),
        ),
        ("DF40/heygen/heygen_new/fake/a.mp4", ("df40/heygen/fake/a", 1, "heygen", (), "test")),
        (
            "simswap/ff/frames/000_003/0.png",
            ("ffpp/df40/simswap/ff/000_003", 1, "simswap", ("000", "003"), ""),
        ),
    ],
)
def test_a_path_tells_method_label_source_and_split(path, expected):
    (video,) = listed(path).videos
    assert (
        video.video_id,
        video.label,
        video.manipulation,
        video.source_ids,
        video.split,
    ) == expected


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/data/DF40", "simswap/ff/frames/000_003/0.png"),
        ("/data/DF40/simswap", "ff/frames/000_003/0.png"),
        ("/data/DF40/simswap/ff", "frames/000_003/0.png"),
    ],
)
def test_the_root_may_be_a_folder_of_the_tree(location, path):
    (video,) = listed(path, location=location).videos
    assert (video.video_id, video.split) == ("ffpp/df40/simswap/ff/000_003", "test")


def test_frames_are_grouped_in_order_with_their_landmarks_and_images_are_alone():
    folder = "DF40/simswap/ff/frames/000_003"
    found = listed(
        f"{folder}/1000.png",
        f"{folder}/999.png",
        "DF40/simswap/ff/landmarks/000_003/999.npy",
        "DF40/stargan/fake/1.jpg",
        "DF40/stargan/fake/2.jpg",
        "DF40/e4e/ff/latents.pt",
    )
    video_id = "ffpp/df40/simswap/ff/000_003"
    assert found.frames == {video_id: (f"{folder}/999.png", f"{folder}/1000.png")}
    assert found.landmarks == {video_id: ("DF40/simswap/ff/landmarks/000_003/999.npy", "")}
    assert len(found.videos) == 3
    assert found.unrecognized == ["DF40/e4e/ff/latents.pt"]


def test_every_file_is_used_or_known_or_unrecognized():
    others = [
        "DF40/simswap/ff/frames_wocropface/000_003/0.png",
        "notes.txt",
        "DF40/simswap/ff/landmarks/000_003/5.npy",
    ]
    found = listed(
        "DF40/simswap/ff/frames/000_003/0.png",
        "DF40/simswap/ff/masks/000_003/0.png",
        "dataset_json/simswap.json",
        *others,
    )
    assert sorted(found.unrecognized) == sorted(others)
    assert any("1 JSON file such as dataset_json/simswap.json" in note for note in found.notes)


def test_the_real_frames_of_deepfakebench_are_listed_beside_it():
    """071 is published for training, 606 for validation, which DF40 lacks, 000 for testing."""
    found = listed(
        "DF40/simswap/ff/frames/000_003/0.png",
        "DF40_train/simswap/frames/001_870/0.png",
        *(f"{REAL}/{clip}/0.png" for clip in ("071", "606", "000")),
    )
    splits = {video.video_id: video.split for video in found.videos if video.label == 0}
    assert splits == {
        "ffpp/youtube/c23/071": "train",
        "ffpp/youtube/c23/606": "train",
        "ffpp/youtube/c23/000": "test",
    }
    assert any(note.startswith("1 video of FaceForensics++") for note in found.notes)
    assert not any("no real videos" in note for note in found.notes)


def test_what_the_documentation_does_not_settle_is_said():
    notes = listed(
        "DF40/simswap/ff/frames/000_003/0.png",
        "DF40_train/simswap/frames/000_003/0.png",
        "DF40/DiT/ff/000/0.png",
    ).notes
    for part in ("not its files", "videos in both", "1 video of DF40 have", "no real videos"):
        assert sum(part in note for note in notes) == 1


def test_a_folder_without_a_method_raises_an_error():
    with pytest.raises(ValueError, match="Expected DF40 in /data/sets"):
        listed(f"{REAL}/000/0.png")


def test_images_in_the_folder_of_a_method_are_alone():
    found = listed("DF40/styleclip/1.jpg", "DF40/styleclip/2.jpg")
    assert [video.video_id for video in found.videos] == ["df40/styleclip/1", "df40/styleclip/2"]
    assert found.frames == {}


def test_faceswap_of_faceforensics_is_not_that_of_df40():
    folder = "FaceForensics++/manipulated_sequences/FaceSwap/c23/frames/000_003"
    found = listed(f"{folder}/0.png", "DF40/faceswap/ff/frames/000_003/0.png")
    assert {video.video_id: video.manipulation for video in found.videos} == {
        "ffpp/FaceSwap/c23/000_003": "FaceSwap",
        "ffpp/df40/faceswap/ff/000_003": "faceswap",
    }

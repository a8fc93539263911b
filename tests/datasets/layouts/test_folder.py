import random
import string
import time

import cv2
import numpy as np
import pytest

from jdfd_keras.datasets.layouts import list_videos
from jdfd_keras.datasets.layouts.folder import list_folder
from jdfd_keras.datasets.videos import DatasetFiles
from jdfd_keras.io.storage import LocalStore
from jdfd_keras.options import PrepareOptions

SPLITS = ("train", "val", "test")


def listed(root):
    return list_videos(LocalStore(str(root)), PrepareOptions(layout="folder"))


def listed_names(*names):
    """List a folder that has these files, none of which is opened."""
    return list_folder(DatasetFiles(LocalStore("none"), "mine", tuple(sorted(names))))


def sources(root):
    return {video.path: video.source_ids for video in listed(root).videos}


def test_a_folder_without_splits_assigns_none(folder):
    videos = listed(folder("real/anna.mp4", "fake/anna_bob.mp4")).videos
    real, fake = sorted(videos, key=lambda video: video.label)
    assert (real.video_id, real.path, real.label) == ("mine/real/anna", "real/anna.mp4", 0)
    assert (real.manipulation, real.compression, real.split) == ("", "", "")
    assert (fake.video_id, fake.label, fake.split) == ("mine/fake/anna_bob", 1, "")
    assert (fake.manipulation, fake.compression) == ("fake", "")


def test_a_folder_with_splits_assigns_them(folder):
    kinds = {"real": 0, "fake": 1, "unlabelled": -1}
    root = folder(*(f"{split}/{kind}/{split}1.mp4" for split in SPLITS for kind in kinds))
    found = {
        (video.video_id, video.path, video.label, video.split) for video in listed(root).videos
    }
    assert found == {
        (f"mine/{split}/{kind}/{split}1", f"{split}/{kind}/{split}1.mp4", label, split)
        for split in SPLITS
        for kind, label in kinds.items()
    }


def test_unlabelled_videos_have_no_class(folder):
    root = folder("real/anna.mp4", "fake/bob.mp4", "unlabelled/anna_7.mp4", "unlabelled/a/x.mp4")
    found = {video.path: video for video in listed(root).videos}
    named, other = found["unlabelled/anna_7.mp4"], found["unlabelled/a/x.mp4"]
    assert (named.label, named.manipulation, named.split) == (-1, "", "")
    assert (other.label, other.manipulation, other.split) == (-1, "", "")
    assert (named.source_ids, other.source_ids) == (("anna",), ("x",))
    assert found["real/anna.mp4"].source_ids == ("anna",)


def test_an_unlabelled_video_is_not_a_source_of_fakes(folder):
    found = sources(folder("real/anna.mp4", "fake/x_7.mp4", "unlabelled/x.mp4"))
    assert found["fake/x_7.mp4"] == ("x_7",)


def test_videos_are_sorted_by_id(folder):
    # `a-1.mp4` is before `a.mp4`, but `a` before `a-1`.
    root = folder("real/b.mp4", "real/a-1.mp4", "real/a.mp4", "fake/z.mp4", "fake/c/a.mp4")
    assert [video.video_id for video in listed(root).videos] == [
        "mine/fake/c/a",
        "mine/fake/z",
        "mine/real/a",
        "mine/real/a-1",
        "mine/real/b",
    ]


def test_a_folder_in_fake_names_the_manipulation(folder):
    root = folder("real/YouTube/000.mp4", "fake/Deepfakes/c23/000_003.mp4", "fake/other.mp4")
    found = {video.path: video.manipulation for video in listed(root).videos}
    assert found == {
        "real/YouTube/000.mp4": "",
        "fake/Deepfakes/c23/000_003.mp4": "Deepfakes",
        "fake/other.mp4": "fake",
    }


@pytest.mark.parametrize(
    ("fake", "expected"),
    [
        ("anna_bob", ("anna", "bob")),
        ("bob_anna_0003", ("anna", "bob")),
        ("anna-bob", ("anna", "bob")),
        ("anna.bob", ("anna", "bob")),
        ("0000_fake", ("0000",)),
        ("000_003", ("000", "003")),
        ("id0_id1_0007", ("id0_0007",)),  # as in Celeb-DF
        ("id5_id1_0007", ("id5_0007",)),
        ("id0_id1_007", ("id0_id1_007",)),  # contains no real name
        ("id0_0007", ("id0_0007",)),
        ("swap of jo ann", ("jo ann",)),
        ("joanna", ("joanna",)),  # not anna, which is not a whole word in it
        ("annabob", ("annabob",)),
        ("0000000", ("0000000",)),
        ("Anna_Bob", ("Anna_Bob",)),
        ("анна_bob", ("bob", "анна")),
    ],
)
def test_the_sources_of_a_fake_are_the_real_videos_in_its_name(folder, fake, expected):
    real = ["anna", "bob", "0000", "000", "003", "id0_0007", "jo ann", "анна"]
    root = folder(*(f"real/{name}.mp4" for name in real), f"fake/{fake}.mp4")
    assert sources(root)[f"fake/{fake}.mp4"] == tuple(sorted(expected))


def test_a_real_video_shares_the_source_that_its_name_contains(folder):
    found = sources(folder("real/anna.mp4", "real/anna_2.mp4", "real/joanna.mp4", "fake/x.mp4"))
    assert found["real/anna_2.mp4"] == ("anna", "anna_2")
    assert found["real/joanna.mp4"] == ("joanna",)


def test_videos_with_the_same_name_share_their_source_across_folders_and_splits(folder):
    found = sources(folder("train/real/7.mp4", "test/fake/df/7.gif", "test/real/8.mp4"))
    assert found["train/real/7.mp4"] == found["test/fake/df/7.gif"] == ("7",)


def test_images_in_a_subfolder_are_frames_of_one_video_and_the_folder_no_manipulation(folder):
    listing = listed(
        folder("real/anna/9.png", "real/anna/10.png", "fake/anna_bob/01.png", "real/bob.mp4")
    )
    fake, real, _ = listing.videos
    assert (real.video_id, real.path, real.source_ids) == ("mine/real/anna", "real/anna", ("anna",))
    assert (fake.path, fake.source_ids, fake.manipulation) == (
        "fake/anna_bob",
        ("anna", "bob"),
        "fake",
    )
    assert listing.frames == {
        "mine/real/anna": ("real/anna/9.png", "real/anna/10.png"),
        "mine/fake/anna_bob": ("fake/anna_bob/01.png",),
    }


def test_the_frames_of_a_fake_in_a_folder_of_its_manipulation(folder):
    frames = [f"fake/Deepfakes/000_003/frames/frame_{number}.png" for number in (9, 10)]
    listing = listed(folder("real/000.mp4", *frames))
    video = listing.videos[0]
    assert (video.path, video.manipulation) == ("fake/Deepfakes/000_003/frames", "Deepfakes")
    assert video.source_ids == ("000",)
    assert listing.frames[video.video_id] == tuple(frames)


def test_short_videos_in_a_folder_of_frames_are_videos(folder):
    root = folder("real/anna/1.HEIC", "real/anna/2.tiff", "real/anna/wave.gif", "fake/b.mp4")
    assert sources(root) == {
        "real/anna": ("anna",),
        "real/anna/wave.gif": ("wave",),
        "fake/b.mp4": ("b",),
    }


def test_only_visible_media_files_are_listed(folder):
    root = folder(
        "real/a.MP4",
        "real/b.jpeg",
        "real/notes.txt",
        "real/a.mp4.part",
        "real/.hidden.mp4",
        "real/.cache/c.mp4",
        "fake/a.webm",
        "elsewhere/.cache/d.mp4",
        "real/person.mp4/0001.png",
    )
    assert set(sources(root)) == {"real/a.MP4", "real/b.jpeg", "fake/a.webm", "real/person.mp4"}
    found = listed(root)
    assert found.unrecognized == ["real/a.mp4.part", "real/notes.txt"]
    assert found.notes[-1].startswith("3 hidden files in ")


def test_files_outside_the_known_folders_are_unrecognized(folder):
    others = [
        "readme.txt",
        "old/x.zip",
        "a.mp4",
        "elsewhere/d.mp4",
        "reals/e.mp4",
        "train/f.png",
        "train/other/g.mp4",
        "train/train/real/h.mp4",
        "elsewhere/real/i.mp4",
        "real.mp4",
    ]
    root = folder("train/real/a.mp4", "train/fake/a.mp4", *others)
    found = listed(root)
    assert sorted(found.unrecognized) == sorted(others)
    assert {video.path for video in found.videos} == {"train/real/a.mp4", "train/fake/a.mp4"}


def test_an_own_data_set_has_neither_missing_files_nor_subjects(folder):
    found = listed(folder("real/a.mp4", "fake/b.mp4"))
    assert (found.missing, dict(found.subjects)) == ([], {})


def test_a_data_set_in_a_hidden_folder_is_listed(folder, tmp_path):
    root = folder("real/a.mp4", "fake/a.mp4")
    (tmp_path / ".data").mkdir()
    assert len(listed(root.rename(tmp_path / ".data" / "mine")).videos) == 2


@pytest.mark.parametrize("spelling", ["", ".", "../mine", "real/.."])
def test_the_folder_has_its_own_name_in_every_spelling_of_its_path(folder, monkeypatch, spelling):
    monkeypatch.chdir(folder("real/a.mp4", "fake/b.mp4"))
    assert [video.video_id for video in listed(spelling or ".").videos] == [
        "mine/fake/b",
        "mine/real/a",
    ]


def test_the_ids_of_two_files_with_the_same_name_have_their_suffixes(folder):
    root = folder("real/a.mp4", "real/a.avi", "real/b.mp4", "real/b/1.png", "fake/c.png")
    assert {video.path: video.video_id for video in listed(root).videos} == {
        "real/a.avi": "mine/real/a.avi",
        "real/a.mp4": "mine/real/a.mp4",
        "real/b": "mine/real/b",
        "real/b.mp4": "mine/real/b.mp4",
        "fake/c.png": "mine/fake/c",
    }


@pytest.mark.parametrize(("existing", "label"), [("real", 0), ("fake", 1), ("unlabelled", -1)])
def test_a_data_set_with_one_class_is_listed(folder, existing, label):
    videos = listed(folder(f"{existing}/a.mp4", f"{existing}/b.png")).videos
    assert [video.label for video in videos] == [label, label]


def test_an_empty_folder_raises_an_error(folder):
    with pytest.raises(ValueError, match=r"real/, fake/, train/real/.*got an empty folder"):
        listed(folder())


def test_a_folder_without_the_known_folders_raises_an_error_with_its_content(folder):
    with pytest.raises(ValueError, match=r"real/, fake/, train/real/.*got Fakes/, a\.mp4, reals/"):
        listed(folder("reals/a.mp4", "Fakes/b.mp4", "a.mp4"))


@pytest.mark.parametrize("kind", ["real", "fake", "unlabelled"])
def test_videos_with_and_without_a_split_raise_an_error(folder, kind):
    root = folder("train/real/a.mp4", "train/fake/a.mp4", f"{kind}/b.mp4")
    with pytest.raises(ValueError, match="got 2 in .* 1 in real/ and fake/"):
        listed(root)


def test_a_missing_folder_and_a_file_raise_an_error(tmp_path):
    (tmp_path / "file.mp4").touch()
    for path in (tmp_path / "nothing", tmp_path / "file.mp4"):
        with pytest.raises(OSError, match=path.name):
            listed(path)


def test_an_unknown_layout_raises_an_error(folder):
    store = LocalStore(str(folder("real/a.mp4", "fake/b.mp4")))
    with pytest.raises(ValueError, match=r"folder, table, faceforensics.*got 'faceforensic'"):
        list_videos(store, PrepareOptions(layout="faceforensic"))


@pytest.mark.parametrize("wrapper", ["", "real-vs-fake/", "real_vs_fake/real-vs-fake/", "all/"])
@pytest.mark.parametrize(
    "form",
    [
        "{split}/{kind}/{name}",
        "{kind}/{split}/{name}",
        "{split}/{kind}/faces/{name}",
    ],
)
def test_classes_and_splits_in_any_spelling_are_found(wrapper, form):
    labels = {"real": 0, "Fake": 1, "REAL": 0, "0_real": 0, "1_fake": 1, "Unlabelled": -1}
    words = {"train": "train", "Training": "train", "val": "val", "valid": "val", "TEST": "test"}
    words |= {"validation": "val", "Valid": "val", "testing": "test", "Test": "test"}
    expected = {
        wrapper + form.format(split=split, kind=kind, name=f"0{index}A.jpg"): (words[split], label)
        for split in words
        for index, (kind, label) in enumerate(labels.items())
    }
    listing = listed_names(*expected, f"{wrapper}train.csv", "LICENSE")
    assert {video.path: (video.split, video.label) for video in listing.videos} == expected
    assert listing.unrecognized == sorted(["LICENSE", f"{wrapper}train.csv"])


@pytest.mark.slow
def test_a_kaggle_like_tree_of_140000_images_is_listed_in_seconds():
    rng = random.Random(0)
    numbers = {"train": 50_000, "valid": 10_000, "test": 10_000}
    names, codes = [], string.ascii_uppercase + string.digits
    for split, count in numbers.items():
        folder = f"real_vs_fake/real-vs-fake/{split}"
        names += [f"{folder}/real/{index:05d}.jpg" for index in range(count)]
        names += [f"{folder}/fake/{''.join(rng.choices(codes, k=10))}.jpg" for _ in range(count)]
    start = time.process_time()
    listing = listed_names(*names, "train.csv", "valid.csv")
    assert time.process_time() - start < 20  # 3 s on one core
    assert {video.path for video in listing.videos} == set(names)
    splits = {"train": 100_000, "val": 20_000, "test": 20_000}
    assert {s: sum(video.split == s for video in listing.videos) for s in splits} == splits
    assert {video.source_ids for video in listing.videos} == {()}
    assert listing.frames == {}
    assert listing.unrecognized == ["train.csv", "valid.csv"]
    assert "140000 image names state no video" in listing.notes[0]


def test_several_folders_of_classes_raise_an_error_that_names_them():
    with pytest.raises(ValueError, match=r"got 2: progan/cat, stylegan\. Give one"):
        listed_names("progan/cat/0_real/1.png", "stylegan/1_fake/2.png")


def test_frames_in_a_flat_folder_of_two_splits_share_their_source():
    names = [
        f"{split}/{kind}/{person}_frame_{number}_face_0.jpg"
        for split, people in {"train": ("FILM", "OTHER"), "test": ("FILM", "NEW")}.items()
        for kind in ("real", "fake")
        for person in people
        for number in (1, 5, 10)
    ]
    listing = listed_names(*names)
    assert {video.video_id: video.source_ids for video in listing.videos} == {
        f"mine/{split}/{kind}/{person}": (person,)
        for split, person in [
            ("train", "FILM"),
            ("train", "OTHER"),
            ("test", "FILM"),
            ("test", "NEW"),
        ]
        for kind in ("real", "fake")
    }
    assert listing.frames["mine/test/fake/FILM"] == tuple(
        f"test/fake/FILM_frame_{number}_face_0.jpg" for number in (1, 5, 10)
    )
    assert listing.notes == []


def test_flat_crops_of_celeb_df_have_the_clip_as_source_of_their_fakes():
    names = [f"real/id{i}_000{j}_00{k}.png" for i in (0, 1) for j in (0, 1) for k in (120, 150)]
    names += [f"fake/id{i}_id16_000{j}_00{k}.png" for i in (0, 1) for j in (0, 1) for k in (10, 20)]
    listing = listed_names(*names)
    assert {video.video_id: video.source_ids for video in listing.videos} == {
        f"mine/{kind}/{name.format(i, j)}": (f"id{i}_000{j}",)
        for i in (0, 1)
        for j in (0, 1)
        for kind, name in {"real": "id{}_000{}", "fake": "id{}_id16_000{}"}.items()
    }
    assert "8 images in 4 videos" not in listing.notes[0]
    assert "16 images in 8 videos, such as fake/id0_id16_0000 (2 images)" in listing.notes[0]


def test_a_single_image_has_no_source_but_that_which_its_name_connects():
    names = ["real/anna.png", "real/bob.png", "real/0001.png", "real/carla.mp4", "real/dora.png"]
    names += ["fake/anna_bob.png", "fake/0001.png", "fake/carla_2.png", "fake/erna.png"]
    found = {video.path: video.source_ids for video in listed_names(*names).videos}
    assert found == {
        "real/anna.png": ("?anna",),  # linked with its fake, but of unknown footage
        "real/bob.png": ("?bob",),
        "fake/anna_bob.png": ("?anna", "?bob"),
        "real/0001.png": (),  # equal numbers mean nothing
        "fake/0001.png": (),
        "real/carla.mp4": ("carla",),
        "fake/carla_2.png": ("carla",),
        "real/dora.png": (),
        "fake/erna.png": (),
    }


@pytest.mark.parametrize("name", ["clip", "clip.2", "clip.xyz", "clip.txt"])
def test_a_file_of_an_unknown_suffix_is_used_if_it_can_be_decoded(folder, tmp_path, name):
    root = folder("fake/a.mp4", "real/landmarks.npy", "elsewhere/image")
    (root / "real/notes.txt").write_text("Some notes on these videos, " * 99)
    frame = np.zeros((64, 64, 3), np.uint8)
    writer = cv2.VideoWriter(str(tmp_path / "a.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 64))
    for _ in range(9):
        writer.write(frame)
    writer.release()
    video = (tmp_path / "a.mp4").read_bytes()
    (root / "real" / name).write_bytes(video)
    (root / "real" / f"still{name}").write_bytes(cv2.imencode(".png", frame)[1].tobytes())
    (root / "real" / "cut.mpx").write_bytes(video[: len(video) // 9])
    found = listed(root)
    assert {video.path for video in found.videos} == {
        "fake/a.mp4",
        f"real/{name}",
        f"real/still{name}",
    }
    assert found.unrecognized == [
        "elsewhere/image",
        "real/cut.mpx",
        "real/landmarks.npy",
        "real/notes.txt",
    ]
    by_path = {video.path: video.source_ids for video in found.videos}
    assert by_path[f"real/{name}"] == ("clip",)
    assert by_path[f"real/still{name}"] == ()  # an image


def test_every_file_is_used_or_named():
    names = [
        *("train/real/FILM_frame_1.png", "train/real/x.jpg", "train/fake/df/a_01.png"),
        *("train/fake/df/b_01.png", "train/fake/df/b_02.png", "train/fake/df/a_02.png"),
        *("test/real/anna/01.png", "test/real/anna/02.png", "test/real/c.mp4", "LICENSE", "a/b/c"),
        *("other/real/1.png", "train.csv"),
    ]
    listing = listed_names(*names)
    used = [
        name
        for video in listing.videos
        for name in listing.frames.get(video.video_id, (video.path,))
    ]
    assert sorted(used + listing.unrecognized) == sorted(names)
    assert listing.unrecognized == ["LICENSE", "a/b/c", "other/real/1.png", "train.csv"]

import pytest

from jdfd_keras.datasets.layouts import list_videos
from jdfd_keras.io.storage import LocalStore
from jdfd_keras.options import PrepareOptions

SPLITS = ("train", "val", "test")


def listed(root):
    return list_videos(LocalStore(str(root)), PrepareOptions(layout="folder"))


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
        ("id0_id1_0007", ("id0_id1_0007",)),  # contains no real name
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


def test_files_with_the_same_name_share_their_source_across_folders_and_splits(folder):
    found = sources(folder("train/real/7.mp4", "test/fake/df/7.png", "test/real/8.mp4"))
    assert found["train/real/7.mp4"] == found["test/fake/df/7.png"] == ("7",)


def test_images_in_a_subfolder_are_frames_of_one_source(folder):
    found = sources(
        folder("real/anna/01.png", "real/anna/02.png", "fake/anna_bob/01.png", "real/bob.mp4")
    )
    assert found["real/anna/01.png"] == found["real/anna/02.png"] == ("anna",)
    assert found["fake/anna_bob/01.png"] == ("anna", "bob")


def test_images_in_a_subfolder_are_frames_but_short_videos_are_not(folder):
    root = folder("real/anna/1.HEIC", "real/anna/2.tiff", "real/anna/wave.gif", "fake/b.mp4")
    assert sources(root) == {
        "real/anna/1.HEIC": ("anna",),
        "real/anna/2.tiff": ("anna",),
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
        "real/frames.mp4/0001.png",
    )
    assert set(sources(root)) == {
        "real/a.MP4",
        "real/b.jpeg",
        "fake/a.webm",
        "real/frames.mp4/0001.png",
    }
    assert listed(root).unrecognized == []


def test_media_outside_the_known_folders_is_unrecognized(folder):
    others = [
        "a.mp4",
        "elsewhere/d.mp4",
        "Real/e.mp4",
        "train/f.png",
        "train/other/g.mp4",
        "train/train/real/h.mp4",
        "elsewhere/real/i.mp4",
        "real.mp4",
    ]
    root = folder("train/real/a.mp4", "train/fake/a.mp4", "readme.txt", "old/x.zip", *others)
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


def test_two_files_with_the_same_id_raise_an_error(folder):
    root = folder("real/a.mp4", "real/a.avi", "fake/b.mp4")
    with pytest.raises(ValueError, match=r"real/a\.avi and real/a\.mp4 for mine/real/a"):
        listed(root)


@pytest.mark.parametrize(("existing", "missing"), [("real", "fake"), ("fake", "real")])
def test_a_data_set_with_one_class_raises_an_error(folder, existing, missing):
    with pytest.raises(ValueError, match=f"got 2 files .* no {missing} "):
        listed(folder(f"{existing}/a.mp4", "unlabelled/b.mp4"))


def test_an_empty_folder_raises_an_error(folder):
    with pytest.raises(ValueError, match=r"real/, fake/, train/real/.*got an empty folder"):
        listed(folder())


def test_a_folder_without_the_known_folders_raises_an_error_with_its_content(folder):
    with pytest.raises(ValueError, match=r"real/, fake/, train/real/.*got Fake/, a\.mp4, reals/"):
        listed(folder("reals/a.mp4", "Fake/b.mp4", "a.mp4"))


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
    with pytest.raises(ValueError, match=r"folder, faceforensics.*got 'faceforensic'"):
        list_videos(store, PrepareOptions(layout="faceforensic"))

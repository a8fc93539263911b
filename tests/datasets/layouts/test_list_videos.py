import pytest

from jdfd_keras.datasets.layouts import list_videos
from jdfd_keras.datasets.split_dataset import assign_rows, find_shared_splits
from jdfd_keras.datasets.videos import SPLITS
from jdfd_keras.io.storage import LocalStore
from jdfd_keras.options import LAYOUTS, PrepareOptions, SplitOptions


def listed(root, **options):
    return list_videos(LocalStore(str(root)), PrepareOptions(**options))


@pytest.mark.parametrize("layout", sorted(set(LAYOUTS) - {"table"}))
def test_every_layout_has_a_function_that_rejects_an_empty_folder(tmp_path, layout):
    with pytest.raises(ValueError, match="got an empty folder"):
        listed(tmp_path, layout=layout)


def test_frames_are_those_of_the_selected_videos(folder):
    names = [f"fake/{kind}/{person}_frame_1.png" for kind in ("A", "B") for person in "xy"]
    listing = listed(folder("real/x_frame_1.png", *names), manipulations="B")
    selected = ["mine/fake/B/x", "mine/fake/B/y", "mine/real/x"]
    assert [video.video_id for video in listing.videos] == selected
    assert sorted(listing.frames) == selected


@pytest.mark.parametrize("layout", ["folder", "uadfv"])
def test_hidden_files_are_counted(folder, layout):
    root = folder("real/0000.mp4", "fake/0000_fake.mp4", "real/.DS_Store", ".git/config")
    listing = listed(root, layout=layout)
    assert listing.notes == [f"2 hidden files in {root} are not listed, such as .git/config."]
    (root / ".git/config").unlink()
    assert listed(root, layout=layout).notes[0].startswith("1 hidden file in ")


def test_a_film_that_was_planted_in_two_splits_is_a_shared_source(folder):
    def frames(split, person):
        return [
            f"{split}/{kind}/{person}_frame_{number}_face_0.jpg"
            for kind in ("real", "fake")
            for number in (1, 2, 30)
        ]

    people = [frames(split, f"{split}{number}") for split in SPLITS for number in range(2)]
    root = folder(*sum(people, []))
    listing = listed(root)
    assert find_shared_splits(assign_rows(listing, SplitOptions()), listing.videos) == []
    listing = listed(folder(*frames("test", "train1")))
    (shared,) = find_shared_splits(assign_rows(listing, SplitOptions()), listing.videos)
    assert shared.source == "mine/train1"
    assert sorted(shared.videos) == ["test", "train"]


def test_the_splits_of_a_kaggle_like_tree_are_official(folder):
    names = [
        f"real_vs_fake/real-vs-fake/{split}/{kind}/{number:05d}.jpg"
        for split in ("train", "valid", "test")
        for kind in ("real", "fake")
        for number in range(3)
    ]
    listing = listed(folder(*names, "train.csv"))
    rows = assign_rows(listing, SplitOptions())
    assert rows["split"].value_counts().to_dict() == dict.fromkeys(SPLITS, 6)
    assert find_shared_splits(rows, listing.videos) == []
    assert {video.source_ids for video in listing.videos} == {()}


def test_skipped_links_are_named(tmp_path):
    for name in ("real/a.mp4", "fake/a_b.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert not any("links" in note for note in listed(tmp_path).notes)
    (tmp_path / "fake/broken.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (tmp_path / "unlabelled").symlink_to(tmp_path / "real")
    listing = listed(tmp_path)
    assert len(listing.videos) == 2
    (note,) = [note for note in listing.notes if "links" in note]
    assert note.endswith("skipped: 2, such as fake/broken.mp4.")
    assert LocalStore(str(tmp_path)).list_skipped() == ["fake/broken.mp4", "unlabelled"]

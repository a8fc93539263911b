import json
import re

import pytest

from jdfd_keras.datasets.layouts import list_videos
from jdfd_keras.io.storage import LocalStore
from jdfd_keras.options import PrepareOptions

PART = "dfdc_train_part_0"
REAL = {"label": "REAL", "split": "train"}
FAKE = {"label": "FAKE", "split": "train", "original": "owner.mp4"}


def listed(root):
    return list_videos(LocalStore(str(root)), PrepareOptions(layout="dfdc"))


@pytest.fixture
def parts(folder):
    """Return a function that makes folders with metadata; "" is the root itself."""

    def make(metadata, *more, without=()):
        paths, texts = set(more), {}
        for part, content in metadata.items():
            below = f"{part}/" if part else ""
            texts[f"{below}metadata.json"] = json.dumps(content)
            paths |= {f"{below}{name}" for name in content}
        return folder(*sorted(paths - set(without)), texts=texts)

    return make


def described(listing):
    return {
        video.video_id: (video.path, video.label, video.manipulation, video.source_ids, video.split)
        for video in listing.videos
    }


def test_each_folder_is_listed_from_its_metadata(parts):
    root = parts(
        {
            "dfdc_train_part_0": {"a.mp4": FAKE | {"original": "b.mp4"}, "b.mp4": REAL},
            "dfdc_train_part_1": {"c.mp4": FAKE | {"original": "d.mp4"}},
        }
    )
    found = listed(root)
    assert described(found) == {
        "dfdc/dfdc_train_part_0/a": ("dfdc_train_part_0/a.mp4", 1, "DFDC", ("b",), ""),
        "dfdc/dfdc_train_part_0/b": ("dfdc_train_part_0/b.mp4", 0, "", ("b",), ""),
        "dfdc/dfdc_train_part_1/c": ("dfdc_train_part_1/c.mp4", 1, "DFDC", ("d",), ""),
    }
    assert [video.video_id for video in found.videos] == sorted(described(found))
    assert {video.compression for video in found.videos} == {""}
    assert (found.missing, found.unrecognized, dict(found.subjects)) == ([], [], {})


def test_a_folder_has_the_same_ids_alone_and_with_others(parts):
    content = {"a.mp4": FAKE | {"original": "b.mp4"}, "b.mp4": REAL}
    root = parts({PART: content})
    among_others, by_itself = described(listed(root)), described(listed(root / PART))
    assert set(by_itself) == set(among_others) == {f"dfdc/{PART}/a", f"dfdc/{PART}/b"}
    assert by_itself[f"dfdc/{PART}/a"] == ("a.mp4", 1, "DFDC", ("b",), "")


def test_a_video_without_an_original_is_its_own_source(parts):
    found = described(listed(parts({PART: {"a.mp4": REAL, "b.mp4": REAL | {"original": None}}})))
    assert [entry[3] for entry in found.values()] == [("a",), ("b",)]


@pytest.mark.parametrize("facts", [{}, {"label": None, "split": "train"}])
def test_a_video_without_a_label_is_unlabelled(parts, facts):
    found = described(listed(parts({PART: {"a.mp4": facts, "b.mp4": REAL}})))
    assert found[f"dfdc/{PART}/a"] == (f"{PART}/a.mp4", -1, "", ("a",), "")


@pytest.mark.parametrize(
    ("named", "expected"),
    [("validation", "val"), ("val", "val"), ("test", "test"), ("TEST", "test")],
)
def test_splits_are_kept_if_one_video_is_not_for_training(parts, named, expected):
    root = parts({"part": {"a.mp4": REAL, "b.mp4": REAL | {"split": named}}})
    assert {video.path: video.split for video in listed(root).videos} == {
        "part/a.mp4": "train",
        "part/b.mp4": expected,
    }


def test_splits_are_kept_in_all_folders_if_one_has_another_split(parts):
    root = parts({"train": {"a.mp4": REAL}, "test": {"b.mp4": REAL | {"split": "test"}}})
    assert {video.path: video.split for video in listed(root).videos} == {
        "train/a.mp4": "train",
        "test/b.mp4": "test",
    }


def test_no_split_is_assigned_if_the_metadata_has_none(parts):
    root = parts({"part": {"a.mp4": {"label": "REAL"}, "b.mp4": {"label": "FAKE"}}})
    assert {video.split for video in listed(root).videos} == {""}


def test_videos_of_the_metadata_that_do_not_exist_are_missing(parts):
    absent = ["dfdc_train_part_0/b.mp4", "dfdc_train_part_1/c.mp4"]
    root = parts(
        {"dfdc_train_part_0": {"a.mp4": FAKE, "b.mp4": REAL}, "dfdc_train_part_1": {"c.mp4": REAL}},
        without=absent,
    )
    found = listed(root)
    assert sorted(found.missing) == absent
    assert [video.path for video in found.videos] == ["dfdc_train_part_0/a.mp4"]


def test_a_fake_keeps_its_source_if_its_original_is_missing(parts):
    found = described(listed(parts({PART: {"a.mp4": FAKE, "c.mp4": FAKE}})))
    assert [entry[3] for entry in found.values()] == [("owner",), ("owner",)]


def test_files_without_metadata_are_unrecognized(parts):
    others = [f"{PART}/z.mp4", f"{PART}/below/a.mp4", "other/a.mp4", "a.mp4", f"{PART}/a.png"]
    others.append(f"{PART}/notes.txt")
    found = listed(parts({PART: {"a.mp4": REAL}}, *others))
    assert sorted(found.unrecognized) == sorted(others)
    assert [video.path for video in found.videos] == [f"{PART}/a.mp4"]


def test_metadata_that_is_not_json_raises_an_error(folder):
    root = folder(f"{PART}/a.mp4", texts={f"{PART}/metadata.json": '{"a.mp4": '})
    with pytest.raises(ValueError, match=re.escape(f"video in {root}/{PART}/metadata.json")):
        listed(root)


@pytest.mark.parametrize("content", [["a.mp4"], {"a.mp4": "FAKE"}, {"a.mp4": None}, 7])
def test_metadata_of_another_form_raises_an_error(folder, content):
    root = folder(f"{PART}/a.mp4", texts={f"{PART}/metadata.json": json.dumps(content)})
    with pytest.raises(ValueError, match=re.escape(f"each video in {root}/{PART}/metadata.json")):
        listed(root)


def test_metadata_that_is_not_utf_8_raises_an_error(parts):
    root = parts({PART: {"a.mp4": REAL}})
    (root / PART / "metadata.json").write_bytes(b"\x80\x81")
    with pytest.raises(ValueError, match=re.escape(f"UTF-8 in {root}/{PART}/metadata.json")):
        listed(root)


@pytest.mark.parametrize("label", ["fake", "", 1, True, ["FAKE"], {"FAKE": 1}])
def test_an_invalid_label_raises_an_error(parts, label):
    root = parts({PART: {"a.mp4": REAL, "b.mp4": {"label": label}}})
    with pytest.raises(ValueError, match=re.escape(f"{PART}/b.mp4")) as caught:
        listed(root)
    assert f"got {label!r}." in str(caught.value)


def test_test_videos_have_is_fake_instead_of_a_label(parts):
    facts = {"a.mp4": {"is_fake": 0}, "b.mp4": {"is_fake": 1}, "c.mp4": {"is_fake": "1"}}
    root = parts({PART: facts})
    assert [video.label for video in listed(root).videos] == [0, 1, 1]
    root = parts({PART: {"a.mp4": {"is_fake": 2}}})
    with pytest.raises(ValueError, match="is_fake .* 0 or 1 for .*a.mp4.*got 2"):
        listed(root)


def test_an_invalid_split_raises_an_error(parts):
    root = parts({PART: {"a.mp4": {"label": "REAL", "split": "tset"}}})
    with pytest.raises(ValueError, match="split to be train.*a.mp4.*got 'tset'"):
        listed(root)


def test_two_videos_with_the_same_id_raise_an_error(parts):
    root = parts({PART: {"a.mp4": REAL, "a.avi": REAL}})
    with pytest.raises(ValueError, match=rf"{PART}/a\.avi and {PART}/a\.mp4"):
        listed(root)


def test_a_folder_without_metadata_raises_an_error(folder):
    with pytest.raises(ValueError, match=r"metadata\.json next to the videos.*dfdc_train_part_0/"):
        listed(folder(f"{PART}/a.mp4", f"{PART}/old-metadata.json"))


def test_metadata_without_any_of_its_videos_raises_an_error(parts):
    root = parts({PART: {"a.mp4": REAL, "b.mp4": FAKE}}, without=[f"{PART}/a.mp4", f"{PART}/b.mp4"])
    with pytest.raises(ValueError, match=rf"{PART}/metadata\.json.*none of the 2 videos "):
        listed(root)

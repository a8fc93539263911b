import re
from collections import Counter

import pytest

from jdfd_keras.datasets.layouts import list_videos
from jdfd_keras.datasets.layouts.celebdf import list_celebdf
from jdfd_keras.datasets.videos import read_dataset_files
from jdfd_keras.io.storage import LocalStore
from jdfd_keras.options import PrepareOptions

TEST_LIST = "List_of_testing_videos.txt"

# Three test fakes of the real clips id0_0000 and id1_0003, of which only the second is listed.
LIST = """\
1 YouTube-real/00170.mp4
1 Celeb-real/id1_0003.mp4
0 Celeb-synthesis/id0_id1_0000.mp4
0 Celeb-synthesis/id0_id2_0000.mp4
0 Celeb-synthesis/id1_id0_0003.mp4
"""
TESTED = {
    "YouTube-real/00170.mp4",
    "Celeb-real/id1_0003.mp4",
    "Celeb-synthesis/id0_id1_0000.mp4",
    "Celeb-synthesis/id0_id2_0000.mp4",
    "Celeb-synthesis/id1_id0_0003.mp4",
}
TRAINED = {
    "YouTube-real/00001.mp4",
    "Celeb-real/id0_0000.mp4",
    "Celeb-real/id0_0001.mp4",
    "Celeb-synthesis/id0_id3_0000.mp4",
}


def listed(root, layout="celebdf", **options):
    return list_videos(LocalStore(str(root)), PrepareOptions(layout=layout, **options))


@pytest.fixture
def archive(folder):
    """Return a function that makes a small Celeb-DF with LIST, or with another `text`."""

    def make(*more, text=LIST, without=()):
        return folder(*sorted((TESTED | TRAINED | {*more}) - {*without}), texts={TEST_LIST: text})

    return make


def uncovered(listing):
    """Return the source of every test fake that was made from a real training clip."""
    real = {
        video.source_ids
        for video in listing.videos
        if video.label == 0 and video.split == "train" and video.path.startswith("Celeb-real/")
    }
    return [
        video.source_ids
        for video in listing.videos
        if video.label == 1 and video.split == "test" and video.source_ids in real
    ]


@pytest.mark.parametrize(("layout", "version"), [("celebdf", "v2"), ("celebdf-v1", "v1")])
@pytest.mark.parametrize(
    ("name", "label", "source_ids", "people", "split"),
    [
        ("Celeb-real/id0_0000", 0, ("id0_0000",), ("id0",), "train"),
        ("Celeb-real/id1_0003", 0, ("id1_0003",), ("id1",), "test"),
        ("Celeb-synthesis/id0_id3_0000", 1, ("id0_0000",), ("id0", "id3"), "train"),
        ("Celeb-synthesis/id1_id0_0003", 1, ("id1_0003",), ("id1", "id0"), "test"),
        ("YouTube-real/00001", 0, ("youtube00001",), ("youtube00001",), "train"),
        ("YouTube-real/00170", 0, ("youtube00170",), ("youtube00170",), "test"),
    ],
)
def test_every_kind_of_file_is_described(
    archive, layout, version, name, label, source_ids, people, split
):
    found = listed(archive(), layout)
    video_id = f"celebdf/{version}/{name}"
    (video,) = [video for video in found.videos if video.video_id == video_id]
    assert (video.path, video.label, video.split) == (f"{name}.mp4", label, split)
    assert (video.manipulation, video.compression) == ("Celeb-synthesis" if label else "", "")
    assert video.source_ids == source_ids
    assert found.subjects[video_id] == people


def test_listed_videos_are_for_testing_and_all_others_for_training(archive):
    found = listed(archive())
    by_split = {
        split: {video.path for video in found.videos if video.split == split}
        for split in ("train", "val", "test")
    }
    assert by_split == {"train": TRAINED, "val": set(), "test": TESTED}
    assert (found.missing, found.unrecognized) == ([], [])
    assert [video.video_id for video in found.videos] == sorted(
        video.video_id for video in found.videos
    )


def test_every_video_has_subjects(archive):
    found = listed(archive())
    assert set(found.subjects) == {video.video_id for video in found.videos}


def test_label_1_of_the_list_means_real(archive):
    videos = listed(archive()).videos
    labels = {video.path: video.label for video in videos if video.split == "test"}
    assert labels == {
        path: 1 - int(label) for label, path in (line.split() for line in LIST.splitlines())
    }


def test_a_test_fake_shares_its_source_with_the_training_clip_it_was_made_from(archive):
    # Two of the three, on one clip.
    assert uncovered(listed(archive())) == [("id0_0000",), ("id0_0000",)]


def test_a_list_of_the_published_size_has_234_fakes_of_unlisted_real_clips(folder, published):
    facts = published["celebdf_v2"]
    num_unlisted, num_listed = facts["unlisted_clips_with_fakes"], facts["listed_clips_with_fakes"]
    num_fakes, num_uncovered = facts["videos"]["Celeb-synthesis"], facts["fakes_of_unlisted_clips"]
    # Clips 0 to 163 are not in the list, but fakes made from them are.
    fakes = [f"Celeb-synthesis/id{n % num_unlisted}_id{900 + n}_0000" for n in range(num_uncovered)]
    for n in range(num_fakes - num_uncovered):
        fakes.append(f"Celeb-synthesis/id{500 + n % num_listed}_id{2000 + n}_0000")
    reals = [f"Celeb-real/id{500 + n}_0000" for n in range(facts["videos"]["Celeb-real"])]
    reals += [f"YouTube-real/{n:05d}" for n in range(facts["videos"]["YouTube-real"])]
    lines = [f"{facts['label_of_real']} {name}.mp4" for name in reals]
    lines += [f"{1 - facts['label_of_real']} {name}.mp4" for name in fakes]
    paths = {f"{name}.mp4" for name in (*reals, *fakes)}
    unlisted = {f"Celeb-real/id{n}_0000.mp4" for n in range(num_unlisted)}
    found = listed(folder(*sorted(paths | unlisted), texts={TEST_LIST: "\n".join(lines)}))
    tested = [video for video in found.videos if video.split == "test"]
    assert {video.path for video in tested} == paths
    assert Counter(video.label for video in tested) == {0: 178, 1: 340}
    assert len(uncovered(found)) == 234
    assert len(set(uncovered(found))) == 164
    assert (found.missing, found.unrecognized) == ([], [])


def test_lines_of_the_published_list_are_read(folder, published):
    lines = published["celebdf_v2"]["some_lines"]
    paths = [line.split()[1] for line in lines]
    found = listed(folder(*paths, texts={TEST_LIST: "\n".join(lines)}))
    assert {video.path: 1 - video.label for video in found.videos} == {
        path: int(line[0]) for path, line in zip(paths, lines, strict=True)
    }
    assert {video.split for video in found.videos} == {"test"}


def test_listed_videos_that_do_not_exist_are_missing(archive):
    absent = {"YouTube-real/00170.mp4", "Celeb-synthesis/id0_id2_0000.mp4"}
    found = listed(archive(without=absent))
    assert sorted(found.missing) == sorted(absent)
    assert {video.path for video in found.videos if video.split == "test"} == TESTED - absent


def test_the_list_may_have_a_byte_order_mark_empty_lines_and_windows_line_ends(archive):
    text = "\ufeff\r\n" + LIST.replace("\n", "\r\n") + "\r\n   \r\n"
    found = listed(archive(text=text))
    assert {video.path for video in found.videos if video.split == "test"} == TESTED
    assert found.missing == []


@pytest.mark.parametrize(
    "line",
    [
        "1 Celeb-fake/id0_0000.mp4",
        "0 Celeb-Synthesis/id0_id1_0000.mp4",
        "1 Celeb-real/id0_id1_0000.mp4",
        "1 YouTube-real/00170.avi",
        "0 YouTube-real/00170.mp4",
        "1 Celeb-synthesis/id0_id1_0000.mp4",
        "2 YouTube-real/00170.mp4",
        "YouTube-real/00170.mp4",
        "<!DOCTYPE html>",
    ],
)
def test_a_line_with_an_invalid_clip_or_label_raises_an_error(archive, line):
    root = archive(text=f"{LIST}{line}\n")
    with pytest.raises(ValueError, match="got 1 .*invalid") as caught:
        listed(root)
    assert repr(line) in str(caught.value)
    assert f"{root}/{TEST_LIST}" in str(caught.value)


def test_a_list_with_inverted_labels_raises_an_error(archive):
    turned = "".join(f"{1 - int(line[0])}{line[1:]}\n" for line in LIST.splitlines())
    with pytest.raises(ValueError, match="1 is real.* got 5 .*invalid"):
        listed(archive(text=turned))


def test_a_missing_list_raises_an_error(folder):
    root = folder("Celeb-real/id0_0000.mp4", "Celeb-synthesis/id0_id1_0000.mp4")
    with pytest.raises(FileNotFoundError, match=re.escape(f"{root}/{TEST_LIST}; got")):
        listed(root)


def test_a_list_that_is_not_utf_8_raises_an_error(archive):
    root = archive()
    (root / TEST_LIST).write_bytes(b"\xff\xfe1\x00")
    with pytest.raises(ValueError, match=re.escape(f"UTF-8 in {root}/{TEST_LIST}")):
        listed(root)


@pytest.mark.parametrize(
    "path",
    [
        "Celeb-real/id0_id1_0000.mp4",
        "Celeb-synthesis/id0_0000.mp4",
        "YouTube-real/id0_0000.mp4",
        "YouTube-real/trailer.mp4",
        "Celeb-real/id0_0000.avi",
        "Celeb-real/id0_0000.copy.mp4",
        "Celeb-real/more/id0_0000.mp4",
        "Celeb-fake/id0_id1_0000.mp4",
        "Celeb-DF-v2/Celeb-real/id0_0000.mp4",
        "frame.png",
    ],
)
def test_a_file_of_another_form_is_unrecognized(archive, path):
    found = listed(archive(path))
    assert found.unrecognized == [path]
    assert {video.path for video in found.videos} == TESTED | TRAINED


@pytest.mark.parametrize(
    "paths",
    [
        ["id0_0000.mp4"],
        ["Celeb-DF-v2/Celeb-real/id0_0000.mp4"],
        ["real/0000.mp4", "fake/0000_fake.mp4"],
        [],
    ],
)
def test_a_wrong_root_raises_an_error_that_names_the_expected_folders(folder, paths):
    with pytest.raises(
        ValueError, match=r"Expected Celeb-DF in .*Celeb-real/, Celeb-synthesis/, YouTube-real/"
    ):
        listed(folder(*paths, texts={TEST_LIST: LIST}))


def test_only_its_own_manipulation_can_be_selected(archive):
    root = archive()
    assert listed(root, manipulations="Celeb-synthesis") == listed(root)
    with pytest.raises(ValueError, match="has Celeb-synthesis; got Deepfakes"):
        listed(root, manipulations="Deepfakes")


def test_a_compression_cannot_be_selected_since_none_is_stated(archive):
    with pytest.raises(ValueError, match="'c23' in mine; got only ''"):
        listed(archive(), compression="c23")


PLUS_LIST = """\
1 YouTube-real/00170.mp4
0 Celeb-synthesis/FaceSwap/BlendFace/id1_id0_0007.mp4
0 Celeb-synthesis/TalkingFace/SadTalker/id0_0001_en.mp4
"""
PLUS_FILES = (
    "YouTube-real/00170.mp4",
    "Celeb-real/id1_0007.mp4",
    "Celeb-synthesis/FaceSwap/Celeb-DF/id1_id0_0007.mp4",
    "Celeb-synthesis/FaceSwap/BlendFace/id1_id0_0007.mp4",
    "Celeb-synthesis/FaceReenact/LIA/id1_id0_0007.mp4",
    "Celeb-synthesis/TalkingFace/SadTalker/id0_0001_en.mp4",
)


def plus(root):
    return list_celebdf(read_dataset_files(LocalStore(str(root))), version="++")


def test_celeb_df_plus_plus_has_methods_in_folders(folder):
    found = plus(folder(*PLUS_FILES, texts={TEST_LIST: PLUS_LIST}))
    fakes = "celebdf/++/Celeb-synthesis"
    assert {
        video.video_id: (video.label, video.manipulation, video.source_ids, video.split)
        for video in found.videos
    } == {
        "celebdf/++/YouTube-real/00170": (0, "", ("youtube00170",), "test"),
        "celebdf/++/Celeb-real/id1_0007": (0, "", ("id1_0007",), "train"),
        f"{fakes}/FaceSwap/Celeb-DF/id1_id0_0007": (1, "Celeb-DF", ("id1_0007",), "train"),
        f"{fakes}/FaceSwap/BlendFace/id1_id0_0007": (1, "BlendFace", ("id1_0007",), "test"),
        f"{fakes}/FaceReenact/LIA/id1_id0_0007": (1, "LIA", (), "train"),
        f"{fakes}/TalkingFace/SadTalker/id0_0001_en": (1, "SadTalker", (), "test"),
    }
    assert (found.missing, found.unrecognized) == ([], [])


def test_fakes_of_celeb_df_plus_plus_without_a_known_source_have_subjects_and_are_said(folder):
    found = plus(folder(*PLUS_FILES, texts={TEST_LIST: PLUS_LIST}))
    fakes = "celebdf/++/Celeb-synthesis"
    assert found.subjects[f"{fakes}/FaceReenact/LIA/id1_id0_0007"] == ("id1", "id0")
    assert found.subjects[f"{fakes}/TalkingFace/SadTalker/id0_0001_en"] == ("id0",)
    (note,) = found.notes
    assert note.startswith("2 fakes of Celeb-DF++ have no known source")


@pytest.mark.parametrize(
    "path",
    [
        "Celeb-synthesis/id1_id0_0007.mp4",
        "Celeb-synthesis/SimSwap/id1_id0_0007.mp4",
        "Celeb-synthesis/FaceSwap/id1_id0_0007.mp4",
        "Celeb-synthesis/Editing/X/id1_id0_0007.mp4",
        "readme.pdf",
    ],
)
def test_other_files_of_celeb_df_plus_plus_are_unrecognized(folder, path):
    assert plus(folder(*PLUS_FILES, path, texts={TEST_LIST: PLUS_LIST})).unrecognized == [path]


@pytest.mark.parametrize("line", ["1 " + PLUS_FILES[3], "0 Celeb-synthesis/id1_id0_0007.mp4"])
def test_a_line_of_another_version_raises_an_error(folder, line):
    with pytest.raises(
        ValueError, match=re.escape(f"got 1 with an invalid clip or label: '{line}'")
    ):
        plus(folder(*PLUS_FILES, texts={TEST_LIST: line}))


def test_methods_in_folders_are_not_of_version_2(archive):
    path = "Celeb-synthesis/FaceSwap/BlendFace/id1_id0_0007.mp4"
    assert listed(archive(path)).unrecognized == [path]


def test_a_wrong_root_names_the_folders_of_celeb_df_plus_plus(folder):
    with pytest.raises(ValueError, match=r"Expected Celeb-DF\+\+ in .*FaceSwap/<method>/"):
        plus(folder("a.mp4"))

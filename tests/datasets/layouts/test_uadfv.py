import pytest

from jdfd_keras.datasets.layouts import list_videos
from jdfd_keras.io.storage import LocalStore
from jdfd_keras.options import PrepareOptions

REALS = [f"real/{number:04d}.mp4" for number in range(49)]
FAKES = [f"fake/{number:04d}_fake.mp4" for number in range(49)]


def listed(root):
    return list_videos(LocalStore(str(root)), PrepareOptions(layout="uadfv"))


def test_a_whole_data_set_has_49_pairs_with_a_common_source_and_no_split(folder):
    found = listed(folder(*REALS, *FAKES))
    assert {
        (video.video_id, video.path, video.label, video.source_ids) for video in found.videos
    } == {
        *(
            (f"uadfv/real/{number:04d}", f"real/{number:04d}.mp4", 0, (f"{number:04d}",))
            for number in range(49)
        ),
        *(
            (f"uadfv/fake/{number:04d}_fake", f"fake/{number:04d}_fake.mp4", 1, (f"{number:04d}",))
            for number in range(49)
        ),
    }
    assert len(found.videos) == 98
    assert {video.split for video in found.videos} == {""}
    assert {(video.label, video.manipulation) for video in found.videos} == {
        (0, ""),
        (1, "FakeApp"),
    }
    assert {video.compression for video in found.videos} == {""}
    assert (found.missing, found.unrecognized, dict(found.subjects)) == ([], [], {})


def test_videos_are_sorted_by_id(folder):
    videos = listed(folder("real/0001.mp4", "real/0000.mp4", "fake/0002_fake.mp4")).videos
    assert [video.video_id for video in videos] == [
        "uadfv/fake/0002_fake",
        "uadfv/real/0000",
        "uadfv/real/0001",
    ]


def test_absent_videos_of_the_49_pairs_are_missing(folder):
    absent = {"real/0007.mp4", "real/0048.mp4", "fake/0000_fake.mp4"}
    found = listed(folder(*({*REALS, *FAKES} - absent)))
    assert sorted(found.missing) == sorted(absent)
    assert len(found.videos) == 95


def test_with_one_video_all_others_are_missing(folder):
    missing = listed(folder("fake/0048_fake.mp4")).missing
    assert sorted(missing) == sorted({*REALS, *FAKES} - {"fake/0048_fake.mp4"})


@pytest.mark.parametrize(
    "path",
    [
        "real/0049.mp4",
        "fake/0049_fake.mp4",
        "real/9999.mp4",
        "real/0000_fake.mp4",
        "fake/0000.mp4",
        "real/000.mp4",
        "real/00000.mp4",
        "real/0000.avi",
        "real/more/0000.mp4",
        "frames/0000.png",
        "0000.mp4",
        "readme.txt",
        "real/0000.json",
    ],
)
def test_a_file_of_another_form_is_unrecognized(folder, path):
    found = listed(folder("real/0048.mp4", "fake/0048_fake.mp4", path))
    assert found.unrecognized == [path]
    assert [video.path for video in found.videos] == ["fake/0048_fake.mp4", "real/0048.mp4"]


@pytest.mark.parametrize("paths", [["UADFV/real/0000.mp4"], ["0000.mp4"], ["real/anna.mp4"], []])
def test_a_wrong_root_raises_an_error_that_names_the_expected_folders(folder, paths):
    with pytest.raises(ValueError, match=r"Expected UADFV in .*real/ .*fake/ "):
        listed(folder(*paths))

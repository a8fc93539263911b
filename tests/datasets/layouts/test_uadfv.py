import pytest

from jdfd_keras.datasets.layouts import list_videos
from jdfd_keras.io.storage import LocalStore
from jdfd_keras.options import PrepareOptions

REALS = [f"real/{number:04d}.mp4" for number in range(49)]
FAKES = [f"fake/{number:04d}_fake.mp4" for number in range(49)]


def listed(root):
    return list_videos(LocalStore(str(root)), PrepareOptions(layout="uadfv"))


def test_a_whole_data_set_is_49_pairs_that_share_a_source_with_the_split_left_open(folder):
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
    assert (found.missing, found.unknown, dict(found.people)) == ([], [], {})


def test_videos_stand_in_the_order_of_their_ids(folder):
    videos = listed(folder("real/0001.mp4", "real/0000.mp4", "fake/0002_fake.mp4")).videos
    assert [video.video_id for video in videos] == [
        "uadfv/fake/0002_fake",
        "uadfv/real/0000",
        "uadfv/real/0001",
    ]


def test_what_is_missing_of_the_49_pairs_is_named(folder):
    gone = {"real/0007.mp4", "real/0048.mp4", "fake/0000_fake.mp4"}
    found = listed(folder(*({*REALS, *FAKES} - gone)))
    assert sorted(found.missing) == sorted(gone)
    assert len(found.videos) == 95


def test_one_video_alone_misses_all_the_others(folder):
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
    ],
)
def test_a_stranger_is_named_as_unknown(folder, path):
    found = listed(folder("real/0048.mp4", "fake/0048_fake.mp4", path))
    assert found.unknown == [path]
    assert [video.path for video in found.videos] == ["fake/0048_fake.mp4", "real/0048.mp4"]


@pytest.mark.parametrize("paths", [["UADFV/real/0000.mp4"], ["0000.mp4"], ["real/anna.mp4"], []])
def test_a_wrong_root_is_refused_by_the_folders_that_were_looked_for(folder, paths):
    with pytest.raises(ValueError, match=r"Expected UADFV in .*real/ .*fake/ "):
        listed(folder(*paths))

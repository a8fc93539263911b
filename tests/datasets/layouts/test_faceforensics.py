import hashlib
import io
import shutil
from collections import Counter, defaultdict

import pytest

from jdfd_keras.datasets.layouts import list_videos
from jdfd_keras.datasets.layouts.faceforensics import (
    ACTOR_SWAPS,
    list_dfd,
    list_faceforensics,
    read_clips,
)
from jdfd_keras.datasets.videos import DatasetFiles
from jdfd_keras.io.storage import LocalStore
from jdfd_keras.options import PrepareOptions

SWAPS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")


class Memory:
    """A store of empty files in memory."""

    def __init__(self, names, location="memory://data/ffpp"):
        self.names, self.location = names, location

    def list(self, below=""):
        return dict.fromkeys((name for name in self.names if name.startswith(below)), 0)

    def open(self, name):
        return io.BytesIO(b"")


def listed(root, **options):
    store = root if isinstance(root, Memory) else LocalStore(str(root))
    return list_videos(store, PrepareOptions(layout="faceforensics", **options))


def reals(compression="c23"):
    return [f"original_sequences/youtube/{compression}/videos/{i:03d}.mp4" for i in range(1000)]


def fakes(manipulation, compression="c23"):
    folder = f"manipulated_sequences/{manipulation}/{compression}/videos"
    return [f"{folder}/{clip}_{of.partner}.mp4" for clip, of in read_clips().items()]


@pytest.fixture
def facts(published):
    return published["faceforensics"]


def test_the_table_equals_the_published_lists(facts):
    """By the digest of the rows that were made of the published lists."""
    rows = [f"{name} {of.partner} {of.split} {of.source}\n" for name, of in read_clips().items()]
    assert hashlib.sha256("".join(sorted(rows)).encode()).hexdigest() == facts["sha256_of_rows"]


def test_the_table_pairs_every_clip_with_a_clip_of_the_same_split(facts):
    clips = read_clips()
    assert sorted(clips) == [f"{number:03d}" for number in range(1000)]
    for name, clip in clips.items():
        partner = clips[clip.partner]
        assert (partner.partner, partner.split) == (name, clip.split)
        assert clip.partner != name
    assert Counter(clip.split for clip in clips.values()) == facts["clips"]


def test_the_table_has_the_first_pairs_of_the_published_lists(facts):
    clips = read_clips()
    for split, pairs in facts["first_pairs"].items():
        for one, other in map(str.split, pairs):
            assert (clips[one].partner, clips[one].split) == (other, split)


def test_the_table_has_977_sources_named_after_their_first_clips(facts):
    expected = {f"{number:03d}": f"{number:03d}" for number in range(1000)}
    for group in map(str.split, facts["of_one_source"]):
        expected |= dict.fromkeys(group, group[0])
    assert {name: clip.source for name, clip in read_clips().items()} == expected
    assert len(set(expected.values())) == 977


def test_seven_pairs_of_clips_share_a_source_across_splits(facts):
    clips = read_clips()
    assert facts["of_two_splits"] == [
        group
        for group in facts["of_one_source"]
        if len({clips[name].split for name in group.split()}) > 1
    ]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            "original_sequences/youtube/raw/videos/071.mp4",
            ("ffpp/youtube/raw/071", 0, "", "raw", ("071",), "train"),
        ),
        (
            "original_sequences/youtube/c40/videos/606.mp4",
            ("ffpp/youtube/c40/606", 0, "", "c40", ("605",), "val"),
        ),
        (
            "original_sequences/youtube/c23/videos/687.mp4",
            ("ffpp/youtube/c23/687", 0, "", "c23", ("685",), "train"),
        ),
        *(
            (
                f"manipulated_sequences/{swap}/c23/videos/939_115.mp4",
                (f"ffpp/{swap}/c23/939_115", 1, swap, "c23", ("939", "115"), "val"),
            )
            for swap in SWAPS
        ),
        (
            "manipulated_sequences/FaceSwap/c40/videos/115_939.mp4",
            ("ffpp/FaceSwap/c40/115_939", 1, "FaceSwap", "c40", ("115", "939"), "val"),
        ),
        (
            "manipulated_sequences/Face2Face/raw/videos/078_955.mp4",
            ("ffpp/Face2Face/raw/078_955", 1, "Face2Face", "raw", ("078", "954"), "test"),
        ),
        (
            "manipulated_sequences/Deepfakes/c23/videos/974_953.mp4",
            ("ffpp/Deepfakes/c23/974_953", 1, "Deepfakes", "c23", ("973", "953"), "test"),
        ),
        (
            "original_sequences/actors/c23/videos/01__exit_phone_room.mp4",
            ("ffpp/actors/c23/01__exit_phone_room", 0, "", "c23", ("actor01",), "test"),
        ),
        (
            "manipulated_sequences/DeepFakeDetection/c40/videos/03_28__hugging_happy__YVGY8LOK.mp4",
            (
                "ffpp/DeepFakeDetection/c40/03_28__hugging_happy__YVGY8LOK",
                1,
                "DeepFakeDetection",
                "c40",
                ("actor03", "actor28"),
                "test",
            ),
        ),
    ],
)
def test_every_kind_of_file_is_described(folder, path, expected):
    of_actors = "actor" in str(expected)
    other = "manipulated_sequences/DeepFakeDetection/raw/videos/05_06__hugging__YVGY8LOK.mp4"
    root = folder(path, *([other] if of_actors else []))
    found = listed(root, manipulations=ACTOR_SWAPS if of_actors else "")
    (video,) = [video for video in found.videos if video.path != other]
    assert video.path == path
    assert expected == (
        video.video_id,
        video.label,
        video.manipulation,
        video.compression,
        video.source_ids,
        video.split,
    )
    assert found.unrecognized == []


def test_a_whole_data_set_is_split_720_to_140_to_140_in_each_class():
    found = listed(Memory([*reals(), *fakes("Deepfakes")]))
    counts = Counter((video.label, video.split) for video in found.videos)
    assert counts == {
        (label, split): number
        for label in (0, 1)
        for split, number in (("train", 720), ("val", 140), ("test", 140))
    }
    assert (found.missing, found.unrecognized) == ([], [])
    assert len({video.video_id for video in found.videos}) == 2000


def test_a_fake_has_the_sources_and_the_split_of_both_its_clips():
    found = listed(Memory([*reals(), *fakes("FaceShifter")]))
    real = {video.path[-7:-4]: video for video in found.videos if video.label == 0}
    for video in found.videos:
        if video.label == 1:
            one, other = (real[name] for name in video.path[-11:-4].split("_"))
            assert video.source_ids == (*one.source_ids, *other.source_ids)
            assert video.split == one.split == other.split


def test_clips_cut_from_one_video_share_a_source_in_the_listing(facts):
    by_source = defaultdict(list)
    for video in listed(Memory(reals())).videos:
        by_source[video.source_ids].append(video.path[-7:-4])
    shared = sorted(" ".join(group) for group in by_source.values() if len(group) > 1)
    assert shared == facts["of_one_source"]
    assert len(by_source) == 977


def test_all_existing_manipulations_and_compressions_are_listed(folder):
    paths = [
        *(f"original_sequences/youtube/{quality}/videos/000.mp4" for quality in ("raw", "c40")),
        *(f"manipulated_sequences/{swap}/raw/videos/000_003.mp4" for swap in SWAPS),
    ]
    videos = listed(folder(*paths)).videos
    assert {video.path for video in videos} == set(paths)
    assert [video.video_id for video in videos] == sorted(video.video_id for video in videos)


def test_a_video_that_a_whole_folder_lacks_is_missing():
    names = [*reals("c40"), *fakes("FaceSwap", "c40"), *fakes("NeuralTextures", "raw")]
    absent = [
        "manipulated_sequences/FaceSwap/c40/videos/003_000.mp4",
        "manipulated_sequences/NeuralTextures/raw/videos/071_054.mp4",
        "original_sequences/youtube/c40/videos/123.mp4",
        *reals("raw"),  # of which fakes exist, but no real videos
    ]
    assert sorted(listed(Memory(sorted(set(names) - set(absent)))).missing) == absent


def test_a_partial_folder_misses_the_other_fakes_and_their_real_videos(folder):
    path = "manipulated_sequences/Deepfakes/c23/videos/000_003.mp4"
    actors = "original_sequences/actors/c23/videos/01__exit_phone_room.mp4"
    missing = listed(folder(path, actors)).missing
    assert sorted(missing) == sorted({*fakes("Deepfakes"), *reals()} - {path})
    assert len(missing) == 1999


def test_actors_videos_are_never_missing(folder):
    root = folder(
        "original_sequences/actors/c23/videos/01__exit_phone_room.mp4",
        "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__exit_phone_room__YVGY8LOK.mp4",
    )
    assert listed(root, manipulations=ACTOR_SWAPS).missing == []


def test_videos_without_an_official_split_are_listed_only_on_request(folder):
    swapped = "01_02__exit_phone_room__YVGY8LOK"
    root = folder(
        "original_sequences/youtube/c23/videos/000.mp4",
        "manipulated_sequences/Deepfakes/c23/videos/000_003.mp4",
        "original_sequences/actors/c23/videos/01__exit_phone_room.mp4",
        f"manipulated_sequences/DeepFakeDetection/c23/videos/{swapped}.mp4",
    )
    ours = {"ffpp/youtube/c23/000", "ffpp/Deepfakes/c23/000_003"}
    theirs = {"ffpp/actors/c23/01__exit_phone_room", f"ffpp/DeepFakeDetection/c23/{swapped}"}
    for requested, expected in {
        "": ours,
        "Deepfakes": ours,
        ACTOR_SWAPS: theirs,
        f"Deepfakes,{ACTOR_SWAPS}": ours | theirs,
    }.items():
        found = listed(root, manipulations=requested)
        assert {video.video_id for video in found.videos} == expected
        assert set(found.excluded) == (ours | theirs) - expected
    alone = folder("original_sequences/actors/c23/videos/01__exit_phone_room.mp4")
    for path in ("original_sequences/youtube", "manipulated_sequences"):
        shutil.rmtree(alone / path)
    with pytest.raises(ValueError, match="only 1 video .*--manipulations DeepFakeDetection"):
        listed(alone)


@pytest.mark.parametrize(
    "path",
    [
        "original_sequences/youtube/c23/videos/1000.mp4",
        "original_sequences/youtube/c23/videos/12.mp4",
        "original_sequences/youtube/c23/videos/000_003.mp4",
        "original_sequences/youtube/c23/videos/000.avi",
        "original_sequences/youtube/c23/videos/000.MP4",
        "original_sequences/youtube/c23/videos/more/000.mp4",
        "original_sequences/youtube/c23/000.mp4",
        "original_sequences/youtube/c24/videos/000.mp4",
        "original_sequences/youtube/c23/images/000/0000.png",
        "original_sequences/actors/c23/videos/000.mp4",
        "original_sequences/actors/c23/videos/01_02__hugging_happy__YVGY8LOK.mp4",
        "original_sequences/Deepfakes/c23/videos/000_003.mp4",
        "manipulated_sequences/Deepfakes/c23/videos/000_001.mp4",  # not the clip's partner
        "manipulated_sequences/Deepfakes/c23/videos/000.mp4",
        "manipulated_sequences/Deepfakes/c23/videos/000_003_2.mp4",
        "manipulated_sequences/DeepFakeDetection/c23/videos/000_003.mp4",
        "manipulated_sequences/DeepFakeDetection/c23/videos/01__exit_phone_room.mp4",
        "manipulated_sequences/Deepfake/c23/videos/000_003.mp4",
        "manipulated_sequences/youtube/c23/videos/000.mp4",
        "FaceForensics/original_sequences/youtube/c23/videos/000.mp4",
        "000.mp4",
    ],
)
def test_a_file_of_another_form_is_unrecognized(folder, path):
    known = "original_sequences/youtube/raw/videos/000.mp4"
    found = listed(folder(known, path))
    assert found.unrecognized == [path]
    assert [video.path for video in found.videos] == [known]


def test_masks_and_lists_are_known(folder):
    known = "original_sequences/youtube/raw/videos/000.mp4"
    root = folder(
        known,
        "manipulated_sequences/Deepfakes/masks/videos/000_003.mp4",
        "manipulated_sequences/DeepFakeDetection/masks/videos/01_02__hugging_happy__YVGY8LOK.mp4",
        "manipulated_sequences/Face2Face/masks/images/000_003/0001.png",
        "original_sequences/downloaded_videos_info.zip",
        "splits/train.json",
    )
    found = listed(root)
    assert (found.unrecognized, found.masks) == ([], {})
    assert [video.path for video in found.videos] == [known]
    assert len(found.missing) == 999


def test_a_fake_has_its_mask_in_every_compression(folder):
    fakes = "manipulated_sequences/{}/{}/videos/000_003.mp4"
    root = folder(
        *(fakes.format("Deepfakes", compression) for compression in ("c23", "c40")),
        fakes.format("FaceShifter", "c23"),  # published without masks
        fakes.format("Deepfakes", "masks"),
    )
    assert listed(root).masks == {
        f"ffpp/Deepfakes/{compression}/000_003": fakes.format("Deepfakes", "masks")
        for compression in ("c23", "c40")
    }


@pytest.mark.parametrize(
    "paths",
    [
        ["youtube/c23/videos/000.mp4"],  # the folder below the root
        ["FaceForensics/original_sequences/youtube/c23/videos/000.mp4"],  # the folder above it
        ["manipulated_sequences/Deepfakes/masks/videos/000_003.mp4"],
        ["real/000.mp4", "fake/000_003.mp4"],
        [],
    ],
)
def test_a_wrong_root_raises_an_error_that_names_the_expected_folders(folder, paths):
    root = folder(*paths)
    with pytest.raises(ValueError) as caught:
        listed(root)
    message = str(caught.value)
    for kind in ("youtube", "actors"):
        assert f"original_sequences/{kind}/c23/videos" in message
    for kind in (*SWAPS, "DeepFakeDetection"):
        assert f"manipulated_sequences/{kind}/c23/videos" in message
    assert str(root) in message
    for path in paths:
        assert f"{path.split('/')[0]}/" in message.split("got ")[1]


@pytest.fixture
def several(folder):
    """Two compressions, of which one has two manipulations and actors."""
    return folder(
        "original_sequences/youtube/raw/videos/000.mp4",
        "original_sequences/youtube/c23/videos/000.mp4",
        "original_sequences/actors/c23/videos/01__exit_phone_room.mp4",
        "manipulated_sequences/Deepfakes/raw/videos/000_003.mp4",
        "manipulated_sequences/Deepfakes/c23/videos/000_003.mp4",
        "manipulated_sequences/FaceSwap/c23/videos/000_003.mp4",
        "manipulated_sequences/NeuralTextures/c23/videos/000_003.mp4",
    )


def kinds_in(found):
    return {tuple(video.video_id.split("/")[1:3]) for video in found.videos}


def test_a_compression_is_selected(several):
    assert kinds_in(listed(several, compression="raw")) == {
        ("youtube", "raw"),
        ("Deepfakes", "raw"),
    }
    assert kinds_in(listed(several, compression="c23")) == {
        (kind, "c23") for kind in ("youtube", "Deepfakes", "FaceSwap", "NeuralTextures")
    }
    assert len(kinds_in(listed(several, compression="all"))) == 6


@pytest.mark.parametrize("names", ["FaceSwap,NeuralTextures", " NeuralTextures , FaceSwap,"])
def test_manipulations_are_selected_and_real_videos_are_kept(several, names):
    assert kinds_in(listed(several, manipulations=names)) == {
        ("youtube", "raw"),
        ("youtube", "c23"),
        ("FaceSwap", "c23"),
        ("NeuralTextures", "c23"),
    }


def test_compression_and_manipulations_are_selected_together(several):
    found = listed(several, compression="c23", manipulations="Deepfakes")
    assert kinds_in(found) == {("youtube", "c23"), ("Deepfakes", "c23")}


@pytest.mark.parametrize("name", ["Deepfake", "deepfakes", "FaceShifter", "youtube"])
def test_a_manipulation_that_does_not_exist_raises_an_error(several, name):
    with pytest.raises(
        ValueError, match=rf"mine, which has Deepfakes, FaceSwap, NeuralTextures; got {name}\."
    ):
        listed(several, manipulations=f"FaceSwap,{name}")


def test_a_compression_that_does_not_exist_raises_an_error(several):
    with pytest.raises(ValueError, match="'c40' in mine; got only 'c23', 'raw'"):
        listed(several, compression="c40")


def test_a_remote_folder_is_named_by_the_last_part_of_its_address():
    store = Memory(["original_sequences/youtube/c23/videos/000.mp4"], "memory://data/ffpp/")
    with pytest.raises(ValueError, match="compression 'raw' in ffpp;"):
        listed(store, compression="raw")


def test_missing_files_are_those_of_the_selected_folders(folder):
    root = folder(
        "original_sequences/youtube/c23/videos/000.mp4",
        "original_sequences/youtube/raw/videos/000.mp4",
        "manipulated_sequences/FaceSwap/c23/videos/000_003.mp4",
        "manipulated_sequences/Deepfakes/c23/videos/000_003.mp4",
    )
    options = PrepareOptions(layout="faceforensics", compression="c23", manipulations="FaceSwap")
    listing = list_videos(LocalStore(str(root)), options)
    assert {path.rpartition("/")[0] for path in listing.missing} == {
        "original_sequences/youtube/c23/videos",
        "manipulated_sequences/FaceSwap/c23/videos",
    }


def test_links_to_folders_are_followed_and_loops_are_not(folder, tmp_path):
    root = folder("original_sequences/youtube/c23/videos/000.mp4")
    disk = tmp_path / "disk"
    (root / "original_sequences/youtube/c23").rename(disk)
    (root / "original_sequences/youtube/c23").symlink_to(disk)
    (disk / "videos" / "back").symlink_to(root)
    listing = list_videos(LocalStore(str(root)), PrepareOptions(layout="faceforensics"))
    assert [video.video_id for video in listing.videos] == ["ffpp/youtube/c23/000"]


DFD_FAKES = "manipulated_sequences/DeepFakeDetection"
DFD_NAMES = ("01_02__exit_phone_room__YVGY8LOK", "27_13__hugging_happy__A1OSUJE9")
DFD_FILES = (
    "original_sequences/actors/c23/videos/01__exit_phone_room.mp4",
    *(f"{DFD_FAKES}/c23/videos/{name}.mp4" for name in DFD_NAMES),
    f"{DFD_FAKES}/masks/videos/{DFD_NAMES[0]}.mp4",
)


def dfd(*files):
    return list_dfd(DatasetFiles(LocalStore("/data/dfd"), "dfd", tuple(sorted(files))))


def test_dfd_has_the_videos_of_actors_for_testing_with_masks():
    found = dfd(*DFD_FILES)
    fakes = "ffpp/DeepFakeDetection/c23"
    assert {video.video_id: (video.label, video.source_ids) for video in found.videos} == {
        "ffpp/actors/c23/01__exit_phone_room": (0, ("actor01",)),
        f"{fakes}/{DFD_NAMES[0]}": (1, ("actor01", "actor02")),
        f"{fakes}/{DFD_NAMES[1]}": (1, ("actor27", "actor13")),
    }
    assert {video.split for video in found.videos} == {"test"}
    assert found.masks == {
        f"{fakes}/{DFD_NAMES[0]}": f"{DFD_FAKES}/masks/videos/{DFD_NAMES[0]}.mp4"
    }
    assert (found.missing, found.unrecognized) == ([], [])


def test_dfd_says_which_fakes_have_no_mask_and_that_it_has_no_split():
    split, masks = dfd(*DFD_FILES).notes
    assert "no published split" in split
    assert masks.startswith("1 of 2 fakes have no mask")
    assert DFD_NAMES[1] in masks
    assert len(dfd(*DFD_FILES[:2], DFD_FILES[3]).notes) == 1


def test_dfd_agrees_with_faceforensics():
    root = DatasetFiles(LocalStore("/data/dfd"), "dfd", DFD_FILES)
    requested = list_faceforensics(root, [ACTOR_SWAPS])
    assert list_dfd(root).videos == requested.videos
    assert list_dfd(root).masks == requested.masks


def test_dfd_excludes_faceforensics_and_names_other_files():
    real = "original_sequences/youtube/c23/videos/071.mp4"
    found = dfd(*DFD_FILES, real, "notes.txt")
    assert found.excluded == {"ffpp/youtube/c23/071": "not of DeepFakeDetection"}
    assert (found.missing, found.unrecognized) == ([], ["notes.txt"])
    with pytest.raises(ValueError, match="Expected DeepFakeDetection in /data/dfd"):
        dfd(real)


def test_files_that_are_not_media_are_unrecognized_unless_they_are_published():
    known = "original_sequences/youtube/raw/videos/000.mp4"
    published = [
        "splits/train.json",
        "conversion_dict.json",
        "original_sequences/downloaded_videos.zip",
    ]
    published.append("manipulated_sequences/Deepfakes/models/000_003/decoder_A.h5")
    others = ["notes.txt", "original_sequences/youtube/raw/videos/000.mp4.part"]
    root = DatasetFiles(LocalStore("."), "FF++", (known, *published, *others))
    assert list_faceforensics(root).unrecognized == others

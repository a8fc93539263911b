from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest

from jdfd_keras.datasets.layouts import list_videos
from jdfd_keras.datasets.layouts.faceforensics import read_clips
from jdfd_keras.datasets.split_dataset import split_faces
from jdfd_keras.datasets.splits import BOTH_SPLITS, assign_splits
from jdfd_keras.datasets.videos import Listing, Video
from jdfd_keras.io.storage import LocalStore
from jdfd_keras.options import PrepareOptions, SplitOptions

SPLITS = ("train", "val", "test")

# Training clips of FaceForensics++ that were cut from the same video as a validation or test clip:
# the first clip of that video, and the split of the other clip.
SHARED_CLIPS = {
    "605": ("605", "val"),
    "639": ("639", "val"),
    "756": ("755", "test"),
    "838": ("837", "val"),
    "876": ("875", "val"),
    "954": ("954", "test"),
    "983": ("982", "val"),
}


def video(name, label, *source_ids, split=""):
    return Video(f"v/{name}", f"{name}.mp4", label, "", "", source_ids, split)


def pairs(count):
    """Return a real and a fake video of each of `count` subjects."""
    return [
        video(f"{kind}{number}", label, f"person{number}")
        for number in range(count)
        for label, kind in enumerate(["real", "fake"])
    ]


def split(videos, val_share=0.15, test_share=0.15, seed=0):
    options = SplitOptions(val_share=val_share, test_share=test_share, seed=seed)
    return assign_splits(Listing(videos), options)[0]


def split_validation(videos, subjects, val_share, seed):
    options = SplitOptions(val_share=val_share, seed=seed)
    return assign_splits(Listing(videos, subjects=subjects), options)


def split_by_fold(videos, folds, fold, seed):
    options = SplitOptions(strategy="kfold", folds=folds, fold=fold, seed=seed)
    return assign_splits(Listing(videos), options)[0]


def videos_in(videos, name):
    return [video for video in videos if video.split == name]


def names_in(videos, name):
    return {video.video_id for video in videos_in(videos, name)}


def in_two_splits(videos, subjects=None):
    """Return the sources, or the subjects if given, that are in two or more splits."""
    splits = defaultdict(set)
    for entry in videos:
        for name in subjects[entry.video_id] if subjects else entry.source_ids:
            splits[name].add(entry.split)
    return {name for name, found in splits.items() if len(found) > 1}


def random_videos(rng):
    """Return real videos of some subjects, and fakes that each show one to three of them."""
    num_subjects = int(rng.integers(20, 60))
    videos = [video(f"real{number}", 0, str(number)) for number in range(num_subjects)]
    for number in range(num_subjects):
        shown = rng.choice(num_subjects, rng.choice([1, 1, 1, 2, 3]), replace=False)
        if rng.random() < 0.8:
            # Mostly neighbours, so that groups stay small.
            shown = np.minimum(number // 3 * 3 + np.arange(len(shown)), num_subjects - 1)
        videos.append(video(f"fake{number}", 1, *sorted({str(person) for person in shown})))
    return [videos[index] for index in rng.permutation(len(videos))]


def swaps(num_subjects, partners, num_clips=2):
    """Return clips of subjects, swaps of each clip with the faces of others, and all subjects.

    All are for training, with names as in Celeb-DF: `id0_id1_0` is the clip `id0_0` with the
    face of `id1`.
    """
    videos, subjects = [], {}
    for number in range(num_subjects):
        for clip in range(num_clips):
            source = f"id{number}_{clip}"
            videos.append(video(source, 0, source, split="train"))
            subjects[f"v/{source}"] = (f"id{number}",)
            for step in range(1, partners + 1):
                other = (number + step) % num_subjects
                name = f"id{number}_id{other}_{clip}"
                videos.append(video(name, 1, source, split="train"))
                subjects[f"v/{name}"] = (f"id{number}", f"id{other}")
    return videos, subjects


def move(videos, names, split):
    """Move some videos to a split."""
    return [replace(entry, split=split) if entry.video_id in names else entry for entry in videos]


# --- by source ---


def test_no_source_is_in_two_splits_whatever_the_graph():
    rng = np.random.default_rng(0)
    done = 0
    for seed in range(30):
        videos = random_videos(rng)
        try:
            assigned = split(videos, seed=seed)
        except ValueError:
            continue  # nearly all videos are in one group
        done += 1
        assert in_two_splits(assigned) == set()
        assert [replace(entry, split="") for entry in assigned] == videos
        for name in SPLITS:
            assert {entry.label for entry in videos_in(assigned, name)} == {0, 1}
    assert done > 15


def test_a_chain_of_shared_sources_is_one_group():
    chain = [video(f"fake{number}", 1, str(number), str(number + 1)) for number in range(10)]
    assigned = split(chain + pairs(10))
    assert len({entry.split for entry in assigned[:10]}) == 1


def test_shares_are_shares_of_the_groups():
    assigned = split(pairs(100), val_share=0.2, test_share=0.3)
    assert [len(videos_in(assigned, name)) for name in SPLITS] == [100, 40, 60]


def test_every_split_has_its_share_of_unrelated_real_and_fake_groups():
    videos = [video(f"real{n}", 0, f"r{n}") for n in range(40)]
    videos += [video(f"fake{n}", 1, f"f{n}") for n in range(20)]
    assigned = split(videos, val_share=0.25, test_share=0.25)
    for name in ("val", "test"):
        labels = [entry.label for entry in videos_in(assigned, name)]
        assert (labels.count(0), labels.count(1)) == (10, 5)


def test_unlabelled_videos_have_the_split_of_their_source():
    videos = pairs(30) + [video(f"open{n}", -1, f"person{n}") for n in range(30)]
    videos += [video(f"alone{n}", -1, f"other{n}") for n in range(20)]
    assigned = split(videos, val_share=0.25, test_share=0.25)
    assert in_two_splits(assigned) == set()
    alone = Counter(entry.split for entry in assigned if entry.video_id.startswith("v/alone"))
    assert alone == {"train": 20}  # not useful elsewhere


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_groups_of_a_kind_are_for_training(count):
    alone = [video(f"alone{n}", -1, f"other{n}") for n in range(count)]
    assert {entry.split for entry in split(pairs(20) + alone)[40:]} == {"train"}


@pytest.mark.parametrize(
    ("val_share", "test_share"),
    [(0.15, 0.8), (0.8, 0.15), (0.49, 0.49), (0.01, 0.01), (0.98, 0.01)],
)
def test_each_split_has_a_group_for_all_shares(val_share, test_share):
    for count in (3, 4, 5, 10):
        assigned = split(pairs(count), val_share, test_share)
        assert {entry.split for entry in assigned} == set(SPLITS)


def test_only_the_seed_changes_the_split():
    videos = pairs(30)
    np.random.seed(1)
    first = split(videos, seed=3)
    np.random.seed(2)
    assert split(videos, seed=3) == first
    assert split(videos, seed=4) != first


@pytest.mark.parametrize(
    ("count", "complaint"),
    [(1, "got 1 real and 1 fake in 1 group by"), (2, "got 2 real and 2 fake in 2 groups by")],
)
def test_too_few_groups_raise_an_error(count, complaint):
    with pytest.raises(ValueError, match=complaint):
        split(pairs(count))


def test_too_few_groups_of_one_class_raise_an_error():
    videos = [video(f"real{n}", 0, f"r{n}") for n in range(20)]
    videos += [video(f"fake{n}", 1, f"f{n}") for n in range(2)]
    with pytest.raises(
        ValueError, match="got 20 real and 2 fake in 22 groups .* no fake videos in val or test"
    ):
        split(videos)


def test_many_videos_of_one_source_raise_an_error():
    with pytest.raises(ValueError, match="in 1 group "):
        split([video(f"v{n}", n % 2, "anna") for n in range(50)])


# --- one class ---


def test_real_videos_alone_are_split_by_source():
    videos = [video(f"v{n}", 0, f"person{n // 2}") for n in range(40)]
    assigned = split(videos + [video("open", -1)], val_share=0.2, test_share=0.3)
    assert in_two_splits(assigned) == set()
    assert Counter(entry.split for entry in assigned[:40]) == {"train": 20, "val": 8, "test": 12}
    folds = [names_in(split_by_fold(videos, 4, fold, 0), "test") for fold in range(4)]
    assert sorted(map(len, folds)) == [10] * 4 and len(set().union(*folds)) == 40


def test_validation_is_split_off_from_real_videos_alone_by_subject():
    videos = [video(f"v{n}", 0, f"id{n}", split="test" if n > 15 else "train") for n in range(20)]
    used, excluded = split_validation(videos, {}, 0.25, seed=0)
    assert Counter(entry.split for entry in used) == {"train": 12, "val": 4, "test": 4}
    assert excluded == {}


@pytest.mark.parametrize("others", [[], [video("open", -1)]])
def test_fakes_alone_are_not_split(others):
    videos = [video(f"v{n}", 1, f"person{n}") for n in range(40)] + others
    with pytest.raises(ValueError, match="got 0 real and 40 fake .* no real videos in train or"):
        split(videos)


# --- options ---


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"strategy": "random"}, "got 'random'"),
        ({"val_share": 0.0}, "got 0.0 and 0.15"),
        ({"test_share": 0.0}, "got 0.15 and 0.0"),
        ({"val_share": 0.5, "test_share": 0.5}, "got 0.5 and 0.5"),
        ({"val_share": -0.1}, "got -0.1 and 0.15"),
        ({"test_share": 1.0}, "got 0.15 and 1.0"),
        ({"val_share": float("nan")}, "got nan and 0.15"),
        ({"folds": 2}, "3 or more folds; got 2"),
        ({"strategy": "kfold"}, "fold from 0 to 4 .* kfold; got None"),
        ({"strategy": "kfold", "fold": -1}, "fold from 0 to 4 .*; got -1"),
        ({"strategy": "kfold", "fold": 5}, "fold from 0 to 4 .*; got 5"),
        ({"strategy": "kfold", "folds": 3, "fold": 3}, "fold from 0 to 2 .*; got 3"),
        ({"strategy": "leave-one-out", "fold": 0}, "two or more manipulations .*; got 1"),
        ({"strategy": "kfold", "fold": 0, "base": "strict"}, "leave-one-out alone .* with kfold"),
    ],
)
def test_options_out_of_range_raise_an_error_with_their_values(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        assign_splits(Listing(pairs(30)), SplitOptions(**options))


@pytest.mark.parametrize(
    "options",
    [
        {"val_share": 0.01, "test_share": 0.98},
        {"strategy": "kfold", "folds": 3, "fold": 0},
        {"strategy": "kfold", "folds": 3, "fold": 2},
        {"strategy": "kfold", "folds": 100, "fold": 99},
    ],
)
def test_options_at_the_limits_are_valid(options):
    assert assign_splits(Listing(pairs(300)), SplitOptions(**options))


# --- official ---


def leaking():
    """Return a published split in which b and c share a source with a later one."""
    return [
        video("a", 0, "1", split="test"),
        video("b", 1, "1", "2", split="train"),
        video("c", 0, "3", split="val"),
        video("d", 1, "3", "1", split="test"),
        video("e", 0, "4", split="train"),
        video("f", 1, "5", split="val"),
        video("g", 1, "6", split="train"),
    ]


def test_official_keeps_a_published_split():
    videos = leaking()
    assert assign_splits(Listing(videos), SplitOptions()) == (videos, {})
    assert assign_splits(Listing(videos), SplitOptions(seed=5, val_share=0.4)) == (videos, {})


def test_official_splits_sources_at_random_without_a_published_split():
    videos = pairs(100)
    options = SplitOptions(val_share=0.2, test_share=0.3, seed=1)
    assigned, excluded = assign_splits(Listing(videos), options)
    assert excluded == {}
    assert [replace(entry, split="") for entry in assigned] == videos
    assert in_two_splits(assigned) == set()
    assert [len(videos_in(assigned, name)) for name in SPLITS] == [100, 40, 60]
    assert assign_splits(Listing(videos), options)[0] == assigned
    assert assign_splits(Listing(videos), replace(options, seed=2))[0] != assigned


def test_official_splits_validation_off_by_subject_if_none_is_published():
    videos, subjects = swaps(20, partners=2)
    tested = {"v/id0_id1_0", "v/id4_1"}
    videos = move(videos, tested, "test")
    options = SplitOptions(val_share=0.3, seed=2)
    assigned, excluded = assign_splits(Listing(videos, subjects=subjects), options)
    assert names_in(assigned, "test") == tested
    beside_test = [entry for entry in assigned if entry.split != "test"]
    assert {entry.split for entry in beside_test} == {"train", "val"}
    assert in_two_splits(beside_test, subjects) == set()
    assert excluded
    assert set(excluded) | {entry.video_id for entry in assigned} == set(subjects)
    assert (
        assign_splits(Listing(videos, subjects=subjects), replace(options, seed=3))[0] != assigned
    )


def test_official_uses_sources_as_subjects_if_none_are_listed():
    videos = [replace(entry, split="train") for entry in pairs(40)]
    videos += [video("tested0", 0, "x", split="test"), video("tested1", 1, "x", split="test")]
    assigned, excluded = assign_splits(Listing(videos), SplitOptions(val_share=0.25))
    assert excluded == {}
    assert in_two_splits(assigned) == set()
    assert [len(videos_in(assigned, name)) for name in SPLITS] == [60, 20, 2]


def test_paper_assigns_no_split_to_videos_and_excludes_none():
    videos = leaking()
    assigned, excluded = assign_splits(Listing(videos), SplitOptions(strategy="paper"))
    assert assigned == [replace(entry, split="") for entry in videos]
    assert excluded == {}


# --- strict ---


def test_strict_excludes_videos_that_share_a_source_with_a_later_split(snapshot):
    videos = [*leaking(), video("h", 0, "9", split="val")]
    assigned, excluded = assign_splits(Listing(videos), SplitOptions(strategy="strict"))
    assert [(entry.video_id, entry.split) for entry in assigned] == [
        ("v/a", "test"),
        ("v/d", "test"),
        ("v/e", "train"),
        ("v/f", "val"),
        ("v/g", "train"),
        ("v/h", "val"),
    ]
    assert excluded == snapshot
    assert in_two_splits(assigned) == set()


def test_strict_raises_an_error_if_a_split_loses_a_class():
    with pytest.raises(
        ValueError, match="real videos that remain in val; got none of 1 video, such as v/c"
    ):
        assign_splits(Listing(leaking()), SplitOptions(strategy="strict"))


def whole():
    """Return a real and a fake video of each split, which share no source with others."""
    return [
        video(f"{split}{label}", label, f"{split}{label}", split=split)
        for split in SPLITS
        for label in (0, 1)
    ]


def test_training_does_not_overlap_with_excluded_validation_videos(snapshot):
    videos = [
        video("tested", 0, "1", split="test"),
        video("validated", 1, "1", "2", split="val"),
        video("trained", 0, "2", split="train"),
    ]
    _, excluded = assign_splits(Listing(videos + whole()), SplitOptions(strategy="strict"))
    assert excluded == snapshot


def test_a_source_in_validation_and_testing_is_reported_as_that_of_testing(snapshot):
    videos = [
        video("trained", 0, "1", split="train"),
        video("validated", 1, "1", split="val"),
        video("tested", 0, "1", split="test"),
    ]
    _, excluded = assign_splits(Listing(videos + whole()), SplitOptions(strategy="strict"))
    assert excluded == snapshot


def test_strict_excludes_nothing_from_a_random_split_of_sources():
    listing = Listing(pairs(40))
    assert assign_splits(listing, SplitOptions(strategy="strict")) == assign_splits(
        listing, SplitOptions()
    )


@pytest.fixture(scope="module")
def faceforensics(tmp_path_factory):
    """List FaceForensics++ of full size with one manipulation, from empty files."""
    root = tmp_path_factory.mktemp("ffpp")
    folders = [
        root / "original_sequences/youtube/c23/videos",
        root / "manipulated_sequences/Deepfakes/c23/videos",
    ]
    for folder in folders:
        folder.mkdir(parents=True)
    for clip, of in read_clips().items():
        (folders[0] / f"{clip}.mp4").touch()
        (folders[1] / f"{clip}_{of.partner}.mp4").touch()
    return list_videos(LocalStore(str(root)), PrepareOptions(layout="faceforensics"))


def test_official_keeps_the_split_of_faceforensics_with_seven_sources_in_two_splits(
    faceforensics,
):
    assigned, excluded = assign_splits(faceforensics, SplitOptions())
    assert (assigned, excluded) == (faceforensics.videos, {})
    assert in_two_splits(assigned) == {source for source, _ in SHARED_CLIPS.values()}


def test_strict_excludes_only_training_clips_of_shared_videos_from_faceforensics(
    faceforensics,
):
    assigned, excluded = assign_splits(faceforensics, SplitOptions(strategy="strict"))
    expected = {}
    for entry in faceforensics.videos:
        for clip in entry.path.rsplit("/", 1)[1].removesuffix(".mp4").split("_"):
            if clip in SHARED_CLIPS:
                source, split = SHARED_CLIPS[clip]
                expected[entry.video_id] = f"shares footage with {split}: source {source}"
    assert excluded == expected
    assert len(expected) == 7 + 14  # the real video of each clip, and both swaps with its partner
    assert assigned == [v for v in faceforensics.videos if v.video_id not in expected]
    counts = Counter((entry.label, entry.split) for entry in assigned)
    assert counts == {
        (0, "train"): 713,
        (0, "val"): 140,
        (0, "test"): 140,
        (1, "train"): 706,
        (1, "val"): 140,
        (1, "test"): 140,
    }
    assert in_two_splits(assigned) == set()


@pytest.fixture(scope="module")
def celebdf(tmp_path_factory):
    """List two clips of each of twelve subjects, swaps with the next two, and YouTube clips.

    The test list has two fakes of the clip id0_0000 without the clip, and the clip id3_0001 with
    one of its two fakes.
    """
    root = tmp_path_factory.mktemp("celebdf")
    for name in ("Celeb-real", "Celeb-synthesis", "YouTube-real"):
        (root / name).mkdir()
    for number in range(12):
        (root / f"YouTube-real/{number:05d}.mp4").touch()
        for clip in range(2):
            (root / f"Celeb-real/id{number}_{clip:04d}.mp4").touch()
            for step in (1, 2):
                name = f"id{number}_id{(number + step) % 12}_{clip:04d}.mp4"
                (root / "Celeb-synthesis" / name).touch()
    (root / "Celeb-synthesis/id0_id7_0000.mp4").touch()
    (root / "Celeb-synthesis/id0_id5_0000.mp4").touch()
    (root / "List_of_testing_videos.txt").write_text(
        "0 Celeb-synthesis/id0_id1_0000.mp4\n"
        "0 Celeb-synthesis/id0_id7_0000.mp4\n"
        "1 Celeb-real/id3_0001.mp4\n"
        "0 Celeb-synthesis/id3_id4_0001.mp4\n"
        "1 YouTube-real/00003.mp4\n"
    )
    return list_videos(LocalStore(str(root)), PrepareOptions(layout="celebdf"))


@pytest.mark.parametrize("seed", range(3))
def test_strict_excludes_the_real_clip_of_a_test_fake_and_its_other_fakes_from_celebdf(
    celebdf, seed
):
    assigned, excluded = assign_splits(
        celebdf, SplitOptions(strategy="strict", val_share=0.3, seed=seed)
    )
    on_tested_clips = {
        f"celebdf/v2/{name}"
        for name in (
            "Celeb-real/id0_0000",
            "Celeb-synthesis/id0_id2_0000",
            "Celeb-synthesis/id0_id5_0000",
            "Celeb-synthesis/id3_id5_0001",
        )
    }
    assert on_tested_clips <= set(excluded)
    assert excluded["celebdf/v2/Celeb-real/id0_0000"].endswith("test: source id0_0000")
    others = set(excluded) - on_tested_clips
    assert {excluded[name] for name in others} == {BOTH_SPLITS}
    assert in_two_splits(assigned) == set()
    assert names_in(assigned, "test") == names_in(celebdf.videos, "test")
    assert {entry.split for entry in assigned} == set(SPLITS)
    assert {v.video_id for v in assigned} | set(excluded) == {v.video_id for v in celebdf.videos}
    assert not {v.video_id for v in assigned} & set(excluded)


def test_official_keeps_the_real_clips_of_test_fakes_in_celebdf(celebdf):
    assigned, excluded = assign_splits(celebdf, SplitOptions(val_share=0.3))
    assert "celebdf/v2/Celeb-real/id0_0000" in {entry.video_id for entry in assigned}
    assert set(excluded.values()) == {BOTH_SPLITS}
    assert in_two_splits(assigned) == {"id0_0000", "id3_0001"}


# --- leave one out ---

MANIPULATIONS = ("Deepfakes", "Face2Face", "FaceSwap")


def manipulated(split_of=lambda number: "train" if number < 6 else SPLITS[number % 3]):
    """Return a real video of each of 15 subjects and a fake of each by every manipulation."""
    videos = []
    for number in range(15):
        own, name = f"person{number}", split_of(number)
        videos.append(video(f"real{number}", 0, own, split=name))
        videos += [
            replace(video(f"{kind}{number}", 1, own, split=name), manipulation=kind)
            for kind in MANIPULATIONS
        ]
    return videos


@pytest.mark.parametrize("is_published", [True, False])
@pytest.mark.parametrize("fold", range(3))
def test_one_manipulation_is_tested_and_neither_trained_nor_validated_on(is_published, fold):
    videos = manipulated() if is_published else manipulated(lambda number: "")
    official, _ = assign_splits(Listing(videos), SplitOptions())
    options = SplitOptions(strategy="leave-one-out", fold=fold)
    assigned, excluded = assign_splits(Listing(videos), options)
    split_of = {entry.video_id: entry.split for entry in official}
    for entry in assigned:  # none moves to another split
        assert entry.split == split_of[entry.video_id]
        if entry.label:
            assert (entry.manipulation == MANIPULATIONS[fold]) == (entry.split == "test")
    # All real videos are used; of the fakes, one manipulation in testing and the others elsewhere.
    count = Counter(split_of.values())
    num_subjects = {name: count[name] // 4 for name in SPLITS}
    assert Counter((entry.split, entry.label) for entry in assigned) == {
        ("train", 0): num_subjects["train"],
        ("train", 1): 2 * num_subjects["train"],
        ("val", 0): num_subjects["val"],
        ("val", 1): 2 * num_subjects["val"],
        ("test", 0): num_subjects["test"],
        ("test", 1): num_subjects["test"],
    }
    assert {v.video_id for v in assigned} | set(excluded) == {v.video_id for v in videos}
    held_out = MANIPULATIONS[fold]
    for video_id, reason in excluded.items():
        name = next(kind for kind in MANIPULATIONS if kind in video_id)
        expected = f"only {held_out} is tested: {name}"
        assert reason == (f"held out for testing: {held_out}" if name == held_out else expected)


def test_leave_one_out_may_start_from_the_strict_split():
    videos = manipulated()
    # A training clip of the same footage as a test video, as in FaceForensics++.
    videos += [video("twin", 0, "person8", split="train")]
    assert {v.split for v in videos if v.source_ids == ("person8",)} == {"train", "test"}
    options = SplitOptions(strategy="leave-one-out", fold=2, base="strict")
    strict, dropped = assign_splits(Listing(videos), SplitOptions(strategy="strict"))
    assigned, excluded = assign_splits(Listing(videos), options)
    assert in_two_splits(assigned) == set() and dropped.items() <= excluded.items()
    assert dropped == {"v/twin": "shares footage with test: source person8"}
    expected = [
        v
        for v in strict
        if not v.label or (v.split == "test") == (v.manipulation == MANIPULATIONS[2])
    ]
    assert assigned == expected
    from_official, _ = assign_splits(Listing(videos), replace(options, base="official"))
    assert in_two_splits(from_official) == {"person8"}


def test_leave_one_out_has_a_fold_for_each_manipulation_and_no_more():
    listing = Listing(manipulated())
    with pytest.raises(ValueError, match="fold from 0 to 2 .*; got 3"):
        assign_splits(listing, SplitOptions(strategy="leave-one-out", fold=3))


def test_a_held_out_manipulation_that_is_not_tested_officially_raises_an_error():
    videos = [
        replace(entry, split="train") if entry.manipulation == "FaceSwap" else entry
        for entry in manipulated()
    ]
    with pytest.raises(ValueError, match="fake videos that remain in test; got none of 6 videos"):
        assign_splits(Listing(videos), SplitOptions(strategy="leave-one-out", fold=2))


# --- compressions ---


def compressed(split_of):
    """Return a real and a fake video of each of 15 subjects, each in three compressions."""
    return [
        replace(entry, video_id=f"{entry.video_id}/{name or 'plain'}", compression=name)
        for entry in manipulated(split_of)
        for name in ("c40", "c23", "")
    ]


@pytest.mark.parametrize("strategy", ["official", "strict", "kfold", "leave-one-out"])
@pytest.mark.parametrize("is_published", [True, False])
def test_the_tables_of_all_compressions_have_the_same_sources_in_each_split(strategy, is_published):
    split_of = (lambda n: "train" if n < 6 else SPLITS[n % 3]) if is_published else lambda n: ""
    listing = Listing(compressed(split_of))
    options = SplitOptions(strategy, fold=1 if strategy in ("kfold", "leave-one-out") else None)
    whole, _ = assign_splits(listing, options)
    splits = {entry.video_id: entry.split for entry in whole}
    for name, other in (("c23", "c40"), ("c40", "c23")):
        assigned, excluded = assign_splits(listing, replace(options, compression=name))
        assert {v.video_id: v.split for v in assigned} == {
            video_id: split for video_id, split in splits.items() if video_id.endswith(name)
        }
        assert {video.split for video in assigned} == set(SPLITS)
        assert excluded["v/real0/plain"] == "of another compression: not stated"
        assert excluded[f"v/real0/{other}"] == f"of another compression: {other}"


def test_a_compression_that_no_video_has_is_refused():
    listing = Listing(compressed(lambda number: ""))
    with pytest.raises(ValueError, match="got 'c99', and videos of c23, c40. Try c23"):
        assign_splits(listing, SplitOptions(compression="c99"))
    with pytest.raises(ValueError, match="videos of no stated compression. Try all"):
        assign_splits(Listing(manipulated()), SplitOptions(compression="c23"))


def test_a_compression_without_real_videos_is_refused():
    videos = [v for v in compressed(lambda number: "") if v.label or v.compression != "c40"]
    with pytest.raises(
        ValueError, match="real videos that remain in .*of another compression: c23"
    ):
        assign_splits(Listing(videos), SplitOptions(compression="c40"))


# --- unknown sources ---


def test_videos_of_unknown_source_are_split_one_by_one():
    videos = [video(f"v{number}", number % 2) for number in range(100)]
    assigned = split(videos, val_share=0.2, test_share=0.3)
    assert [len(videos_in(assigned, name)) for name in SPLITS] == [50, 20, 30]
    folds = [names_in(split_by_fold(videos, 5, fold, 0), "test") for fold in range(5)]
    assert [len(names) for names in folds] == [20] * 5
    assert len(set().union(*folds)) == 100


def test_videos_of_unknown_source_are_their_own_subjects_and_are_not_excluded_by_strict():
    videos = [video(f"v{number}", number % 2, split="train") for number in range(40)]
    videos += [video("t0", 0, split="test"), video("t1", 1, split="test")]
    assigned, excluded = assign_splits(
        Listing(videos), SplitOptions(strategy="strict", val_share=0.25)
    )
    assert [len(videos_in(assigned, name)) for name in SPLITS] == [30, 10, 2]
    assert excluded == {}


# --- validation by subject ---


@pytest.mark.parametrize("seed", range(4))
def test_no_subject_is_in_both_training_and_validation(seed):
    videos, subjects = swaps(20, partners=3)
    used, excluded = split_validation(videos, subjects, 0.3, seed)
    seen = {
        name: {person for entry in videos_in(used, name) for person in subjects[entry.video_id]}
        for name in ("train", "val")
    }
    assert len(seen["val"]) == 6  # three tenths of twenty
    assert len(seen["train"]) == 14
    assert not seen["train"] & seen["val"]
    # All videos with subjects of both splits are excluded, and no others.
    assert excluded == {
        name: BOTH_SPLITS
        for name, of in subjects.items()
        if seen["train"] & {*of} and seen["val"] & {*of}
    }
    assert excluded
    assert [entry.video_id for entry in used] == [
        entry.video_id for entry in videos if entry.video_id not in excluded
    ]
    for name in ("train", "val"):
        assert {entry.label for entry in videos_in(used, name)} == {0, 1}


def test_validation_neither_changes_testing_nor_draws_its_subjects():
    videos, subjects = swaps(10, partners=2)
    tested = [video(f"tested{n}", n % 2, f"t{n}", split="test") for n in range(30)]
    subjects |= {entry.video_id: ("id0", "id1", entry.video_id) for entry in tested}
    used, excluded = split_validation(tested + videos, subjects, 0.4, seed=0)
    assert used[:30] == tested
    assert not {entry.video_id for entry in tested} & set(excluded)
    # The thirty subjects that are only in testing are not drawn.
    drawn = {p for entry in videos_in(used, "val") for p in subjects[entry.video_id]}
    assert len(drawn) == 4
    assert split_validation(videos, subjects, 0.4, seed=0) == (used[30:], excluded)


@pytest.mark.parametrize("seed", range(4))
def test_both_splits_have_both_classes_even_if_few_draws_give_them(seed):
    # Three of ten people are drawn, and both fakes show two: one draw in seven or eight is valid.
    videos = [video(f"real{n}", 0, f"id{n}", split="train") for n in range(10)]
    videos += [video(f"fake{n}", 1, f"id{n}", f"id{n + 1}", split="train") for n in (0, 2)]
    subjects = {entry.video_id: entry.source_ids for entry in videos}
    used, excluded = split_validation(videos, subjects, 0.3, seed)
    assert excluded == {}
    for name in ("train", "val"):
        assert [entry.label for entry in videos_in(used, name)].count(1) == 1
    assert 3 <= len(videos_in(used, "val")) - 1 <= 5


@pytest.mark.parametrize("seed", range(4))
def test_more_subjects_than_the_share_are_drawn_if_fewer_give_no_fake(seed):
    # A tenth of eight people is one, and all fakes show two.
    videos = [video(f"real{n}", 0, f"id{n}", split="train") for n in range(8)]
    videos += [video(f"fake{n}", 1, f"id{n}", f"id{n + 1}", split="train") for n in (0, 2, 4, 6)]
    subjects = {entry.video_id: entry.source_ids for entry in videos}
    used, _ = split_validation(videos, subjects, 0.1, seed)
    seen = {person for entry in videos_in(used, "val") for person in entry.source_ids}
    assert 2 <= len(seen) <= 4
    for name in ("train", "val"):
        assert {entry.label for entry in videos_in(used, name)} == {0, 1}


@pytest.mark.parametrize("val_share", [0.5, 0.6, 0.8])
def test_half_of_the_subjects_and_more_can_be_for_validation(val_share):
    videos, subjects = swaps(15, partners=1)
    used, _ = split_validation(videos, subjects, val_share, seed=0)
    seen = {person for entry in videos_in(used, "val") for person in subjects[entry.video_id]}
    assert len(seen) == round(val_share * 15)


def test_only_the_seed_changes_the_validation_subjects():
    videos, subjects = swaps(20, partners=2)
    np.random.seed(1)
    first = split_validation(videos, subjects, 0.3, seed=1)
    np.random.seed(2)
    assert split_validation(videos, subjects, 0.3, seed=1) == first
    assert split_validation(videos, subjects, 0.3, seed=2) != first
    backwards, excluded = split_validation(videos[::-1], subjects, 0.3, seed=1)
    assert (backwards[::-1], excluded) == first


@pytest.mark.parametrize("num_subjects", [2, 3, 12])
def test_too_few_subjects_for_validation_raise_an_error(num_subjects):
    # All fakes show the first two subjects: the split without these has no fake.
    videos = [video(f"real{n}", 0, f"id{n}", split="train") for n in range(num_subjects)]
    videos += [video(f"fake{n}", 1, "id0", "id1", split="train") for n in range(5)]
    subjects = {entry.video_id: entry.source_ids for entry in videos}
    with pytest.raises(
        ValueError, match=rf" {num_subjects + 5} .*videos of {num_subjects} subjects"
    ):
        split_validation(videos, subjects, 0.3, seed=0)


# --- folds ---


def with_groups(videos):
    """Return the groups of videos, found by a search from each to all that share its sources."""
    groups, left = [], list(videos)
    while left:
        group, sources = [left.pop(0)], set()
        while sources != (now := {s for entry in group for s in entry.source_ids}):
            sources = now
            group += [entry for entry in left if sources & {*entry.source_ids}]
            left = [entry for entry in left if not sources & {*entry.source_ids}]
        groups.append(frozenset(entry.video_id for entry in group))
    return groups


def folded_videos():
    """Return pairs of fifty subjects, ten fakes of two of them, and ten other real videos."""
    videos = pairs(50)
    videos += [video(f"swap{n}", 1, f"person{2 * n}", f"person{2 * n + 1}") for n in range(10)]
    return videos + [video(f"alone{n}", 0, f"other{n}") for n in range(10)]


@pytest.mark.parametrize("folds", [3, 5, 10])
def test_every_group_is_in_one_test_fold_and_validates_the_fold_before(folds):
    videos = folded_videos()
    groups = with_groups(videos)
    assert len(groups) == 40 + 10
    runs = [split_by_fold(videos, folds, fold, seed=3) for fold in range(folds)]
    tested = [names_in(run, "test") for run in runs]
    for group in groups:
        assert sum(group <= names for names in tested) == 1
        assert sum(bool(group & names) for names in tested) == 1
    for fold, run in enumerate(runs):
        assert names_in(run, "val") == tested[(fold + 1) % folds]
        assert [replace(entry, split="") for entry in run] == videos
        assert in_two_splits(run) == set()
        for name in SPLITS:
            assert {entry.label for entry in videos_in(run, name)} == {0, 1}


def test_folds_have_equal_numbers_of_groups_of_each_kind():
    videos = pairs(20) + [video(f"alone{n}", 0, f"other{n}") for n in range(10)]
    for fold in range(5):
        labels = Counter(
            entry.label for entry in videos_in(split_by_fold(videos, 5, fold, 0), "test")
        )
        assert labels == {0: 4 + 2, 1: 4}


def test_the_seed_changes_the_folds():
    videos = folded_videos()
    assert split_by_fold(videos, 5, 0, seed=1) == split_by_fold(videos, 5, 0, seed=1)
    assert split_by_fold(videos, 5, 0, seed=1) != split_by_fold(videos, 5, 0, seed=2)


def test_kfold_ignores_a_published_split():
    videos = folded_videos()
    published = [replace(entry, split=SPLITS[n % 3]) for n, entry in enumerate(videos)]
    options = SplitOptions(strategy="kfold", folds=4, fold=2, seed=1)
    assigned, excluded = assign_splits(Listing(published), options)
    assert excluded == {}
    assert assigned == split_by_fold(videos, 4, 2, seed=1)


def test_too_few_groups_for_the_folds_raise_an_error():
    with pytest.raises(ValueError, match="got 4 real and 4 fake in 4 groups"):
        split_by_fold(pairs(4), 5, 4, seed=0)


# --- single faces, as in the paper ---


def faces_of(num_videos, num_faces):
    return [
        (f"mine/real/{n}", position) for n in range(num_videos) for position in range(num_faces)
    ]


@pytest.mark.parametrize(
    ("count", "val_share", "test_share", "expected"),
    [
        (1000, 0.15, 0.15, (700, 150, 150)),
        (1000, 0.05, 0.15, (800, 50, 150)),
        (997, 0.1, 0.25, (648, 100, 249)),  # 99.7 and 249.25
        (7, 0.15, 0.15, (5, 1, 1)),
        (2, 0.15, 0.15, (2, 0, 0)),
        (0, 0.15, 0.15, (0, 0, 0)),
    ],
)
def test_shares_of_faces_are_exact_except_for_rounding(count, val_share, test_share, expected):
    faces = faces_of(count, 1)
    splits = split_faces(faces, val_share=val_share, test_share=test_share, seed=0)
    assert len(splits) == count
    assert tuple(splits.count(name) for name in SPLITS) == expected


def test_faces_of_one_video_are_in_every_split():
    faces = faces_of(20, 100)
    splits = split_faces(faces, val_share=0.15, test_share=0.15, seed=0)
    for number in range(20):
        # Of a hundred faces, 15 each are for val and test on average, sigma 3.6.
        own = Counter(splits[100 * number : 100 * (number + 1)])
        assert 0 < own["val"] < 34
        assert 0 < own["test"] < 34


def test_the_split_of_a_face_does_not_depend_on_the_order_of_faces():
    faces = faces_of(30, 10)
    options = {"val_share": 0.2, "test_share": 0.3, "seed": 4}
    expected = dict(zip(faces, split_faces(faces, **options), strict=True))
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(faces))
        mixed = [faces[index] for index in order]
        assert dict(zip(mixed, split_faces(mixed, **options), strict=True)) == expected


def test_other_faces_do_not_change_the_order_of_two():
    # Testing is drawn first, then validation: the order of two faces does not change.
    ranks = {"test": 0, "val": 1, "train": 2}
    faces = faces_of(30, 10)
    options = {"val_share": 0.2, "test_share": 0.3, "seed": 4}
    among_all = dict(zip(faces, split_faces(faces, **options), strict=True))
    among_some = dict(zip(faces[::3], split_faces(faces[::3], **options), strict=True))
    for one in among_some:
        for other in among_some:
            if ranks[among_all[one]] < ranks[among_all[other]]:
                assert ranks[among_some[one]] <= ranks[among_some[other]]


def test_only_the_seed_changes_the_split_of_faces():
    faces = faces_of(30, 10)
    np.random.seed(1)
    first = split_faces(faces, val_share=0.2, test_share=0.3, seed=4)
    np.random.seed(2)
    assert split_faces(faces, val_share=0.2, test_share=0.3, seed=4) == first
    other = split_faces(faces, val_share=0.2, test_share=0.3, seed=5)
    # Two random draws agree on 0.5 * 0.5 + 0.2 * 0.2 + 0.3 * 0.3 of 300, sigma 8.4.
    assert 80 < sum(a == b for a, b in zip(first, other, strict=True)) < 148


@pytest.mark.parametrize(
    ("seed", "ranked"),
    # The order of `printf '0 mine/fake/jo ann 1' | sha256sum` and the like.
    [
        (
            0,
            ["jo ann 1", "a 2", "a 0", "jo ann 2", "jo ann 0", "b 2", "ид 10", "a 1", "b 1", "b 0"],
        ),
        (
            7,
            ["jo ann 1", "b 0", "a 1", "ид 10", "b 1", "jo ann 0", "b 2", "a 2", "jo ann 2", "a 0"],
        ),
    ],
)
def test_faces_are_drawn_by_the_digest_of_seed_video_and_position(seed, ranked):
    faces = []
    for name in sorted(ranked):
        stem, position = name.rsplit(" ", 1)
        faces.append((f"mine/fake/{stem}" if stem == "jo ann" else stem, int(position)))
    splits = split_faces(faces, val_share=0.2, test_share=0.3, seed=seed)
    found = dict(zip(sorted(ranked), splits, strict=True))
    assert [found[name] for name in ranked] == ["test"] * 3 + ["val"] * 2 + ["train"] * 5

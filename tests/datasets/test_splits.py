from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest

from jdfd_keras.datasets.layouts import list_videos
from jdfd_keras.datasets.layouts.faceforensics import read_clips
from jdfd_keras.datasets.splits import (
    assign_splits,
    carve_validation,
    check_split_options,
    drop_shared,
    split_by_fold,
    split_by_source,
    split_faces,
)
from jdfd_keras.datasets.videos import Listing, Video
from jdfd_keras.io.storage import LocalStore
from jdfd_keras.options import PrepareOptions, SplitOptions

SPLITS = ("train", "val", "test")

# Clips of FaceForensics++ that are for training and were cut from the same video as one that is
# for validation or testing: that video's first clip, and where the other clip is.
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
    return Video(name, f"{name}.mp4", label, "", "", source_ids, split)


def pairs(count):
    """A real and a fake video of each of `count` people."""
    return [
        video(f"{kind}{number}", label, f"person{number}")
        for number in range(count)
        for label, kind in enumerate(["real", "fake"])
    ]


def split(videos, val_share=0.15, test_share=0.15, seed=0):
    return split_by_source(videos, val_share=val_share, test_share=test_share, seed=seed)


def videos_in(videos, name):
    return [video for video in videos if video.split == name]


def names_in(videos, name):
    return {video.video_id for video in videos_in(videos, name)}


def in_two_splits(videos, people=None):
    """Those who are in two splits or more: sources, or people where it is told who is seen."""
    places = defaultdict(set)
    for entry in videos:
        for name in people[entry.video_id] if people else entry.source_ids:
            places[name].add(entry.split)
    return {name for name, of in places.items() if len(of) > 1}


def random_videos(rng):
    """Real videos of some people, and fakes that each show one to three of them."""
    num_people = int(rng.integers(20, 60))
    videos = [video(f"real{number}", 0, str(number)) for number in range(num_people)]
    for number in range(num_people):
        shown = rng.choice(num_people, rng.choice([1, 1, 1, 2, 3]), replace=False)
        if rng.random() < 0.8:
            # Mostly neighbours, so that groups stay small.
            shown = np.minimum(number // 3 * 3 + np.arange(len(shown)), num_people - 1)
        videos.append(video(f"fake{number}", 1, *sorted({str(person) for person in shown})))
    return [videos[index] for index in rng.permutation(len(videos))]


def swaps(num_people, partners, num_clips=2):
    """Clips of people and, of each clip, swaps with the faces of the next ones; and their people.

    All are for training, as Celeb-DF names them: `id0_id1_0` is the clip `id0_0` with the face
    of `id1`.
    """
    videos, people = [], {}
    for number in range(num_people):
        for clip in range(num_clips):
            source = f"id{number}_{clip}"
            videos.append(video(source, 0, source, split="train"))
            people[source] = (f"id{number}",)
            for step in range(1, partners + 1):
                other = (number + step) % num_people
                name = f"id{number}_id{other}_{clip}"
                videos.append(video(name, 1, source, split="train"))
                people[name] = (f"id{number}", f"id{other}")
    return videos, people


def put(videos, names, split):
    """Put some videos into a split."""
    return [replace(entry, split=split) if entry.video_id in names else entry for entry in videos]


# --- by source ---


def test_no_source_is_in_two_splits_whatever_the_graph():
    rng = np.random.default_rng(0)
    done = 0
    for seed in range(60):
        videos = random_videos(rng)
        try:
            parted = split(videos, seed=seed)
        except ValueError:
            continue  # nearly all were joined into one group
        done += 1
        assert in_two_splits(parted) == set()
        assert [replace(entry, split="") for entry in parted] == videos
        for name in SPLITS:
            assert {entry.label for entry in videos_in(parted, name)} == {0, 1}
    assert done > 30


def test_videos_are_joined_through_others():
    chain = [video(f"fake{number}", 1, str(number), str(number + 1)) for number in range(10)]
    parted = split(chain + pairs(10))
    assert len({entry.split for entry in parted[:10]}) == 1


def test_shares_are_shares_of_the_groups():
    parted = split(pairs(100), val_share=0.2, test_share=0.3)
    assert [len(videos_in(parted, name)) for name in SPLITS] == [100, 40, 60]


def test_every_split_gets_its_part_of_real_and_fake_groups_that_share_nothing():
    videos = [video(f"real{n}", 0, f"r{n}") for n in range(40)]
    videos += [video(f"fake{n}", 1, f"f{n}") for n in range(20)]
    parted = split(videos, val_share=0.25, test_share=0.25)
    for name in ("val", "test"):
        labels = [entry.label for entry in videos_in(parted, name)]
        assert (labels.count(0), labels.count(1)) == (10, 5)


def test_unlabelled_videos_go_where_their_source_goes():
    videos = pairs(30) + [video(f"open{n}", -1, f"person{n}") for n in range(30)]
    videos += [video(f"alone{n}", -1, f"other{n}") for n in range(20)]
    parted = split(videos, val_share=0.25, test_share=0.25)
    assert in_two_splits(parted) == set()
    alone = Counter(entry.split for entry in parted if entry.video_id.startswith("alone"))
    assert alone == {"train": 20}  # elsewhere they are of no use


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_groups_of_a_kind_are_for_training(count):
    alone = [video(f"alone{n}", -1, f"other{n}") for n in range(count)]
    assert {entry.split for entry in split(pairs(20) + alone)[40:]} == {"train"}


@pytest.mark.parametrize(
    ("val_share", "test_share"),
    [(0.15, 0.8), (0.8, 0.15), (0.49, 0.49), (0.01, 0.01), (0.98, 0.01)],
)
def test_each_split_gets_a_group_however_the_shares_round(val_share, test_share):
    for count in (3, 4, 5, 10):
        parted = split(pairs(count), val_share, test_share)
        assert {entry.split for entry in parted} == set(SPLITS)


def test_the_seed_alone_decides():
    videos = pairs(30)
    np.random.seed(1)
    first = split(videos, seed=3)
    np.random.seed(2)
    assert split(videos, seed=3) == first
    assert split(videos, seed=4) != first


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_groups_are_refused(count):
    with pytest.raises(ValueError, match=rf"{2 * count} videos in {count} groups"):
        split(pairs(count))


def test_too_few_groups_of_one_class_are_refused():
    videos = [video(f"real{n}", 0, f"r{n}") for n in range(20)]
    videos += [video(f"fake{n}", 1, f"f{n}") for n in range(2)]
    with pytest.raises(ValueError, match="each with both classes; got 22 videos in 22 groups"):
        split(videos)


def test_many_videos_of_one_source_are_refused():
    with pytest.raises(ValueError, match="in 1 groups"):
        split([video(f"v{n}", n % 2, "anna") for n in range(50)])


# --- options ---


@pytest.mark.parametrize("rule", ["official", "strict", "kfold", "paper"])
def test_every_rule_is_known_with_the_other_options_as_they_are(rule):
    check_split_options(SplitOptions(split=rule))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"split": "random"}, "got 'random'"),
        ({"split": ""}, "got ''"),
        ({"val_share": 0.0}, "val_share=0.0, test_share=0.15"),
        ({"test_share": 0.0}, "val_share=0.15, test_share=0.0"),
        ({"val_share": 0.5, "test_share": 0.5}, "val_share=0.5, test_share=0.5"),
        ({"val_share": -0.1}, "val_share=-0.1, test_share=0.15"),
        ({"val_share": 1.5}, "val_share=1.5, test_share=0.15"),
        ({"test_share": 1.0}, "val_share=0.15, test_share=1.0"),
        ({"val_share": float("nan")}, "val_share=nan, test_share=0.15"),
        ({"folds": 2}, "folds=2, fold=0"),
        ({"folds": 0}, "folds=0, fold=0"),
        ({"fold": -1}, "folds=5, fold=-1"),
        ({"fold": 5}, "folds=5, fold=5"),
        ({"folds": 3, "fold": 3}, "folds=3, fold=3"),
    ],
)
def test_options_out_of_their_range_are_refused_by_their_values(options, complaint):
    options = SplitOptions(**options)
    with pytest.raises(ValueError, match=complaint):
        check_split_options(options)
    with pytest.raises(ValueError, match=complaint):
        assign_splits(Listing(pairs(30)), options)


@pytest.mark.parametrize(
    "options",
    [
        {"val_share": 0.01, "test_share": 0.98},
        {"folds": 3, "fold": 0},
        {"folds": 3, "fold": 2},
        {"folds": 100, "fold": 99},
    ],
)
def test_options_at_the_edge_of_their_range_are_taken(options):
    check_split_options(SplitOptions(**options))


# --- official ---


def leaking():
    """A published split in which b shares a source with a later one, c with d, and e with none."""
    return [
        video("a", 0, "1", split="test"),
        video("b", 1, "1", "2", split="train"),
        video("c", 0, "3", split="val"),
        video("d", 1, "3", "1", split="test"),
        video("e", 0, "4", split="train"),
        video("f", 1, "5", split="val"),
        video("g", 1, "6", split="train"),
    ]


def test_official_keeps_a_published_split_as_it_is():
    videos = leaking()
    assert assign_splits(Listing(videos), SplitOptions()) == (videos, {})
    assert assign_splits(Listing(videos), SplitOptions(seed=5, val_share=0.4)) == (videos, {})


def test_official_shares_out_sources_at_random_where_nothing_is_published():
    videos = pairs(100)
    options = SplitOptions(val_share=0.2, test_share=0.3, seed=1)
    parted, left_out = assign_splits(Listing(videos), options)
    assert left_out == {}
    assert [replace(entry, split="") for entry in parted] == videos
    assert in_two_splits(parted) == set()
    assert [len(videos_in(parted, name)) for name in SPLITS] == [100, 40, 60]
    assert assign_splits(Listing(videos), options)[0] == parted
    assert assign_splits(Listing(videos), replace(options, seed=2))[0] != parted


def test_official_takes_validation_out_of_training_by_people_where_none_is_published():
    videos, people = swaps(20, partners=2)
    tested = {"id0_id1_0", "id4_1"}
    videos = put(videos, tested, "test")
    options = SplitOptions(val_share=0.3, seed=2)
    parted, left_out = assign_splits(Listing(videos, people=people), options)
    assert names_in(parted, "test") == tested
    beside_test = [entry for entry in parted if entry.split != "test"]
    assert {entry.split for entry in beside_test} == {"train", "val"}
    assert in_two_splits(beside_test, people) == set()
    assert left_out
    assert set(left_out) | {entry.video_id for entry in parted} == set(people)
    assert assign_splits(Listing(videos, people=people), replace(options, seed=3))[0] != parted


def test_official_takes_sources_for_people_where_none_are_told():
    videos = [replace(entry, split="train") for entry in pairs(40)]
    videos += [video("tested0", 0, "x", split="test"), video("tested1", 1, "x", split="test")]
    parted, left_out = assign_splits(Listing(videos), SplitOptions(val_share=0.25))
    assert left_out == {}
    assert in_two_splits(parted) == set()
    assert [len(videos_in(parted, name)) for name in SPLITS] == [60, 20, 2]


def test_paper_gives_no_video_a_split_and_leaves_none_out():
    videos = leaking()
    parted, left_out = assign_splits(Listing(videos), SplitOptions(split="paper"))
    assert parted == [replace(entry, split="") for entry in videos]
    assert left_out == {}


# --- strict ---


def test_strict_leaves_out_what_shares_a_source_with_a_later_split():
    videos = [*leaking(), video("h", 0, "9", split="val")]
    parted, left_out = assign_splits(Listing(videos), SplitOptions(split="strict"))
    assert [(entry.video_id, entry.split) for entry in parted] == [
        ("a", "test"),
        ("d", "test"),
        ("e", "train"),
        ("f", "val"),
        ("g", "train"),
        ("h", "val"),
    ]
    assert left_out == {
        "b": "shares footage with test: source 1",
        "c": "shares footage with test: source 3",
    }
    assert in_two_splits(parted) == set()


def test_strict_refuses_to_leave_a_split_without_a_class_that_it_had():
    with pytest.raises(ValueError, match="real videos in val that share no source.*got none"):
        assign_splits(Listing(leaking()), SplitOptions(split="strict"))


def test_training_stays_apart_from_published_validation_that_is_itself_left_out():
    videos = [
        video("tested", 0, "1", split="test"),
        video("validated", 1, "1", "2", split="val"),
        video("trained", 0, "2", split="train"),
    ]
    kept, left_out = drop_shared(videos)
    assert [entry.video_id for entry in kept] == ["tested"]
    assert left_out == {
        "validated": "shares footage with test: source 1",
        "trained": "shares footage with val: source 2",
    }


def test_a_source_that_validation_and_testing_share_counts_as_that_of_testing():
    videos = [
        video("trained", 0, "1", split="train"),
        video("validated", 1, "1", split="val"),
        video("tested", 0, "1", split="test"),
    ]
    assert drop_shared(videos) == (
        [videos[2]],
        {
            "trained": "shares footage with test: source 1",
            "validated": "shares footage with test: source 1",
        },
    )


def test_strict_leaves_nothing_out_where_sources_are_shared_out_at_random():
    listing = Listing(pairs(40))
    assert assign_splits(listing, SplitOptions(split="strict")) == assign_splits(
        listing, SplitOptions()
    )


@pytest.fixture(scope="module")
def faceforensics(tmp_path_factory):
    """FaceForensics++ of full size with one manipulation, in empty files."""
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


def test_official_keeps_the_split_of_faceforensics_and_seven_sources_in_two_splits(
    faceforensics,
):
    parted, left_out = assign_splits(faceforensics, SplitOptions())
    assert (parted, left_out) == (faceforensics.videos, {})
    assert in_two_splits(parted) == {source for source, _ in SHARED_CLIPS.values()}


def test_strict_leaves_out_of_faceforensics_the_training_clips_of_shared_videos_alone(
    faceforensics,
):
    parted, left_out = assign_splits(faceforensics, SplitOptions(split="strict"))
    expected = {}
    for entry in faceforensics.videos:
        for clip in entry.path.rsplit("/", 1)[1].removesuffix(".mp4").split("_"):
            if clip in SHARED_CLIPS:
                source, place = SHARED_CLIPS[clip]
                expected[entry.video_id] = f"shares footage with {place}: source {source}"
    assert left_out == expected
    assert len(expected) == 7 + 14  # of each clip the real one and both swaps with its partner
    assert parted == [v for v in faceforensics.videos if v.video_id not in expected]
    counts = Counter((entry.label, entry.split) for entry in parted)
    assert counts == {
        (0, "train"): 713,
        (0, "val"): 140,
        (0, "test"): 140,
        (1, "train"): 706,
        (1, "val"): 140,
        (1, "test"): 140,
    }
    assert in_two_splits(parted) == set()


@pytest.fixture(scope="module")
def celebdf(tmp_path_factory):
    """Twelve people, two clips of each, swaps with the next two, some people of YouTube.

    The list has two fakes on the clip id0_0000, which it has not, and the clip id3_0001 with one
    of its two fakes.
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


@pytest.mark.parametrize("seed", range(8))
def test_strict_leaves_out_of_celebdf_the_real_clip_below_a_test_fake_and_all_fakes_on_it(
    celebdf, seed
):
    parted, left_out = assign_splits(
        celebdf, SplitOptions(split="strict", val_share=0.3, seed=seed)
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
    assert on_tested_clips <= set(left_out)
    assert left_out["celebdf/v2/Celeb-real/id0_0000"] == "shares footage with test: source id0_0000"
    others = set(left_out) - on_tested_clips
    assert {left_out[name] for name in others} == {"shows people of both training and validation"}
    assert in_two_splits(parted) == set()
    assert names_in(parted, "test") == names_in(celebdf.videos, "test")
    assert {entry.split for entry in parted} == set(SPLITS)
    assert {v.video_id for v in parted} | set(left_out) == {v.video_id for v in celebdf.videos}
    assert not {v.video_id for v in parted} & set(left_out)


def test_official_leaves_in_celebdf_what_test_fakes_are_made_of(celebdf):
    parted, left_out = assign_splits(celebdf, SplitOptions(val_share=0.3))
    assert "celebdf/v2/Celeb-real/id0_0000" in {entry.video_id for entry in parted}
    assert set(left_out.values()) == {"shows people of both training and validation"}
    assert in_two_splits(parted) == {"id0_0000", "id3_0001"}


# --- validation by people ---


@pytest.mark.parametrize("seed", range(10))
def test_nobody_is_seen_in_both_training_and_validation(seed):
    videos, people = swaps(20, partners=3)
    used, left_out = carve_validation(videos, people, 0.3, seed)
    seen = {
        name: {person for entry in videos_in(used, name) for person in people[entry.video_id]}
        for name in ("train", "val")
    }
    assert len(seen["val"]) == 6  # three tenths of twenty, each of whom has a video alone
    assert len(seen["train"]) == 14
    assert not seen["train"] & seen["val"]
    # And what is left out shows people of both, all of it.
    assert left_out == {
        name: "shows people of both training and validation"
        for name, of in people.items()
        if seen["train"] & {*of} and seen["val"] & {*of}
    }
    assert left_out
    assert [entry.video_id for entry in used] == [
        entry.video_id for entry in videos if entry.video_id not in left_out
    ]
    for name in ("train", "val"):
        assert {entry.label for entry in videos_in(used, name)} == {0, 1}


def test_validation_leaves_testing_untouched_and_looks_for_nobody_in_it():
    videos, people = swaps(10, partners=2)
    tested = [video(f"tested{n}", n % 2, f"t{n}", split="test") for n in range(30)]
    people |= {entry.video_id: ("id0", "id1", entry.video_id) for entry in tested}
    used, left_out = carve_validation(tested + videos, people, 0.4, seed=0)
    assert used[:30] == tested
    assert not {entry.video_id for entry in tested} & set(left_out)
    # The thirty people who are in testing alone are no people to draw from.
    drawn = {p for entry in videos_in(used, "val") for p in people[entry.video_id]}
    assert len(drawn) == 4
    assert carve_validation(videos, people, 0.4, seed=0) == (used[30:], left_out)


@pytest.mark.parametrize("seed", range(10))
def test_both_classes_are_on_both_sides_though_few_draws_have_them(seed):
    # Of ten people three are drawn, and both fakes show two: one draw in seven or eight will do.
    videos = [video(f"real{n}", 0, f"id{n}", split="train") for n in range(10)]
    videos += [video(f"fake{n}", 1, f"id{n}", f"id{n + 1}", split="train") for n in (0, 2)]
    people = {entry.video_id: entry.source_ids for entry in videos}
    used, left_out = carve_validation(videos, people, 0.3, seed)
    assert left_out == {}
    for name in ("train", "val"):
        assert [entry.label for entry in videos_in(used, name)].count(1) == 1
    assert 3 <= len(videos_in(used, "val")) - 1 <= 5


@pytest.mark.parametrize("seed", range(10))
def test_more_people_than_the_share_are_taken_where_fewer_give_no_fake(seed):
    # A tenth of eight is one, and all fakes show two.
    videos = [video(f"real{n}", 0, f"id{n}", split="train") for n in range(8)]
    videos += [video(f"fake{n}", 1, f"id{n}", f"id{n + 1}", split="train") for n in (0, 2, 4, 6)]
    people = {entry.video_id: entry.source_ids for entry in videos}
    used, _ = carve_validation(videos, people, 0.1, seed)
    seen = {person for entry in videos_in(used, "val") for person in entry.source_ids}
    assert 2 <= len(seen) <= 4
    for name in ("train", "val"):
        assert {entry.label for entry in videos_in(used, name)} == {0, 1}


@pytest.mark.parametrize("val_share", [0.5, 0.6, 0.8])
def test_a_share_of_half_the_people_and_more_is_taken(val_share):
    videos, people = swaps(15, partners=1)
    used, _ = carve_validation(videos, people, val_share, seed=0)
    seen = {person for entry in videos_in(used, "val") for person in people[entry.video_id]}
    assert len(seen) == round(val_share * 15)


def test_the_seed_alone_decides_who_is_in_validation():
    videos, people = swaps(20, partners=2)
    np.random.seed(1)
    first = carve_validation(videos, people, 0.3, seed=1)
    np.random.seed(2)
    assert carve_validation(videos, people, 0.3, seed=1) == first
    assert carve_validation(videos, people, 0.3, seed=2) != first
    backwards, left_out = carve_validation(videos[::-1], people, 0.3, seed=1)
    assert (backwards[::-1], left_out) == first


@pytest.mark.parametrize("num_people", [2, 3, 12])
def test_too_few_people_for_validation_are_refused(num_people):
    # All fakes show the first two people: wherever these are, the other side has no fake.
    videos = [video(f"real{n}", 0, f"id{n}", split="train") for n in range(num_people)]
    videos += [video(f"fake{n}", 1, "id0", "id1", split="train") for n in range(5)]
    people = {entry.video_id: entry.source_ids for entry in videos}
    with pytest.raises(
        ValueError, match=rf"{num_people + 5} training videos of {num_people} people"
    ):
        carve_validation(videos, people, 0.3, seed=0)


# --- folds ---


def with_groups(videos):
    """Give the videos' groups by walking from each to all that share a source with it."""
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
    """Pairs of fifty people, ten fakes that join two of them, and ten reals alone."""
    videos = pairs(50)
    videos += [video(f"swap{n}", 1, f"person{2 * n}", f"person{2 * n + 1}") for n in range(10)]
    return videos + [video(f"alone{n}", 0, f"other{n}") for n in range(10)]


@pytest.mark.parametrize("folds", [3, 5, 10])
def test_every_group_is_tested_in_one_fold_and_validates_the_one_before(folds):
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


def test_folds_are_of_one_size_in_groups_with_both_classes_and_with_one():
    videos = pairs(20) + [video(f"alone{n}", 0, f"other{n}") for n in range(10)]
    for fold in range(5):
        labels = Counter(
            entry.label for entry in videos_in(split_by_fold(videos, 5, fold, 0), "test")
        )
        assert labels == {0: 4 + 2, 1: 4}


def test_the_seed_decides_which_groups_make_a_fold():
    videos = folded_videos()
    assert split_by_fold(videos, 5, 0, seed=1) == split_by_fold(videos, 5, 0, seed=1)
    assert split_by_fold(videos, 5, 0, seed=1) != split_by_fold(videos, 5, 0, seed=2)


def test_kfold_passes_over_a_published_split():
    videos = folded_videos()
    published = [replace(entry, split=SPLITS[n % 3]) for n, entry in enumerate(videos)]
    options = SplitOptions(split="kfold", folds=4, fold=2, seed=1)
    parted, left_out = assign_splits(Listing(published), options)
    assert left_out == {}
    assert parted == split_by_fold(videos, 4, 2, seed=1)


def test_too_few_groups_for_the_folds_are_refused():
    with pytest.raises(ValueError, match="8 videos in 4 groups"):
        split_by_fold(pairs(4), 5, 4, seed=0)


# --- single faces, as the paper has it ---


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
def test_shares_of_faces_are_exact_but_for_rounding(count, val_share, test_share, expected):
    faces = faces_of(count, 1)
    splits = split_faces(faces, val_share=val_share, test_share=test_share, seed=0)
    assert len(splits) == count
    assert tuple(splits.count(name) for name in SPLITS) == expected


def test_faces_of_one_video_come_to_lie_in_every_split():
    faces = faces_of(20, 100)
    splits = split_faces(faces, val_share=0.15, test_share=0.15, seed=0)
    for number in range(20):
        # Of a hundred faces, 15 to val and to test on average, sigma 3.6.
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


def test_other_faces_do_not_turn_the_order_of_two_round():
    # Testing is drawn first, then validation: a face ahead of another stays ahead of it.
    places = {"test": 0, "val": 1, "train": 2}
    faces = faces_of(30, 10)
    options = {"val_share": 0.2, "test_share": 0.3, "seed": 4}
    among_all = dict(zip(faces, split_faces(faces, **options), strict=True))
    among_some = dict(zip(faces[::3], split_faces(faces[::3], **options), strict=True))
    for one in among_some:
        for other in among_some:
            if places[among_all[one]] < places[among_all[other]]:
                assert places[among_some[one]] <= places[among_some[other]]


def test_the_seed_alone_decides_over_faces():
    faces = faces_of(30, 10)
    np.random.seed(1)
    first = split_faces(faces, val_share=0.2, test_share=0.3, seed=4)
    np.random.seed(2)
    assert split_faces(faces, val_share=0.2, test_share=0.3, seed=4) == first
    other = split_faces(faces, val_share=0.2, test_share=0.3, seed=5)
    # Two draws at random agree on 0.5 * 0.5 + 0.2 * 0.2 + 0.3 * 0.3 of 300, sigma 8.4.
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

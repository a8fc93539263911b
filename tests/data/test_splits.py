import numpy as np
import pytest

from jdfd_keras.data.splits import shared_sources, split_by_source
from jdfd_keras.data.videos import Video


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
        places = {}
        for entry in parted:
            for source_id in entry.source_ids:
                places.setdefault(source_id, set()).add(entry.split)
        assert all(len(names) == 1 for names in places.values())
        assert shared_sources(parted) == {}
        assert [entry.video_id for entry in parted] == [entry.video_id for entry in videos]
        for name in ("train", "val", "test"):
            assert {entry.label for entry in videos_in(parted, name)} == {0, 1}
    assert done > 30


def test_videos_are_joined_through_others():
    chain = [video(f"fake{number}", 1, str(number), str(number + 1)) for number in range(10)]
    parted = split(chain + pairs(10))
    assert len({entry.split for entry in parted[:10]}) == 1


def test_shares_are_shares_of_the_groups():
    parted = split(pairs(100), val_share=0.2, test_share=0.3)
    counts = [len(videos_in(parted, name)) for name in ("train", "val", "test")]
    assert counts == [100, 40, 60]


def test_every_split_gets_its_part_of_real_and_fake_groups_that_share_nothing():
    videos = [video(f"real{n}", 0, f"r{n}") for n in range(40)]
    videos += [video(f"fake{n}", 1, f"f{n}") for n in range(20)]
    parted = split(videos, val_share=0.25, test_share=0.25)
    for name in ("val", "test"):
        labels = [entry.label for entry in videos_in(parted, name)]
        assert (labels.count(0), labels.count(1)) == (10, 5)


@pytest.mark.parametrize(
    ("val_share", "test_share"),
    [(0.15, 0.8), (0.8, 0.15), (0.49, 0.49), (0.01, 0.01), (0.98, 0.01)],
)
def test_each_split_gets_a_group_however_the_shares_round(val_share, test_share):
    for count in (3, 4, 5, 10):
        parted = split(pairs(count), val_share, test_share)
        assert {entry.split for entry in parted} == {"train", "val", "test"}


def test_the_seed_alone_decides():
    videos = pairs(30)
    assert split(videos, seed=3) == split(videos, seed=3)
    assert split(videos, seed=3) != split(videos, seed=4)


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


@pytest.mark.parametrize(
    ("val_share", "test_share"), [(0, 0.2), (0.2, 0), (0.5, 0.5), (-0.1, 0.2), (1.5, 0.2)]
)
def test_shares_that_leave_a_split_empty_are_refused(val_share, test_share):
    with pytest.raises(ValueError, match=f"val_share={val_share}, test_share={test_share}"):
        split(pairs(30), val_share, test_share)


def test_a_planted_leak_is_found():
    videos = [
        video("a", 0, "anna", split="train"),
        video("b", 1, "anna", "bob", split="test"),
        video("c", 0, "bob", split="test"),
        video("d", 0, "cleo", split="val"),
    ]
    assert shared_sources(videos) == {"anna": {"train", "test"}}

import numpy as np
import pyarrow as pa
import pytest

from jdfd_keras.datasets.hashing import NEAR
from jdfd_keras.datasets.leakage import (
    Leaks,
    NearPair,
    SharedSource,
    by_split,
    describe_leaks,
    find_leaks,
    refuse_leaks,
)


@pytest.fixture
def draw():
    """A function that gives hashes nobody else has."""
    rng = np.random.default_rng(0)
    return lambda: rng.bytes(32).hex()


def change(phash, bits):
    """Flip as many bits of a hash."""
    return f"{int(phash, 16) ^ int('1' * bits + '0' * 100, 2):064x}"


def side(*faces):
    """A table of faces: id of the video, its sources, hash."""
    ids, sources, hashes = zip(*faces, strict=True) if faces else ([], [], [])
    columns = {
        "video_id": pa.array(ids, pa.string()),
        "source_ids": pa.array(sources, pa.list_(pa.string())),
        "phash": pa.array(hashes, pa.string()),
    }
    return pa.table(columns)


def clean_side(draw, prefix, num_videos=20):
    """Videos of four faces and a source of their own each."""
    return [
        (f"mine/{prefix}{number}", [f"{prefix}{number}"], draw())
        for number in range(num_videos)
        for _ in range(4)
    ]


def test_a_clean_table_has_no_leak(draw):
    sides = {name: side(*clean_side(draw, name)) for name in ("train", "val", "test")}
    leaks = find_leaks(sides)
    assert leaks == Leaks([], [])
    assert not leaks


def test_a_source_on_two_sides_is_found_with_its_videos(draw):
    train, test = clean_side(draw, "a"), clean_side(draw, "b")
    train += [("mine/fake/z", ["anna", "z"], draw()), ("mine/fake/y", ["anna"], draw())]
    test += [("mine/real/anna", ["anna"], draw())] * 3
    leaks = find_leaks({"train": side(*train), "test": side(*test)})
    assert leaks.sources == [
        SharedSource(
            "mine/anna", {"train": ["mine/fake/y", "mine/fake/z"], "test": ["mine/real/anna"]}
        )
    ]
    assert leaks.near == []
    assert leaks


def test_sources_on_three_sides_stand_once_and_in_the_order_of_their_names(draw):
    sides = {
        "train": side(("mine/1", ["anna", "cleo"], draw()), ("mine/2", ["bob"], draw())),
        "val": side(("mine/3", ["cleo"], draw()), ("mine/4", ["dora"], draw())),
        "test": side(("mine/5", ["anna"], draw()), ("mine/6", ["cleo"], draw())),
    }
    assert [(entry.source, entry.places) for entry in find_leaks(sides).sources] == [
        ("mine/anna", {"train": ["mine/1"], "test": ["mine/5"]}),
        ("mine/cleo", {"train": ["mine/1"], "val": ["mine/3"], "test": ["mine/6"]}),
    ]


def test_a_source_that_stands_on_one_side_only_is_no_leak(draw):
    train = [("mine/real/anna", ["anna"], draw()), ("mine/fake/anna", ["anna"], draw())]
    assert not find_leaks({"train": side(*train), "test": side(*clean_side(draw, "b"))})


def test_the_same_source_id_of_two_families_is_no_leak(draw):
    train = side(("ffpp/original/c23/000", ["000"], draw()))
    assert not find_leaks({"train": train, "test": side(("dfdc/000", ["000"], draw()))})
    assert find_leaks({"train": train, "test": side(("ffpp/FaceSwap/c40/000_1", ["000"], draw()))})


def test_a_near_duplicate_is_found_with_its_faces_and_rows(draw):
    one, two = draw(), draw()
    train = clean_side(draw, "a", 5) + [
        ("mine/real/x", ["x"], one),
        ("mine/real/x", ["x"], two),
        ("mine/real/x", ["x"], draw()),
    ]
    test = [("mine/fake/y", ["y"], change(one, 9))] + clean_side(draw, "b", 5)
    test += [("mine/fake/y", ["y"], draw()), ("mine/fake/y", ["y"], change(two, 3))]
    leaks = find_leaks({"train": side(*train), "test": side(*test)})
    assert leaks.sources == []
    assert leaks.near == [
        NearPair(
            sides=("train", "test"),
            videos=("mine/real/x", "mine/fake/y"),
            num_faces=2,
            bits=3,
            rows=(21, 22),
        )
    ]
    row, other = leaks.near[0].rows
    assert (train[row][2], test[other][2]) == (two, change(two, 3))


@pytest.mark.parametrize(("bits", "is_near"), [(0, True), (NEAR, True), (NEAR + 1, False)])
def test_faces_that_differ_in_more_bits_than_near_ones_are_no_duplicates(draw, bits, is_near):
    phash = draw()
    sides = {
        "train": side(("mine/1", ["anna"], phash)),
        "test": side(("mine/2", ["bob"], change(phash, bits))),
    }
    assert bool(find_leaks(sides)) is is_near


def test_near_duplicates_of_every_two_sides_are_found_and_those_within_one_are_not(draw):
    phash = draw()
    sides = {
        "train": side(("mine/1", ["a"], phash), ("mine/2", ["b"], phash)),
        "val": side(("mine/3", ["c"], change(phash, 1))),
        "test": side(("mine/4", ["d"], change(phash, 2))),
    }
    assert {(pair.sides, pair.videos, pair.bits) for pair in find_leaks(sides).near} == {
        (("train", "val"), ("mine/1", "mine/3"), 1),
        (("train", "val"), ("mine/2", "mine/3"), 1),
        (("train", "test"), ("mine/1", "mine/4"), 2),
        (("train", "test"), ("mine/2", "mine/4"), 2),
        (("val", "test"), ("mine/3", "mine/4"), 1),  # one and two bits at the same place
    }


def test_pairs_with_many_faces_stand_first_and_then_those_most_alike(draw):
    many, few, alike = [draw() for _ in range(3)], draw(), draw()
    train = [("mine/few", ["1"], few), ("mine/alike", ["2"], alike)]
    train += [("mine/many", ["3"], phash) for phash in many]
    test = [("mine/x", ["4"], change(few, 5)), ("mine/y", ["5"], change(alike, 1))]
    test += [("mine/z", ["6"], change(phash, 8)) for phash in many]
    leaks = find_leaks({"train": side(*train), "test": side(*test)})
    assert [(pair.videos, pair.num_faces, pair.bits) for pair in leaks.near] == [
        (("mine/many", "mine/z"), 3, 8),
        (("mine/alike", "mine/y"), 1, 1),
        (("mine/few", "mine/x"), 1, 5),
    ]


def test_faces_of_a_shared_source_are_not_compared(draw):
    phash, other = draw(), draw()
    sides = {
        "train": side(("mine/1", ["anna"], phash), ("mine/2", ["bob"], other)),
        "test": side(("mine/3", ["anna", "cleo"], phash), ("mine/4", ["dora"], other)),
    }
    leaks = find_leaks(sides)
    assert [entry.source for entry in leaks.sources] == ["mine/anna"]
    assert [pair.videos for pair in leaks.near] == [("mine/2", "mine/4")]
    assert leaks.near[0].rows == (1, 1)


def test_empty_sides_have_nothing_to_share(draw):
    full = side(*clean_side(draw, "a"))
    assert not find_leaks({"train": full, "val": side(), "test": side()})
    assert not find_leaks({"train": side(), "test": side()})
    assert not find_leaks({"train": full})
    assert not find_leaks({})


def test_tables_in_pieces_and_with_values_kept_once_give_the_same(draw):
    phash = draw()
    train = [*clean_side(draw, "a", 3), ("mine/1", ["anna"], phash), ("mine/2", ["x"], phash)]
    test = [*clean_side(draw, "b", 3), ("mine/3", ["anna"], draw()), ("mine/4", ["y"], phash)]
    plain = {"train": side(*train), "test": side(*test)}
    pieces = {
        name: pa.concat_tables([side(*faces[:5]), side(), side(*faces[5:])])
        for name, faces in (("train", train), ("test", test))
    }
    kept_once = {
        name: table.set_column(0, "video_id", table["video_id"].dictionary_encode())
        for name, table in pieces.items()
    }
    assert len(find_leaks(plain).sources) == len(find_leaks(plain).near) == 1
    assert find_leaks(pieces) == find_leaks(plain)
    assert find_leaks(kept_once) == find_leaks(plain)


def test_a_wrong_hash_is_refused(draw):
    with pytest.raises(ValueError, match="got 'old'"):
        find_leaks({"train": side(("mine/1", ["anna"], "old")), "test": side()})


def test_a_table_is_parted_by_its_splits():
    splits = pa.array(["test", "train", "", "test"])
    for column in (splits, splits.dictionary_encode()):
        parts = by_split(pa.table({"split": column, "row": [0, 1, 2, 3]}))
        assert {name: part["row"].to_pylist() for name, part in parts.items()} == {
            "train": [1],
            "val": [],
            "test": [0, 3],
        }


def near(number):
    return NearPair(("train", "test"), (f"mine/{number}", f"mine/{number + 50}"), 1, 0, (0, 0))


def shared(number):
    return SharedSource(f"mine/s{number}", {"train": ["mine/1"], "test": ["mine/2"]})


def test_a_sentence_says_what_was_found_and_between_what():
    assert describe_leaks(Leaks([], []), checked="training and validation") == (
        "none between training and validation: no shared source, no near-duplicate face"
    )
    found = describe_leaks(Leaks([shared(1)], [near(1), near(2)]), checked="training and testing")
    assert found == (
        "1 source shared and 2 pairs of videos with near-duplicate faces between training and "
        "testing; allowed by --allow-leak"
    )
    assert "2 sources shared and 1 pair of videos" in describe_leaks(
        Leaks([shared(1), shared(2)], [near(1)]), checked="both"
    )


def test_nothing_is_refused_where_nothing_leaks():
    refuse_leaks(Leaks([], []), "the data set", "Split it again.")


@pytest.mark.parametrize(
    ("leaks", "counts", "named"),
    [
        (
            Leaks([shared(1)], []),
            "1 shared source and 0 pairs of videos",
            "source mine/s1 in train and test. Split it again.",
        ),
        (
            Leaks([], [near(1)]),
            "0 shared sources and 1 pair of videos",
            "mine/1 (train) looks like mine/51 (test). Split it again.",
        ),
        (
            Leaks([shared(1), shared(2)], [near(1), near(2)]),
            "2 shared sources and 2 pairs of videos",
            "source mine/s1 in train and test; source mine/s2 in train and test; "
            "mine/1 (train) looks like mine/51 (test) ... Split it again.",
        ),
        (
            Leaks([shared(1), shared(2), shared(3)], []),
            "3 shared sources and 0 pairs of videos",
            "source mine/s3 in train and test. Split it again.",
        ),
    ],
    ids=["a source", "a pair", "more than are named", "as many as are named"],
)
def test_a_leak_is_refused_with_the_first_examples(leaks, counts, named):
    with pytest.raises(ValueError, match="Expected the data set to share no footage; got") as error:
        refuse_leaks(leaks, "the data set", "Split it again.")
    assert counts in str(error.value)
    assert str(error.value).endswith(named)

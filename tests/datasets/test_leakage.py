import numpy as np
import pyarrow as pa
import pytest

from jdfd_keras.datasets.hashing import MAX_BITS
from jdfd_keras.datasets.leakage import (
    Leakage,
    NearDuplicate,
    SharedSource,
    by_split,
    describe_leakage,
    find_leakage,
    raise_on_leakage,
)


@pytest.fixture
def draw():
    """Return a function that draws unique hashes."""
    rng = np.random.default_rng(0)
    return lambda: rng.bytes(32).hex()


def change(phash, bits):
    """Flip some bits of a hash."""
    return f"{int(phash, 16) ^ int('1' * bits + '0' * 100, 2):064x}"


def subset(*faces):
    """Return a table of faces from video ids, source ids and hashes."""
    ids, sources, hashes = zip(*faces, strict=True) if faces else ([], [], [])
    columns = {
        "video_id": pa.array(ids, pa.string()),
        "source_ids": pa.array(sources, pa.list_(pa.string())),
        "phash": pa.array(hashes, pa.string()),
    }
    return pa.table(columns)


def disjoint_subset(draw, prefix, num_videos=20):
    """Return videos of four faces, each with its own source."""
    return [
        (f"mine/{prefix}{number}", [f"{prefix}{number}"], draw())
        for number in range(num_videos)
        for _ in range(4)
    ]


def test_disjoint_subsets_have_no_leakage(draw):
    subsets = {name: subset(*disjoint_subset(draw, name)) for name in ("train", "val", "test")}
    leakage = find_leakage(subsets)
    assert leakage == Leakage([], [], num_videos=60, unknown_sources=0)
    assert not leakage


def test_a_source_in_two_subsets_is_found_with_its_videos(draw):
    train, test = disjoint_subset(draw, "a"), disjoint_subset(draw, "b")
    train += [("mine/fake/z", ["anna", "z"], draw()), ("mine/fake/y", ["anna"], draw())]
    test += [("mine/real/anna", ["anna"], draw())] * 3
    leakage = find_leakage({"train": subset(*train), "test": subset(*test)})
    assert leakage.shared_sources == [
        SharedSource(
            "mine/anna", {"train": ["mine/fake/y", "mine/fake/z"], "test": ["mine/real/anna"]}
        )
    ]
    assert leakage.near_duplicates == []
    assert leakage


def test_sources_in_three_subsets_are_listed_once_and_sorted(draw):
    subsets = {
        "train": subset(("mine/1", ["anna", "cleo"], draw()), ("mine/2", ["bob"], draw())),
        "val": subset(("mine/3", ["cleo"], draw()), ("mine/4", ["dora"], draw())),
        "test": subset(("mine/5", ["anna"], draw()), ("mine/6", ["cleo"], draw())),
    }
    assert [(entry.source, entry.videos) for entry in find_leakage(subsets).shared_sources] == [
        ("mine/anna", {"train": ["mine/1"], "test": ["mine/5"]}),
        ("mine/cleo", {"train": ["mine/1"], "val": ["mine/3"], "test": ["mine/6"]}),
    ]


def test_a_source_in_one_subset_is_not_leakage(draw):
    train = [("mine/real/anna", ["anna"], draw()), ("mine/fake/anna", ["anna"], draw())]
    assert not find_leakage({"train": subset(*train), "test": subset(*disjoint_subset(draw, "b"))})


def test_equal_source_ids_of_two_namespaces_are_not_leakage(draw):
    train = subset(("ffpp/original/c23/000", ["000"], draw()))
    assert not find_leakage({"train": train, "test": subset(("dfdc/000", ["000"], draw()))})
    assert find_leakage(
        {"train": train, "test": subset(("ffpp/FaceSwap/c40/000_1", ["000"], draw()))}
    )


def test_a_near_duplicate_is_found_with_its_faces_and_rows(draw):
    one, two = draw(), draw()
    train = disjoint_subset(draw, "a", 5) + [
        ("mine/real/x", ["x"], one),
        ("mine/real/x", ["x"], two),
        ("mine/real/x", ["x"], draw()),
    ]
    test = [("mine/fake/y", ["y"], change(one, 9))] + disjoint_subset(draw, "b", 5)
    test += [("mine/fake/y", ["y"], draw()), ("mine/fake/y", ["y"], change(two, 3))]
    leakage = find_leakage({"train": subset(*train), "test": subset(*test)})
    assert leakage.shared_sources == []
    assert leakage.near_duplicates == [
        NearDuplicate(
            subsets=("train", "test"),
            videos=("mine/real/x", "mine/fake/y"),
            num_faces=2,
            bits=3,
            rows=(21, 22),
        )
    ]
    row, other = leakage.near_duplicates[0].rows
    assert (train[row][2], test[other][2]) == (two, change(two, 3))


@pytest.mark.parametrize(
    ("bits", "is_duplicate"), [(0, True), (MAX_BITS, True), (MAX_BITS + 1, False)]
)
def test_faces_that_differ_in_more_than_max_bits_are_not_duplicates(draw, bits, is_duplicate):
    phash = draw()
    subsets = {
        "train": subset(("mine/1", ["anna"], phash)),
        "test": subset(("mine/2", ["bob"], change(phash, bits))),
    }
    assert bool(find_leakage(subsets)) is is_duplicate


def test_near_duplicates_are_found_between_subsets_and_not_within_one(draw):
    phash = draw()
    subsets = {
        "train": subset(("mine/1", ["a"], phash), ("mine/2", ["b"], phash)),
        "val": subset(("mine/3", ["c"], change(phash, 1))),
        "test": subset(("mine/4", ["d"], change(phash, 2))),
    }
    assert {
        (pair.subsets, pair.videos, pair.bits) for pair in find_leakage(subsets).near_duplicates
    } == {
        (("train", "val"), ("mine/1", "mine/3"), 1),
        (("train", "val"), ("mine/2", "mine/3"), 1),
        (("train", "test"), ("mine/1", "mine/4"), 2),
        (("train", "test"), ("mine/2", "mine/4"), 2),
        (("val", "test"), ("mine/3", "mine/4"), 1),  # one and two bits at the same position
    }


def test_pairs_are_sorted_by_number_of_faces_and_then_by_similarity(draw):
    many, few, alike = [draw() for _ in range(3)], draw(), draw()
    train = [("mine/few", ["1"], few), ("mine/alike", ["2"], alike)]
    train += [("mine/many", ["3"], phash) for phash in many]
    test = [("mine/x", ["4"], change(few, 5)), ("mine/y", ["5"], change(alike, 1))]
    test += [("mine/z", ["6"], change(phash, 8)) for phash in many]
    leakage = find_leakage({"train": subset(*train), "test": subset(*test)})
    assert [(pair.videos, pair.num_faces, pair.bits) for pair in leakage.near_duplicates] == [
        (("mine/many", "mine/z"), 3, 8),
        (("mine/alike", "mine/y"), 1, 1),
        (("mine/few", "mine/x"), 1, 5),
    ]


def test_faces_of_a_shared_source_are_not_compared(draw):
    phash, other = draw(), draw()
    subsets = {
        "train": subset(("mine/1", ["anna"], phash), ("mine/2", ["bob"], other)),
        "test": subset(("mine/3", ["anna", "cleo"], phash), ("mine/4", ["dora"], other)),
    }
    leakage = find_leakage(subsets)
    assert [entry.source for entry in leakage.shared_sources] == ["mine/anna"]
    assert [pair.videos for pair in leakage.near_duplicates] == [("mine/2", "mine/4")]
    assert leakage.near_duplicates[0].rows == (1, 1)


def test_empty_subsets_share_nothing(draw):
    full = subset(*disjoint_subset(draw, "a"))
    assert not find_leakage({"train": full, "val": subset(), "test": subset()})
    assert not find_leakage({"train": subset(), "test": subset()})
    assert not find_leakage({"train": full})
    assert not find_leakage({})


def test_chunked_and_dictionary_encoded_tables_give_the_same_result(draw):
    phash = draw()
    train = [*disjoint_subset(draw, "a", 3), ("mine/1", ["anna"], phash), ("mine/2", ["x"], phash)]
    test = [*disjoint_subset(draw, "b", 3), ("mine/3", ["anna"], draw()), ("mine/4", ["y"], phash)]
    plain = {"train": subset(*train), "test": subset(*test)}
    chunked = {
        name: pa.concat_tables([subset(*faces[:5]), subset(), subset(*faces[5:])])
        for name, faces in (("train", train), ("test", test))
    }
    encoded = {
        name: table.set_column(0, "video_id", table["video_id"].dictionary_encode())
        for name, table in chunked.items()
    }
    assert len(find_leakage(plain).shared_sources) == len(find_leakage(plain).near_duplicates) == 1
    assert find_leakage(chunked) == find_leakage(plain)
    assert find_leakage(encoded) == find_leakage(plain)


def test_an_invalid_hash_raises_an_error(draw):
    with pytest.raises(ValueError, match="got 'old'"):
        find_leakage({"train": subset(("mine/1", ["anna"], "old")), "test": subset()})


def test_a_table_is_split_by_its_column():
    splits = pa.array(["test", "train", "", "test"])
    for column in (splits, splits.dictionary_encode()):
        tables = by_split(pa.table({"split": column, "row": [0, 1, 2, 3]}))
        assert {name: table["row"].to_pylist() for name, table in tables.items()} == {
            "train": [1],
            "val": [],
            "test": [0, 3],
        }


def test_videos_of_unknown_source_share_none_and_are_counted(draw):
    subsets = {
        "train": subset(("mine/1", [], draw()), ("mine/1", [], draw()), ("mine/2", ["x"], draw())),
        "test": subset(("mine/3", [], draw()), ("mine/4", ["y"], draw())),
    }
    leakage = find_leakage(subsets)
    assert leakage == Leakage([], [], num_videos=4, unknown_sources=2)
    assert leakage.unknown == "the sources of 2 of 4 videos are unknown"
    alone = find_leakage({"train": subsets["train"], "test": subset()})
    assert alone.unknown == "the sources of 1 of 2 videos are unknown"


def test_a_video_of_unknown_source_in_two_subsets_is_found_once(draw):
    faces = [("mine/1", [], draw()), ("mine/1", [], draw())]
    # A source that has the name of the video is another one.
    other = ("mine/2", ["1"], draw())
    leakage = find_leakage({"train": subset(*faces), "test": subset(*faces, other)})
    assert leakage.shared_sources == [
        SharedSource("video mine/1", {"train": ["mine/1"], "test": ["mine/1"]})
    ]
    assert leakage.near_duplicates == []


def test_near_duplicates_of_unknown_sources_are_compared_as_others_are(draw):
    phash = draw()
    subsets = {
        "train": subset(("mine/1", [], phash)),
        "test": subset(("mine/2", [], change(phash, 2)), ("mine/3", [], draw())),
    }
    (pair,) = find_leakage(subsets).near_duplicates
    assert (pair.videos, pair.bits) == (("mine/1", "mine/2"), 2)


def near(number):
    return NearDuplicate(("train", "test"), (f"mine/{number}", f"mine/{number + 50}"), 1, 0, (0, 0))


def shared(number):
    return SharedSource(f"mine/s{number}", {"train": ["mine/1"], "test": ["mine/2"]})


def test_the_description_has_the_counts_and_the_subsets(snapshot):
    cases = ([], []), ([shared(1)], [near(1), near(2)]), ([shared(1), shared(2)], [near(1)])
    cases += ([], [], 9, 3), ([shared(1)], [], 9, 3)
    assert [describe_leakage(Leakage(*case), checked="a and b") for case in cases] == snapshot


def test_no_leakage_raises_no_error():
    raise_on_leakage(Leakage([], []), "the dataset", "Split it again.")


@pytest.mark.parametrize(
    ("leakage", "counts", "named"),
    [
        (
            Leakage([shared(1)], []),
            "1 shared source and 0 pairs of videos",
            "source mine/s1 in train and test. Split it again.",
        ),
        (
            Leakage([], [near(1)]),
            "0 shared sources and 1 pair of videos",
            "mine/1 (train) looks like mine/51 (test). Split it again.",
        ),
        (
            Leakage([shared(1), shared(2)], [near(1), near(2)]),
            "2 shared sources and 2 pairs of videos",
            "source mine/s1 in train and test; source mine/s2 in train and test; "
            "mine/1 (train) looks like mine/51 (test) ... Split it again.",
        ),
        (
            Leakage([shared(1), shared(2), shared(3)], []),
            "3 shared sources and 0 pairs of videos",
            "source mine/s3 in train and test. Split it again.",
        ),
    ],
    ids=["a source", "a pair", "more than are named", "as many as are named"],
)
def test_leakage_raises_an_error_with_the_first_examples(leakage, counts, named):
    with pytest.raises(ValueError, match="the dataset .*footage; got") as error:
        raise_on_leakage(leakage, "the dataset", "Split it again.")
    assert counts in str(error.value)
    assert str(error.value).endswith(named)

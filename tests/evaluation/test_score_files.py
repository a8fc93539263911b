"""The table of scores on disk: what comes back, what others write, and what is refused."""

import csv

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jdfd_keras.evaluation.score_files import read_scores, write_scores
from jdfd_keras.evaluation.scores import GROUPS, Scores

TINY = 5e-324  # the smallest number above 0


@pytest.fixture
def write(tmp_path):
    """A function that writes a text as a CSV file and gives its path."""

    def write(text: str | bytes, name: str = "scores.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def make_scores(**changed) -> Scores:
    rng = np.random.default_rng(0)
    score = rng.random(40)
    score[:4] = [0, 1, TINY, np.nextafter(1, 0)]
    names = [f'odd, "name" | {row % 4}\té' for row in range(40)]
    columns = {
        "video_id": names,
        "frame_index": rng.permutation(40),
        "track_id": rng.integers(0, 3, 40),
        "label": [row % 2 for row in range(40)],
        "manipulation": ["", "Deepfakes"] * 20,
        "compression": ["c23"] * 40,
        "score": score,
        "reconstruction_error": rng.random(40),
    }
    return Scores.from_faces(**{**columns, **changed})


def assert_equal(one: Scores, other: Scores) -> None:
    for name in ("video", "frame_index", "track_id", "score", "reconstruction_error"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    for name in ("video_id", "label", *GROUPS):
        assert np.array_equal(getattr(one.videos, name), getattr(other.videos, name)), name


@pytest.mark.parametrize("name", ["scores.csv", "scores.parquet"])
def test_scores_come_back_to_the_last_bit(tmp_path, name):
    scores = make_scores()
    write_scores(tmp_path / name, scores)
    assert_equal(read_scores(tmp_path / name), scores)


@pytest.mark.parametrize("name", ["scores.csv", "scores.parquet"])
def test_what_was_not_known_is_not_known_after_reading(tmp_path, name):
    scores = make_scores(reconstruction_error=None)
    write_scores(tmp_path / name, scores)
    assert read_scores(tmp_path / name).reconstruction_error is None


def test_pythons_own_reader_finds_the_published_columns(tmp_path):
    scores = make_scores(reconstruction_error=None)
    write_scores(tmp_path / "scores.csv", scores)
    with open(tmp_path / "scores.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["video_id", *GROUPS, "frame_index", "track_id", "label", "score"]
    assert [float(row["score"]) for row in rows] == scores.score.tolist()
    assert [row["video_id"] for row in rows] == scores.video_id.tolist()
    assert [row["label"] for row in rows] == ["0", "1"] * 20


def test_three_columns_are_enough(write):
    scores = read_scores(write("video_id,label,score\na,0,0.5\nb,1,1\na,0,2.5e-1\n"))
    assert scores.video_id.tolist() == ["a", "b", "a"]
    assert scores.label.tolist() == [False, True, False]
    assert scores.score.tolist() == [0.5, 1.0, 0.25]
    assert scores.frame_index.tolist() == [0, 0, 1]
    assert {name: set(getattr(scores.videos, name)) for name in GROUPS} == {
        name: {""} for name in GROUPS
    }


@pytest.mark.parametrize(
    "text",
    [
        "score,note,label,video_id\n0.25,x,0,vidéo\n0.75,,1,b\n",  # other order, one more column
        "video_id,label,score\r\nvidéo,0,0.25\r\nb,1,0.75\r\n",
        "\ufeffvideo_id,label,score\nvidéo,0,0.25\nb,1,0.75\n",
        "video_id,label,score\nvidéo,0,0.25\nb,1,0.75",  # no line feed at the end
        'video_id,label,score\n"vidéo",0,0.25\n"b",1,0.75\n',
        "video_id,label,score,score_b\nvidéo,0,0.25,nan\nb,1,0.75,high\n",
    ],
)
def test_other_tools_write_it_their_way(write, text):
    scores = read_scores(write(text))
    assert scores.video_id.tolist() == ["vidéo", "b"]
    assert scores.label.tolist() == [False, True]
    assert scores.score.tolist() == [0.25, 0.75]


def test_quoted_commas_quotes_and_words_for_nothing_are_names(write):
    scores = read_scores(
        write(
            'video_id,label,score,manipulation\n"a,""b""",0,0.5,\nNA,1,0.5,null\nnan,1,0.5,"x, y"\n'
        )
    )
    assert scores.video_id.tolist() == ['a,"b"', "NA", "nan"]
    assert scores.videos.manipulation.tolist() == ["", "null", "x, y"]


def test_numbers_as_names_stay_as_they_are_written(write):
    scores = read_scores(write("video_id,label,score,data\n000,0,0.5,01\n0,1,0.5,1\n"))
    assert scores.video_id.tolist() == ["000", "0"]
    assert scores.videos.data.tolist() == ["01", "1"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("video_id,label\na,0\n", "score is not among video_id, label. Give the file a header"),
        ("a,0,0.5\nb,1,0.5\n", "video_id, label, score is not among a, 0, 0.5. Give the file"),
        ("video_id;label;score\na;0;0.5\n", "is not among video_id;label;score"),
        ("video_id,label,score\na,0,\n", "number for the score .* none in row 1 of them. A face"),
        ("video_id,label,score\na,0,0.5\nb,,0.5\n", "number for the label .* none in row 2"),
        ("video_id,label,score\n,0,0.5\n", "video_id .* got an empty one for row 1"),
        ("video_id,label,score\na,0,0.5\nb,1,high\n", r"Row #3.*'high'.*Was the file cut short\?"),
        ("video_id,label,score\na,fake,0.5\n", "Row #2.*'fake'.*label of 0 or 1|'fake'"),
        ("video_id,label,score\na,0.5,0.5\n", r"label of 0 or 1 .*'0\.5'"),
        ("video_id,label,score\na,2,0.5\n", "0 .real. or 1 .fake.; got 2 for frame 0 of 'a'"),
        ("video_id,label,score\na,0,nan\n", "number for the score .* none in row 1 of them"),
        ("video_id,label,score\na,0,1.5\n", "number in 0..1; got 1.5 for frame 0 of 'a'"),
        ("video_id,label,score\na,0,0.5\nb,1\n", r"Row #3: Expected 3 columns, got 2"),
        ("video_id,label,score,score\na,0,0.5,0.5\n", "each column once .*; got score twice"),
        ("video_id,label,score\n", "one face at least"),
        ("", "got 'Empty CSV file'"),
        (b"\xff\xfe\x00\x01\x9c\n\x9c\x00", "scores.csv"),
        (b"video_id,label,score\n\xe9,0,0.5\n", "UTF-?8"),
    ],
)
def test_a_wrong_csv_is_refused_with_its_name_and_what_is_wrong(write, text, said):
    path = write(text)
    with pytest.raises(ValueError, match=f"(?s){said}") as error:
        read_scores(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_not_there_is_an_error_of_files(tmp_path):
    for path in (tmp_path / "scores.csv", tmp_path / "scores.parquet"):
        with pytest.raises(OSError, match="where there is no file. Check the path"):
            read_scores(path)


@pytest.mark.parametrize("name", ["scores.txt", "scores", "scores.csv.gz"])
def test_a_table_of_another_kind_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"\.parquet or \.csv; got .*Name it by its kind"):
        read_scores(tmp_path / name)
    with pytest.raises(ValueError, match=r"\.parquet or \.csv; got .*Name it by its kind"):
        write_scores(tmp_path / name, make_scores())


def test_a_parquet_column_given_twice_is_refused(tmp_path):
    path = tmp_path / "scores.parquet"
    columns = [["a", "b"], [0, 1], [0.5, 0.5], [0.25, 0.75]]
    table = pa.table(list(map(pa.array, columns)), names=["video_id", "label", "score", "score"])
    pq.write_table(table, path)
    with pytest.raises(
        ValueError, match=f"table of scores at {path}; got .*Multiple matches.*score"
    ):
        read_scores(path)


@pytest.mark.parametrize("kept", [0, 4, 100, -8])
def test_a_parquet_file_cut_short_is_refused_by_name(tmp_path, kept):
    path = tmp_path / "scores.parquet"
    write_scores(path, make_scores())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=f"(?s)table of scores at {path}; got '.*damaged"):
        read_scores(path)


@pytest.mark.parametrize(
    "table",
    [
        {"video_id": ["a", "b"], "label": [False, True], "score": [0.25, 0.75]},
        {"video_id": ["a", "b"], "label": [0.0, 1.0], "score": [0.25, 0.75]},
        {
            "video_id": pa.array(["a", "b"]).dictionary_encode(),
            "label": pa.array([0, 1], pa.uint8()),
            "score": pa.array([0.25, 0.75], pa.float32()),
            "manipulation": pa.array([None, None], pa.string()),
            "embedding": [[0.5], [0.5, 1.0]],
        },
        {
            "video_id": pa.array(["a", "b"], pa.large_string()),
            "label": [0, 1],
            "score": [0.25, 0.75],
        },
    ],
)
def test_parquet_of_other_tools_is_read_whatever_its_types(tmp_path, table):
    path = tmp_path / "scores.parquet"
    pq.write_table(pa.table(table), path)
    scores = read_scores(path)
    assert scores.video_id.tolist() == ["a", "b"]
    assert scores.label.tolist() == [False, True]
    assert scores.score.tolist() == [0.25, 0.75]
    assert scores.videos.manipulation.tolist() == ["", ""]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"label": [0.5, 1.0]}, "got '.*truncated.*of another kind"),
        ({"score": ["high", "low"]}, "got '.*parse string.*of another kind"),
        ({"score": [0.5, None]}, "number for the score .* none in row 2 of them"),
        ({"video_id": ["a", None]}, "video_id .*; got an empty one for row 2"),
        ({"label": [0, 7]}, "got 7 for frame 0 of 'b'"),
    ],
)
def test_a_wrong_parquet_table_is_refused_with_its_name(tmp_path, changed, said):
    path = tmp_path / "scores.parquet"
    columns = {"video_id": ["a", "b"], "label": [0, 1], "score": [0.25, 0.75]}
    pq.write_table(pa.table({**columns, **changed}), path)
    with pytest.raises(ValueError, match=said) as error:
        read_scores(path)
    assert str(path) in str(error.value)


def test_a_folder_named_like_a_column_adds_no_column(tmp_path):
    folder = tmp_path / "split=test"
    folder.mkdir()
    write_scores(folder / "scores.parquet", make_scores())
    assert set(read_scores(folder / "scores.parquet").videos.split) == {""}

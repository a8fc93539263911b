"""Tables of scores on disk: round trips, tables of other tools, and errors."""

import csv

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from jdfd_keras.evaluation.scores import GROUPS, Scores
from jdfd_keras.evaluation.scores_file import read_scores, write_scores

TINY = 5e-324  # the smallest number above 0


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a text as a CSV file and returns its path."""

    def write(text: str | bytes, name: str = "scores.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def make_scores(**changed) -> Scores:
    rng = np.random.default_rng(0)
    score = rng.random(40)
    score[:4] = [0, 1, TINY, np.nextafter(1, 0)]
    names = [f'odd, "name" | {row % 4} é' for row in range(40)]
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
def test_scores_survive_a_round_trip_exactly(tmp_path, name):
    scores = make_scores()
    write_scores(tmp_path / name, scores)
    assert_equal(read_scores(tmp_path / name), scores)


@pytest.mark.parametrize("name", ["scores.csv", "scores.parquet"])
def test_unknown_values_stay_unknown_after_a_round_trip(tmp_path, name):
    scores = make_scores(reconstruction_error=None)
    write_scores(tmp_path / name, scores)
    assert read_scores(tmp_path / name).reconstruction_error is None


def test_the_csv_module_reads_the_documented_columns(tmp_path):
    scores = make_scores(reconstruction_error=None)
    write_scores(tmp_path / "scores.csv", scores)
    with open(tmp_path / "scores.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["video_id", *GROUPS, "frame_index", "track_id", "label", "score"]
    assert [float(row["score"]) for row in rows] == scores.score.tolist()
    assert [row["video_id"] for row in rows] == scores.video_id.tolist()
    assert [row["label"] for row in rows] == ["0", "1"] * 20


def test_three_columns_suffice(write):
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
def test_csv_of_other_tools_is_read(write, text):
    scores = read_scores(write(text))
    assert scores.video_id.tolist() == ["vidéo", "b"]
    assert scores.label.tolist() == [False, True]
    assert scores.score.tolist() == [0.25, 0.75]


def test_quoted_commas_quotes_and_null_words_are_read(write):
    scores = read_scores(
        write(
            'video_id,label,score,manipulation\n"a,""b""",0,0.5,\nNA,1,0.5,null\nnan,1,0.5,"x, y"\n'
        )
    )
    assert scores.video_id.tolist() == ['a,"b"', "NA", "nan"]
    assert scores.videos.manipulation.tolist() == ["", "null", "x, y"]


def test_numeric_names_stay_strings(write):
    scores = read_scores(write("video_id,label,score,data\n000,0,0.5,01\n0,1,0.5,1\n"))
    assert scores.video_id.tolist() == ["000", "0"]
    assert scores.videos.data.tolist() == ["01", "1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video_id,label\na,0\n", "score is not among video_id, label. Add a header"),
        ("a,0,0.5\nb,1,0.5\n", "video_id, label, score is not among a, 0, 0.5. Add a"),
        (
            "video_id;label;score\na;0;0.5\n",
            "is not among video_id;label;score. Separate .* commas",
        ),
        ("video_id\tlabel\tscore\na\t0\t0.5\n", "Separate the columns by commas, not by .* tabs"),
        ("video_id;label;score\na;0;0,5\n", "Write numbers with a decimal point"),
        ("video_id,label,Score\na,0,0.5\n", "score is not among .* Write score for 'Score'"),
        (" Video_ID,LABEL,score\na,0,0.5\n", "Write video_id for ' Video_ID', label for 'LABEL'"),
        (
            "video_id,label,score\na,0,\n",
            "number for the score .* got none in data row 1. Remove faces",
        ),
        (
            "video_id,label,score\na,0,0.5\nb,,0.5\n",
            "or 1 .fake. for the label .* none in data row 2",
        ),
        ("video_id,label,score\n,0,0.5\n", "video_id .* got an empty one for row 1"),
        (
            "video_id,label,score\na,0,0.5\nb,1,high\n",
            "a number for the score .*'high' in data row 2",
        ),
        ('video_id,label,score\na,0,"0,5"\n', "the score .*'0,5' in data row 1. Write .* 0.5"),
        ("video_id,label,score\na,0,0,5\n", "got 4: a,0,0,5'. Write numbers with a decimal point"),
        (
            "video_id,label,score,frame_index\na,0,1,0.5\n",
            "an integer for the frame_index .*0.5",
        ),
        ("video_id,label,score,frame_index\na,0,1,1e30\n", "an integer for .*1e30"),
        ("video_id,label,score\na,0,1\nb,maybe,0.5\n", "the label .* got 'maybe' in data row 2"),
        (
            "video_id,label,score\na,0.5,0.5\n",
            r"0 \(real\) or 1 \(fake\) .* got '0\.5' in data row 1",
        ),
        ("video_id,label,score\na,2,0.5\n", "got '2' in data row 1. Remove unlabelled faces"),
        ("video_id,label,score\na,-1,0.5\n", "got '-1' in data row 1. Remove unlabelled faces"),
        ("video_id,label,score\na,0,nan\n", "number for the score .* none in data row 1"),
        ("video_id,label,score\na,0,1.5\n", "number in 0..1; got 1.5 for frame 0 of 'a'"),
        ("video_id,label,score\na,0,0.5\nb,1\n", r"columns, got 2: b,1'. Was the file cut short\?"),
        ("video_id,label,score,score\na,0,0.5,high\n", "each column once .*; got score twice"),
        ("video_id,label,score\n", "at least one face; got none. Score"),
        ("", "got 'Empty CSV file'"),
        (b"\xff\xfe\x00\x01\x9c\n\x9c\x00", "scores.csv"),
        (b"video_id,label,score\n\xe9,0,0.5\n", "Save it as UTF-8"),
    ],
)
def test_a_wrong_csv_raises_with_its_path_and_the_reason(write, text, message):
    path = write(text)
    with pytest.raises(ValueError, match=f"(?s){message}") as error:
        read_scores(path)
    assert str(path) in str(error.value)


def test_a_missing_file_raises_an_os_error(tmp_path):
    for path in (tmp_path / "scores.csv", tmp_path / "scores.parquet"):
        with pytest.raises(OSError, match=f"{path}, which"):
            read_scores(path)


@pytest.mark.parametrize("name", ["SCORES.CSV", "scores.Parquet"])
def test_the_suffix_may_be_in_any_case(tmp_path, name):
    scores = make_scores()
    write_scores(tmp_path / name, scores)
    assert_equal(read_scores(tmp_path / name), scores)


@pytest.mark.parametrize(
    ("real", "fake"),
    [("False", "True"), ("false", "TRUE"), ("0.0", "1.0"), (" real", "Fake "), ("0", " 1")],
)
def test_labels_may_be_words(write, real, fake):
    scores = read_scores(write(f"video_id,label,score\na,{real},0.5\nb,{fake},0.5\nc,{real},0\n"))
    assert scores.label.tolist() == [False, True, False]


REPEATED = "a,0,0.5,{}\na,0,0.25,{}\nb,1,0.5,{}\na,0,0.25,{}\n"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_duplicate_row_raises_if_another_column_identifies_faces(write, kind):
    path = write("video_id,label,score,path\n" + REPEATED.format("a/0", "a/1", "b/0", "a/1"))
    if kind == "parquet":
        table = pa.csv.read_csv(path)
        path = path.with_suffix(".parquet")
        pq.write_table(table.set_column(3, "path", table["path"].dictionary_encode()), path)
    with pytest.raises(ValueError, match="once .* row 4 repeats .*twice") as e:
        read_scores(path)
    assert str(path) in str(e.value)


@pytest.mark.parametrize("others", [("a/0", "a/1", "b/0", "a/2"), ("x",) * 4])
def test_two_faces_with_the_same_score_are_not_duplicates(write, others):
    path = write("video_id,label,score,path\n" + REPEATED.format(*others))
    # A column that is the same for faces of other scores says nothing of the face.
    assert len(read_scores(path)) == 4
    path = write("video_id,label,score,path\na,0,0.5,x\na,0,0.5,x\nb,1,1,x\nb,1,1,x\n")
    assert len(read_scores(path)) == 4


def test_known_columns_alone_show_no_duplicates(write):
    rows = "a,0,0.5,c23\na,0,0.5,c23\n"
    assert len(read_scores(write("video_id,label,score,compression\n" + rows))) == 2
    rows = "a,0,0.5,0,x\na,0,0.5,1,x\n"  # a frame_index says more
    assert len(read_scores(write("video_id,label,score,frame_index,path\n" + rows))) == 2


@pytest.mark.parametrize("name", ["scores.txt", "scores", "scores.gz"])
def test_another_file_format_raises(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=rf"\.parquet or \.csv; got .*{name}"):
        read_scores(tmp_path / name)
    with pytest.raises(ValueError, match=rf"\.parquet or \.csv; got .*{name}"):
        write_scores(tmp_path / name, make_scores())


def test_a_duplicate_parquet_column_raises(tmp_path):
    path = tmp_path / "scores.parquet"
    columns = [["a", "b"], [0, 1], [0.5, 0.5], [0.25, 0.75]]
    table = pa.table(list(map(pa.array, columns)), names=["video_id", "label", "score", "score"])
    pq.write_table(table, path)
    with pytest.raises(ValueError, match=f"column once in {path}; got score"):
        read_scores(path)


@pytest.mark.parametrize("kept", [0, 4, 100, -8])
def test_a_truncated_parquet_file_raises_with_its_path(tmp_path, kept):
    path = tmp_path / "scores.parquet"
    write_scores(path, make_scores())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=f"(?s)scores at {path}; got '.*damaged"):
        read_scores(path)


@pytest.mark.parametrize(
    "table",
    [
        {"video_id": ["a", "b"], "label": [False, True], "score": [0.25, 0.75]},
        {"video_id": ["a", "b"], "label": [0.0, 1.0], "score": [0.25, 0.75]},
        {"video_id": ["a", "b"], "label": ["real", "FAKE"], "score": ["0.25", "0.75"]},
        {
            "video_id": pa.array(["a", "b"], pa.large_string()),
            "label": pa.array(["False", "True"]).dictionary_encode(),
            "score": [0.25, 0.75],
        },
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
def test_parquet_of_other_tools_is_read_with_any_types(tmp_path, table):
    path = tmp_path / "scores.parquet"
    pq.write_table(pa.table(table), path)
    scores = read_scores(path)
    assert scores.video_id.tolist() == ["a", "b"]
    assert scores.label.tolist() == [False, True]
    assert scores.score.tolist() == [0.25, 0.75]
    assert scores.videos.manipulation.tolist() == ["", ""]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"label": [0.5, 1.0]}, "got '.*truncated.*another type"),
        ({"score": ["high", "low"]}, "a number for the score .*; got 'high' in data row 1"),
        ({"score": [[0.5], [0.5]]}, "a number for the score .*; got '.*another type"),
        (
            {"label": ["real", "unknown"]},
            "or 1 .fake. for the label .*; got 'unknown' in data row 2",
        ),
        ({"score": [0.5, None]}, "number for the score .* none in data row 2"),
        ({"score": [0.5, float("nan")]}, "got nan for frame 0 of 'b' .*the training diverged"),
        ({"video_id": [["a"], ["b"]]}, "a string for the video_id .*; got '.*another type"),
        ({"video_id": ["a", None]}, "video_id .*; got an empty one for row 2"),
        ({"label": [0, 7]}, "got 7 for frame 0 of 'b'"),
    ],
)
def test_a_wrong_parquet_table_raises_with_its_path(tmp_path, changed, message):
    path = tmp_path / "scores.parquet"
    columns = {"video_id": ["a", "b"], "label": [0, 1], "score": [0.25, 0.75]}
    pq.write_table(pa.table({**columns, **changed}), path)
    with pytest.raises(ValueError, match=message) as error:
        read_scores(path)
    assert str(path) in str(error.value)


def test_a_folder_named_like_a_column_adds_no_column(tmp_path):
    folder = tmp_path / "split=test"
    folder.mkdir()
    write_scores(folder / "scores.parquet", make_scores())
    assert set(read_scores(folder / "scores.parquet").videos.split) == {""}

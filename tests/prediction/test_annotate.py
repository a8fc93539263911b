"""The annotated video shows the verdict, tested in its pixels."""

import dataclasses
import hashlib
import re

import cv2
import numpy as np
import pytest

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.likelihood import LikelihoodRatio
from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.faces.media import Frame
from jdfd_keras.faces.overlay import Overlay
from jdfd_keras.inference.backends import Predictor
from jdfd_keras.inference.tracks import FaceScore, TrackScore
from jdfd_keras.inference.verdict import Provenance, Verdict
from jdfd_keras.io.palette import track_colour
from jdfd_keras.options import FaceOptions, PredictOptions
from jdfd_keras.prediction import annotate, predict
from jdfd_keras.prediction.annotate import annotate_file

FIRST, SECOND = track_colour(0), track_colour(1)
HEIGHT, WIDTH = 240, 320
ROW, AXIS = 26, 16  # of the scores: 11 % of 240 for each person, and a line of text
LINE = 14  # of the text below: 6 % of 240
PROVENANCE = Provenance(
    "judge", 7, "0123456789abcdef", "m", "0", FaceOptions(), 0.3, 0.8, "calibrated"
)


def face(frame_index, score, track_id=0, box=(100, 80, 180, 160)):
    return FaceScore(frame_index, frame_index / 10, track_id, box, score)


def verdict_of(
    path,
    *faces,
    duration_s=1.0,
    verdict="fake",
    score=0.9,
    judged_ids=(0, 1),
    segment=None,
    reasons=(),
):
    tracks = tuple(
        TrackScore(
            track_id=track_id,
            num_faces=sum(face.track_id == track_id for face in faces),
            confidence=1.0,
            start_s=0.0,
            end_s=duration_s,
            score=score,
            verdict=verdict,
            segment=segment,
            not_judged="" if track_id in judged_ids else "its faces are blurred",
        )
        for track_id in (0, 1)
        if any(face.track_id == track_id for face in faces)
    )
    return Verdict(
        path=str(path),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        verdict=verdict,
        score=score,
        uncertain_from=0.3,
        uncertain_to=0.8,
        num_frames=10,
        duration_s=duration_s,
        width=WIDTH,
        height=HEIGHT,
        tracks=tracks,
        faces=faces,
        top_faces=(),
        warnings=(),
        reasons=reasons,
    )


@pytest.fixture
def clip(tmp_path):
    """Ten grey frames, one second."""
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (WIDTH, HEIGHT))
    for _ in range(10):
        writer.write(np.full((HEIGHT, WIDTH, 3), 128, np.uint8))
    writer.release()
    return path


def read_clip(path):
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1][..., ::-1].astype(int))
    return np.array(frames)


def is_like(pixels, colour):
    """Mask the pixels with the hue of a colour, which codecs keep."""
    hues, saturations, values = np.moveaxis(
        cv2.cvtColor(pixels.astype(np.uint8).reshape(-1, 1, 3), cv2.COLOR_RGB2HSV)[:, 0], 1, 0
    )
    hue = int(cv2.cvtColor(np.uint8([[colour]]), cv2.COLOR_RGB2HSV)[0, 0, 0])
    like = (np.abs(hues.astype(int) - hue) < 6) & (saturations > 80) & (values > 130)
    return like.reshape(pixels.shape[:-1])


def is_white(pixels):
    return (pixels > 200).all(axis=-1)


@pytest.fixture
def written(monkeypatch):
    """The texts drawn on images."""
    texts = []
    put = cv2.putText
    monkeypatch.setattr(
        cv2, "putText", lambda at, text, *rest: put(at, texts.append(text) or text, *rest)
    )
    return texts


def edges(frame, box):
    """Return where the left edge of a box is drawn, bool along it, and in which colour mostly."""
    left, top, _, bottom = box
    edge = frame[top + 2 : bottom - 2, left - 4 : left + 3]
    drawn = (np.abs(edge - 128) > 40).any(axis=(1, 2))
    hues = {name: is_like(edge, colour).any(axis=1).mean() for name, colour in COLOURS.items()}
    return drawn, max(hues, key=hues.get)


COLOURS = {"first": FIRST, "second": SECOND}


def test_boxes_have_the_colour_of_their_person_and_are_in_their_frame_only(clip, tmp_path):
    beside = (220, 80, 300, 160)
    faces = [face(0, 0.1), face(3, 0.5), face(6, 0.8), face(6, 0.2, 1, beside)]
    result = annotate_file(clip, tmp_path / "out.mp4", verdict_of(clip, *faces), PROVENANCE)
    assert (result.num_frames, result.sound) == (10, "")
    frames = read_clip(tmp_path / "out.mp4")
    assert frames.shape[0] == 10 and frames.shape[2:] == (WIDTH, 3)
    for index in (0, 3, 6):
        assert edges(frames[index], face(0, 0.1).box)[1] == "first"
    assert edges(frames[6], beside)[1] == "second"
    for index in (1, 2, 4, 5, 7, 8, 9):
        np.testing.assert_allclose(frames[index, 40:200], 128, atol=12)
    # Above the box, the label has a background of the same colour.
    assert is_like(frames[6, 64:78, 100:200], FIRST).mean() > 0.3


def test_the_meaning_of_a_score_is_visible_without_colour(clip, tmp_path, written):
    faces = [face(0, 0.1), face(1, 0.5), face(2, 0.8), face(3, 0.9, 1)]
    verdict = verdict_of(clip, *faces, judged_ids=(0,))
    annotate_file(clip, tmp_path / "out.mp4", verdict, PROVENANCE)
    for text in ("no evidence 0.10", "uncertain 0.50", "fake 0.80"):
        assert f"Person 0: {text}" in written
    assert "Person 1: not judged" in written
    frames = read_clip(tmp_path / "out.mp4")
    gaps = []  # of the left edge: their number and their share
    for index in range(4):
        drawn = edges(frames[index], face(0, 0.1).box)[0]
        gaps.append((int((np.diff(drawn.astype(int)) == -1).sum()), 1 - drawn.mean()))
    corners, dashed, solid, dotted = gaps
    assert solid == (0, 0)
    assert corners[0] == 1 and corners[1] > 0.4
    assert dashed[0] == 4 and dashed[1] > 0.2
    assert dotted[0] > 8


def test_the_verdict_on_the_file_is_at_the_top_of_every_frame_and_no_label_covers_it(
    clip, tmp_path, written
):
    upper = (2, 3, 60, 60)
    verdict = verdict_of(clip, *(face(index, 0.9, box=upper) for index in range(10)))
    annotate_file(clip, tmp_path / "out.mp4", verdict, PROVENANCE)
    assert written.count("File: fake") == 10
    frames = read_clip(tmp_path / "out.mp4")
    title = frames[:, :10, :50]
    assert np.ptp(title, axis=0).max() < 60  # the same in each frame
    assert not is_like(frames[5, :9, :50], FIRST).any()
    assert is_like(frames[5, 64:78, :60], FIRST).mean() > 0.3  # the label is below the box


def test_each_person_has_a_row_with_scores_and_the_cursor_moves(clip, tmp_path):
    scores = [0.1] * 5 + [0.5, 0.5] + [1.0] * 3
    faces = [face(index, score) for index, score in enumerate(scores)]
    faces += [face(index, 0.5, 1, (220, 80, 300, 160)) for index in (2, 3)]
    annotate_file(clip, tmp_path / "out.mp4", verdict_of(clip, *faces), PROVENANCE)
    frames = read_clip(tmp_path / "out.mp4")
    rows = frames[:, HEIGHT : HEIGHT + 2 * ROW]
    cursors = [int(np.argmax(is_white(row).mean(axis=0))) for row in rows]
    start = cursors[0]  # right of the names
    assert 40 < start < WIDTH / 3
    step = (WIDTH - start) / 10
    np.testing.assert_allclose(cursors, [start + index * step for index in range(10)], atol=2)
    at = {index: int(start + (index + 0.5) * step) for index in range(10)}
    first, second = rows[0, :ROW], rows[0, ROW:]

    def height(row, index):
        column = row[:-3, at[index] - 4 : at[index] + 4]  # without the line below
        return (column.max(axis=2) - column.min(axis=2) > 40).any(axis=1).mean()

    for index, score in enumerate(scores):
        assert height(first, index) == pytest.approx(score, abs=0.15)
    assert height(second, 2) == pytest.approx(0.5, abs=0.15)
    assert height(second, 6) == 0
    # The legend: a square of the colour and a name.
    assert is_like(first[:, 2:16], FIRST).sum() > 10
    assert is_like(second[:, 2:16], SECOND).sum() > 10
    assert is_white(first[:, 16:start]).sum() > 20
    # The same height of 0.5 is brighter if it is fake, and only the fake is as bright as the box.
    bright = first[-8, at[8]].max()
    assert bright > 1.3 * first[-8, at[5]].max()


def test_a_person_who_is_not_judged_has_no_scores_in_the_row(clip, tmp_path):
    faces = [face(4, 1.0, 1), face(8, 0.1, 0)]
    annotate_file(clip, tmp_path / "out.mp4", verdict_of(clip, *faces, judged_ids=(0,)), PROVENANCE)
    frames = read_clip(tmp_path / "out.mp4")
    row = frames[0, HEIGHT + ROW : HEIGHT + 2 * ROW]
    assert not is_like(row[:, WIDTH // 3 :], SECOND).any()
    assert edges(frames[4], face(0, 0).box)[1] == "second"


@pytest.mark.parametrize("num_people", [1, 3, 5, 9])
def test_the_rows_are_few_and_the_sides_are_even(clip, tmp_path, written, num_people):
    faces = [face(index, 0.1 * index, index) for index in range(num_people)]
    verdict = verdict_of(clip, *faces)
    tracks = [dataclasses.replace(verdict.tracks[0], track_id=index) for index in range(num_people)]
    tracks = [dataclasses.replace(track, score=0.1 * track.track_id) for track in tracks]
    verdict = dataclasses.replace(verdict, tracks=tuple(tracks))
    annotate_file(clip, tmp_path / "out.mp4", verdict, PROVENANCE)
    names = [f"Person {index}" for index in range(num_people)][-5:]  # the highest scores
    assert [text for text in written if re.fullmatch(r"Person \d", text)] == names
    assert ("+ 4 more people" in written) == (num_people == 9)
    height = read_clip(tmp_path / "out.mp4").shape[1]
    assert height % 2 == 0
    assert (height - HEIGHT - len(names) * ROW - AXIS) % LINE in (0, 1)


def test_an_annotated_image_has_no_rows(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((HEIGHT, WIDTH, 3), 128, np.uint8))
    verdict = verdict_of(
        tmp_path / "a.png", face(0, 0.9), duration_s=0.0, verdict="fake", score=0.9
    )
    result = annotate_file(tmp_path / "a.png", tmp_path / "b.png", verdict, PROVENANCE)
    assert result.num_frames == 1
    image = cv2.imread(str(tmp_path / "b.png"))[..., ::-1]
    assert (len(image) - HEIGHT) % LINE == 0
    assert (image[120, 98] == FIRST).all() or (image[120, 99] == FIRST).all()
    assert (image[200:HEIGHT] == 128).all()


def test_the_provenance_is_below_the_image(tmp_path, written):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((HEIGHT, WIDTH, 3), 128, np.uint8))
    verdict = verdict_of(
        tmp_path / "a.png",
        face(0, 0.5),
        duration_s=0.0,
        verdict="uncertain",
        score=0.5,
        judged_ids=(),
        reasons=("no person is judged",),
    )
    annotate_file(tmp_path / "a.png", tmp_path / "b.png", verdict, PROVENANCE)
    texts = "; ".join(written)
    for part in ("no person is judged", "evidence below 0.3", "version 7, 01234567", "not proof"):
        assert part in texts
    assert "Person 0: not judged" in texts
    footer = cv2.imread(str(tmp_path / "b.png"))[HEIGHT:]
    assert is_white(footer).any(axis=1).sum() > 10


def test_the_engine_of_the_scores_has_a_line_of_its_own(tmp_path, written):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((HEIGHT, WIDTH, 3), 128, np.uint8))
    verdict = verdict_of(tmp_path / "a.png", face(0, 0.5), duration_s=0.0)
    name = "OpenVINO 2026.4.1, bfloat16"
    heights = []
    for engine in ("", name):
        written.clear()
        verdict = dataclasses.replace(verdict, engine=engine)
        annotate_file(tmp_path / "a.png", tmp_path / "b.png", verdict, PROVENANCE)
        heights.append(len(cv2.imread(str(tmp_path / "b.png"))))
        assert (f"Scores by {name}" in written) == bool(engine)
    assert heights[1] == heights[0] + LINE


def test_the_likelihood_ratio_and_a_long_reason_are_in_lines_that_can_be_read(
    clip, tmp_path, written
):
    reason = "person 0 scores 0.860 from 0.9 to 1.1 s, although the mean shows no evidence"
    ratio = LikelihoodRatio(1.61, False, "moderate support for manipulation")
    verdict = verdict_of(clip, face(0, 0.1), verdict="uncertain", score=0.29, reasons=(reason,))
    verdict = dataclasses.replace(verdict, likelihood=ratio)
    annotate_file(clip, tmp_path / "out.mp4", verdict, PROVENANCE)
    footer = written[: written.index("A score is not proof. Model judge, version 7, 01234567")]
    text = " ".join(footer)
    assert f"Uncertain, because {reason}" in text
    assert "no evidence below 0.3, fake from 0.8" in text
    assert "Likelihood ratio 40, moderate support for manipulation" in text
    assert all(len(line) < 70 for line in footer)


MARK = (240, 228, 66)


def is_marked(pixels):
    """Whether most of some pixels have the colour of the mark, after a codec."""
    return (np.abs(pixels.astype(int) - MARK) < 30).all(axis=-1).mean() > 0.5


@pytest.mark.parametrize("mark", [False, True])
def test_the_mark_of_a_demonstration_is_above_every_frame(clip, tmp_path, written, mark):
    made = verdict_of(clip, face(0, 0.9), face(4, 0.9, box=(2, 2, 90, 90)))
    verdict = dataclasses.replace(made, demonstration=mark)
    annotate_file(clip, tmp_path / "out.mp4", verdict, PROVENANCE)
    sentence = "For demonstration only: this model cannot judge real videos."
    drawn = [text for text in written if text in sentence]
    frames = read_clip(tmp_path / "out.mp4")
    assert len(frames) == 10
    if not mark:
        assert drawn == [] and not any(is_marked(frame[:LINE]) for frame in frames)
        return
    assert " ".join(drawn) == " ".join([sentence] * 10)
    lines = len(drawn) // 10
    assert all(is_marked(frame[: lines * LINE]) for frame in frames)
    # Below it is the frame, whole: its title, its box and its last rows.
    shown = frames[0][lines * LINE :][:HEIGHT]
    drawn, colour = edges(shown, (100, 80, 180, 160))
    assert drawn.all() and colour == "first"
    assert (np.abs(shown[100:150, 200:] - 128) < 10).all()


def test_the_mark_is_above_an_image_and_fits_a_narrow_one(tmp_path):
    for width in (60, 320):
        path = tmp_path / "a.png"
        cv2.imwrite(str(path), np.full((HEIGHT, width, 3), 128, np.uint8))
        made = verdict_of(path, verdict="no face", score=None, duration_s=0.0)
        verdict = dataclasses.replace(made, width=width, demonstration=True)
        annotate_file(path, tmp_path / "b.png", verdict, PROVENANCE)
        image = cv2.imread(str(tmp_path / "b.png"))[..., ::-1]
        assert image.shape[1] == width and is_marked(image[:LINE])
        letters = (image[:LINE] < 100).all(axis=-1).any(axis=0)
        assert letters.any() and not letters[-2:].any()


def test_a_clip_without_a_face_is_labelled(clip, tmp_path, written):
    verdict = verdict_of(clip, verdict="no face", score=None)
    assert annotate_file(clip, tmp_path / "out.mp4", verdict, PROVENANCE).num_frames == 10
    assert written.count("File: no face") == 10
    frames = read_clip(tmp_path / "out.mp4")
    assert frames.shape[1:] == (HEIGHT + ROW + AXIS + 2 * LINE, WIDTH, 3)


def test_predict_draws_every_scored_frame(clips_folder, tmp_path, monkeypatch):
    metadata = ModelMetadata(FaceOptions(face_size=71), Calibration(), "m", 1, "digest")
    predictor = Predictor("m", metadata, lambda crops: np.full(len(crops), 0.75), None)
    monkeypatch.setattr(predict, "load_predictor", lambda *_: predictor)
    clip = sorted(clips_folder.rglob("real/*.mp4"))[0]
    out = tmp_path / "out.mp4"
    (verdict,) = predict.predict_files([clip], model="m", annotate=out).files
    assert len(verdict.faces) == 6  # of six frames
    frames = read_clip(out)
    assert len(frames) == 6
    for frame, scored in zip(frames, verdict.faces, strict=True):
        left, top, _, bottom = scored.box
        column = frame[top + 8 : bottom - 4, max(left - 4, 0) : left + 2]
        assert is_like(column, FIRST).any(axis=1).mean() > 0.4
    options = PredictOptions(every=4)
    predict.predict_files([clip], options, model="m", annotate=out, overwrite=True)
    assert len(read_clip(out)) == 2
    with pytest.raises(ValueError, match=r"video .*\.mp4, .*; got .*out\.png"):
        predict.predict_files([clip], model="m", annotate=tmp_path / "out.png")


def test_other_bytes_than_were_judged_are_refused(clip, tmp_path):
    verdict = verdict_of(clip, face(0, 0.5))
    with open(clip, "ab") as file:
        file.write(b"x")
    with pytest.raises(OSError, match=r"Expected the bytes of .*clip\.mp4 that were analysed"):
        annotate_file(clip, tmp_path / "out.mp4", verdict, PROVENANCE)
    assert not (tmp_path / "out.mp4").exists()


def test_frames_of_another_size_have_their_boxes_and_the_same_strips(tmp_path, monkeypatch):
    clip = tmp_path / "turned.mp4"
    clip.write_bytes(b"stands for a video whose size changes")
    sizes = [(HEIGHT, WIDTH), (HEIGHT, WIDTH), (WIDTH, HEIGHT), (120, 160)]

    def write(path, out, draw, **options):
        frames = (
            Frame(index, index / 10, np.full((*size, 3), 128, np.uint8))
            for index, size in enumerate(sizes)
        )
        images.extend(draw(frames))
        return Overlay(len(images))

    images = []
    monkeypatch.setattr(annotate, "write_overlay", write)
    verdict = verdict_of(clip, *(face(i, 0.9, box=(60, 40, 100, 80)) for i in range(4)))
    assert annotate_file(clip, tmp_path / "out.mp4", verdict, PROVENANCE) == Overlay(4)
    assert len({image.shape for image in images}) == 1
    for image in images:
        np.testing.assert_array_equal(image[-2 * LINE :], images[0][-2 * LINE :])
        np.testing.assert_array_equal(image[:12, :50], images[0][:12, :50])
    scale = HEIGHT / WIDTH  # of the upright frame, between bars
    left = (WIDTH - HEIGHT * scale) / 2
    for image, x, y in ((images[0], 60, 60), (images[2], left + 60 * scale, 60 * scale)):
        column = image[round(y) - 8 : round(y) + 8, round(x) - 4 : round(x) + 3]
        assert is_like(column, FIRST).any(axis=1).all()
    assert not images[2][20:200, : round(left) - 2].any()
    assert is_like(images[3][100:140, 116:123], FIRST).any(axis=1).all()  # twice as large


@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (300, 1)])
def test_tiny_images_are_annotated(tmp_path, shape):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((*shape, 3), 128, np.uint8))
    verdict = dataclasses.replace(
        verdict_of(tmp_path / "a.png", duration_s=0.0, verdict="no face", score=None),
        height=shape[0],
        width=shape[1],
    )
    result = annotate_file(tmp_path / "a.png", tmp_path / "b.png", verdict, PROVENANCE)
    assert result == Overlay(1)
    assert cv2.imread(str(tmp_path / "b.png")).shape == (shape[0] + 28, shape[1], 3)

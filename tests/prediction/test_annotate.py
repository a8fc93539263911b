"""The annotated film says what the verdict says: looked at in its pixels."""

import cv2
import numpy as np
import pytest

from jdfd_keras.client.metadata import Calibration, Description
from jdfd_keras.inference.backends import Scorer
from jdfd_keras.options import FaceOptions, PredictOptions
from jdfd_keras.prediction import predict
from jdfd_keras.prediction.annotate import annotate_file

# Vermilion, yellow and sky blue from the page of Okabe and Ito.
FAKE, UNCERTAIN, REAL = (0xD5, 0x5E, 0x00), (0xF0, 0xE4, 0x42), (0x56, 0xB4, 0xE9)
HEIGHT, WIDTH, STRIP = 240, 320, 36  # 15 % of 240
FOOTER = 28  # two lines, 6 % of 240 each


def face(frame_index, score, track_id=0, box=(100, 80, 180, 160)):
    return {
        "frame_index": frame_index,
        "time_s": frame_index / 10,
        "track_id": track_id,
        "box": box,
        "score": score,
    }


def verdict_of(*faces, duration_s=1.0, verdict="fake", score=0.9, sure=(0, 1)):
    return {
        "verdict": verdict,
        "score": score,
        "uncertain_from": 0.3,
        "uncertain_to": 0.8,
        "duration_s": duration_s,
        "width": WIDTH,
        "height": HEIGHT,
        "tracks": [
            {"track_id": track_id, "decides": track_id in sure, "verdict": verdict, "score": score}
            for track_id in (0, 1)
            if any(face["track_id"] == track_id for face in faces)
        ],
        "faces": list(faces),
    }


@pytest.fixture
def film(tmp_path):
    """Ten grey frames, a second."""
    path = tmp_path / "film.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (WIDTH, HEIGHT))
    for _ in range(10):
        writer.write(np.full((HEIGHT, WIDTH, 3), 128, np.uint8))
    writer.release()
    return path


def read_film(path):
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1][..., ::-1].astype(int))
    return np.array(frames)


def is_like(pixels, colour):
    """Mask the pixels of a colour's hue: codecs keep hues, and mix them with their neighbours'."""
    hues, saturations, values = np.moveaxis(
        cv2.cvtColor(pixels.astype(np.uint8).reshape(-1, 1, 3), cv2.COLOR_RGB2HSV)[:, 0], 1, 0
    )
    hue = int(cv2.cvtColor(np.uint8([[colour]]), cv2.COLOR_RGB2HSV)[0, 0, 0])
    like = (np.abs(hues.astype(int) - hue) < 6) & (saturations > 80) & (values > 130)
    return like.reshape(pixels.shape[:-1])


def is_white(pixels):
    return (pixels > 200).all(axis=-1)


def test_boxes_have_the_colour_of_their_score_in_their_frame_alone(film, tmp_path):
    beside = (220, 80, 300, 160)
    faces = [face(0, 0.1), face(3, 0.5), face(6, 0.8), face(6, 0.2, 1, beside)]
    assert annotate_file(film, tmp_path / "out.mp4", verdict_of(*faces)) == 10
    frames = read_film(tmp_path / "out.mp4")
    assert frames.shape == (10, HEIGHT + STRIP + FOOTER, WIDTH, 3)
    edge = frames[:, 85:155, 96:103].mean(axis=(1, 2))  # the left edge, with its dark sides
    for index, colour in {0: REAL, 3: UNCERTAIN, 6: FAKE}.items():
        column = frames[index, 90:150, 96:103]
        assert is_like(column, colour).any(axis=1).mean() > 0.9
    assert is_like(frames[6, 90:150, 216:223], REAL).any(axis=1).mean() > 0.9
    for index in (1, 2, 4, 5, 7, 8, 9):
        np.testing.assert_allclose(edge[index], 128, atol=12)
    # The words that say the same stand on a ground of that colour, above the box.
    assert is_like(frames[6, 64:78, 100:200], FAKE).mean() > 0.3
    assert is_like(frames[6, :14, 2:90], FAKE).mean() > 0.3  # the file's own, in every frame
    assert is_like(frames[1, :14, 2:90], FAKE).mean() > 0.3


def test_the_strip_shows_the_scores_over_time_and_the_cursor_moves(film, tmp_path):
    faces = [face(index, score) for index, score in enumerate([0.1] * 5 + [0.5, 0.5] + [1.0] * 3)]
    annotate_file(film, tmp_path / "out.mp4", verdict_of(*faces))
    strip = read_film(tmp_path / "out.mp4")[:, HEIGHT : HEIGHT + STRIP]
    at = {index: int((index + 0.5) * WIDTH / 10) for index in range(10)}
    for index, colour, height in [(2, REAL, 0.1), (5, UNCERTAIN, 0.5), (8, FAKE, 1.0)]:
        column = is_like(strip[0, :, at[index] - 4 : at[index] + 4], colour).any(axis=1)
        assert column.mean() == pytest.approx(height, abs=0.12)
        assert column[-2:].all()  # from the bottom
    for index in range(10):
        white = is_white(strip[index]).mean(axis=0)
        assert np.argmax(white) == pytest.approx(index * WIDTH / 10, abs=3)
        assert white.max() > 0.8


def test_what_is_perhaps_no_face_is_not_in_the_strip(film, tmp_path):
    faces = [face(4, 1.0, 1), face(8, 0.1, 0)]
    annotate_file(film, tmp_path / "out.mp4", verdict_of(*faces, sure=(0,)))
    frames = read_film(tmp_path / "out.mp4")
    assert not is_like(frames[0, HEIGHT : HEIGHT + STRIP], FAKE).any()
    assert is_like(frames[4, 90:150, 96:103], FAKE).any(axis=1).mean() > 0.9


def test_an_image_becomes_a_picture_without_a_strip(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((HEIGHT, WIDTH, 3), 128, np.uint8))
    told = verdict_of(face(0, 0.5), duration_s=0.0, verdict="uncertain", score=0.5)
    assert annotate_file(tmp_path / "a.png", tmp_path / "b.png", told) == 1
    picture = cv2.imread(str(tmp_path / "b.png"))[..., ::-1]
    assert picture.shape == (HEIGHT + FOOTER, WIDTH, 3)
    assert (picture[120, 98] == UNCERTAIN).all() or (picture[120, 99] == UNCERTAIN).all()
    assert (picture[200:HEIGHT] == 128).all()


@pytest.fixture
def written(monkeypatch):
    """What is written on pictures."""
    texts = []
    put = cv2.putText
    monkeypatch.setattr(
        cv2, "putText", lambda at, text, *rest: put(at, texts.append(text) or text, *rest)
    )
    return texts


def test_what_made_the_verdict_stands_beneath(tmp_path, written):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((HEIGHT, WIDTH, 3), 128, np.uint8))
    told = verdict_of(face(0, 0.5), duration_s=0.0, verdict="uncertain", score=0.5, sure=())
    made_with = {"model": "judge", "version": 7, "digest": "0123456789abcdef"}
    annotate_file(tmp_path / "a.png", tmp_path / "b.png", told, made_with=made_with)
    assert "Uncertain, score 0.500 (real below 0.3, fake from 0.8)" in written
    assert "A score is no proof. Model judge, version 7, 01234567" in written
    assert "uncertain 0.50, track 0, perhaps no face" in written
    footer = cv2.imread(str(tmp_path / "b.png"))[HEIGHT:]
    assert is_white(footer).any(axis=1).sum() > 10


def test_a_part_that_looks_fake_is_told_and_not_the_mean_alone(film, tmp_path, written):
    # A mean of 0.29 is real, below 0.3; the last quarter of twelve faces is fake.
    scores = [0.1] * 9 + [0.8, 0.9, 0.88]
    faces = [face(index, score) for index, score in enumerate(scores)]
    told = verdict_of(*faces, verdict="uncertain", score=0.29, duration_s=1.2)
    annotate_file(film, tmp_path / "out.mp4", told)
    reason = "Uncertain, since track 0 scores 0.860 from 0.9 to 1.1 s"
    assert f"{reason} (real below 0.3, fake from 0.8)" in written


def test_a_film_without_a_face_says_so(film, tmp_path):
    told = verdict_of(verdict="no face", score=None)
    assert annotate_file(film, tmp_path / "out.mp4", told) == 10
    frames = read_film(tmp_path / "out.mp4")
    assert is_white(frames[5, :14, 2:60]).mean() > 0.3
    assert frames.shape == (10, HEIGHT + STRIP + FOOTER, WIDTH, 3)


def test_predict_draws_every_frame_that_it_scored(clips_folder, tmp_path, monkeypatch):
    known = Description(FaceOptions(face_size=71), Calibration(), "m", 1, "digest")
    scorer = Scorer("m", known, lambda crops: np.full(len(crops), 0.75), None)
    monkeypatch.setattr(predict, "local_scorer", lambda path: scorer)
    clip = sorted(clips_folder.rglob("real/*.mp4"))[0]
    out = tmp_path / "out.mp4"
    result = predict.predict_files([clip], model="m", annotate=out)
    assert len(result["files"][0]["faces"]) == 6  # of six frames
    frames = read_film(out)
    assert len(frames) == 6
    for frame, told in zip(frames, result["files"][0]["faces"], strict=True):
        left, top, _, bottom = told["box"]
        column = frame[top + 8 : bottom - 4, max(left - 4, 0) : left + 2]
        assert is_like(column, FAKE).any(axis=1).mean() > 0.8
    options = PredictOptions(every=4)
    predict.predict_files([clip], options, model="m", annotate=out)
    assert len(read_film(out)) == 2
    with pytest.raises(ValueError, match="overlay of a video to end in"):
        predict.predict_files([clip], model="m", annotate=tmp_path / "out.png")

"""The annotated video shows the verdict, tested in its pixels."""

import dataclasses
import hashlib

import cv2
import numpy as np
import pytest

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.faces.media import Frame
from jdfd_keras.inference.backends import Predictor
from jdfd_keras.inference.tracks import FaceScore, Segment, TrackScore
from jdfd_keras.inference.verdict import Provenance, Verdict
from jdfd_keras.options import FaceOptions, PredictOptions
from jdfd_keras.prediction import annotate, predict
from jdfd_keras.prediction.annotate import annotate_file

# Vermilion, yellow and sky blue from the page of Okabe and Ito.
FAKE, UNCERTAIN, REAL = (0xD5, 0x5E, 0x00), (0xF0, 0xE4, 0x42), (0x56, 0xB4, 0xE9)
HEIGHT, WIDTH, STRIP = 240, 320, 36  # 15 % of 240
FOOTER = 28  # two lines, 6 % of 240 each
PROVENANCE = Provenance(
    "judge", 7, "0123456789abcdef", "m", "0", FaceOptions(), 0.3, 0.8, "calibrated"
)


def face(frame_index, score, track_id=0, box=(100, 80, 180, 160)):
    return FaceScore(frame_index, frame_index / 10, track_id, box, score)


def verdict_of(
    path, *faces, duration_s=1.0, verdict="fake", score=0.9, reliable=(0, 1), segment=None
):
    tracks = tuple(
        TrackScore(
            track_id=track_id,
            num_faces=sum(face.track_id == track_id for face in faces),
            confidence=1.0,
            is_reliable=track_id in reliable,
            start_s=0.0,
            end_s=duration_s,
            score=score,
            verdict=verdict,
            segment=segment,
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


def test_boxes_have_the_colour_of_their_score_and_are_in_their_frame_only(clip, tmp_path):
    beside = (220, 80, 300, 160)
    faces = [face(0, 0.1), face(3, 0.5), face(6, 0.8), face(6, 0.2, 1, beside)]
    assert annotate_file(clip, tmp_path / "out.mp4", verdict_of(clip, *faces), PROVENANCE) == 10
    frames = read_clip(tmp_path / "out.mp4")
    assert frames.shape == (10, HEIGHT + STRIP + FOOTER, WIDTH, 3)
    edge = frames[:, 85:155, 96:103].mean(axis=(1, 2))  # the left edge, with its dark sides
    for index, colour in {0: REAL, 3: UNCERTAIN, 6: FAKE}.items():
        column = frames[index, 90:150, 96:103]
        assert is_like(column, colour).any(axis=1).mean() > 0.9
    assert is_like(frames[6, 90:150, 216:223], REAL).any(axis=1).mean() > 0.9
    for index in (1, 2, 4, 5, 7, 8, 9):
        np.testing.assert_allclose(edge[index], 128, atol=12)
    # Above the box, the label has a background of the same colour.
    assert is_like(frames[6, 64:78, 100:200], FAKE).mean() > 0.3
    assert is_like(frames[6, :14, 2:90], FAKE).mean() > 0.3  # the file's own, in every frame
    assert is_like(frames[1, :14, 2:90], FAKE).mean() > 0.3


def test_the_time_line_shows_the_scores_and_the_cursor_moves(clip, tmp_path):
    faces = [face(index, score) for index, score in enumerate([0.1] * 5 + [0.5, 0.5] + [1.0] * 3)]
    annotate_file(clip, tmp_path / "out.mp4", verdict_of(clip, *faces), PROVENANCE)
    strip = read_clip(tmp_path / "out.mp4")[:, HEIGHT : HEIGHT + STRIP]
    at = {index: int((index + 0.5) * WIDTH / 10) for index in range(10)}
    for index, colour, height in [(2, REAL, 0.1), (5, UNCERTAIN, 0.5), (8, FAKE, 1.0)]:
        column = is_like(strip[0, :, at[index] - 4 : at[index] + 4], colour).any(axis=1)
        assert column.mean() == pytest.approx(height, abs=0.12)
        assert column[-2:].all()  # from the bottom
    for index in range(10):
        white = is_white(strip[index]).mean(axis=0)
        assert np.argmax(white) == pytest.approx(index * WIDTH / 10, abs=3)
        assert white.max() > 0.8


def test_a_track_that_may_not_be_a_face_is_not_in_the_time_line(clip, tmp_path):
    faces = [face(4, 1.0, 1), face(8, 0.1, 0)]
    annotate_file(clip, tmp_path / "out.mp4", verdict_of(clip, *faces, reliable=(0,)), PROVENANCE)
    frames = read_clip(tmp_path / "out.mp4")
    assert not is_like(frames[0, HEIGHT : HEIGHT + STRIP], FAKE).any()
    assert is_like(frames[4, 90:150, 96:103], FAKE).any(axis=1).mean() > 0.9


def test_an_annotated_image_has_no_time_line(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((HEIGHT, WIDTH, 3), 128, np.uint8))
    verdict = verdict_of(
        tmp_path / "a.png", face(0, 0.5), duration_s=0.0, verdict="uncertain", score=0.5
    )
    assert annotate_file(tmp_path / "a.png", tmp_path / "b.png", verdict, PROVENANCE) == 1
    image = cv2.imread(str(tmp_path / "b.png"))[..., ::-1]
    assert image.shape == (HEIGHT + FOOTER, WIDTH, 3)
    assert (image[120, 98] == UNCERTAIN).all() or (image[120, 99] == UNCERTAIN).all()
    assert (image[200:HEIGHT] == 128).all()


@pytest.fixture
def written(monkeypatch):
    """The texts drawn on images."""
    texts = []
    put = cv2.putText
    monkeypatch.setattr(
        cv2, "putText", lambda at, text, *rest: put(at, texts.append(text) or text, *rest)
    )
    return texts


def test_the_provenance_is_below_the_image(tmp_path, written):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((HEIGHT, WIDTH, 3), 128, np.uint8))
    verdict = verdict_of(
        tmp_path / "a.png",
        face(0, 0.5),
        duration_s=0.0,
        verdict="uncertain",
        score=0.5,
        reliable=(),
    )
    annotate_file(tmp_path / "a.png", tmp_path / "b.png", verdict, PROVENANCE)
    texts = "; ".join(written)
    for part in ("score 0.500", "real below 0.3", "judge, version 7, 01234567", "not proof"):
        assert part in texts
    assert "uncertain 0.50, track 0, possibly" in texts
    footer = cv2.imread(str(tmp_path / "b.png"))[HEIGHT:]
    assert is_white(footer).any(axis=1).sum() > 10


def test_the_engine_of_the_scores_has_a_line_of_its_own(tmp_path, written):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((HEIGHT, WIDTH, 3), 128, np.uint8))
    verdict = verdict_of(tmp_path / "a.png", face(0, 0.5), duration_s=0.0)
    name = "OpenVINO 2026.4.1, bfloat16"
    for engine, lines in (("", 2), (name, 3)):
        written.clear()
        verdict = dataclasses.replace(verdict, engine=engine)
        annotate_file(tmp_path / "a.png", tmp_path / "b.png", verdict, PROVENANCE)
        assert len(cv2.imread(str(tmp_path / "b.png"))) == HEIGHT + lines * FOOTER / 2
        assert (f"Scores by {name}" in written) == bool(engine)


def test_a_fake_segment_is_stated_instead_of_the_mean(clip, tmp_path, written):
    # A mean of 0.29 is real, below 0.3; the last quarter of twelve faces is fake.
    scores = [0.1] * 9 + [0.8, 0.9, 0.88]
    faces = [face(index, score) for index, score in enumerate(scores)]
    segment = Segment(0.9, 1.1, 0.86)
    verdict = verdict_of(
        clip, *faces, verdict="uncertain", score=0.29, duration_s=1.2, segment=segment
    )
    annotate_file(clip, tmp_path / "out.mp4", verdict, PROVENANCE)
    reason = "track 0 scores 0.860 from 0.9 to 1.1 s"
    assert any(reason in text and "below 0.3, fake from 0.8" in text for text in written)


def test_a_clip_without_a_face_is_labelled(clip, tmp_path):
    verdict = verdict_of(clip, verdict="no face", score=None)
    assert annotate_file(clip, tmp_path / "out.mp4", verdict, PROVENANCE) == 10
    frames = read_clip(tmp_path / "out.mp4")
    assert is_white(frames[5, :14, 2:60]).mean() > 0.3
    assert frames.shape == (10, HEIGHT + STRIP + FOOTER, WIDTH, 3)


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
        assert is_like(column, FAKE).any(axis=1).mean() > 0.8
    options = PredictOptions(every=4)
    predict.predict_files([clip], options, model="m", annotate=out)
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
        return len(images)

    images = []
    monkeypatch.setattr(annotate, "write_overlay", write)
    verdict = verdict_of(clip, *(face(i, 0.9, box=(60, 40, 100, 80)) for i in range(4)))
    assert annotate_file(clip, tmp_path / "out.mp4", verdict, PROVENANCE) == 4
    assert {image.shape for image in images} == {(HEIGHT + STRIP + FOOTER, WIDTH, 3)}
    for image in images:
        np.testing.assert_array_equal(image[HEIGHT + STRIP :], images[0][HEIGHT + STRIP :])
        assert is_like(image[:14, 2:90], FAKE).mean() > 0.3
    scale = HEIGHT / WIDTH  # of the upright frame, between bars
    left = (WIDTH - HEIGHT * scale) / 2
    for image, x, y in ((images[0], 60, 60), (images[2], left + 60 * scale, 60 * scale)):
        column = image[round(y) - 8 : round(y) + 8, round(x) - 4 : round(x) + 3]
        assert is_like(column, FAKE).any(axis=1).all()
    assert not images[2][20:HEIGHT, : round(left) - 2].any()
    assert is_like(images[3][100:140, 116:123], FAKE).any(axis=1).all()  # twice as large


@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (300, 1)])
def test_tiny_images_are_annotated(tmp_path, shape):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((*shape, 3), 128, np.uint8))
    verdict = dataclasses.replace(
        verdict_of(tmp_path / "a.png", duration_s=0.0, verdict="no face", score=None),
        height=shape[0],
        width=shape[1],
    )
    assert annotate_file(tmp_path / "a.png", tmp_path / "b.png", verdict, PROVENANCE) == 1
    assert cv2.imread(str(tmp_path / "b.png")).shape == (shape[0] + 28, shape[1], 3)

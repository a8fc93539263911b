"""The domain of prepared validation files: measured as predict measures, drawings are beyond it."""

import dataclasses
import math

import numpy as np
import pytest

from jdfd_keras.client.domain import FileMeasures
from jdfd_keras.datasets.synthetic.drawings import DRAWINGS, draw_face
from jdfd_keras.evaluation.domain_fit import (
    DrawnFaces,
    fit_drawn_domain,
    fit_validation_domain,
    measure_videos,
)
from jdfd_keras.evaluation.eval_data import load_eval_sets
from jdfd_keras.faces.extract import extract_faces
from jdfd_keras.faces.texture import NUM_TEXTURE, describe_texture
from jdfd_keras.inference.backends import make_reconstruct_error
from jdfd_keras.inference.file_measures import measure_file
from jdfd_keras.options import FaceOptions

# Rounding of the manifest: landmarks to 0.01 px of 71, sharpness to 0.01, yaw to 0.1 degrees.
TOLERANCES = {"sharpness": 0.006, "yaw_deg": 0.06, "roll_deg": 0.05, "reconstruction_error": 1e-6}


def test_a_file_has_the_same_measures_in_validation_and_when_it_is_judged(
    prepared_set, clips_folder, tiny_detector
):
    sets = load_eval_sets([prepared_set], "val")
    reconstruct_error = make_reconstruct_error(tiny_detector)
    is_judged = np.ones(len(sets[0].rows), bool)
    measures, _ = measure_videos(sets, is_judged, reconstruct_error)
    names = list(dict.fromkeys(sets[0].rows["video_id"].to_pylist()))
    assert len(measures) == len(names) >= 2
    paths = {video.video_id: clips_folder / video.path for video in sets[0].videos}
    for name, stored in zip(names, measures, strict=True):
        extraction = extract_faces(paths[name], FaceOptions(frames_per_video=4, face_size=71))
        found = measure_file(extraction, extraction.faces, reconstruct_error)
        assert found.pixel_format == stored.pixel_format == "yuv420p"
        np.testing.assert_allclose(found.texture, stored.texture, atol=1e-9)
        for field in dataclasses.fields(FileMeasures)[:-2]:
            values = getattr(found, field.name), getattr(stored, field.name)
            if field.name == "drawing":
                assert all(map(math.isnan, values))  # follows from the texture
            else:
                assert not math.isnan(values[0]), field.name
                tolerance = TOLERANCES.get(field.name, 2e-4)
                assert values[0] == pytest.approx(values[1], abs=tolerance), field.name


def test_only_judged_faces_are_measured(prepared_set):
    sets = load_eval_sets([prepared_set], "val")
    names = sets[0].rows["video_id"].to_pylist()
    is_first = np.array([name == names[0] for name in names])
    measures, drawn = measure_videos(sets, is_first)
    assert len(measures) == 1 and set(drawn.video.tolist()) == {0}
    assert sorted(drawn.drawing) == sorted(DRAWINGS)
    none = fit_validation_domain(sets, np.zeros(len(names), bool))
    assert none.num_files == 0 and none.limit is None


@pytest.fixture(scope="module")
def crops(astronaut):
    """Crops of one portrait under various light and noise."""
    rng = np.random.default_rng(0)
    face = astronaut[40:200, 140:300].astype(float)
    return [
        np.clip(face * rng.uniform(0.8, 1.2) + rng.normal(0, rng.uniform(2, 8), face.shape), 0, 255)
        .round()
        .astype(np.uint8)
        for _ in range(80)
    ]


def test_drawings_are_beyond_the_domain_of_photographs(crops):
    textures = [tuple(describe_texture(crop).tolist()) for crop in crops]
    drawn = [
        (name, row, describe_texture(draw_face(crops[row], name)))
        for row in range(0, 40, 4)
        for name in DRAWINGS
        if not name.startswith("cartoon")
    ]
    names, videos, drawn_textures = zip(*drawn, strict=True)
    domain = fit_drawn_domain(
        [FileMeasures(texture=texture) for texture in textures[:40]],
        DrawnFaces(list(names), np.array(videos), np.array(drawn_textures)),
    )
    assert len(domain.drawing_weights) == NUM_TEXTURE + 1
    assert [spread.measure for spread in domain.spreads] == ["drawing"]
    flagged = [bool(domain.check(FileMeasures(texture=texture))) for texture in textures[40:]]
    assert np.mean(flagged) <= 0.2
    for name in DRAWINGS:  # cartoons as well, which the weights were fitted without
        for crop in crops[40:45]:
            texture = tuple(describe_texture(draw_face(crop, name)).tolist())
            (reason,) = domain.check(FileMeasures(texture=texture))
            assert reason.startswith("the faces look more like drawings by their texture")


def test_drawings_need_a_known_name(crops):
    with pytest.raises(ValueError, match="Expected a drawing of .*; got 'oil'"):
        draw_face(crops[0], "oil")
    assert all(draw_face(crops[0], name).shape == crops[0].shape for name in DRAWINGS)


def test_few_files_have_no_limit_and_no_weights():
    drawn = DrawnFaces(["lines, black"], np.array([0]), np.zeros((1, NUM_TEXTURE)))
    domain = fit_drawn_domain([FileMeasures(texture=(0.0,) * NUM_TEXTURE)] * 18, drawn)
    assert domain.limit is None and domain.drawing_weights == ()

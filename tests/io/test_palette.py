"""The colours of tracks can be told apart, also by colour-blind readers."""

import itertools

import cv2
import numpy as np
import pytest

from jdfd_keras.io.palette import TRACKS, YELLOW, text_colour, track_colour, track_hex
from jdfd_keras.reporting.style import COLORS

# Of red-green dichromats, in linear RGB: Machado, Oliveira and Fernandes (2009), severity 1.0.
PROTAN = [
    [0.152286, 1.052583, -0.204868],
    [0.114503, 0.786281, 0.099216],
    [-0.003882, -0.048116, 1.051998],
]
DEUTAN = [
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.011820, 0.042940, 0.968881],
]


def linear(colour):
    values = np.array(colour) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(colour, deficiency):
    seen = np.clip(np.array(deficiency) @ linear(colour), 0, 1)
    encoded = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    return cv2.cvtColor(np.float32([[encoded]]), cv2.COLOR_RGB2LAB)[0, 0]


@pytest.mark.parametrize("deficiency", [np.eye(3), PROTAN, DEUTAN])
def test_tracks_differ_for_colour_blind_readers(deficiency):
    seen = [lab(track_colour(track_id), deficiency) for track_id in range(7)]
    for one, other in itertools.combinations(seen, 2):
        assert np.linalg.norm(one - other) > 12  # 2 are just noticeable
    for one, other in itertools.combinations(seen[:3], 2):
        assert np.linalg.norm(one - other) > 25


def test_a_track_has_one_colour_in_videos_and_pages():
    hexes = [track_hex(track_id) for track_id in range(20)]
    assert all(a != b for a, b in itertools.pairwise(hexes))
    # From the page of Okabe and Ito.
    theirs = {"#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}
    assert set(hexes) == theirs == set(TRACKS) == {*COLORS, YELLOW} - {"#000000"}
    assert track_colour(1) == (0xE6, 0x9F, 0x00)
    assert [track_colour(track_id) for track_id in range(20)] == [
        tuple(int(value[at : at + 2], 16) for at in (1, 3, 5)) for value in hexes
    ]


def test_text_has_the_better_contrast():
    for track_id in range(7):
        background = track_colour(track_id)
        luminance = linear(background) @ [0.2126, 0.7152, 0.0722]
        contrast = {
            (0, 0, 0): (luminance + 0.05) / 0.05,
            (255, 255, 255): 1.05 / (luminance + 0.05),
        }
        assert text_colour(background) == max(contrast, key=contrast.get)
        assert max(contrast.values()) > 4.5  # the minimum of WCAG 2.1

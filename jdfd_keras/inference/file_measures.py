"""Measures of a file that are compared with those of validation, the domain of a calibration.

Takes the judged faces of a file, as they were extracted or as rows of a manifest; returns
FileMeasures. The same functions measure validation files and a file to be judged.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from jdfd_keras.client.domain import FileMeasures
from jdfd_keras.faces.detect import face_detector
from jdfd_keras.faces.extract import Extraction, Face
from jdfd_keras.faces.landmarks import find_landmarks, five_points
from jdfd_keras.faces.media import sample_frame_indices
from jdfd_keras.faces.texture import describe_texture

# Crops of each track whose texture is described, and that are searched for a face if it was not
# detected; and those of them that are reconstructed, which takes longer.
CROPS_PER_TRACK = 4
RECONSTRUCTED_PER_TRACK = 2
SEARCHED_WIDTH = 299  # to which a crop is scaled; dlib then finds faces from a quarter of it on

_ReconstructError = Callable[[np.ndarray], np.ndarray]


class MeasuredFace(NamedTuple):
    """What is known of one judged face, besides its pixels."""

    track_id: int
    size_px: float
    sharpness: float
    yaw_deg: float
    landmarks: np.ndarray  # float[68, 2] in pixels of the crop; float[0, 2] if unknown


class FileFacts(NamedTuple):
    """What a file states about itself."""

    num_bytes: int  # without Content Credentials
    num_frames: int  # in these bytes
    width: int  # of a frame
    height: int
    pixel_format: str


def measure_file(
    extraction: Extraction,
    judged_faces: Sequence[Face],
    reconstruct_error: _ReconstructError | None = None,
) -> FileMeasures:
    """Measure a file as it was extracted.

    Args:
        extraction: The file.
        judged_faces: Those of its faces that belong to judged tracks; without any, only the file
            itself is measured.
        reconstruct_error: Function from uint8[n, size, size, 3] RGB faces to float[n], the mean
            squared error of the decoder, such as that of a Predictor; None without a decoder.

    Example:
        >>> import jdfd_keras as jk
        >>> found = jk.extract_faces("video.mp4", jk.FaceOptions(frames_per_video=4))
        >>> measures = measure_file(found, found.faces)
        >>> measures.pixel_format, measures.size_px > 40, measures.reconstruction_error
        ('yuv420p', True, nan)
    """
    info, credentials = extraction.info, extraction.credentials
    signed_bytes = credentials.num_bytes if credentials else 0  # no pixels
    return combine_measures(
        [
            MeasuredFace(
                face.track_id,
                float(face.quality.size_px),
                face.quality.sharpness,
                face.quality.yaw_deg,
                face.landmarks,
            )
            for face in judged_faces
        ],
        lambda positions: np.stack([judged_faces[position].crop for position in positions]),
        FileFacts(
            max((extraction.file_bytes or 0) - signed_bytes, 0),
            info.num_frames,
            extraction.width,
            extraction.height,
            info.pixel_format,
        ),
        reconstruct_error,
    )


def combine_measures(
    faces: Sequence[MeasuredFace],
    read_crops: Callable[[Sequence[int]], np.ndarray],
    facts: FileFacts,
    reconstruct_error: _ReconstructError | None = None,
) -> FileMeasures:
    """Combine the measures of the judged faces of a file by their medians.

    Args:
        faces: The judged faces.
        read_crops: Function from positions in `faces` to uint8[n, size, size, 3], their crops;
            called with a few positions of each track, in order.
        facts: The file.
        reconstruct_error: As for `measure_file`.

    Example:
        >>> face = MeasuredFace(0, 80.0, 30.0, math.nan, np.ones((68, 2)))
        >>> crop = np.zeros((1, 71, 71, 3), np.uint8)
        >>> facts = FileFacts(500, 1, 100, 80, "RGB")
        >>> combine_measures([face], lambda positions: crop, facts).bits_per_pixel
        0.5
    """
    positions = choose_crops([face.track_id for face in faces])
    chosen = [faces[position] for position in positions]
    placements, errors, textures = [], [], []
    if chosen:
        crops = read_crops(positions)
        placements = [
            place_face(face.landmarks if len(face.landmarks) else _search_face(crop), len(crop))
            for face, crop in zip(chosen, crops, strict=True)
        ]
        if reconstruct_error:
            some = choose_crops([face.track_id for face in chosen], RECONSTRUCTED_PER_TRACK)
            errors = reconstruct_error(crops[some])
        textures = np.stack([describe_texture(crop) for crop in crops])
    num_pixels = facts.width * facts.height * facts.num_frames
    share, x, y, roll = np.reshape(placements, (-1, len(Placement._fields))).T
    return FileMeasures(
        size_px=_median([face.size_px for face in faces]),
        sharpness=_median([face.sharpness for face in faces]),
        bits_per_pixel=8 * facts.num_bytes / num_pixels if num_pixels else math.nan,
        yaw_deg=_median([abs(face.yaw_deg) for face in faces]),
        face_share=_median(share),
        face_x=_median(x),
        face_y=_median(y),
        roll_deg=_median(roll),
        reconstruction_error=_median(errors),
        pixel_format=facts.pixel_format,
        texture=tuple(np.median(textures, axis=0).tolist()) if chosen else (),
    )


def choose_crops(track_ids: Sequence[int], per_track: int = CROPS_PER_TRACK) -> list[int]:
    """Choose faces spread evenly over each track.

    Args:
        track_ids: Track of each face.
        per_track: Most faces of one track.

    Returns:
        Positions of the faces, increasing.

    Example:
        >>> choose_crops([0, 0, 0, 0, 0, 0, 0, 0, 1])
        [1, 3, 5, 7, 8]
    """
    by_track = defaultdict(list)
    for position, track_id in enumerate(track_ids):
        by_track[track_id].append(position)
    return sorted(
        members[index]
        for members in by_track.values()
        for index in sample_frame_indices(len(members), per_track).tolist()
    )


class Placement(NamedTuple):
    """Where a face is in its crop."""

    face_share: float  # width of its landmarks as a share of the crop; 0 without a face
    face_x: float  # centre of its landmarks as a share of the crop; NaN without a face
    face_y: float
    roll_deg: float  # absolute value; NaN without a face


def place_face(landmarks: np.ndarray, size: int) -> Placement:
    """Measure where a face is in its crop.

    Args:
        landmarks: float[68, 2] in pixels of the crop, or float[0, 2] without a face.
        size: Width of the crop.

    Example:
        >>> place_face(np.empty((0, 2)), 299)
        Placement(face_share=0.0, face_x=nan, face_y=nan, roll_deg=nan)
    """
    if not len(landmarks):
        return Placement(0.0, math.nan, math.nan, math.nan)
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    x, y = ((low + high) / 2 + 0.5) / size
    left, right = five_points(landmarks)[:2]
    roll = math.degrees(math.atan2(right[1] - left[1], right[0] - left[0]))
    return Placement(float((high[0] - low[0]) / size), float(x), float(y), abs(roll))


def _search_face(crop: np.ndarray) -> np.ndarray:
    """Return the landmarks of the largest face in a crop, float[68, 2] in its pixels, or [0, 2]."""
    scale = SEARCHED_WIDTH / len(crop)
    pixels = cv2.resize(crop, (SEARCHED_WIDTH, SEARCHED_WIDTH), interpolation=cv2.INTER_LINEAR)
    boxes = face_detector("dlib").find([pixels], thorough=False)[0]
    if not boxes:
        return np.empty((0, 2))
    landmarks = find_landmarks(pixels, max(boxes, key=lambda box: box.area))
    return (landmarks + 0.5) / scale - 0.5


def _median(values: Sequence[float] | np.ndarray) -> float:
    """Return the median of the known values; NaN without any."""
    array = np.asarray(values, np.float64)
    known = array[~np.isnan(array)]
    return float(np.median(known)) if len(known) else math.nan

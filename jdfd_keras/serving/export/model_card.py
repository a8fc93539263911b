"""The model card: purpose, limits, scores, input and licences of an exported model.

Takes the metadata of a model and sections on its training; writes Markdown. Independent of run
folders, models and TensorFlow.
"""

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import jdfd_keras
from jdfd_keras.client.metadata import Calibration, ModelMetadata
from jdfd_keras.io.console import plural
from jdfd_keras.io.files import write_text_atomically
from jdfd_keras.reporting.markdown import cell, table

TEXT = """# {name}, version {version}

{kind}
It takes one aligned face of a person and returns P(fake), a score from 0 to 1: higher is more fake.

{identity}

## Intended use

- A second opinion for people who examine videos of faces: analysts, fact-checkers, moderators.
- Research on detectors.

It scores face swaps and face re-enactments of the kinds that it was trained on.

## Out of scope

- **Proof.** A score is an estimate that is wrong for some faces. A decision about a person needs a
  human who examines the material and other evidence.
- Authentication. A low score only means that the model found no known trace: an edit of the
  background, the voice or the order of scenes does not change the face.
- Fully generated images, voices, and manipulations that are not in the training data.
- Identification: the model does not recognize people.

## Limits

- Detectors perform markedly worse on datasets, manipulations and cameras that they were not trained
  on.
- Strong compression and small, turned, blurred or occluded faces reduce the performance.
- Differences in performance by age, sex and skin colour were not measured.
- An attacker with access to the detector can create fakes that it does not detect.

## Reading a score

{reading}

## Input

RGB, {size} x {size} pixels; encoded faces of another size are resized in the model. Faces must be
extracted as in training. `jdfd-keras predict` does so with the options that are stored in the model
(assets.extra/alignment.json):

{faces}

An image that cannot be decoded has no score: `valid` is false, and the score is NaN.

## Licences

- **Code**: jdfd-keras is Apache-2.0.
- **Landmarks**: {landmarks}
- **Data**: the licence of the training data may restrict the use of a model. FaceForensics++,
  Celeb-DF, UADFV and DFDC have their own terms, usually for research only. Check them before any
  other use of a model that was trained on one of them.
{sections}"""

WITH_DECODER = """\
A Joint DeepFake Detector: one Xception encoder, a classifier, and a decoder that reconstructs the
face."""
WITHOUT_DECODER = """\
A detector of deepfakes: one Xception encoder and a classifier. It has no decoder, and so does not
reconstruct the face."""
WITH_LANDMARKS = """\
faces were aligned with dlib's model of 68 landmarks, which is also needed to extract
  faces in the same way. It was trained on iBUG 300-W, a dataset for non-commercial use only."""
WITHOUT_LANDMARKS = "none: faces were cropped by their bounding box only."
NOT_RECORDED = {
    "Data, training and figures": "Not recorded: this model was exported without its run."
}


def write_model_card(
    path: str | Path,
    metadata: ModelMetadata,
    *,
    has_decoder: bool,
    sections: Mapping[str, str],
) -> None:
    """Write the model card of one version.

    Args:
        path: The file, replaced if it exists.
        metadata: Name, version and digest of the model, and its face and calibration options.
        has_decoder: Whether the model has a decoder.
        sections: Markdown on data, training and metrics by title, in order. Without any, the card
            states that they were not recorded.

    Raises:
        OSError: If the file cannot be written.

    Example:
        >>> metadata = ModelMetadata(FaceOptions(), None, "detector", 1, "ab" * 32)
        >>> write_model_card("MODEL_CARD.md", metadata, has_decoder=True, sections={})
    """
    by_box = metadata.faces.alignment == "box"
    text = TEXT.format(
        name=metadata.name,
        version=metadata.version,
        kind=WITH_DECODER if has_decoder else WITHOUT_DECODER,
        identity=_identify(metadata),
        size=metadata.faces.face_size,
        faces=list_values(dataclasses.asdict(metadata.faces)),
        landmarks=WITHOUT_LANDMARKS if by_box else WITH_LANDMARKS,
        reading=_read_scores(metadata.calibration),
        sections="".join(
            f"\n## {title}\n\n{body}\n" for title, body in (sections or NOT_RECORDED).items()
        ),
    )
    write_text_atomically(path, text)


def list_values(values: Mapping[str, object]) -> str:
    """Return names and values as a Markdown list."""
    return "\n".join(f"- {cell(words(name))}: {cell(value)}" for name, value in values.items())


def words(name: str) -> str:
    """Return the name of an option in words: `face size` for `face_size`."""
    return name.replace("_", " ")


def _identify(metadata: ModelMetadata) -> str:
    calibration = metadata.calibration
    rows = [
        ("written", datetime.now().astimezone().date().isoformat()),
        ("by", f"jdfd-keras {jdfd_keras.__version__}"),
        ("scores", "calibrated" if calibration else "not calibrated"),
        ("image size", f"{metadata.faces.face_size} x {metadata.faces.face_size} pixels"),
        ("SHA-256 of the weights", metadata.digest),
    ]
    if calibration and calibration.model:
        rows.append(("SHA-256 of the model file", calibration.model))
    return table(("", ""), rows)


def _read_scores(calibration: Calibration | None) -> str:
    if calibration is None:
        return (
            "The scores are not calibrated, and 0.5 is an arbitrary threshold. Run "
            "`jdfd-keras calibrate` before the export."
        )
    rows = [
        (f"{calibration.uncertain_to:.4g} and above", "fake"),
        (f"{calibration.uncertain_from:.4g} to {calibration.uncertain_to:.4g}", "uncertain"),
        (f"below {calibration.uncertain_from:.4g}", "real"),
    ]
    segment = (
        " If the mean is real but at least a quarter of that person's faces in a row score fake, "
        "`jdfd-keras predict` returns uncertain."
    )
    if calibration.uncertain_from == calibration.uncertain_to:
        del rows[1]
        segment = ""
    fake_videos = plural(calibration.num_fake, "fake validation video")
    text = (
        "The score of a person is the mean of their faces, that of a video the highest score of "
        f"the people in it.{segment}\n\n{table(('score', 'verdict'), rows)}\n\n"
        f"For a binary decision the threshold is {calibration.threshold:.4g}. The verdict is "
        f"uncertain where more than {calibration.target_error_rate:.3g} of the validation videos "
        "of one class would be misjudged, or where there was no validation video.\n\n"
        f"The scores are calibrated on {calibration.num_real} real and {fake_videos} of "
        f"{cell(calibration.data)}, with a temperature of {calibration.temperature:.4g}. The "
        "expected calibration error of faces there was "
        f"{calibration.ece_before:.3f} before and {calibration.ece_after:.3f} after."
    )
    if calibration.ece_after > calibration.ece_before:
        text += (
            " It increased on this small set; the temperature is regularised towards less "
            "confident scores."
        )
    return text

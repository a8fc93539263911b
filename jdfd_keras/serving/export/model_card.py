"""The model card: what is known about an exported model, for those who use it.

Takes a description and sections of what is known of its making; writes Markdown. Knows nothing of
run folders, models or TensorFlow.
"""

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import jdfd_keras
from jdfd_keras.client.metadata import Calibration, Description
from jdfd_keras.reporting.markdown import cell, table

TEXT = """# {name}, version {version}

{kind}
It takes one aligned face of a person and gives P(fake), a score from 0 to 1: higher is more fake.

{identity}

## Intended use

- A second opinion for people who look at videos of faces: analysts, fact-checkers, moderators.
- Research on detectors.

It scores face swaps and face re-enactments of the kinds that it was trained on.

## What it must not be used for

- **As proof.** A score is an estimate that is wrong for some faces. No decision about a person
  without a human who looks at the material and at other evidence.
- To call a video authentic. A low score only says that no trace was seen that it knows: an edit of
  the background, the voice or the order of scenes leaves the face as it was.
- For images that are wholly generated, for voices, or for manipulations that it never saw.
- To find out who somebody is: it knows no identities.

## Limits

- Detectors do markedly worse on data sets, manipulations and cameras that they were not trained on.
- Strong compression, small, turned, blurred or covered faces make it worse.
- Whether it does equally well for people of every age, sex and skin colour was not measured.
- Whoever knows the detector can make fakes that it does not see.

## Reading a score

{reading}

## Input

RGB, {size} x {size} pixels; encoded faces of another size are resized in the model. Faces must be
taken as in training. `jdfd-keras predict` does so by itself, with the options that lie in the
model (assets.extra/alignment.json):

{faces}

An image that cannot be read has no score: `valid` is false, and the score is no number.

## Licences

- **Code**: jdfd-keras is Apache-2.0.
- **Landmarks**: {landmarks}
- **Data**: what a model was trained on may bind those who use it. FaceForensics++, Celeb-DF, UADFV
  and DFDC each have terms of their own, as a rule for research only. Read them, and ask, before any
  other use of a model that was trained on one of them.
{sections}"""

WITH_DECODER = """\
A Joint DeepFake Detector: one Xception encoder, a classifier, and a decoder that reconstructs the
face."""
WITHOUT_DECODER = """\
A detector of deepfakes: one Xception encoder and a classifier. It has no decoder, and so does not
reconstruct the face."""
WITH_LANDMARKS = """\
faces were aligned by dlib's model of 68 points. It was trained on iBUG 300-W, whose
  licence excludes commercial use, and it is needed to take faces alike."""
WITHOUT_LANDMARKS = "none are needed: faces were taken by their box alone."
NOT_RECORDED = {
    "Data, training and figures": "Not recorded: this model was exported without its run."
}


def write_model_card(
    path: str | Path,
    description: Description,
    *,
    has_decoder: bool,
    sections: Mapping[str, str],
) -> None:
    """Write the card of one version.

    Args:
        path: The file, replaced if it is there.
        description: Its name, version and digest; how faces are taken, and scores read.
        has_decoder: Whether it reconstructs faces too.
        sections: What is known of its data, training and figures: Markdown by title, in order.
            Without any, the card says that it does not know.
    """
    by_box = description.faces.alignment == "box"
    text = TEXT.format(
        name=description.name,
        version=description.version,
        kind=WITH_DECODER if has_decoder else WITHOUT_DECODER,
        identity=_identify(description),
        size=description.faces.face_size,
        faces=list_values(dataclasses.asdict(description.faces)),
        landmarks=WITHOUT_LANDMARKS if by_box else WITH_LANDMARKS,
        reading=_read_scores(description.calibration),
        sections="".join(
            f"\n## {title}\n\n{body}\n" for title, body in (sections or NOT_RECORDED).items()
        ),
    )
    Path(path).write_text(text, encoding="utf-8")


def list_values(values: Mapping[str, object]) -> str:
    """Write names and values as a list, in words."""
    return "\n".join(f"- {cell(words(name))}: {cell(value)}" for name, value in values.items())


def words(name: str) -> str:
    """Write the name of an option in words: `face_size` is `face size`."""
    return name.replace("_", " ")


def _identify(description: Description) -> str:
    calibration = description.calibration
    rows = [
        ("written", datetime.now().astimezone().date().isoformat()),
        ("by", f"jdfd-keras {jdfd_keras.__version__}"),
        ("scores", "calibrated" if calibration else "not calibrated"),
        ("image size", f"{description.faces.face_size} x {description.faces.face_size} pixels"),
        ("SHA-256 of the weights", description.digest),
    ]
    if calibration and calibration.model:
        rows.append(("SHA-256 of the model file", calibration.model))
    return table(("", ""), rows)


def _read_scores(calibration: Calibration | None) -> str:
    if calibration is None:
        return (
            "The scores are not calibrated: 0.5 is no more than a habit. `jdfd-keras calibrate` "
            "before the export does better."
        )
    rows = [
        (f"{calibration.uncertain_to:.4g} and above", "fake"),
        (f"{calibration.uncertain_from:.4g} to {calibration.uncertain_to:.4g}", "uncertain"),
        (f"below {calibration.uncertain_from:.4g}", "real"),
    ]
    part = (
        " Where a mean is real but a quarter of that person's faces, one after the other, is fake, "
        "`jdfd-keras predict` says uncertain."
    )
    if calibration.uncertain_from == calibration.uncertain_to:
        del rows[1]
        part = ""
    text = (
        "Take the mean of the faces of one person, and of several people the highest mean."
        f"{part}\n\n{table(('score', 'verdict'), rows)}\n\n"
        f"Where only yes or no is wanted, it is fake from {calibration.threshold:.4g} on. Where "
        f"the verdict is uncertain, more than {calibration.wanted_rate:.3g} of the videos of one "
        "class would be called wrongly, or no video was seen.\n\n"
        f"The scores are calibrated on {calibration.num_real} real and {calibration.num_fake} fake "
        f"validation videos of {cell(calibration.data)}, with a temperature of "
        f"{calibration.temperature:.4g}. The expected calibration error of faces there was "
        f"{calibration.ece_before:.3f} before and {calibration.ece_after:.3f} after."
    )
    if calibration.ece_after > calibration.ece_before:
        text += " It rose: so few videos cannot show that scores are as sure as they say."
    return text

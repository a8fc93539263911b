"""The model card: what is known about an exported model, for those who use it.

Takes facts; writes Markdown. Knows nothing of models or TensorFlow.
"""

import dataclasses
from pathlib import Path

from jdfd_keras.evaluation.calibration import Calibration
from jdfd_keras.options import FaceOptions

TEXT = """# {name}, version {version}

{kind}
It takes one aligned face and gives P(fake), a score from 0 to 1; higher is more fake.

## Intended use

A second opinion for people who look at videos of faces, and research on detectors. It scores
face swaps and face re-enactments of the kinds that it was trained on.

A score is no proof. Not for decisions about a person without a human who looks at the material
and other evidence; not for images that are wholly generated, for voices, or for manipulations
that it never saw. Strong compression, small, turned or covered faces make it worse.

## Input

- image size: {image_size} x {image_size} pixels, RGB; other sizes are resized in the model
- faces must be taken as in training: `jdfd-keras predict` does it with the options beside the
  model (assets.extra/alignment.json):
{alignment}

## Reading a score

{reading}
{sections}
## Licences

- The landmark file of dlib that aligns the faces (68 points) was trained on iBUG 300-W, whose
  licence excludes commercial use.
- The data sets of deepfakes have their own terms, most of them for research only. Ask before you
  use a model that was trained on them for anything else.
- The code of jdfd-keras is Apache-2.0.
"""

WITH_DECODER = """\
A Joint DeepFake Detector: one Xception encoder, a classifier, and a decoder that reconstructs the
face."""
WITHOUT_DECODER = """\
A detector of deepfakes: one Xception encoder and a classifier. It has no decoder, and so does not
reconstruct the face."""


def write_model_card(
    path: str | Path,
    *,
    name: str,
    version: int,
    image_size: int,
    has_decoder: bool,
    faces: FaceOptions,
    calibration: Calibration | None,
    facts: dict[str, dict],
) -> None:
    """Write the card of one version.

    Args:
        path: The file, replaced if it is there.
        name: The name it is served under.
        version: Its number.
        image_size: Width and height of its input in pixels.
        has_decoder: Whether it reconstructs faces too.
        faces: How faces were taken for it.
        calibration: How its scores are corrected and read.
        facts: What else is known (data, training, figures): sections of name and value. Without
            any, the card says that it does not know.
    """
    facts = facts or {
        "Data, training and figures": {"not recorded": "this model was exported without its run"}
    }
    sections = [f"\n## {title}\n\n{_as_list(values)}\n" for title, values in facts.items()]
    text = TEXT.format(
        name=name,
        version=version,
        kind=WITH_DECODER if has_decoder else WITHOUT_DECODER,
        image_size=image_size,
        alignment=_as_list(dataclasses.asdict(faces), indent="  "),
        reading=_read_scores(calibration),
        sections="".join(sections),
    )
    Path(path).write_text(text, encoding="utf-8")


def _read_scores(calibration: Calibration | None) -> str:
    if calibration is None:
        return (
            "The scores are not calibrated: 0.5 is no more than a habit. `jdfd-keras calibrate` "
            "before the export does better."
        )
    return (
        f"The scores are calibrated on {calibration.num_real} real and {calibration.num_fake} fake "
        f"validation videos of {calibration.data}, with a temperature of "
        f"{calibration.temperature:.4g} (expected calibration error of faces there "
        f"{calibration.ece_before:.3f} before, {calibration.ece_after:.3f} after). Take the mean "
        "of the faces of one person.\n\n"
        f"- fake: {calibration.uncertain_to:.4g} and above\n"
        f"- real: below {calibration.uncertain_from:.4g}\n"
        "- uncertain: between. There, more than "
        f"{calibration.wanted_rate:.3g} of the videos of one class would be called wrongly, or "
        "none was seen.\n"
        f"- where only yes or no is wanted: fake from {calibration.threshold:.4g} on"
    )


def _as_list(values: dict, indent: str = "") -> str:
    return "\n".join(f"{indent}- {name}: {value}" for name, value in values.items())

"""The model card: date, software, order of sections, and reading of scores."""

from datetime import datetime

import jdfd_keras
from jdfd_keras.client.metadata import Calibration, ModelMetadata
from jdfd_keras.options import FaceOptions
from jdfd_keras.serving.export.model_card import write_model_card

CARD = {"has_decoder": True, "sections": {"Training": "last"}}


def write(path, calibration):
    metadata = ModelMetadata(FaceOptions(), calibration, "detector", 7, "0123abcd")
    write_model_card(path, metadata, **CARD)
    return path.read_text(encoding="utf-8")


def test_the_card_states_its_date_and_software(tmp_path):
    before = datetime.now().astimezone().date()
    text = write(tmp_path / "card.md", None)
    after = datetime.now().astimezone().date()
    assert any(f"| written | {day:%Y-%m-%d} |" in text for day in (before, after))
    assert f"| by | jdfd-keras {jdfd_keras.__version__} |" in text


def test_limits_come_before_the_sections_of_a_run(tmp_path):
    text = write(tmp_path / "card.md", None)
    assert text.index("## Limits") < text.index("## Reading a score") < text.index("## Training")


def test_the_card_explains_fake_segments_if_verdicts_can_be_uncertain(tmp_path):
    sentence = "a quarter of that person's faces"
    assert sentence in write(tmp_path / "a.md", Calibration(uncertain_from=0.3, uncertain_to=0.8))
    assert sentence not in write(tmp_path / "b.md", Calibration())

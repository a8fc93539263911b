"""The card itself: when and by what it was written, and how its scores are read."""

from datetime import datetime

import jdfd_keras
from jdfd_keras.client.metadata import Calibration, Description
from jdfd_keras.options import FaceOptions
from jdfd_keras.serving.export.model_card import write_model_card

CARD = {"has_decoder": True, "sections": {"Training": "last"}}


def write(path, calibration):
    known = Description(FaceOptions(), calibration, "judge", 7, "0123abcd")
    write_model_card(path, known, **CARD)
    return path.read_text(encoding="utf-8")


def test_the_card_tells_its_day_and_its_software(tmp_path):
    before = datetime.now().astimezone().date()
    text = write(tmp_path / "card.md", None)
    after = datetime.now().astimezone().date()
    assert any(f"| written | {day:%Y-%m-%d} |" in text for day in (before, after))
    assert f"| by | jdfd-keras {jdfd_keras.__version__} |" in text


def test_limits_stand_before_what_a_run_tells(tmp_path):
    text = write(tmp_path / "card.md", None)
    assert text.index("## Limits") < text.index("## Reading a score") < text.index("## Training")


def test_the_card_tells_of_a_part_where_something_can_be_uncertain(tmp_path):
    told = "a quarter of that person's faces"
    assert told in write(tmp_path / "a.md", Calibration(uncertain_from=0.3, uncertain_to=0.8))
    assert told not in write(tmp_path / "b.md", Calibration())

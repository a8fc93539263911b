"""What is said of the data sets of an experiment."""

import dataclasses
from pathlib import Path

import pytest

from jdfd_keras.experiments.sets import GROUPS, DataSet, describe_sets


@pytest.mark.parametrize(
    ("every", "said"),
    [
        (1, "every frame"),
        (2, "every 2nd frame"),
        (3, "every 3rd frame"),
        (10, "every 10th frame"),
        (11, "every 11th frame"),
        (21, "every 21st frame"),
        (112, "every 112th frame"),
        (0, "7 frames a video"),
    ],
)
def test_how_many_frames_were_taken_is_said_in_words(every, said):
    options = {name: dataclasses.asdict(kind()) for name, kind in GROUPS.items()}
    options["faces"] |= {"every": every, "frames_per_video": 7}
    (line,) = describe_sets({"mine": DataSet(Path(), "", options)})
    assert f", {said}, detector" in line

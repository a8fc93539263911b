"""The description of the datasets of an experiment."""

import pytest

from jdfd_keras.experiments.sets import PreparedOptions, describe_datasets
from jdfd_keras.options import FaceOptions, FilterOptions, PrepareOptions, SplitOptions


@pytest.mark.parametrize(
    ("every", "words"),
    [
        (1, "every frame"),
        (2, "every 2nd frame"),
        (3, "every 3rd frame"),
        (10, "every 10th frame"),
        (11, "every 11th frame"),
        (21, "every 21st frame"),
        (112, "every 112th frame"),
        (0, "7 frames per video"),
    ],
)
def test_the_description_states_which_frames_were_sampled(every, words):
    options = PreparedOptions(
        split=SplitOptions(),
        faces=FaceOptions(every=every, frames_per_video=7),
        filters=FilterOptions(),
        prepare=PrepareOptions(),
    )
    (line,) = describe_datasets({"mine": options})
    assert f", {words}, detector" in line

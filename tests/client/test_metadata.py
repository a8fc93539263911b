import pytest

from jdfd_keras.client.metadata import Calibration, Description, read_description, write_description
from jdfd_keras.options import FaceOptions

FACES = FaceOptions(face_size=96, alignment="box", margin=1.7)


def answer(texts):
    return lambda names: [texts[name.decode()].encode() for name in names]


@pytest.mark.parametrize("calibration", [None, Calibration(temperature=1.25, threshold=0.75)])
def test_description_comes_back_as_it_was(calibration):
    description = Description(FACES, calibration, "detector", 3, "abc")
    assert read_description(answer(write_description(description))) == description


@pytest.mark.parametrize(
    "wrong",
    [
        {"alignment.json": ""},
        {"alignment.json": "[]"},
        {"alignment.json": '{"faces": {"size": 3}}'},
        {"calibration.json": '{"calibration": {"temperatures": 2}}'},
        {"model.json": "{}"},
        {"model.json": "3"},
        {"model.json": '{"name": 3, "version": 1, "digest": ""}'},
        {"model.json": '{"name": "a", "version": true, "digest": ""}'},
        {"model.json": "[" * 100_000},
        {"calibration.json": '{"calibration": {"temperature": "2"}}'},
    ],
)
def test_texts_of_another_kind_are_an_error(wrong):
    texts = write_description(Description(FACES, Calibration(), "detector", 3, "abc")) | wrong
    with pytest.raises(OSError, match="describe itself; got .*export it again"):
        read_description(answer(texts))


def test_too_few_texts_are_an_error():
    with pytest.raises(OSError, match="describe itself"):
        read_description(lambda names: [b"{}"])

"""Results survive the way to JSON text and back."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from jdfd_keras.io.results import Result
from jdfd_keras.options import FaceOptions


@dataclass(frozen=True)
class Interval(Result):
    value: float
    low: float | None = None


@dataclass(frozen=True)
class Report(Result):
    name: str
    overall: Interval
    best: Interval | None
    levels: dict[str, Interval]
    by_number: dict[int, list[Interval]]
    pair: tuple[int, str]
    steps: tuple[Interval, ...]
    path: Path
    faces: FaceOptions
    count: int = 0
    pixels: np.ndarray | None = field(default=None, metadata={"json": False})


REPORT = Report(
    name="test",
    overall=Interval(0.75, 0.5),
    best=None,
    levels={"frame": Interval(0.5), "video": Interval(1.0, 0.9)},
    by_number={1: [Interval(0.1)], 2: []},
    pair=(3, "a"),
    steps=(Interval(0.0), Interval(0.25)),
    path=Path("a/b.mp4"),
    faces=FaceOptions(face_size=71),
    pixels=np.zeros((2, 2, 3), np.uint8),
)


def test_a_nested_result_becomes_plain_values():
    values = REPORT.to_dict()
    assert "pixels" not in values
    assert values.pop("faces") == dataclasses.asdict(FaceOptions(face_size=71))
    assert values == {
        "name": "test",
        "overall": {"value": 0.75, "low": 0.5},
        "best": None,
        "levels": {"frame": {"value": 0.5, "low": None}, "video": {"value": 1.0, "low": 0.9}},
        "by_number": {"1": [{"value": 0.1, "low": None}], "2": []},
        "pair": [3, "a"],
        "steps": [{"value": 0.0, "low": None}, {"value": 0.25, "low": None}],
        "path": "a/b.mp4",
        "count": 0,
    }


def test_a_nested_result_comes_back_from_json_text():
    text = json.dumps(REPORT.to_dict())
    assert Report.from_dict(json.loads(text)) == dataclasses.replace(REPORT, pixels=None)


def test_numpy_values_become_those_of_python():
    plain = Interval(np.float32(0.5), {"array": np.array([[1, 2]]), 7: (np.int8(3),)}).to_dict()
    assert plain == {"value": 0.5, "low": {"array": [[1, 2]], "7": [3]}}
    assert type(plain["value"]) is float
    assert type(Interval(np.bool_(True)).to_dict()["value"]) is bool
    json.dumps(plain)


def test_fields_with_a_default_may_be_missing():
    assert Interval.from_dict({"value": 0.5}) == Interval(0.5, None)


@pytest.mark.parametrize("values", [{}, {"value": 1.0, "high": 2.0}, None, [1.0]])
def test_missing_or_unknown_fields_are_refused(values):
    with pytest.raises(ValueError, match="fields of Interval; got "):
        Interval.from_dict(values)


def test_a_damaged_field_of_an_inner_result_is_refused():
    values = REPORT.to_dict() | {"overall": {"low": 0.5}}
    with pytest.raises(ValueError, match="fields of Interval; got "):
        Report.from_dict(values)


def test_nan_is_null_in_json_and_nan_again():
    values = json.loads(
        json.dumps(Interval(float("nan"), np.float32("nan")).to_dict(), allow_nan=False)
    )
    assert values == {"value": None, "low": None}
    restored = Interval.from_dict(values)
    assert np.isnan(restored.value)
    assert restored.low is None  # None is a value of its own there


def test_the_parts_of_json_are_its_text_and_one_for_each_of_many_results():
    nested = Interval((REPORT, REPORT), {"a": [1.5], "b": None})
    many = Interval(tuple(Interval(0.5, (float("nan"), 'é"\n')) for _ in range(9)), ((), []))
    for result in (REPORT, nested, many, Interval((), {})):
        assert "".join(result.json_parts()) == json.dumps(result.to_dict(), indent=2)
    assert max(map(len, many.json_parts())) < 30

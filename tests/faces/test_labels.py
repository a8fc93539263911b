"""Labels do not cover each other, and are in the frame as long as there is room."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from jdfd_keras.faces.labels import Rect, place_labels

FRAME = (640, 360)
sides = st.integers(1, 200)
boxes = st.lists(
    st.tuples(st.integers(-50, 640), st.integers(-50, 360), sides, sides).map(
        lambda box: Rect(box[0], box[1], box[0] + box[2], box[1] + box[3])
    ),
    max_size=25,
)
widths = st.lists(st.integers(20, 250), min_size=25, max_size=25)
reserved = st.lists(st.sampled_from([Rect(0, 0, 200, 20), Rect(0, 340, 160, 360)]), unique=True)


def shares_a_pixel(one, other):
    across = set(range(one.left, one.right)) & set(range(other.left, other.right))
    return bool(across and set(range(one.top, one.bottom)) & set(range(other.top, other.bottom)))


@given(boxes, widths, reserved)
def test_no_two_labels_intersect_and_all_are_in_the_frame(boxes, widths, reserved):
    sizes = [[(width, 16), (20, 16)] for width, _ in zip(widths, boxes, strict=False)]
    labels = place_labels(boxes, sizes, FRAME, reserved)
    assert labels == place_labels(boxes, sizes, FRAME, reserved)
    placed = [label[1] for label in labels if label]
    for one, other in itertools.combinations([*placed, *reserved], 2):
        assert not shares_a_pixel(one, other)
    for label, forms in zip(labels, sizes, strict=True):
        if label:
            form, rect = label
            assert (rect.right - rect.left, rect.bottom - rect.top) == forms[form]
            assert rect.left >= 0 and rect.right <= 640
            assert rect.top >= 0 and rect.bottom <= 360


@given(boxes, widths, reserved)
def test_each_label_has_its_longest_form_while_there_is_room(boxes, widths, reserved):
    sizes = [[(width, 16)] for width, _ in zip(widths, boxes, strict=False)]
    occupied = list(reserved)
    for label, ((width, height),) in zip(
        place_labels(boxes, sizes, FRAME, reserved), sizes, strict=True
    ):
        # Each rectangle prevents that many positions of the corner of a label, at most.
        prevented = sum(
            (rect.right - rect.left + width - 1) * (rect.bottom - rect.top + height - 1)
            for rect in occupied
        )
        if prevented < (640 - width + 1) * (360 - height + 1):
            assert label is not None
        if label:
            occupied.append(label[1])


@given(boxes, widths)
def test_a_label_is_omitted_only_if_no_position_is_free(boxes, widths):
    frame = (120, 60)
    sizes = [[(width, 16)] for width, _ in zip(widths, boxes, strict=False)]
    labels = place_labels(boxes, sizes, frame)
    for index, ((width, height),) in enumerate(sizes):
        if labels[index]:
            continue
        before = [label[1] for label in labels[:index] if label]
        for left in range(120 - width + 1):
            for top in range(60 - height + 1):
                rect = Rect(left, top, left + width, top + height)
                assert any(rect.intersects(other) for other in before)


def test_a_label_is_above_its_box_and_below_it_at_the_upper_edge():
    above, below = Rect(100, 100, 180, 200), Rect(300, 5, 380, 100)
    labels = place_labels([above, below], [[(90, 16)]] * 2, FRAME)
    assert labels == [(0, Rect(100, 84, 190, 100)), (0, Rect(300, 100, 390, 116))]


def test_labels_of_close_faces_move_apart_without_covering_a_face():
    faces = [Rect(100, 100, 160, 180), Rect(165, 100, 225, 180)]
    (_, first), (_, second) = place_labels(faces, [[(120, 16)]] * 2, FRAME)
    assert first == Rect(100, 84, 220, 100)
    assert not any(face.intersects(label) for face in faces for label in (first, second))
    assert min(face.distance(second) for face in faces[1:]) == 0


def test_a_label_moves_inside_of_a_box_that_fills_the_frame():
    ((form, rect),) = place_labels(
        [Rect(0, 0, 640, 360)], [[(90, 16)]], FRAME, [Rect(0, 0, 200, 20)]
    )
    assert form == 0 and rect == Rect(550, 0, 640, 16)


def test_labels_without_room_are_shortened_then_omitted():
    box = Rect(0, 0, 60, 20)
    labels = place_labels([box] * 4, [[(60, 10), (30, 10)]] * 4, (60, 20), [Rect(0, 0, 60, 10)])
    assert labels[0] == (0, Rect(0, 10, 60, 20))
    assert labels[1:] == [None] * 3
    labels = place_labels([box] * 3, [[(60, 10), (30, 10)]] * 3, (60, 20), [Rect(0, 0, 20, 20)])
    assert labels == [(1, Rect(30, 0, 60, 10)), (1, Rect(30, 10, 60, 20)), None]

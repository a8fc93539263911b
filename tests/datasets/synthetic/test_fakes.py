import time

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jdfd_keras.datasets.synthetic.clips import vary_portrait
from jdfd_keras.datasets.synthetic.fakes import make_fake, smooth_warp
from jdfd_keras.datasets.synthetic.masks import draw_region, face_size
from jdfd_keras.options import FAKE_KINDS, WARPED, parse_fakes

KINDS = (*FAKE_KINDS, WARPED)
SIZE = 160


@pytest.fixture(scope="module")
def people(astronaut):
    """Crops of two people with their landmarks."""
    people = []
    for portrait in vary_portrait(astronaut, 2, seed=1):
        left, top = (portrait.landmarks.mean(axis=0) - SIZE / 2).astype(int)
        crop = portrait.pixels[max(top, 0) :][:SIZE, left:][:, :SIZE]
        people.append((np.ascontiguousarray(crop), portrait.landmarks - (left, max(top, 0))))
    assert all(crop.shape == (SIZE, SIZE, 3) for crop, _ in people)
    return people


def fakes_of(kind, people, count):
    (face, landmarks), donor = people
    return [
        make_fake(kind, face, landmarks, np.random.default_rng(seed), donor)
        for seed in range(count)
    ]


def sharpness(pixels, where):
    return np.abs(cv2.Laplacian(pixels, cv2.CV_32F))[where].mean()


@pytest.mark.parametrize("kind", KINDS)
def test_a_fake_equals_the_face_outside_its_mask_and_differs_inside(people, kind):
    face, landmarks = people[0]
    before = face.copy()
    for fake in fakes_of(kind, people, 60):
        assert (fake.pixels.shape, fake.pixels.dtype) == (face.shape, np.uint8)
        assert (fake.mask.shape, fake.mask.dtype) == ((SIZE, SIZE), np.float32)
        assert fake.mask.min() == 0
        assert 0.24 < fake.mask.max() <= 1
        np.testing.assert_array_equal(fake.pixels[fake.mask == 0], face[fake.mask == 0])
        change = np.abs(fake.pixels.astype(int) - face).mean(axis=2)
        assert np.average(change, weights=fake.mask) > 1
    np.testing.assert_array_equal(face, before)


def test_mixed_means_the_four_kinds_that_it_always_meant():
    assert parse_fakes("mixed") == ("self-blended", "swapped", "re-rendered", "local")
    assert parse_fakes("warped, local") == ("local", "warped")
    with pytest.raises(ValueError, match="local, warped; got 'mixed,warped'"):
        parse_fakes("mixed,warped")


@pytest.mark.parametrize("kind", KINDS)
def test_the_change_is_in_proportion_to_the_mask(people, kind):
    """In soft edges lies a blend of the face and of one forged image, in steps of a grey level."""
    face, _ = people[0]
    for fake in fakes_of(kind, people, 20):
        weight = fake.mask[..., None]
        change = fake.pixels.astype(np.float32) - face
        forged = face + change / np.maximum(weight, 1e-6)
        is_seen = weight > 0.05
        slack = 0.6 / np.maximum(weight, 1e-6)  # a rounded grey level, divided by the weight
        assert ((forged >= -slack) & (forged <= 255 + slack))[is_seen[..., 0]].all()


@pytest.mark.parametrize("kind", FAKE_KINDS)
def test_same_seed_same_bytes_and_other_seeds_other_fakes(people, kind):
    fakes, again = fakes_of(kind, people, 10), fakes_of(kind, people, 10)
    for fake, same in zip(fakes, again, strict=True):
        assert fake.pixels.tobytes() == same.pixels.tobytes()
        assert fake.mask.tobytes() == same.mask.tobytes()
    assert len({fake.pixels.tobytes() for fake in fakes}) == 10


def test_a_self_blended_face_has_the_ratios_of_the_paper(people):
    peaks = [fake.mask.max() for fake in fakes_of("self-blended", people, 120)]
    ratios = np.array([0.25, 0.5, 0.75, 1])
    nearest = np.abs(np.array(peaks)[:, None] - ratios).argmin(axis=1)
    assert np.abs(peaks - ratios[nearest]).max() < 0.02
    assert np.bincount(nearest) / 120 == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2], abs=0.12)


@pytest.mark.parametrize("kind", ["swapped", "re-rendered", "local"])
def test_other_fakes_replace_the_face_fully(people, kind):
    assert min(fake.mask.max() for fake in fakes_of(kind, people, 30)) > 0.99


def test_a_self_blended_face_keeps_its_identity_and_moves_little(people):
    face, _ = people[0]
    for fake in fakes_of("self-blended", people, 30):
        inside = fake.mask > 0.2
        pair = [cv2.GaussianBlur(image, (0, 0), 3)[inside] for image in (face, fake.pixels)]
        assert np.corrcoef(*[pixels.ravel() for pixels in pair])[0, 1] > 0.85


def test_a_swapped_face_is_the_donors_at_the_landmarks_in_the_colours_of_the_face(people):
    (face, landmarks), (_, donor_landmarks) = people
    red = np.zeros_like(face)
    red[..., 0] = 40  # a dark donor with a bright mouth
    mouth = draw_region(donor_landmarks, "mouth", SIZE) > 0
    red[mouth] = 200
    ours = draw_region(landmarks, "mouth", SIZE) > 0
    skin = (draw_region(landmarks, "features", SIZE) > 0) & ~cv2.dilate(
        ours.astype(np.uint8), np.ones((9, 9))
    ).astype(bool)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        fake = make_fake("swapped", face, landmarks, rng, (red, donor_landmarks))
        full = fake.mask > 0.98
        grey = fake.pixels.mean(axis=2)
        if (full & ours).sum() > 50 and (full & skin).sum() > 50:
            assert grey[full & ours].mean() > grey[full & skin].mean() + 20


def test_a_donor_may_have_another_size(people):
    (face, landmarks), (image, origin) = people
    large = cv2.resize(image, (2 * SIZE, 2 * SIZE), interpolation=cv2.INTER_CUBIC)
    one, other = (
        make_fake("swapped", face, landmarks, np.random.default_rng(0), donor)
        for donor in ((image, origin), (large, 2 * origin + 0.5))
    )
    assert np.abs(one.pixels.astype(int) - other.pixels).mean() < 2


def test_a_rerendered_face_is_blurred_and_stays_in_place(people):
    face, _ = people[0]
    for fake in fakes_of("re-rendered", people, 30):
        full = fake.mask > 0.98
        assert sharpness(fake.pixels, full) < 0.8 * sharpness(face, full)
        pair = [cv2.GaussianBlur(image, (0, 0), 3)[full] for image in (face, fake.pixels)]
        assert np.corrcoef(*[pixels.ravel() for pixels in pair])[0, 1] > 0.97


def test_a_local_edit_is_within_mouth_lower_face_or_eyes(people):
    face, landmarks = people[0]
    regions = {
        name: draw_region(landmarks, name, SIZE) for name in ("lower", "mouth", "eyes", "outline")
    }
    seen = set()
    for fake in fakes_of("local", people, 60):
        total = fake.mask.sum()
        shares = {name: (fake.mask * region).sum() / total for name, region in regions.items()}
        seen.add("eyes" if shares["eyes"] > shares["lower"] else "mouth")
        reach = cv2.dilate(np.maximum(regions["lower"], regions["eyes"]), np.ones((21, 21)))
        assert (fake.mask * reach).sum() / total > 0.9
        assert total < 0.7 * regions["outline"].sum()
    assert seen == {"eyes", "mouth"}


def test_a_local_edit_moves_the_mouth(people):
    """A mark on the lip is found elsewhere in some of the fakes."""
    face, landmarks = people[0]
    marked = np.full_like(face, 128)
    x, y = landmarks[57].round().astype(int)
    cv2.circle(marked, (int(x), int(y)), 3, (255, 255, 255), -1)
    shifts = []
    for seed in range(60):
        fake = make_fake("local", marked, landmarks, np.random.default_rng(seed))
        grey = fake.pixels.astype(float).mean(axis=2)
        if fake.mask[y - 6 : y + 7, x - 6 : x + 7].min() > 0.98:
            bright = grey[y - 20 : y + 21, x - 20 : x + 21]
            bright = np.clip(bright - bright.min() - 0.5 * np.ptp(bright), 0, None)
            rows, columns = np.indices(bright.shape) - 20
            shifts.append([np.average(rows, weights=bright), np.average(columns, weights=bright)])
    scale = face_size(landmarks, SIZE)
    assert len(shifts) > 10
    lengths = np.linalg.norm(shifts, axis=1) / scale
    assert np.median(lengths) > 0.01
    assert lengths.max() < 0.15


def test_swapping_needs_a_donor_and_a_kind_must_exist(people):
    face, landmarks = people[0]
    with pytest.raises(ValueError, match="Expected a donor for a swapped face; got None"):
        make_fake("swapped", face, landmarks, np.random.default_rng(0))
    with pytest.raises(ValueError, match="Expected a kind of self-blended, .*; got 'mixed'"):
        make_fake("mixed", face, landmarks, np.random.default_rng(0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [64, 71, 512])
def test_crops_of_any_size_and_layout_of_memory(people, kind, size):
    scaled = [
        (cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA), points * size / SIZE)
        for crop, points in people
    ]
    face, landmarks = scaled[0]
    mirrored, transposed = face[:, ::-1], face.transpose(1, 0, 2)
    face.flags.writeable = False
    for image in (face, mirrored, transposed):
        fake = make_fake(kind, image, landmarks, np.random.default_rng(0), scaled[1])
        assert fake.pixels.shape == image.shape
        np.testing.assert_array_equal(fake.pixels[fake.mask == 0], image[fake.mask == 0])


@pytest.mark.parametrize("kind", KINDS)
@given(
    landmarks=arrays(
        np.float32,
        (68, 2),
        elements=st.floats(-(2.0**100), 2.0**100, width=32) | st.floats(0, 64, width=32),
    ),
    seed=st.integers(0, 1000),
)
def test_any_finite_landmarks_give_a_fake(people, kind, landmarks, seed):
    face = cv2.resize(people[0][0], (64, 64))
    fake = make_fake(kind, face, landmarks, np.random.default_rng(seed), (face, landmarks[::-1]))
    assert fake.mask.max() > 0
    assert np.isfinite(fake.mask).all()
    np.testing.assert_array_equal(fake.pixels[fake.mask == 0], face[fake.mask == 0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shift", [(60, 0), (-70, -70), (0, 90), (500, 500)])
def test_a_face_partly_or_wholly_outside_the_crop_is_changed_too(people, kind, shift):
    (face, landmarks), donor = people
    for seed in range(5):
        rng = np.random.default_rng(seed)
        fake = make_fake(kind, face, landmarks + shift, rng, donor)
        assert fake.mask.mean() >= 0.001
        assert (fake.pixels != face).any()


def test_a_warp_moves_landmarks_as_a_similarity_exactly(people):
    face, landmarks = people[0]
    turn = 1.1 * np.array([[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]])
    target = landmarks @ turn.T + (5, -20)
    warped = smooth_warp(face, landmarks, target, SIZE, 8.0)
    expected = cv2.warpAffine(
        face, np.column_stack([turn, (5, -20)]), (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT_101
    )
    # Rounding alone: OpenCV interpolates at 1/32 of a pixel.
    assert np.abs(warped.astype(int) - expected)[20:140, 20:140].mean() < 1


def test_a_warp_brings_landmarks_close_to_their_targets(people):
    """The positions that a ramp image shows at the target landmarks are the landmarks."""
    _, landmarks = people[0]
    target = landmarks + np.random.default_rng(0).normal(0, 1.0, (68, 2))
    target[48:68] += (3, -4)
    y, x = np.indices((SIZE, SIZE))
    ramp = np.stack([x, y, x], axis=-1).astype(np.uint8)
    found = smooth_warp(ramp, landmarks, target, SIZE, 6.0)[..., :2].astype(float)
    position = cv2.remap(found, target[:, None].astype(np.float32), None, cv2.INTER_LINEAR)[:, 0]
    error = np.linalg.norm(position - landmarks, axis=1)
    assert np.median(error) < 1.5  # less than the displacements of 4 pixels
    assert np.median(error[48:68]) < 1.5


def test_a_warp_to_one_point_is_a_shift():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    points, target = np.full((68, 2), 10.0), np.full((68, 2), 13.0)
    warped = smooth_warp(image, points, target, 32, 4.0)
    np.testing.assert_array_equal(warped[3:, 3:], image[:-3, :-3])


@pytest.mark.slow
def test_fakes_are_made_fast_enough_for_training(people):
    """At most 5 ms of CPU time for a fake at 160 pixels, as a mean over the kinds."""
    cv2_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        fakes_of("local", people, 2)
        times = []
        for _ in range(3):
            start = time.thread_time()
            for kind in FAKE_KINDS:
                fakes_of(kind, people, 25)
            times.append((time.thread_time() - start) / 100)
    finally:
        cv2.setNumThreads(cv2_threads)
    assert min(times) < 0.005

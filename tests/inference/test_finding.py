"""A finding in words states what is known, and no more."""

import dataclasses
import math

import pytest

from jdfd_keras.client.likelihood import ErrorRate, ErrorRates, LikelihoodRatio
from jdfd_keras.inference.finding import (
    describe_likelihood,
    describe_ratio,
    describe_reason,
    describe_verdict,
    state_finding,
)
from jdfd_keras.inference.tracks import FaceScore, Segment, TrackScore
from jdfd_keras.inference.verdict import Verdict

MODERATE = "moderate support for manipulation"


def verdict_of(verdict, *scores, not_judged=(), rates=None, log10=None, capped=False, **values):
    """Make a verdict on people of 12 faces each with these scores; the last are not judged."""
    support = values.pop("support", MODERATE)
    tracks = [TrackScore(i, 12, 0.9, 0.0, 8.0, s, verdict) for i, s in enumerate(scores)]
    tracks += [
        TrackScore(len(scores) + i, 12, 0.9, 0.0, 8.0, 0.9, "not judged", None, reason)
        for i, reason in enumerate(not_judged)
    ]
    fields = {
        "path": "a.mp4",
        "sha256": "ab",
        "verdict": verdict,
        "score": max(scores, default=None),
        "uncertain_from": 0.3,
        "uncertain_to": 0.8,
        "num_frames": 30,
        "duration_s": 9.0,
        "width": 64,
        "height": 48,
        "tracks": tuple(tracks),
        "top_faces": (),
        "warnings": (),
        "faces": tuple(FaceScore(0, 0.0, t.track_id, (0, 0, 9, 9), 0.5) for t in tracks) * 12,
        "num_people": len(scores),
        "likelihood": None if log10 is None else LikelihoodRatio(log10, capped, support),
        "error_rates": rates,
    }
    return Verdict(**fields | values)


# 5 of 100 real and 3 of 60 fake videos: the exact 95 % bounds are 0.1128 and 0.1392 (R:
# binom.test(5, 100), binom.test(3, 60)).
RATES = ErrorRates(ErrorRate(5, 100, 0.05, 0.0164, 0.1128), ErrorRate(3, 60, 0.05, 0.0104, 0.1392))


def test_a_fake_finding_has_the_ratio_with_both_propositions_and_the_error_rate():
    assert state_finding(verdict_of("fake", 0.9, rates=RATES, log10=math.log10(40.9))) == (
        "Fake: person 0 has a mean score of 0.900 over 12 faces, where 0 is real and 1 is fake (no "
        "evidence below 0.3, fake from 0.8). The findings are 40 times more probable if the face "
        "of this person is manipulated as in the fake validation videos than if the face of this "
        "person is not manipulated: moderate support for manipulation (verbal scale of ENFSI, "
        "2015). 5 of 100 real validation videos score as high; with 95 % confidence, at most 12 "
        "of 100 such videos do."
    )


def test_of_several_people_the_highest_is_named_and_the_rate_is_that_of_the_file():
    # 1 - 0.95 ** 4 is 0.185; 1 - (1 - 0.1128) ** 4 is 0.380.
    four = ErrorRates(ErrorRate(5, 100, 0.1855, 0.064, 0.3804), RATES.fake_as_low)
    text = state_finding(verdict_of("fake", 0.1, 0.2, 0.9, 0.3, rates=four, log10=1.0))
    assert "Fake: person 2, who has the highest score of 4 judged people, has" in text
    assert (
        "10 times more probable if the face of exactly one of the 4 people is manipulated as in "
        "the fake validation videos than if the face of none of the 4 people is manipulated"
    ) in text
    assert text.endswith(
        "5 of 100 real validation videos score as high; with 4 people, each of whom may score so "
        "by chance, about 19 of 100 videos do, and with 95 % confidence, at most 39 of 100."
    )


def test_no_evidence_is_no_proof_of_authenticity():
    against = "moderate support for no manipulation"
    text = state_finding(
        verdict_of("no_evidence", 0.1, rates=RATES, log10=-1.0, capped=True, support=against)
    )
    assert text.startswith("No evidence of manipulation: person 0 has a mean score of 0.100 ")
    assert (
        "10 times more probable if the face of this person is not manipulated than if the face of "
        "this person is manipulated as in the fake validation videos: moderate support for no "
    ) in text
    assert "limited to what a validation with 100 real videos and 60 fake videos supports" in text
    assert "3 of 60 fake validation videos score as low; with 95 % confidence, at most 14" in text
    assert "score as high" not in text
    assert "This is no evidence of authenticity" in text


def test_an_uncertain_score_has_both_error_rates():
    text = state_finding(verdict_of("uncertain", 0.5, rates=RATES, log10=0.0, support="no support"))
    assert "The findings are about as probable if" in text
    assert "real validation videos score as high" in text
    assert "fake validation videos score as low" in text


def test_beyond_the_domain_no_evidence_is_stated():
    small = "the faces are smaller (24 px) than those of validation (60 to 200 px)"
    beyond = verdict_of("uncertain", 0.95, reasons=(small,), is_beyond_domain=True)
    text = state_finding(beyond)
    assert text.startswith(f"Uncertain: {small}. Person 0 has a mean score of 0.950")
    assert "no likelihood ratio and no error rate is stated" in text
    assert "times more probable" not in text and "not calibrated" not in text
    assert describe_verdict(beyond) == f"Uncertain, because {small}"


def test_an_uncalibrated_model_states_that_nothing_is_known():
    text = state_finding(verdict_of("fake", 0.95, uncertain_from=0.5, uncertain_to=0.5))
    assert "(fake from 0.5). The model is not calibrated: its threshold was not chosen" in text
    assert "real and fake videos score so is unknown" in text


def test_too_many_people_are_stated_with_the_rates_that_are_known():
    few = "validation has too few real videos (12) to call a file with 4 people fake"
    unattainable = {"uncertain_to": 2.0, "reasons": (few,)}
    text = state_finding(
        verdict_of("uncertain", 0.9, 0.1, 0.1, 0.1, rates=RATES, log10=1.0, **unattainable)
    )
    assert text.startswith(f"Uncertain: {few}. Person 0, who has")
    assert "no score is fake" in text and "real validation videos score as high" in text


def test_a_fake_segment_has_no_known_error_rate():
    reason = "person 0 scores 0.900 from 4.0 to 6.0 s, although the mean of all faces is 0.200"
    verdict = verdict_of("uncertain", 0.2, rates=RATES, log10=-1.0, reasons=(reason,))
    segment = dataclasses.replace(verdict.tracks[0], segment=Segment(4, 6, 0.9))
    text = state_finding(dataclasses.replace(verdict, tracks=(segment,)))
    assert text.startswith(f"Uncertain: {reason}. ")
    assert "for such a part of a video they are unknown" in text
    assert "times more probable" not in text


def test_people_who_are_not_judged_are_counted_or_explained():
    one = state_finding(verdict_of("fake", 0.9, not_judged=["too few faces"], rates=RATES, log10=1))
    assert one.endswith("1 other person is not judged, for lack of evidence.")
    people = [f"person {number} is not judged: too few faces" for number in range(5)]
    nobody = verdict_of("uncertain", not_judged=["too few faces"] * 5, reasons=tuple(people))
    assert state_finding(nobody) == (
        "Uncertain: nobody is judged, for lack of evidence in 60 faces of 30 sampled frames. "
        "Person 0 is not judged: too few faces. Person 1 is not judged: too few faces. Person 2 is "
        "not judged: too few faces. 2 others are not judged either."
    )
    assert describe_reason(nobody) == f"{people[0]}, and 4 other reasons"


def test_a_file_without_a_face_has_no_finding():
    text = state_finding(verdict_of("no face"))
    assert text.startswith("No face: no face was found in 30 sampled frames.")


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(1.0, "1.0"), (1.99, "1.9"), (9.99, "9.9"), (40.0, "40"), (1234, "1200"), (1e6, "1000000")],
)
def test_a_ratio_is_never_rounded_up(ratio, text):
    for log10 in (math.log10(ratio), -math.log10(ratio)):
        assert describe_ratio(LikelihoodRatio(log10, False, "")) == text


def test_a_small_share_is_stated_of_more_videos():
    # 0 of 1000: the upper bound is 0.00368.
    none = ErrorRates(ErrorRate(0, 1000, 0.0, 0.0, 0.00368), RATES.fake_as_low)
    text = state_finding(verdict_of("fake", 0.9, rates=none, log10=2.0))
    assert (
        "0 of 1000 real validation videos score as high; with 95 % confidence, at most 4 of 1000"
        in text
    )


def test_a_short_reason_names_person_score_thresholds_and_ratio():
    verdict = verdict_of("fake", 0.1, 0.9, rates=RATES, log10=1.3, capped=True)
    assert describe_reason(verdict) == (
        "person 1 of 2 people scores 0.900 (no evidence below 0.3, fake from 0.8); likelihood "
        "ratio 19 (limited), moderate support for manipulation"
    )
    assert describe_likelihood(None) == ""

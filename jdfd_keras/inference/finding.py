"""Findings in words: what the verdict on a file states, and what it does not.

Takes a Verdict; returns sentences that an expert can quote, and short forms of them. A person in
the text is a track in the data, with the same number.
"""

import math
from collections.abc import Sequence

from jdfd_keras.client.likelihood import ErrorRate, LikelihoodRatio
from jdfd_keras.client.thresholds import UNATTAINABLE
from jdfd_keras.inference.tracks import TrackScore
from jdfd_keras.inference.verdict import NO_FACE, Provenance, Verdict, verdict_text
from jdfd_keras.io.console import plural

SCALE = "verbal scale of ENFSI, 2015"
MAX_REASONS = 3  # that are stated why people are not judged
NO_AUTHENTICITY = (
    "This is no evidence of authenticity: manipulations of other kinds than those in validation, "
    "and of anything but faces, are not covered."
)


def state_finding(verdict: Verdict) -> str:
    """State the finding on a file in sentences that can be quoted.

    They name the verdict and the person that decides it, the likelihood ratio with its verbal
    scale, the error rates as natural frequencies with the bound of a 95 % interval, or the reason
    why one of these is not known.

    Example:
        >>> import jdfd_keras as jk
        >>> verdict = jk.predict_file("video.mp4", jk.load_predictor("saved_models/detector"))
        >>> "erson 0 has a mean score of 0." in state_finding(verdict)
        True
    """
    frames = plural(verdict.num_frames, "sampled frame")
    if verdict.verdict == NO_FACE:
        return (
            f"No face: no face was found in {frames}. Only faces are examined, so that there is no "
            "finding on this file."
        )
    words = verdict_text(verdict.verdict)
    if verdict.score is None:
        faces = plural(len(verdict.faces), "face")
        return " ".join(
            [
                f"Uncertain: nobody is judged, for lack of evidence in {faces} of {frames}.",
                *_limit(verdict.reasons),
            ]
        )
    sentences = [*map(_to_sentence, verdict.reasons), _state_score(verdict)]
    sentences[0] = f"{words[0].upper()}{words[1:]}: {_lower(sentences[0])}"
    worst = verdict.most_suspicious_track
    if verdict.is_beyond_domain:
        sentences.append(
            "What such a score means is known only for files like those of validation, so that no "
            "likelihood ratio and no error rate is stated."
        )
    elif verdict.reasons and worst and worst.is_uncertain_by_segment:
        sentences.append(
            "The likelihood ratio and the error rates of validation are those of whole videos; for "
            "such a part of a video they are unknown."
        )
    elif verdict.error_rates is None:
        sentences.append(
            "The model is not calibrated: its threshold was not chosen on validation videos, how "
            "often real and fake videos score so is unknown, and no likelihood ratio and no error "
            "rate is stated."
        )
    else:
        if verdict.uncertain_from == verdict.uncertain_to:
            sentences.append(
                "The threshold was chosen by the user, not by validation, so that the verdict may "
                "contradict the likelihood ratio."
            )
        sentences += _state_evidence(verdict)
    num_others = len(verdict.tracks) - verdict.num_people
    if num_others:
        people = "1 other person is" if num_others == 1 else f"{num_others} other people are"
        sentences.append(f"{people} not judged, for lack of evidence.")
    if verdict.verdict == "no_evidence":
        sentences.append(NO_AUTHENTICITY)
    return " ".join(sentences)


def _limit(reasons: Sequence[str]) -> list[str]:
    """Return the first reasons as sentences, and the number of others."""
    num_others = len(reasons) - MAX_REASONS
    are = "1 other is" if num_others == 1 else f"{num_others} others are"
    more = [f"{are} not judged either."] if num_others > 0 else []
    return [*map(_to_sentence, reasons[:MAX_REASONS]), *more]


def _to_sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _lower(text: str) -> str:
    return f"{text[0].lower()}{text[1:]}"


def _state_score(verdict: Verdict) -> str:
    """State whose score decides, and between which thresholds it lies."""
    highest = max(verdict.judged_tracks, key=lambda track: track.score)
    faces = plural(highest.num_faces, "face")
    who = f"Person {highest.track_id}"
    if verdict.num_people > 1:
        who += f", who has the highest score of {verdict.num_people} judged people,"
    return (
        f"{who} has a mean score of {highest.score:.3f} over {faces}, where 0 is real and 1 is "
        f"fake ({describe_thresholds(verdict)})."
    )


def _state_evidence(verdict: Verdict) -> list[str]:
    rates, likelihood = verdict.error_rates, verdict.likelihood
    assert rates is not None and likelihood is not None
    num_real, num_fake = rates.real_as_high.total, rates.fake_as_low.total
    sentences = [_state_likelihood(likelihood, verdict.num_people)]
    if likelihood.is_capped:
        sentences.append(
            f"The ratio is limited to what a validation with {plural(num_real, 'real video')} and "
            f"{plural(num_fake, 'fake video')} supports."
        )
    if verdict.verdict != "no_evidence":
        sentences.append(_state_rate(rates.real_as_high, "real", "high", verdict.num_people))
    if verdict.verdict != "fake" and not verdict.reasons:
        sentences.append(_state_rate(rates.fake_as_low, "fake", "low", 1))
    return sentences


def _state_likelihood(likelihood: LikelihoodRatio, num_people: int) -> str:
    """State a likelihood ratio with both propositions, as evaluative reports do."""
    people = "this person" if num_people == 1 else f"exactly one of the {num_people} people"
    fake = f"the face of {people} is manipulated as in the fake validation videos"
    real = f"the face of none of the {num_people} people is manipulated"
    if num_people == 1:
        real = "the face of this person is not manipulated"
    first, second = (fake, real) if likelihood.log10 >= 0 else (real, fake)
    ratio = describe_ratio(likelihood)
    than = f"about as probable if {first} as if {second}"
    if float(ratio) > 1:
        than = f"{ratio} times more probable if {first} than if {second}"
    return f"The findings are {than}: {likelihood.support} ({SCALE})."


def describe_ratio(likelihood: LikelihoodRatio) -> str:
    """Return how many times more probable one proposition makes the scores, with two digits.

    The number is rounded towards 1, so that it never overstates the support.

    Example:
        >>> describe_ratio(LikelihoodRatio(-1.61, False, "moderate support for no manipulation"))
        '40'
        >>> describe_ratio(LikelihoodRatio(0.25, False, "no support for either proposition"))
        '1.7'
    """
    ratio = 10 ** abs(likelihood.log10)
    step = 10.0 ** (math.floor(math.log10(ratio)) - 1)
    # The tolerance keeps 40 from becoming 39.
    return f"{math.floor(ratio / step + 1e-6) * step:.{max(0, round(-math.log10(step)))}f}"


def _state_rate(rate: ErrorRate, label: str, side: str, num_people: int) -> str:
    videos = plural(rate.total, f"{label} validation video")
    score = "scores" if rate.count == 1 else "score"
    base, most = describe_bound(rate.high)
    if num_people == 1:
        expected = f"with 95 % confidence, at most {most} of {base} such videos do"
    else:
        expected = (
            f"with {num_people} people, each of whom may score so by chance, about "
            f"{describe_share(rate.rate)} videos do, and with 95 % confidence, at most {most} of "
            f"{base}"
        )
    return f"{rate.count} of {videos} {score} as {side}; {expected}."


def describe_share(share: float) -> str:
    """Return a share as a natural frequency: of 100, or of more if it is small.

    Example:
        >>> describe_share(0.0494), describe_share(0.0004), describe_share(0.0)
        ('5 of 100', '4 of 10000', '0 of 100')
    """
    base = _choose_base(share)
    return f"{round(share * base)} of {base}"


def describe_bound(share: float) -> tuple[int, int]:
    """Return a base and how many of it a share is at most, rounded up.

    Example:
        >>> describe_bound(0.1128), describe_bound(0.0037)
        ((100, 12), (1000, 4))
    """
    base = _choose_base(share)
    return base, math.ceil(share * base - 1e-9)


def _choose_base(share: float) -> int:
    return 100 if share == 0 or share >= 0.01 else 1000 if share >= 0.001 else 10000


def describe_verdict(verdict: Verdict) -> str:
    """Return the verdict in words with its score, or with the first reason why it is uncertain.

    Example:
        >>> import dataclasses
        >>> import jdfd_keras as jk
        >>> verdict = jk.predict_file("video.mp4", jk.load_predictor("saved_models/detector"))
        >>> describe_verdict(dataclasses.replace(verdict, verdict="fake", score=0.9712))
        'Fake, score 0.971'
    """
    words = verdict_text(verdict.verdict).capitalize()
    if verdict.verdict == "uncertain" and verdict.reasons:
        return f"{words}, because {verdict.reasons[0]}"
    return words if verdict.score is None else f"{words}, score {verdict.score:.3f}"


def describe_reason(verdict: Verdict) -> str:
    """Return in a clause what the verdict rests on: the first reason, or the score that decides.

    Example:
        >>> import dataclasses
        >>> import jdfd_keras as jk
        >>> verdict = jk.predict_file("video.mp4", jk.load_predictor("saved_models/detector"))
        >>> verdict = dataclasses.replace(verdict, verdict="fake", likelihood=None)
        >>> describe_reason(dataclasses.replace(verdict, uncertain_from=0.3, uncertain_to=0.4))
        'person 0 scores 0... (no evidence below 0.3, fake from 0.4)'
    """
    if verdict.verdict == NO_FACE:
        return f"none in {plural(verdict.num_frames, 'sampled frame')}"
    if verdict.reasons:
        more = len(verdict.reasons) - 1
        also = f", and {plural(more, 'other reason')}" if more else ""
        return f"{verdict.reasons[0]}{also}"
    highest = max(verdict.judged_tracks, key=lambda track: track.score)
    of_people = f" of {verdict.num_people} people" if verdict.num_people > 1 else ""
    parts = [
        f"person {highest.track_id}{of_people} scores {highest.score:.3f} "
        f"({describe_thresholds(verdict)})",
        describe_likelihood(verdict.likelihood),
    ]
    return "; ".join(part for part in parts if part)


def describe_likelihood(likelihood: LikelihoodRatio | None) -> str:
    """Return a likelihood ratio with its verbal scale in a short form; "" for None.

    Example:
        >>> describe_likelihood(LikelihoodRatio(1.61, False, "moderate support for manipulation"))
        'likelihood ratio 40, moderate support for manipulation'
        >>> describe_likelihood(LikelihoodRatio(-1.0, True, "moderate support for no manipulation"))
        'likelihood ratio 1/10 (limited), moderate support for no manipulation'
    """
    if likelihood is None:
        return ""
    ratio = describe_ratio(likelihood)
    ratio = f"1/{ratio}" if likelihood.log10 < 0 and float(ratio) != 1 else ratio
    limited = " (limited)" if likelihood.is_capped else ""
    return f"likelihood ratio {ratio}{limited}, {likelihood.support}"


def not_judged_note(track: TrackScore) -> str:
    """Return a note behind the name of a track that is not judged; "" if it is.

    Example:
        >>> not_judged_note(TrackScore(1, 12, 0.1, 0.0, 8.0, 0.3, "not judged", None, "small"))
        ', not judged'
    """
    return "" if track.is_judged else ", not judged"


def describe_thresholds(verdict: Verdict | Provenance) -> str:
    """Return the scores at which `no evidence` ends and `fake` begins.

    Example:
        >>> import dataclasses
        >>> import jdfd_keras as jk
        >>> verdict = jk.predict_file("video.mp4", jk.load_predictor("saved_models/detector"))
        >>> verdict = dataclasses.replace(verdict, uncertain_from=0.3, uncertain_to=0.8)
        >>> describe_thresholds(verdict)
        'no evidence below 0.3, fake from 0.8'
    """
    low, high = verdict.uncertain_from, verdict.uncertain_to
    if low == high:
        return f"fake from {high:.3g}"
    fake = "no score is fake" if high == UNATTAINABLE else f"fake from {high:.3g}"
    return f"no evidence below {low:.3g}, {fake}"

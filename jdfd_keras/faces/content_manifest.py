"""What the manifests of Content Credentials (C2PA) state, and what their validation found.

Takes the JSON of c2pa's reader; returns facts. Texts and the form of the JSON come from the file
and are untrusted: values of another form are ignored, texts are shortened and escaped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jdfd_keras.faces.ai_claims import AIClaim, describe_source_type, shorten_text
from jdfd_keras.io.results import Result

VALID, UNTRUSTED, INVALID = "valid", "untrusted", "invalid"
MAX_ENTRIES = 50  # of the actions, ingredients and problems of a file
MAX_MANIFESTS = 200  # whose statements are read, through ingredients of ingredients
TRUSTED_CODE, UNTRUSTED_CODE = "signingCredential.trusted", "signingCredential.untrusted"
EXPIRED_CODE = "signingCredential.expired"
CREDENTIALS, INGREDIENT = "Content Credentials", "Content Credentials of an ingredient"
# Boxes of a video that signatures do not cover: the credentials, and those without content.
UNSIGNED_BOXES = {"/uuid", "/ftyp", "/mfra", "/free", "/skip", "/emsg"}


@dataclass(frozen=True)
class CredentialAction(Result):
    """What was done to the file, as the signer states."""

    action: str  # such as `c2pa.created`
    when: str = ""  # time in ISO format, as stated
    software_agent: str = ""
    digital_source_type: str = ""  # last part of the address of an IPTC term
    description: str = ""


@dataclass(frozen=True)
class Ingredient(Result):
    """A file that this one was made from, as the signer states."""

    title: str
    format: str = ""
    relationship: str = ""  # `parentOf`, `componentOf` or `inputTo`
    state: str = ""  # of its own credentials: valid, untrusted or invalid; "" if it has none


def read_facts(store: dict[str, Any], *, has_anchors: bool) -> dict[str, Any]:
    """Return the facts of the active manifest, which is that of the file itself.

    Args:
        store: JSON of a reader of c2pa.
        has_anchors: Whether it had trust anchors.

    Returns:
        Fields of ContentCredentials, without `ai_claims` and `trust_list`.

    Example:
        >>> facts = read_facts({"validation_state": "Valid"}, has_anchors=False)
        >>> facts["state"], facts["actions"]
        ('untrusted', ())
    """
    active = _active_manifest(store)
    results = _dict(store.get("validation_results"))
    checks = _dict(results.get("activeManifest"))
    failures = _entries(checks.get("failure")) or _entries(store.get("validation_status"))
    state = {"Trusted": VALID, "Valid": UNTRUSTED}.get(_str(store, "validation_state"), INVALID)
    if state == VALID and not (has_anchors and TRUSTED_CODE in _codes(checks.get("success"))):
        state = UNTRUSTED
    ingredients = list(_read_ingredients(active, results))
    unsigned = _list_unsigned(active, _codes(checks.get("informational")))
    problems = [_describe_problem(failure) for failure in failures]
    problems += [f"the signature does not cover {part}" for part in unsigned]
    for ingredient, found in ingredients:
        title = ingredient.title or "without a title"
        problems += [f"ingredient {title}: {_describe_problem(failure)}" for failure in found]
    signature = _dict(active.get("signature_info"))
    is_expired = state == INVALID and _codes(failures) - {UNTRUSTED_CODE} == {EXPIRED_CODE}
    return {
        "state": state,
        "detail": _describe_state(state, _codes(failures), has_anchors, unsigned),
        "is_expired": is_expired,
        "signer": _str(signature, "common_name"),
        # c2pa calls it the issuer, but it is of the subject of the certificate (0.38.1).
        "organization": _str(signature, "issuer"),
        "certificate": _str(signature, "cert_serial_number"),
        "algorithm": _str(signature, "alg"),
        "signed_at": _str(signature, "time"),
        "claim_generator": _read_generator(active),
        "title": _str(active, "title"),
        "actions": tuple(map(_read_action, _list_actions(active)[:MAX_ENTRIES])),
        "ingredients": tuple(ingredient for ingredient, _ in ingredients[:MAX_ENTRIES]),
        "problems": tuple(dict.fromkeys(problems))[:MAX_ENTRIES],
    }


def list_ai_claims(store: dict[str, Any], *, is_signed: bool) -> list[AIClaim]:
    """Return the statements about AI generation of the file, and of its ingredients.

    Args:
        store: JSON of a reader of c2pa.
        is_signed: Whether signature and hashes of the active manifest are right.

    Example:
        >>> list_ai_claims({}, is_signed=False)
        []
    """
    results = _dict(store.get("validation_results"))
    claims = []
    # Label, title of the ingredient, and whether all signatures up to there are right. Manifests
    # that nothing refers to are not read: they are not part of what was signed.
    waiting, known = [(_str(store, "active_manifest"), "", is_signed)], set()
    while waiting and len(known) < MAX_MANIFESTS:
        label, title, is_right = waiting.pop(0)
        if label in known:
            continue
        known.add(label)
        manifest = _dict(_dict(store.get("manifests")).get(label))
        for text in _list_source_types(manifest):
            source, text = (INGREDIENT, f"{title}: {text}") if title else (CREDENTIALS, text)
            claims.append(AIClaim(source, text, is_right))
        entries = _entries(manifest.get("ingredients"))
        for entry, (ingredient, _) in zip(
            entries, _read_ingredients(manifest, results), strict=True
        ):
            if other := _str(entry, "active_manifest"):
                is_right_too = is_right and ingredient.state in (VALID, UNTRUSTED)
                waiting.append((other, ingredient.title or "without a title", is_right_too))
    return claims


def _describe_state(state: str, codes: set[str], has_anchors: bool, unsigned: Sequence[str]) -> str:
    """Return a sentence or two on why credentials have their state."""
    codes = codes - {UNTRUSTED_CODE}
    unchanged = "What the signature covers has not changed since the file was signed"
    if unsigned:
        unchanged += f" (it does not cover {', '.join(unsigned)})"
    if state == VALID:
        return f"{unchanged}, and a trusted authority issued the certificate of the signer."
    if state == UNTRUSTED:
        reason = (
            "none of the trust anchors issued the certificate"
            if has_anchors
            else "no trust anchors were given"
        )
        return (
            f"{unchanged}, but nothing shows who signed it ({reason}): anybody can make a "
            "certificate with any name."
        )
    if codes & {"claimSignature.mismatch", "assertion.hashedURI.mismatch"}:
        return "The credentials themselves were changed, so that nothing in them is confirmed."
    if any(code.endswith("Hash.mismatch") for code in codes):
        return (
            "The file was changed after it was signed, or its credentials are those of another "
            "file: they do not match its content."
        )
    if codes == {EXPIRED_CODE}:
        return (
            "The certificate of the signer has expired, and no time stamp shows that the file was "
            "signed before. Nothing shows that the file was changed."
        )
    return "The credentials break a rule of C2PA, so that nothing in them is confirmed."


def _read_ingredients(
    manifest: dict[str, Any], results: dict[str, Any]
) -> Iterator[tuple[Ingredient, list[dict[str, Any]]]]:
    """Yield the ingredients of a manifest, and the failures of their credentials."""
    deltas = _entries(results.get("ingredientDeltas"))
    for entry in _entries(manifest.get("ingredients")):
        # What the signer found when the ingredient was added, and what is different now.
        end = f"/{_str(manifest, 'label')}/c2pa.assertions/{_str(entry, 'label')}"
        checks = [_dict(_dict(entry.get("validation_results")).get("activeManifest"))] + [
            _dict(delta.get("validationDeltas"))
            for delta in deltas
            if str(delta.get("ingredientAssertionURI")).endswith(end)
        ]
        failures = _entries(entry.get("validation_status"))
        is_trusted = False
        for check in checks:
            failed = _codes(check.get("failure"))
            failures += _entries(check.get("failure"))
            is_trusted |= TRUSTED_CODE in _codes(check.get("success"))
            is_trusted &= UNTRUSTED_CODE not in failed
        others = [failure for failure in failures if _str(failure, "code") != UNTRUSTED_CODE]
        state = INVALID if others else VALID if is_trusted else UNTRUSTED
        if not _str(entry, "active_manifest"):
            state = ""
        names = (_str(entry, name) for name in ("title", "format", "relationship"))
        yield Ingredient(*names, state=state), others


def _list_source_types(manifest: dict[str, Any]) -> Iterator[str]:
    """Yield what actions and metadata state about AI, with the program that did it."""
    for entry in _list_actions(manifest):
        if text := describe_source_type(str(entry.get("digitalSourceType"))):
            agent = _read_agent(entry)
            yield f"{text}, by {agent}" if agent else text
    for assertion in _entries(manifest.get("assertions")):
        data = _dict(assertion.get("data"))
        if text := describe_source_type(str(data.get("Iptc4xmpExt:DigitalSourceType"))):
            yield text


def _list_actions(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        action
        for assertion in _entries(manifest.get("assertions"))
        if str(assertion.get("label")).startswith("c2pa.actions")
        for action in _entries(_dict(assertion.get("data")).get("actions"))
    ]


def _read_action(entry: dict[str, Any]) -> CredentialAction:
    return CredentialAction(
        action=_str(entry, "action"),
        when=_str(entry, "when"),
        software_agent=_read_agent(entry),
        digital_source_type=_str(entry, "digitalSourceType").rstrip("/").rpartition("/")[2],
        description=_str(entry, "description"),
    )


def _read_agent(entry: dict[str, Any]) -> str:
    agent = entry.get("softwareAgent")  # a text in the first version of the assertion
    return _name_and_version(_dict(agent)) if isinstance(agent, dict) else shorten_text(agent)


def _read_generator(manifest: dict[str, Any]) -> str:
    programs = map(_name_and_version, _entries(manifest.get("claim_generator_info"))[:MAX_ENTRIES])
    names = ", ".join(name for name in programs if name)
    return shorten_text(names) or _str(manifest, "claim_generator")


def _name_and_version(program: dict[str, Any]) -> str:
    return f"{_str(program, 'name')} {_str(program, 'version')}".strip()


def _list_unsigned(manifest: dict[str, Any], codes: set[str]) -> list[str]:
    """Return parts of the file with content that its signature does not cover."""
    parts = []
    if "assertion.dataHash.additionalExclusionsPresent" in codes:
        parts.append("parts that the signer excluded")
    for assertion in _entries(manifest.get("assertions")):
        data = _dict(assertion.get("data"))
        if str(assertion.get("label")).startswith("c2pa.hash.bmff"):
            # With a Merkle tree, the media data are excluded from the hash of the whole file.
            covered = UNSIGNED_BOXES | ({"/mdat"} if data.get("merkle") else set())
            paths = (_str(entry, "xpath") for entry in _entries(data.get("exclusions")))
            parts += [f"its boxes {path}" for path in paths if path not in covered]
    return parts[:MAX_ENTRIES]


def _describe_problem(failure: dict[str, Any]) -> str:
    return f"{_str(failure, 'code')}: {_str(failure, 'explanation')}".strip(": ")


def _active_manifest(store: dict[str, Any]) -> dict[str, Any]:
    return _dict(_dict(store.get("manifests")).get(_str(store, "active_manifest")))


def _codes(entries: Any) -> set[str]:
    return {_str(entry, "code") for entry in _entries(entries)}


def _str(values: dict[str, Any], name: str) -> str:
    return shorten_text(values.get(name))


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _entries(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a list; none if it is not a list."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []

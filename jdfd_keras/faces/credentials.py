"""Content Credentials (C2PA) of a file: who signed it, what it states, and whether it was changed.

Takes the bytes of a file; returns ContentCredentials, which never change a score. Strictly offline:
neither remote manifests nor the state of certificates are fetched. All text in them is untrusted.
"""

import functools
import hashlib
import importlib.metadata
import json
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from jdfd_keras.faces.ai_claims import MAX_CLAIMS, AIClaim, find_ai_claims, shorten_text
from jdfd_keras.faces.content_manifest import (
    CREDENTIALS,
    INVALID,
    UNTRUSTED,
    VALID,
    CredentialAction,
    Ingredient,
    list_ai_claims,
    read_facts,
)
from jdfd_keras.faces.credential_bytes import count_credential_bytes
from jdfd_keras.io.results import Result
from jdfd_keras.options import CredentialOptions

NONE, REMOTE, UNREADABLE, NOT_CHECKED = "none", "remote", "unreadable", "not_checked"
STATES = {  # in a few words
    VALID: "valid",
    UNTRUSTED: "right, but the signer is not trusted",
    INVALID: "invalid",
    NONE: "none",
    REMOTE: "stored elsewhere, not fetched",
    UNREADABLE: "cannot be read",
    NOT_CHECKED: "not checked",
}
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")
MIN_C2PA = (0, 38)  # older ones have another interface
INSTALL = "Try `pip install jdfd-keras[provenance]`."
WRONG_FORMAT = "c2pa does not read Content Credentials in files of this format."


@dataclass(frozen=True)
class ContentCredentials(Result):
    """Content Credentials of a file, and its other statements about AI generation.

    Attributes:
        state: One of STATES. `valid`: signature and hashes are right, and the signer is trusted by
            the trust anchors. `untrusted`: they are right, but the signer is not trusted, or no
            anchors were given. `invalid`: the file or the credentials were changed, or break a
            rule. `none`: the file has none. `remote`: it only refers to some, which are not
            fetched. `unreadable`: they are damaged. `not_checked`: c2pa-python cannot be used, or
            cannot read the format.
        detail: Why, as a sentence or several.
        signer: Common name of the certificate of the signer; verified only if the state is `valid`.
        organization: Organization in the same certificate.
        certificate: Its serial number.
        algorithm: Algorithm of the signature.
        signed_at: Time of the signature by a time stamp; "" without one.
        claim_generator: Program that wrote the credentials.
        title: Title of the file.
        actions: What was done to it.
        ingredients: Files that it was made from.
        problems: Codes of the validation with their explanation.
        ai_claims: Statements that AI made the file or a part of it; also those outside of the
            credentials.
        trust_list: SHA-256 of the file of trust anchors, hexadecimal; "" without.
        num_bytes: Bytes of the file that hold credentials, in formats where they can be counted.
        is_expired: Whether they are invalid for one reason only: the certificate of the signer has
            expired.
    """

    state: str
    detail: str
    signer: str = ""
    organization: str = ""
    certificate: str = ""
    algorithm: str = ""
    signed_at: str = ""
    claim_generator: str = ""
    title: str = ""
    actions: tuple[CredentialAction, ...] = ()
    ingredients: tuple[Ingredient, ...] = ()
    problems: tuple[str, ...] = ()
    ai_claims: tuple[AIClaim, ...] = ()
    trust_list: str = ""
    num_bytes: int = 0
    is_expired: bool = False

    @property
    def has_manifest(self) -> bool:
        """Whether there are credentials that could be read."""
        return self.state in (VALID, UNTRUSTED, INVALID)

    @property
    def signed_by(self) -> str:
        """Name and organization of the signer."""
        names = dict.fromkeys(name for name in (self.signer, self.organization) if name)
        return ", ".join(names)

    def describe(self) -> str:
        """Return the state in a few words, with the signer.

        Example:
            >>> ContentCredentials("valid", "", signer="A News Agency").describe()
            'valid, signed by A News Agency'
            >>> ContentCredentials("none", "").describe()
            'none'
        """
        return ", ".join(filter(None, (self.describe_state(), self.describe_signer())))

    def describe_state(self) -> str:
        """Return the state in a few words.

        Example:
            >>> ContentCredentials("unreadable", "").describe_state()
            'cannot be read'
        """
        return "invalid: certificate expired" if self.is_expired else STATES[self.state]

    def describe_signer(self) -> str:
        """Return the signer, and whether that is shown or only stated; "" without a name.

        Example:
            >>> ContentCredentials("untrusted", "", signer="Ada").describe_signer()
            'stated signer: Ada'
        """
        verb = "signed by" if self.state == VALID else "stated signer:"
        return f"{verb} {self.signed_by}" if self.signed_by else ""

    def describe_claim(self, claim: AIClaim) -> str:
        """Return an AI claim of the file, with the words on how far it can be relied on.

        Example:
            >>> claim = AIClaim("XMP", "created by generative AI")
            >>> ContentCredentials("none", "", ai_claims=(claim,)).describe_claim(claim)
            'XMP (not signed: anybody can write or remove it): created by generative AI'
        """
        if claim.is_signed and self.state == VALID:
            verb = "signed" if claim.source == CREDENTIALS else "added"
            basis = f"{verb} by {self.signed_by}"
        elif claim.is_signed:
            basis = "signed, but the signer is not trusted"
        elif self.is_expired and claim.source.startswith(CREDENTIALS):
            basis = "not confirmed: the certificate of the signer has expired"
        elif self.has_manifest and claim.source.startswith(CREDENTIALS):
            basis = "the signature is not right for this file"
        else:
            basis = "not signed: anybody can write or remove it"
        return f"{claim.source} ({basis}): {claim.text}"

    def describe_claims(self) -> list[str]:
        """Return all AI claims of the file in words; see `describe_claim`.

        Example:
            >>> ContentCredentials("none", "").describe_claims()
            []
        """
        return list(map(self.describe_claim, self.ai_claims))

    def is_outdated(self, trust_list: str = "") -> bool:
        """Return whether another check may find another state of the same file.

        Args:
            trust_list: SHA-256 of the file of trust anchors now; "" without.

        Example:
            >>> ContentCredentials("none", "").is_outdated()
            False
            >>> ContentCredentials("none", "").is_outdated("ab" * 32)
            True
        """
        if self.trust_list != trust_list:
            return True
        if self.state != NOT_CHECKED or self.detail == WRONG_FORMAT:
            return False
        return not load_c2pa()[1]  # it could not be used then, and can be now


@functools.cache
def load_c2pa() -> tuple[Any, str]:
    """Import c2pa, whose functions read and check Content Credentials.

    Returns:
        The module, and ""; or None, and why it cannot be used.

    Example:
        >>> c2pa, reason = load_c2pa()
        >>> c2pa.__name__, reason
        ('c2pa', '')
    """
    try:
        version = importlib.metadata.version("c2pa-python")
    except importlib.metadata.PackageNotFoundError:
        return None, f"c2pa-python is not installed. {INSTALL}"
    needed = ".".join(map(str, MIN_C2PA))
    if tuple(map(int, re.findall(r"\d+", version or "")[:2])) < MIN_C2PA:
        return None, (
            f"version {version} of c2pa-python is installed; {needed} or newer is needed. {INSTALL}"
        )
    try:
        import c2pa
    except Exception as error:  # whatever it raises, such as without its native library
        return None, f"c2pa-python {version} cannot be imported ({_describe_error(error)})."
    return c2pa, ""


def read_trust_anchors(path: str | Path) -> tuple[str, str]:
    """Read a PEM file of certificate authorities.

    Returns:
        Its certificates in PEM, and the SHA-256 of the file.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it has no certificate of an authority, or a damaged one, or c2pa-python
            cannot be used, so that nothing would be checked.

    Example:
        >>> read_trust_anchors("photograph.png")
        Traceback (most recent call last):
            ...
        ValueError: Expected certificates of authorities (PEM) in photograph.png; got none. ...
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a PEM file of trust anchors; got {path}, which is missing or a folder. "
            "Check --trust-anchors."
        )
    if reason := load_c2pa()[1]:
        raise ValueError(
            "Expected c2pa-python with --trust-anchors, without which no file can be checked; got "
            f"none that can be used: {reason}"
        )
    status = path.stat()
    return _read_anchors(path, (status.st_size, status.st_mtime_ns))


@functools.lru_cache(4)
def _read_anchors(path: Path, _state: tuple[int, int]) -> tuple[str, str]:
    content = path.read_bytes()
    blocks = CERTIFICATE.findall(content.decode("utf-8", "replace"))
    store = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for number, block in enumerate(blocks, 1):
        # c2pa ignores a damaged block, or refuses every file because of it.
        try:
            store.load_verify_locations(cadata=block)
        except (ssl.SSLError, ValueError) as error:
            raise ValueError(
                f"Expected certificates of authorities (PEM) in {path}; got a damaged one, number "
                f"{number} of {len(blocks)} ({error}). Download the trust list again."
            ) from error
    if not store.cert_store_stats()["x509_ca"]:
        found = f"{len(blocks)} of signers, but none of an authority" if blocks else "none"
        raise ValueError(
            f"Expected certificates of authorities (PEM) in {path}; got {found}. Try the trust "
            "list of C2PA, or the certificate of the authority that issued that of the signer."
        )
    return "\n".join(blocks) + "\n", hashlib.sha256(content).hexdigest()


def read_credentials(
    path: str | Path, options: CredentialOptions | None = None
) -> ContentCredentials:
    """Read the Content Credentials of a file, and check them.

    Nothing in the file raises an error: what cannot be read is a state.

    Args:
        path: A video or image; its format is recognized by its content.
        options: Whose signatures are trusted; nobody's by default.

    Raises:
        OSError: If the file or the trust anchors cannot be read.
        ValueError: If the trust anchors are not certificates of authorities.

    Example:
        >>> read_credentials("photograph.png").state
        'none'
    """
    with open(path, "rb") as handle:
        return read_handle(handle, options)


def read_handle(
    handle: BinaryIO, options: CredentialOptions | None = None, encoder: str = ""
) -> ContentCredentials:
    """Read the Content Credentials of an open file; see `read_credentials`.

    Args:
        handle: The open file; its position changes.
        options: Whose signatures are trusted.
        encoder: Program that wrote the file, as it states; of `MediaInfo`.

    Example:
        >>> with open("photograph.png", "rb") as file:
        ...     read_handle(file).ai_claims
        ()
    """
    options = options or CredentialOptions()
    anchors, trust_list = "", ""
    if options.trust_anchors:
        anchors, trust_list = read_trust_anchors(options.trust_anchors)
    claims = find_ai_claims(handle, encoder)
    handle.seek(0)
    store, state, detail = _read_store(handle, anchors)
    facts: dict[str, Any] = {"state": state, "detail": detail}
    if store is not None:
        facts = read_facts(store, has_anchors=bool(anchors))
        is_signed = facts["state"] in (VALID, UNTRUSTED)
        claims = (*list_ai_claims(store, is_signed=is_signed), *claims)
    claims = tuple(dict.fromkeys(claims))[:MAX_CLAIMS]
    return ContentCredentials(
        **facts,
        ai_claims=claims,
        trust_list=trust_list,
        num_bytes=count_credential_bytes(handle),
    )


def _read_store(handle: BinaryIO, anchors: str) -> tuple[dict[str, Any] | None, str, str]:
    """Return the JSON of all manifests; or, without any, None with the state and its detail."""
    c2pa, reason = load_c2pa()
    if c2pa is None:
        return None, NOT_CHECKED, f"Content Credentials are not read: {reason}"
    settings: dict[str, Any] = {
        # A reader with the default settings of c2pa fetches remote manifests (c2pa-python 0.38.1).
        "verify": {"verify_trust": True, "remote_manifest_fetch": False, "ocsp_fetch": False},
        "core": {"allowed_network_hosts": []},
    }
    if anchors:
        settings["trust"] = {"trust_anchors": anchors}
    # No error of c2pa may cost a file its verdict, whatever its kind.
    try:
        context = c2pa.Context.from_dict(settings)
    except Exception as error:
        return None, NOT_CHECKED, f"c2pa cannot be used: {_describe_error(error)}."
    errors = c2pa.C2paError  # its kinds are added when c2pa is imported
    try:
        # Without a format, c2pa recognizes it by the content, whatever the suffix.
        with context, c2pa.Reader(None, handle, context=context) as reader:
            store = json.loads(reader.json())
            return (store if isinstance(store, dict) else {}), "", ""
    except errors.ManifestNotFound:
        detail = "The file has no Content Credentials. Most files have none: it proves nothing."
        return None, NONE, detail
    except errors.NotSupported:
        return None, NOT_CHECKED, WRONG_FORMAT
    except errors as error:
        reason = shorten_text(str(error))
    except Exception as error:
        reason = _describe_error(error)
    if reason.startswith("Remote: "):
        url = reason.rpartition("from url ")[2]
        detail = f"The file only refers to Content Credentials at {url}. They are not fetched."
        return None, REMOTE, detail
    return None, UNREADABLE, f"Content Credentials cannot be read: {reason}."


def _describe_error(error: Exception) -> str:
    return shorten_text(f"{type(error).__name__}: {error}").rstrip(": .")

"""Options of Content Credentials: whose signatures are trusted."""

from dataclasses import dataclass

from jdfd_keras.options.data_options import setting


@dataclass(frozen=True)
class CredentialOptions:
    """Content Credentials; they change no verdict."""

    trust_anchors: str = setting(
        "",
        "PEM file of the certificate authorities whose signers of Content Credentials are trusted; "
        "default: none, so that every right signature is `untrusted`",
        common=True,
    )

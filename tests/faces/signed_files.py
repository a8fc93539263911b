"""Files with Content Credentials, signed on the spot with a certificate chain made on the spot."""

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
# Without any embedded thumbnail, and without a check that would contact nobody but takes time.
SETTINGS = {
    "verify": {"verify_after_sign": False},
    "builder": {"thumbnail": {"enabled": False}},
}


@dataclass(frozen=True)
class Chain:
    """A certificate of a signer and that of the authority which issued it, in PEM."""

    signer: bytes
    authority: bytes
    key: bytes


def make_chain(
    name: str = "Ada Photographer",
    authority: str = "Test Authority",
    valid_s: float = 86400.0,
) -> Chain:
    """Make a chain; that of the signer is valid for some seconds from now.

    c2pa requires version 3 with basic constraints, key usage, extended key usage (such as email
    protection), and the identifiers of both keys.
    """
    now = datetime.datetime.now(datetime.UTC)
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name, own_name = _name(authority, "Authorities Ltd"), _name(name, "Test News Agency")
    year = datetime.timedelta(days=365)

    def build(subject, public_key, start, end, is_authority):
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
        )
        builder = (
            x509.CertificateBuilder(root_name, subject, public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    **usage,
                    digital_signature=not is_authority,
                    key_cert_sign=is_authority,
                    crl_sign=is_authority,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()),
                critical=False,
            )
        )
        if not is_authority:
            builder = builder.add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
            )
        signed = builder.sign(root_key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)

    end = now + datetime.timedelta(seconds=valid_s)
    return Chain(
        build(own_name, key.public_key(), now - year, end, is_authority=False),
        build(root_name, root_key.public_key(), now - year, now + year, is_authority=True),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _name(common_name: str, organization: str) -> x509.Name:
    names = {
        NameOID.COUNTRY_NAME: "DE",
        NameOID.ORGANIZATION_NAME: organization,
        NameOID.COMMON_NAME: common_name,
    }
    return x509.Name([x509.NameAttribute(*pair) for pair in names.items()])


def sign_file(
    source: Path,
    path: Path,
    chain: Chain,
    *,
    source_type: str = "digitalCapture",
    actions: list[dict] | None = None,
    title: str = "",
    edit: Callable[[c2pa.Builder], None] | None = None,
) -> Path:
    """Write a signed copy of a file.

    Args:
        source: The file; its suffix is that of its format.
        path: The copy.
        chain: Certificates and key.
        source_type: Digital source type of IPTC of the action `c2pa.created`.
        actions: Actions instead of that one.
        title: Title of the file.
        edit: Called with the builder of the manifest, to add ingredients for example.
    """
    created = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE + source_type}
    manifest = {
        "claim_generator_info": [{"name": "Test Camera", "version": "1.2"}],
        "title": title or path.name,
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": actions or [created]}}],
    }
    info = c2pa.C2paSignerInfo(b"es256", chain.signer + chain.authority, chain.key, None)
    with c2pa.Context.from_dict(SETTINGS) as context, c2pa.Signer.from_info(info) as signer:
        builder = c2pa.Builder(manifest, context=context)
        if edit:
            edit(builder)
        with open(source, "rb") as file, open(path, "w+b") as copy:
            builder.sign(signer, source.suffix[1:], file, copy)
    return path


def add_ingredient(path: Path, relationship: str = "componentOf") -> Callable[[c2pa.Builder], None]:
    """Return a function that adds a file as an ingredient to a manifest."""

    def edit(builder: c2pa.Builder) -> None:
        ingredient = {"title": path.name, "relationship": relationship}
        with open(path, "rb") as file:
            builder.add_ingredient(ingredient, path.suffix[1:], file)

    return edit


def flip_bit(path: Path, copy: Path, after: bytes, offset: int = 60) -> Path:
    """Write a copy of a file with one bit changed, some bytes after a mark such as `mdat`."""
    data = bytearray(path.read_bytes())
    data[data.index(after) + offset] ^= 1
    copy.write_bytes(data)
    return copy

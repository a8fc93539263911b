#!/usr/bin/env bash
# c2pa-python 0.38.1 (c2pa-rs 0.91.3), cryptography 50.0.2, pillow 12.3.0, Python 3.11
#
# Guess: `signature_info.issuer` of a manifest is the issuer of the certificate, as in X.509 and in every
# certificate viewer: the authority that vouches for the signer.
# Seen: it is the organization in the subject of the certificate, which is that of the signer itself. The
# authority is in no field of `json()` or `detailed_json()`. A page that shows "issued by" this name lets a
# signer vouch for himself.
#
# Output seen:
#   certificate: subject O = Signer Ltd, issuer O = Authority Ltd
#   signature_info.issuer: Signer Ltd, common_name: signer
#   "Authority" occurs in json(): False, in detailed_json(): False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q c2pa-python==0.38.1 cryptography==50.0.2 pillow==12.3.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import datetime
import io
import json

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image


def name(common_name, organization):
    pairs = (NameOID.COMMON_NAME, common_name), (NameOID.ORGANIZATION_NAME, organization)
    return x509.Name([x509.NameAttribute(*pair) for pair in pairs])


keys = {kind: ec.generate_private_key(ec.SECP256R1()) for kind in ("signer", "authority")}
names = {"signer": name("signer", "Signer Ltd"), "authority": name("authority", "Authority Ltd")}
day, now = datetime.timedelta(days=1), datetime.datetime.now(datetime.timezone.utc)
chain = b""
for kind, key in keys.items():
    is_authority = kind == "authority"
    usage = x509.KeyUsage(not is_authority, *4 * [False], *2 * [is_authority], False, False)
    builder = (
        x509.CertificateBuilder(names["authority"], names[kind], key.public_key(), 7 + is_authority)
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(keys["authority"].public_key()), False
        )
    )
    if not is_authority:
        email = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(email, critical=False)
    chain += builder.sign(keys["authority"], hashes.SHA256()).public_bytes(Encoding.PEM)

key = keys["signer"].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
image, signed = io.BytesIO(), io.BytesIO()
Image.new("RGB", (64, 64)).save(image, "png")
created = {
    "action": "c2pa.created",
    "digitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture",
}
manifest = {
    "claim_generator_info": [{"name": "test", "version": "1"}],
    "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}],
}
settings = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
with c2pa.Context.from_dict(settings) as context:
    signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(b"es256", chain, key, None))
    image.seek(0)
    c2pa.Builder(manifest, context=context).sign(signer, "image/png", image, signed)
    signed.seek(0)
    reader = c2pa.Reader("image/png", signed, context=context)
    plain, detailed = reader.json(), reader.detailed_json()

store = json.loads(plain)
info = store["manifests"][store["active_manifest"]]["signature_info"]
print("certificate: subject O = Signer Ltd, issuer O = Authority Ltd")
print(f"signature_info.issuer: {info['issuer']}, common_name: {info['common_name']}")
print(f'"Authority" occurs in json(): {"Authority" in plain}, in detailed_json(): {"Authority" in detailed}')
assert info["issuer"] == "Signer Ltd", f"It is {info['issuer']} now."
PYTHON

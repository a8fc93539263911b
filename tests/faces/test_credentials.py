"""Content Credentials of files that are signed on the spot, and AI claims of their metadata."""

import dataclasses
import http.server
import importlib.metadata
import json
import re
import shutil
import sys
import threading
import time

import c2pa
import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from skimage.data import astronaut

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.datasets.synthetic.clips import render_clip, vary_portrait
from jdfd_keras.faces.ai_claims import MAX_TEXT, AIClaim, describe_source_type
from jdfd_keras.faces.content_manifest import list_ai_claims, read_facts
from jdfd_keras.faces.credentials import (
    STATES,
    WRONG_FORMAT,
    ContentCredentials,
    CredentialAction,
    Ingredient,
    load_c2pa,
    read_credentials,
    read_trust_anchors,
)
from jdfd_keras.inference.verdict import Verdict, judge
from jdfd_keras.options import CredentialOptions, FaceOptions, LimitOptions
from jdfd_keras.prediction.extraction import Extractor, extract_file
from jdfd_keras.prediction.verdict_table import to_csv
from tests.faces.media_files import make_clip, run_ffmpeg
from tests.faces.signed_files import (
    SOURCE_TYPE,
    add_ingredient,
    flip_bit,
    make_chain,
    sign_file,
)

AI = "created by generative AI (digital source type trainedAlgorithmicMedia)"
EDITED = "edited with generative AI, or partly created by it"
X264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")


@pytest.fixture(scope="module")
def chain():
    return make_chain()


@pytest.fixture(scope="module")
def anchors(chain, tmp_path_factory):
    """Options that trust the authority of the chain."""
    path = tmp_path_factory.mktemp("anchors") / "authorities.pem"
    path.write_bytes(chain.authority)
    return CredentialOptions(trust_anchors=str(path))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def clip(folder):
    return make_clip(folder / "clip.mp4", *X264)


@pytest.fixture(scope="module")
def photo(folder):
    path = folder / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def signed_clip(folder, clip, chain):
    return sign_file(clip, folder / "signed.mp4", chain)


@pytest.fixture(scope="module")
def signed_photo(folder, photo, chain):
    return sign_file(photo, folder / "signed.png", chain)


def test_a_signed_file_is_valid_with_the_anchors_of_its_signer(signed_clip, anchors, chain):
    credentials = read_credentials(signed_clip, anchors)
    assert (credentials.state, credentials.problems) == ("valid", ())
    # The organization is that of the signer, not of the authority.
    assert (credentials.signer, credentials.organization) == (
        "Ada Photographer",
        "Test News Agency",
    )
    assert credentials.claim_generator == "Test Camera 1.2"
    assert credentials.title == "signed.mp4"
    assert credentials.signed_at == ""  # no time stamp
    assert credentials.actions == (
        CredentialAction("c2pa.created", digital_source_type="digitalCapture"),
    )
    assert credentials.ai_claims == ()
    assert len(credentials.trust_list) == 64


def test_the_signer_is_not_trusted_without_anchors_or_with_others(signed_clip, tmp_path):
    credentials = read_credentials(signed_clip)
    assert (credentials.state, credentials.trust_list) == ("untrusted", "")
    assert "no trust anchors were given" in credentials.detail
    other = tmp_path / "other.pem"
    other.write_bytes(make_chain().authority)  # of the same name, but with another key
    credentials = read_credentials(signed_clip, CredentialOptions(str(other)))
    assert credentials.state == "untrusted"
    assert "none of the trust anchors" in credentials.detail
    assert "Ada Photographer" in credentials.describe()


@pytest.mark.parametrize(("name", "mark"), [("signed.mp4", b"mdat"), ("signed.png", b"IDAT")])
def test_one_changed_bit_makes_the_credentials_invalid(
    signed_clip, signed_photo, folder, tmp_path, anchors, name, mark
):
    changed = flip_bit(folder / name, tmp_path / name, mark)
    credentials = read_credentials(changed, anchors)
    assert credentials.state == "invalid"
    assert "changed after it was signed" in credentials.detail
    assert any("Hash.mismatch" in problem for problem in credentials.problems)
    assert credentials.signer == "Ada Photographer"


def test_a_changed_claim_makes_the_credentials_invalid(signed_photo, tmp_path, anchors):
    changed = flip_bit(signed_photo, tmp_path / "a.png", b"digitalCapture", 3)
    credentials = read_credentials(changed, anchors)
    assert credentials.state == "invalid"
    assert "credentials themselves were changed" in credentials.detail


def test_a_truncated_file_is_invalid(signed_clip, tmp_path, anchors):
    half = tmp_path / "half.mp4"
    half.write_bytes(signed_clip.read_bytes()[:-2000])
    assert read_credentials(half, anchors).state == "invalid"


def test_credentials_of_another_file_are_invalid(signed_clip, tmp_path, anchors):
    data = signed_clip.read_bytes()
    start = data.index(b"uuid") - 4
    box = data[start : start + int.from_bytes(data[start : start + 4])]
    other = make_clip(
        tmp_path / "other.mp4", *X264, source="testsrc=size=160x120:duration=0.4"
    ).read_bytes()
    end = int.from_bytes(other[:4])  # of the box ftyp
    path = tmp_path / "grafted.mp4"
    path.write_bytes(other[:end] + box + other[end:])
    credentials = read_credentials(path, anchors)
    assert credentials.state == "invalid"
    assert "those of another file" in credentials.detail


def test_a_remuxed_and_an_unsigned_file_have_none(clip, signed_clip, tmp_path):
    remuxed = tmp_path / "remuxed.mp4"
    run_ffmpeg("-i", signed_clip, "-c", "copy", remuxed)
    for path in (remuxed, clip):
        credentials = read_credentials(path)
        assert (credentials.state, credentials.ai_claims) == ("none", ())


def test_a_damaged_manifest_is_unreadable(signed_clip, tmp_path):
    data = bytearray(signed_clip.read_bytes())
    start = data.index(b"jumb") + 200
    data[start : start + 30] = bytes(30)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(data)
    credentials = read_credentials(damaged)
    assert credentials.state == "unreadable"
    assert credentials.detail.startswith("Content Credentials cannot be read: ")


@pytest.mark.parametrize("suffix", ["mov", "avi", "jpg", "webp", "gif", "tiff"])
def test_formats_with_credentials(clip, tmp_path, chain, anchors, suffix):
    source = make_clip(tmp_path / f"a.{suffix}", "-frames:v", "1", source=clip)
    assert read_credentials(source).state == "none"
    assert read_credentials(sign_file(source, tmp_path / "b", chain), anchors).state == "valid"


@pytest.mark.parametrize("suffix", ["mkv", "webm", "ts", "bmp", "mpg"])
def test_formats_that_c2pa_does_not_read_are_not_checked(clip, tmp_path, suffix):
    source = make_clip(tmp_path / f"a.{suffix}", "-frames:v", "1", source=clip)
    credentials = read_credentials(source)
    assert credentials.state == "not_checked"
    assert "format" in credentials.detail


@pytest.mark.parametrize("name", ["no suffix", "wrong.jpg", "wrong.mkv"])
def test_the_suffix_does_not_matter(signed_clip, tmp_path, anchors, name):
    assert read_credentials(shutil.copy(signed_clip, tmp_path / name), anchors).state == "valid"


@pytest.mark.slow
def test_an_expired_certificate_is_told_from_a_changed_file(photo, tmp_path):
    chain = make_chain(valid_s=2)
    signed = sign_file(photo, tmp_path / "a.png", chain, source_type="trainedAlgorithmicMedia")
    time.sleep(3)
    (tmp_path / "a.pem").write_bytes(chain.authority)
    credentials = read_credentials(signed, CredentialOptions(str(tmp_path / "a.pem")))
    assert credentials.state == "invalid"
    assert "has expired" in credentials.detail
    assert "Nothing shows that the file was changed" in credentials.detail
    assert credentials.is_expired
    assert credentials.describe().startswith("invalid: certificate expired, stated signer: ")
    (claim,) = credentials.describe_claims()
    assert "(not confirmed: the certificate of the signer has expired)" in claim
    # One that was changed as well is only that.
    changed = read_credentials(flip_bit(signed, tmp_path / "b.png", b"IDAT"))
    assert "changed after it was signed" in changed.detail and not changed.is_expired
    assert "not right for this file" in changed.describe_claims()[0]


def test_remote_credentials_are_not_fetched(photo, clip, tmp_path, chain, anchors):
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a.c2pa"

        def refer(builder):
            builder.set_no_embed()
            builder.set_remote_url(url)

        for source in (photo, clip):
            signed = sign_file(source, tmp_path / source.name, chain, edit=refer)
            credentials = read_credentials(signed, anchors)
            assert credentials.state == "remote"
            assert url in credentials.detail
        server.shutdown()
    assert requests == []


def test_ingredients_have_the_state_of_their_own_credentials(photo, tmp_path, chain, anchors):
    made = sign_file(photo, tmp_path / "made.png", chain, source_type="trainedAlgorithmicMedia")
    stranger = sign_file(photo, tmp_path / "stranger.png", make_chain("Eve", "Nobody"))
    changed = flip_bit(made, tmp_path / "changed.png", b"IDAT")
    paths = [made, stranger, changed, photo]

    def add_all(builder):
        for path in paths:
            add_ingredient(path)(builder)

    signed = sign_file(photo, tmp_path / "all.png", chain, edit=add_all)
    credentials = read_credentials(signed, anchors)
    assert credentials.state == "valid"
    states = ["valid", "untrusted", "invalid", ""]
    assert credentials.ingredients == tuple(
        Ingredient(path.name, "png", "componentOf", state)
        for path, state in zip(paths, states, strict=True)
    )
    assert any(problem.startswith("ingredient changed.png: ") for problem in credentials.problems)
    # That of an ingredient is named as such; the manifest of the changed one is the same.
    assert credentials.ai_claims == (
        AIClaim("Content Credentials of an ingredient", f"made.png: {AI}", True),
    )
    # What the signer found does not count: the anchors of the reader do.
    assert [i.state for i in read_credentials(signed).ingredients] == [
        *("untrusted", "untrusted", "invalid", "")
    ]


@pytest.mark.parametrize(
    ("source_type", "text"),
    [
        ("trainedAlgorithmicMedia", AI),
        ("compositeWithTrainedAlgorithmicMedia", EDITED),
        ("digitalCapture", ""),
        ("algorithmicMedia", ""),
    ],
)
def test_ai_claims_of_signed_files(photo, tmp_path, chain, anchors, source_type, text):
    signed = sign_file(photo, tmp_path / "a.png", chain, source_type=source_type)
    for options in (anchors, None):
        claims = read_credentials(signed, options).ai_claims
        assert [claim.text.startswith(text) for claim in claims] == [True] * bool(text)
        assert all(claim.is_signed and claim.source == "Content Credentials" for claim in claims)
    changed = flip_bit(signed, tmp_path / "changed.png", b"IDAT")
    credentials = read_credentials(changed, anchors)
    assert [claim.is_signed for claim in credentials.ai_claims] == [False] * bool(text)
    assert all(
        "not right for this file" in credentials.describe_claim(claim)
        for claim in credentials.ai_claims
    )


def test_several_actions_are_listed(photo, tmp_path, chain, anchors):
    actions = [
        {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE + "digitalCapture"},
        {
            "action": "c2pa.edited",
            "when": "2026-01-02T03:04:05Z",
            "softwareAgent": {"name": "Editor", "version": "3"},
            "digitalSourceType": SOURCE_TYPE + "compositeWithTrainedAlgorithmicMedia",
            "description": "line\nbreak \u202eright to left",
        },
    ]
    signed = sign_file(photo, tmp_path / "a.png", chain, actions=actions, title="x" * 5000)
    credentials = read_credentials(signed, anchors)
    assert credentials.actions[1] == CredentialAction(
        "c2pa.edited",
        "2026-01-02T03:04:05Z",
        "Editor 3",
        "compositeWithTrainedAlgorithmicMedia",
        r"line\nbreak \u202eright to left",
    )
    assert [claim.text for claim in credentials.ai_claims] == [
        f"{EDITED} (digital source type compositeWithTrainedAlgorithmicMedia), by Editor 3"
    ]
    assert len(credentials.title) == MAX_TEXT


def test_json_of_any_form_raises_nothing():
    for value in (None, 1, "a", [], [1], [[]], {}, {"a": 1}):
        for name in ("assertions", "ingredients", "signature_info", "claim_generator_info"):
            store = {"active_manifest": "a", "manifests": {"a": {name: value}}}
            assert read_facts(store, has_anchors=True)["state"] == "invalid"
            assert list_ai_claims(store, is_signed=True) == []
        actions = [{"label": "c2pa.actions", "data": {"actions": value}}]
        bmff = [{"label": "c2pa.hash.bmff.v3", "data": {"exclusions": value}}]
        for assertions in (actions, bmff, [{"label": value, "data": value}]):
            store = {"active_manifest": "a", "manifests": {"a": {"assertions": assertions}}}
            assert read_facts(store, has_anchors=True)["problems"] == ()
            assert list_ai_claims(store, is_signed=True) == []
        store = {"validation_state": "Trusted", "validation_results": value, "manifests": value}
        assert read_facts(store, has_anchors=True)["state"] == "untrusted"


def test_ingredients_that_contain_each_other_end():
    entry = {"title": "b", "active_manifest": "b"}
    manifests = {"a": {"ingredients": [entry]}, "b": {"ingredients": [{"active_manifest": "a"}]}}
    assert list_ai_claims({"active_manifest": "a", "manifests": manifests}, is_signed=True) == []


def test_content_that_the_signature_does_not_cover_is_named():
    data = {"exclusions": [{"xpath": "/free"}, {"xpath": "/mdat"}]}
    assertion = {"label": "c2pa.hash.bmff.v3", "data": data}
    store = {"active_manifest": "a", "manifests": {"a": {"assertions": [assertion]}}}
    facts = read_facts(store | {"validation_state": "Valid"}, has_anchors=False)
    assert facts["problems"] == ("the signature does not cover its boxes /mdat",)
    assert "(it does not cover its boxes /mdat), " in facts["detail"]
    data["merkle"] = [{}]  # which covers the media data
    assert read_facts(store, has_anchors=False)["problems"] == ()


def test_a_box_without_content_may_be_added_after_signing(signed_clip, tmp_path, anchors):
    path = tmp_path / "longer.mp4"
    path.write_bytes(signed_clip.read_bytes() + (64).to_bytes(4) + b"free" + b"x" * 56)
    credentials = read_credentials(path, anchors)
    assert credentials.state == "valid"
    assert credentials.detail.startswith("What the signature covers has not changed since ")
    assert "file was not changed" not in credentials.detail


def test_expiry_alone_is_stated_in_the_same_words_everywhere():
    failure = {"code": "signingCredential.expired", "explanation": "certificate expired"}
    for others, is_expired in (
        ([], True),
        ([{"code": "signingCredential.untrusted"}], True),
        ([{"code": "assertion.dataHash.mismatch"}], False),
        ([{"code": "claimSignature.mismatch"}], False),
    ):
        checks = {"activeManifest": {"failure": [failure, *others]}}
        store = {"validation_state": "Invalid", "validation_results": checks}
        claims = tuple(AIClaim(source, AI) for source in ("Content Credentials", "XMP"))
        credentials = ContentCredentials(**read_facts(store, has_anchors=True), ai_claims=claims)
        assert (credentials.state, credentials.is_expired) == ("invalid", is_expired)
        first, other = credentials.describe_claims()
        assert ("not confirmed: the certificate of the signer has expired" in first) == is_expired
        assert ("not right for this file" in first) != is_expired
        assert ("Nothing shows that the file was changed" in credentials.detail) == is_expired
        assert "anybody can write or remove it" in other


@pytest.fixture
def c2pa_anew(monkeypatch):
    """c2pa is imported again, here and in the next test."""
    load_c2pa.cache_clear()
    yield monkeypatch
    load_c2pa.cache_clear()


def missing(_name):
    raise importlib.metadata.PackageNotFoundError("c2pa-python")


def test_without_c2pa_nothing_is_checked_but_metadata_are_read(
    signed_photo, c2pa_anew, tmp_path, anchors
):
    c2pa_anew.setattr(importlib.metadata, "version", missing)
    credentials = read_credentials(signed_photo)
    assert credentials.state == "not_checked"
    assert "c2pa-python is not installed" in credentials.detail
    assert "jdfd-keras[provenance]" in credentials.detail
    refusal = r"--trust-anchors.*c2pa-python is not installed"
    with pytest.raises(ValueError, match=refusal):
        read_credentials(signed_photo, anchors)
    with pytest.raises(ValueError, match=refusal):
        Extractor([], FaceOptions(), credentials=anchors)
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", "NovelAI")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=text)
    credentials = read_credentials(tmp_path / "a.png")
    assert credentials.ai_claims == (AIClaim("PNG text", "Software: NovelAI"),)


@pytest.mark.parametrize(
    ("version", "is_used"),
    [("0.36.4", False), ("0.37.12", False), ("0.38.0", True), ("0.38", True), ("1.0.0rc1", True)],
)
def test_a_c2pa_that_is_too_old_is_named_with_its_version(
    signed_photo, c2pa_anew, version, is_used, anchors
):
    c2pa_anew.setattr(importlib.metadata, "version", {"c2pa-python": version}.__getitem__)
    credentials = read_credentials(signed_photo)
    assert credentials.state == ("untrusted" if is_used else "not_checked")
    found = f"version {version} of c2pa-python is installed; 0.38 or newer is needed"
    assert (found in credentials.detail) != is_used
    if not is_used:
        with pytest.raises(ValueError, match=re.escape(found)):
            read_trust_anchors(anchors.trust_anchors)


class BrokenError(Exception):
    pass


def fail(*_, **__):
    raise BrokenError("of another kind.")


@pytest.mark.parametrize("kind", ["TypeError('t')", "RuntimeError('t')", "ValueError()"])
def test_an_import_that_fails_costs_no_verdict(signed_clip, tmp_path, c2pa_anew, kind):
    (tmp_path / "c2pa.py").write_text(f"raise {kind}")
    c2pa_anew.delitem(sys.modules, "c2pa")
    c2pa_anew.syspath_prepend(tmp_path)
    extraction = extract_file(signed_clip, FaceOptions(frames_per_video=2), LimitOptions())
    assert extraction.credentials.state == "not_checked"
    assert f"cannot be imported ({kind.partition('(')[0]}" in extraction.credentials.detail


@pytest.mark.parametrize(
    ("name", "state"),
    [("Context.from_dict", "not_checked"), ("Reader.__init__", "unreadable")]
    + [("Reader.json", "unreadable"), ("Reader.__exit__", "unreadable")],
)
def test_no_error_of_c2pa_costs_a_verdict(signed_clip, monkeypatch, name, state):
    owner, _, method = name.partition(".")
    monkeypatch.setattr(getattr(c2pa, owner), method, fail)
    extraction = extract_file(signed_clip, FaceOptions(frames_per_video=2), LimitOptions())
    assert extraction.credentials.state == state
    assert "BrokenError: of another kind." in extraction.credentials.detail


def test_a_check_without_c2pa_is_outdated_once_it_can_be_used(c2pa_anew):
    unchecked = ContentCredentials("not_checked", "c2pa-python is not installed.")
    assert unchecked.is_outdated()
    assert not ContentCredentials("not_checked", WRONG_FORMAT).is_outdated()
    assert not ContentCredentials("unreadable", "Content Credentials cannot be read.").is_outdated()
    load_c2pa.cache_clear()
    c2pa_anew.setattr(importlib.metadata, "version", missing)
    assert not unchecked.is_outdated()


XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    'syntax-ns#"><rdf:Description xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    "{}</rdf:Description></rdf:RDF></x:xmpmeta>"
)
ELEMENT = ">\n<Iptc4xmpExt:DigitalSourceType>{}</Iptc4xmpExt:DigitalSourceType>"
RESOURCE = '>\n<Iptc4xmpExt:DigitalSourceType rdf:resource="{}"/>'
ATTRIBUTE = ' Iptc4xmpExt:DigitalSourceType="{}">'


@pytest.mark.parametrize("form", [ELEMENT, RESOURCE, ATTRIBUTE])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_xmp_claims(tmp_path, form, suffix):
    path = tmp_path / f"a.{suffix}"
    for source_type, expected in (
        ("trainedAlgorithmicMedia", (AIClaim("XMP", AI),)),
        ("digitalCapture", ()),
    ):
        xmp = XMP.format(form.format(SOURCE_TYPE + source_type)).encode()
        options = {"xmp": xmp}
        if suffix == "png":
            text = PngImagePlugin.PngInfo()
            text.add_itxt("XML:com.adobe.xmp", xmp.decode(), zip=True)
            options = {"pnginfo": text}
        Image.new("RGB", (8, 8)).save(path, **options)
        credentials = read_credentials(path)
        assert (credentials.state, credentials.ai_claims) == ("none", expected)


def test_xmp_at_the_end_of_a_long_video(clip, tmp_path):
    xmp = XMP.format(ELEMENT.format(SOURCE_TYPE + "trainedAlgorithmicMedia")).encode()
    free = (3 * 2**20).to_bytes(4) + b"free" + bytes(3 * 2**20 - 8)
    box = bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + xmp
    path = tmp_path / "a.mp4"
    path.write_bytes(clip.read_bytes() + free + (len(box) + 8).to_bytes(4) + b"uuid" + box)
    assert read_credentials(path).ai_claims == (AIClaim("XMP", AI),)


@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("parameters", "a cat\nSteps: 20, Sampler: Euler a", r"a cat\nSteps: 20, Sampler: Euler a"),
        ("prompt", '{"3": {"class_type": "KSampler"}}', "prompt of ComfyUI"),
        ("Software", "ComfyUI", "Software: ComfyUI"),
        ("Source", "Midjourney", "Source: Midjourney"),
        ("Software", "GIMP 3.0", None),
        ("Title", "What Midjourney cannot do", None),
        ("parameters", "exposure 1/60", None),
        ("Comment", "not made by Midjourney", None),
    ],
)
@pytest.mark.parametrize("is_compressed", [False, True])
def test_png_texts(tmp_path, keyword, value, expected, is_compressed):
    path = tmp_path / "a.png"
    text = PngImagePlugin.PngInfo()
    text.add_text(keyword, value, zip=is_compressed)
    Image.new("RGB", (8, 8)).save(path, pnginfo=text)
    claims = read_credentials(path).ai_claims
    assert len(claims) == bool(expected)
    assert all(expected in claim.text and claim.source == "PNG text" for claim in claims)


def test_texts_of_a_file_are_shortened(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "Steps: 20, Sampler: Euler a" + "\0\x1b[31m" + "x" * 100_000)
    text.add_text("Software", "DALL-E", zip=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=text)
    claims = read_credentials(tmp_path / "a.png").ai_claims
    assert len(claims) == 2
    assert all(len(claim.text) < MAX_TEXT + 40 and claim.text.isprintable() for claim in claims)


def test_parameters_in_exif(tmp_path):
    for number, comment in enumerate((b"ASCII\0\0\0", b"UNICODE\0")):
        text = "a cat\nSteps: 20, Sampler: Euler a"
        encoded = comment + text.encode("utf-16-be" if number else "ascii")
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9286] = encoded
        Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=exif)
        assert [c.source for c in read_credentials(tmp_path / "a.jpg").ai_claims] == ["EXIF"]


def test_damaged_png_chunks_raise_nothing(tmp_path):
    begin = b"\x89PNG\r\n\x1a\n"
    for chunk in (
        (2**31 - 1).to_bytes(4) + b"tEXt" + b"parameters",
        (8).to_bytes(4) + b"zTXtabcdefgh" + bytes(4),
        (8).to_bytes(4) + b"iTXtabcdefgh" + bytes(4),
        (0).to_bytes(4) + b"iTXt" + bytes(4),
        b"\0\0",
    ):
        path = tmp_path / "a.png"
        path.write_bytes(begin + chunk)
        assert read_credentials(path).ai_claims == ()


def test_trust_anchors_are_checked(chain, tmp_path):
    def read(content):
        (tmp_path / "a.pem").write_bytes(content)
        return read_trust_anchors(tmp_path / "a.pem")

    # c2pa itself takes the first three without a word, and trusts nobody.
    for content, found in (
        (b"", "got none"),
        (chain.key, "got none"),
        (chain.signer, "none of an authority"),
        (
            chain.authority + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
            "damag",
        ),
    ):
        with pytest.raises(ValueError, match=found):
            read(content)
    pem, _ = read(b"# a comment\n" + chain.authority + b"more\n" + chain.authority)
    assert pem.count("BEGIN CERTIFICATE") == 2
    with pytest.raises(FileNotFoundError, match="--trust-anchors"):
        read_trust_anchors(tmp_path / "none.pem")
    (tmp_path / "b.pem").touch()
    with pytest.raises(ValueError, match="got none"):
        Extractor([], FaceOptions(), credentials=CredentialOptions(str(tmp_path / "b.pem")))


def test_results_are_restored_from_json(signed_clip, photo, tmp_path, chain, anchors):
    made = sign_file(photo, tmp_path / "made.png", chain, source_type="trainedAlgorithmicMedia")
    signed = sign_file(photo, tmp_path / "a.png", chain, edit=add_ingredient(made))
    for path in (signed_clip, signed):
        credentials = read_credentials(path, anchors)
        restored = ContentCredentials.from_dict(json.loads(json.dumps(credentials.to_dict())))
        assert restored == credentials
        hash(restored)


def test_every_state_has_words():
    assert set(STATES) == {
        *("valid", "untrusted", "invalid", "none", "remote", "unreadable", "not_checked")
    }
    for state in STATES:
        assert ContentCredentials(state, "").describe()


def test_source_types_that_are_no_address_say_nothing():
    assert describe_source_type("") == describe_source_type("None") == ""


@pytest.fixture(scope="module")
def verdicts(folder, chain, anchors):
    """Verdicts by the state of the credentials, of the same frames."""
    (person,) = vary_portrait(astronaut(), 1, seed=4242)
    frames = np.stack(list(render_clip(person, 6, np.random.default_rng(3))))
    clip = make_clip(folder / "person.mp4", *X264, source=frames)
    signed = sign_file(clip, folder / "s.mp4", chain, source_type="trainedAlgorithmicMedia")
    # A name in the header, so that no pixel changes.
    changed = flip_bit(signed, folder / "changed.mp4", b"VideoHandler", 3)
    remuxed = folder / "remuxed.mp4"
    run_ffmpeg("-i", signed, "-c", "copy", remuxed)

    def analyse(path, options=None):
        faces = FaceOptions(frames_per_video=6, face_size=71)
        extraction = extract_file(path, faces, LimitOptions(), credentials=options)
        return judge(
            path, extraction, lambda crops: crops.mean(axis=(1, 2, 3)) / 255, Calibration()
        )

    return {
        "unsigned": analyse(clip),
        "valid": analyse(signed, anchors),
        "untrusted": analyse(signed),
        "invalid": analyse(changed, anchors),
        "none": analyse(remuxed, anchors),
    }


def test_the_states_never_change_the_score(verdicts):
    states = {name: verdict.credentials.state for name, verdict in verdicts.items()}
    assert states == {name: name for name in states} | {"unsigned": "none"}
    bytes_of = {"path": "", "sha256": "", "file_bytes": 0, "credentials": None}
    first, *others = (
        # The container that ffmpeg writes states other facts.
        dataclasses.replace(
            verdict, **bytes_of, media=dataclasses.replace(verdict.media, bit_rate=0, encoder="")
        )
        for verdict in verdicts.values()
    )
    assert first.score is not None and first.num_people == 1
    assert others == [first] * len(others)


def test_the_table_has_state_and_claims(verdicts):
    header, *rows = (line.split(",") for line in to_csv(verdicts.values()).splitlines())
    assert header[-2:] == ["credentials", "ai_claims"]
    assert [row[-2] for row in rows] == ["none", "valid", "untrusted", "invalid", "none"]
    claim = f"Content Credentials: {AI}"
    assert [row[-1] for row in rows] == ["", claim, claim, claim, ""]


def test_verdicts_of_earlier_versions_are_restored(verdicts):
    for verdict in verdicts.values():
        values = json.loads(json.dumps(verdict.to_dict()))
        assert Verdict.from_dict(values) == verdict
        del values["credentials"]
        assert Verdict.from_dict(values).credentials is None


def test_processes_read_the_credentials(signed_photo, anchors):
    faces = FaceOptions(face_size=71, detector="none")
    with Extractor([signed_photo], faces, credentials=anchors) as extractor:
        *_, (_, extraction) = extractor.receive()
    assert extraction.credentials == read_credentials(signed_photo, anchors)

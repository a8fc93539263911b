"""Provenance and several opinions by the command, with the shipped detector and nothing replaced.

One clip in each state of its Content Credentials has one score, and its state is in JSON, text,
table and pages. Two models and plug-ins judge clips, and all outputs state the same.
"""

import base64
import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from jdfd_keras.cli.main import main
from tests.faces.media_files import run_ffmpeg
from tests.faces.signed_files import SOURCE_TYPE, flip_bit, make_chain, sign_file
from tests.reporting.test_verdict_page import Page

AI = "created by generative AI (digital source type trainedAlgorithmicMedia)"
SIGNER, STRANGER = "Ada Photographer, Test News Agency", "A Stranger, Test News Agency"
# The state of each file, how it is written, and who signed.
STATES = {
    "unsigned.mp4": ("none", "none", ""),
    "remuxed.mp4": ("none", "none", ""),
    "signed.mp4": ("valid", "valid", SIGNER),
    "ai.mp4": ("valid", "valid", SIGNER),
    "stranger.mp4": ("untrusted", "right, but the signer is not trusted", STRANGER),
    "changed.mp4": ("invalid", "invalid", SIGNER),
}
WORDS = {
    "fake": "fake",
    "uncertain": "uncertain",
    "no_evidence": "no evidence of manipulation",
    "no face": "no face",
}
AGREEMENTS = {
    "agree": "the models agree",
    "partial": "the models agree in part",
    "disagree": "the models disagree",
    "single": "only one model has a verdict",
}
PLUGINS = """
def clean(path):
    return [0.0625, 0.125]  # of two people, of whom the second decides

clean.version = "0.3"
clean.thresholds = (0.25, 0.75)

def beyond(path):
    return 1.75
"""


class Tables(HTMLParser):
    """The rows of the tables of a page, each the texts of its cells."""

    def __init__(self, path: Path):
        super().__init__()
        self.rows: list[list[str]] = []
        self._is_inside = False
        self.feed(path.read_text(encoding="utf-8"))
        self.rows = [[" ".join(cell.split()) for cell in row] for row in self.rows]

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")
            self._is_inside = True
        elif self._is_inside:  # words of different elements are different ones
            self.rows[-1][-1] += " "

    def handle_endtag(self, tag):
        if tag in ("th", "td"):
            self._is_inside = False

    def handle_data(self, data):
        if self._is_inside:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def clips(clips_folder):
    """A fake clip and a real one."""
    return clips_folder / "fake" / "person02.mp4", clips_folder / "real" / "person03.mp4"


@pytest.fixture(scope="module")
def states(clips, tmp_path_factory):
    """A folder with one clip in all states, whose frames are the same, and the trust anchors."""
    folder, chain = tmp_path_factory.mktemp("states"), make_chain()
    (folder / "authorities.pem").write_bytes(chain.authority)
    unsigned = folder / "unsigned.mp4"
    unsigned.write_bytes(clips[0].read_bytes())
    signed = sign_file(unsigned, folder / "signed.mp4", chain)
    sign_file(unsigned, folder / "ai.mp4", chain, source_type="trainedAlgorithmicMedia")
    sign_file(unsigned, folder / "stranger.mp4", make_chain("A Stranger", "Unknown Authority"))
    # A name in the header, so that no frame changes.
    flip_bit(signed, folder / "changed.mp4", b"VideoHandler", 3)
    run_ffmpeg("-i", signed, "-c", "copy", folder / "remuxed.mp4")
    return folder


def predict(capsys, *words):
    """Run the command; return its exit code and what it prints."""
    code = main(["predict", *map(str, words)])
    return code, capsys.readouterr().out


def lines_of(text, path):
    """The lines of a file in the text output: the first without its path, and the indented ones."""
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(f"{path}: "))
    last = next(i for i in range(start + 1, len(lines) + 1) if not lines[i].startswith("  "))
    return [lines[start].removeprefix(f"{path}: "), *(line[2:] for line in lines[start + 1 : last])]


def agreement_of(verdicts):
    """Whether models agree, by the verdicts of those which have one."""
    if len(verdicts) == 1:
        return "single"
    kinds = set(verdicts)
    return "agree" if len(kinds) == 1 else "partial" if "uncertain" in kinds else "disagree"


@pytest.mark.slow
def test_all_states_have_one_score_in_all_outputs(states, tmp_path, capsys):
    paths = {name: states / name for name in STATES}
    shared = [*paths.values(), "--trust-anchors", states / "authorities.pem"]
    shared += ["--out", tmp_path / "out"]  # the later calls read the verdicts of the first
    page = tmp_path / "page.html"
    code, printed = predict(capsys, *shared, "--report", page, "--format", "json")
    assert code == 0
    verdicts = {Path(verdict["path"]).name: verdict for verdict in json.loads(printed)["files"]}
    assert list(verdicts) == list(STATES)
    credentials = {name: verdict.pop("credentials") for name, verdict in verdicts.items()}
    assert {name: found["state"] for name, found in credentials.items()} == {
        name: state for name, (state, _, _) in STATES.items()
    }

    # Everything else is the same: score, verdict, reasons, people, warnings, and the facts of the
    # container but for what follows from its size, and the program that wrote it.
    first, *others = verdicts.values()
    score, word = first["score"], WORDS[first["verdict"]]
    assert 0 < score < 1 and first["num_people"] == 1
    for verdict in verdicts.values():
        for key in ("path", "sha256", "file_bytes", "analysed_at"):
            verdict.pop(key, None)
        for key in ("bit_rate", "encoder"):
            verdict["media"].pop(key)
        verdict["measures"].pop("bits_per_pixel")
    assert others == [first] * len(others)

    claims = {name: found["ai_claims"] for name, found in credentials.items()}
    claim = {"source": "Content Credentials", "text": AI, "is_signed": True}
    assert claims == {name: [claim] if name == "ai.mp4" else [] for name in STATES}
    assert credentials["stranger.mp4"]["signer"] == "A Stranger"
    assert any("Hash.mismatch" in problem for problem in credentials["changed.mp4"]["problems"])

    code, text = predict(capsys, *shared)
    assert code == 0
    for name, (_, words, signer) in STATES.items():
        found, *facts = lines_of(text, paths[name])
        assert found.startswith(f"{word}: person 0 scores {score:.3f} ")
        assert found == lines_of(text, paths["unsigned.mp4"])[0]
        (line,) = (fact for fact in facts if fact.startswith("Content Credentials: "))
        assert line.removeprefix("Content Credentials: ").startswith(words) and signer in line
        is_claimed = facts[0] == f"AI claim: Content Credentials (signed by {SIGNER}): {AI}"
        assert is_claimed == (name == "ai.mp4")

    code, table = predict(capsys, *shared, "--format", "csv")
    rows = {Path(row["path"]).name: row for row in csv.DictReader(io.StringIO(table))}
    for name, (state, _, _) in STATES.items():
        assert rows[name]["credentials"] == state
        assert float(rows[name]["score"]) == pytest.approx(score, abs=1e-6)
        assert rows[name]["verdict"] == first["verdict"]
        assert bool(rows[name]["ai_claims"]) == (name == "ai.mp4")

    overview = [row for row in Tables(page).rows if len(row) > 2 and any(".mp4" in c for c in row)]
    assert len(overview) == len(STATES)
    for row in overview:
        (cell,) = (cell for cell in row if ".mp4" in cell)
        name = next(name for name in STATES if cell.startswith(f"{name} "))
        assert word in row and f"{score:.3f}" in row
        state, words, signer = STATES[name]
        assert (f"Content Credentials: {words}" in cell) == (state != "none") and signer in cell
        assert ("States use of AI" in cell) == (name == "ai.mp4")
    for name, (_, words, signer) in STATES.items():
        shown = Page(tmp_path / "page_files" / f"{name}.html").text
        start = shown.index("The file states")
        section = shown[shown.index("Content Credentials", start) :]
        assert section.startswith(f"Content Credentials {words[0].upper()}{words[1:]}")
        assert signer in section
        assert f"Score {score:.3f} (no evidence below " in shown
        if name == "ai.mp4":
            top = shown.index("This file states that AI made it, or a part of it.")
            assert shown.index(name) < top < shown.index("The detector examines faces only")
        else:
            assert "AI made it" not in shown


@pytest.mark.slow
def test_many_credentials_do_not_change_the_verdict(tmp_path, capsys):
    """A clip that hardly moves is so small that credentials are most of its signed copy."""
    still, signed = tmp_path / "still.mp4", tmp_path / "signed.mp4"
    Image.fromarray(astronaut()).save(tmp_path / "portrait.png")
    encoder = ("-r", "25", "-t", "20", "-c:v", "libx264", "-g", "1000", "-pix_fmt", "yuv420p")
    run_ffmpeg("-loop", "1", "-i", tmp_path / "portrait.png", *encoder, still)
    # As long as a few thumbnails would be.
    note = base64.b64encode(np.random.default_rng(0).bytes(300_000)).decode()
    created = {"action": "c2pa.created", "digitalSourceType": f"{SOURCE_TYPE}digitalCapture"}
    sign_file(still, signed, make_chain(), actions=[created | {"description": note}])
    code, printed = predict(capsys, still, signed, "--format", "json")
    first, second = json.loads(printed)["files"]
    assert code == 0 and first["score"] == second["score"]
    for key in ("verdict", "reasons"):
        assert first[key] == second[key]


@pytest.mark.slow
def test_two_models_and_plug_ins_state_the_same_in_all_outputs(
    clips, exported, states, tmp_path, monkeypatch, capsys
):
    """The second model takes faces of another size and margin; one plug-in returns no score."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "judges_of_the_test.py").write_text(PLUGINS)
    clean, beyond = "judges_of_the_test:clean", "judges_of_the_test:beyond"
    paths = [str(states / "ai.mp4"), str(clips[1])]
    models = ["jdfd-faces", str(exported), clean, beyond]
    shared = [*paths, *(word for model in models for word in ("--model", model)), "--out", "out"]
    shared += ["--trust-anchors", states / "authorities.pem"]
    code, printed = predict(capsys, *shared, "--report", "page.html", "--format", "json")
    assert code == 1  # as one opinion failed; the others stand
    opinions = json.loads(printed)
    assert json.loads((tmp_path / "out" / "opinions.json").read_text()) == opinions
    labels = [model["label"] for model in opinions["models"]]
    assert labels == ["jdfd-faces", "tiny", clean, beyond]
    assert "no combined score" in opinions["note"]

    # Each model is asked as if it were alone, with crops of its own.
    for label, model, known in zip(labels, models[:2], opinions["predictions"], strict=False):
        _, alone = predict(capsys, *paths, "--model", model, "--format", "json")
        alone = json.loads(alone)["files"]
        assert [verdict["score"] for verdict in known["files"]] == [
            pytest.approx(verdict["score"], abs=1e-6) for verdict in alone
        ], label
        assert [v["verdict"] for v in known["files"]] == [v["verdict"] for v in alone]
    sizes = [known["provenance"]["faces"] for known in opinions["predictions"][:2]]
    assert [faces["face_size"] for faces in sizes] == [192, 71]
    assert sizes[0]["margin"] != sizes[1]["margin"]
    assert opinions["predictions"][2:] == [None, None]

    # The words follow from the verdicts.
    for file, path in zip(opinions["files"], paths, strict=True):
        assert file["path"] == path
        *known, failed = file["opinions"]
        assert known[2] == {
            "label": clean,
            "verdict": "no_evidence",
            "score": 0.125,
            "error": "",
            "code": "",
        }
        assert (failed["verdict"], failed["score"], failed["code"]) == ("", None, "plugin_failed")
        assert f"{beyond}, which returned 1.75." in failed["error"]
        assert file["agreement"] == agreement_of([opinion["verdict"] for opinion in known])
        for opinion in known:
            assert f"{opinion['label']}: {WORDS[opinion['verdict']]}" in file["text"] or (
                file["text"].split(f" {beyond} has none: ")[0]
                == f"3 of 4 models have a verdict, and they agree: {WORDS[opinion['verdict']]}."
            )
    first, second = opinions["files"]
    assert first["opinions"][0]["verdict"] == "fake"
    assert first["agreement"] == "disagree" and first["text"].startswith(
        "3 of 4 models have a verdict, and they disagree: jdfd-faces: fake; "
    )
    assert second["opinions"][0]["verdict"] == "no_evidence"

    code, text = predict(capsys, *shared)
    assert code == 1
    code, table = predict(capsys, *shared, "--format", "csv")
    assert code == 1
    rows = {(row["path"], row["label"]): row for row in csv.DictReader(io.StringIO(table))}
    assert len(rows) == 8
    cells = [row for row in Tables(tmp_path / "page.html").rows if row]
    starts = [index for index, row in enumerate(cells) if ".mp4" in row[0]]
    page = {}  # rows of each file by its name, of which the first one begins with the file
    for start in starts:
        name = re.match(r"\S+\.mp4", cells[start][0])[0]
        page[name] = [cells[start][1:], *cells[start + 1 : start + 4]]
        (file,) = (file for file in opinions["files"] if Path(file["path"]).name == name)
        words = AGREEMENTS[file["agreement"]]
        assert f"{words[0].upper()}{words[1:]}" in cells[start][0]
        assert ("States use of AI" in cells[start][0]) == (name == "ai.mp4")
    assert list(page)[0] == "ai.mp4"  # disagreement first
    for file in opinions["files"]:
        found, *lines = lines_of(text, file["path"])
        assert found == file["text"]
        for opinion, shown in zip(file["opinions"], page[Path(file["path"]).name], strict=True):
            label, row = opinion["label"], rows[file["path"], opinion["label"]]
            assert row["agreement"] == file["agreement"] and row["code"] == opinion["code"]
            assert row["verdict"] == opinion["verdict"] and row["error"] == opinion["error"]
            assert shown[0] == label + (" (plug-in)" if ":" in label else "")
            if opinion["error"]:
                assert row["score"] == "" and shown[1].startswith("no verdict Expected scores ")
                assert not any(line.startswith(f"{label}: ") for line in lines)
                continue
            words, score = WORDS[opinion["verdict"]], f"{opinion['score']:.3f}"
            assert float(row["score"]) == pytest.approx(opinion["score"], abs=1e-6)
            low, high = float(row["uncertain_from"]), float(row["uncertain_to"])
            (line,) = (line for line in lines if line.startswith(f"{label}: "))
            assert line.startswith(f"{label}: {words}, score {score} (")
            thresholds = f"no evidence below {low:.3g}, fake from {high:.3g}"
            thresholds = thresholds if low < high else f"fake from {high:.3g}"
            assert thresholds in line
            assert shown[1].startswith(words) and shown[2] == score
            assert thresholds in shown[3]  # the name of the scale
    assert f"AI claim: Content Credentials (signed by {SIGNER}): {AI}" in text
    words = Page(tmp_path / "page.html").text
    claim = words.index("1 file states that AI made it, or a part of it.")
    assert words.index("Opinions on 2 files") < claim < words.index("no combined score")
    assert not (tmp_path / "page_files" / clean).exists()
    for label in labels[:2]:
        (evidence,) = (tmp_path / "page_files" / label).glob("**/ai.mp4.html")
        assert "This file states that AI made it" in Page(evidence).text


@pytest.mark.slow
def test_one_threshold_makes_all_agree(clips, exported, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "judges_of_the_test.py").write_text(PLUGINS)
    models = ["jdfd-faces", str(exported), "judges_of_the_test:clean"]
    words = [clips[0], *(word for model in models for word in ("--model", model))]
    words += ["--threshold", 0, "--report", "page.html", "--format", "json"]
    code, printed = predict(capsys, *words)
    (file,) = json.loads(printed)["files"]
    assert code == 0 and file["agreement"] == "agree"
    assert file["text"] == "3 of 3 models have a verdict, and they agree: fake."
    assert "The models agree: fake" in Page(tmp_path / "page.html").text

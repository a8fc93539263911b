"""The commands of docs/trust.md: a signature shows tampering, which checksums alone do not."""

import re
import subprocess
from pathlib import Path

import pytest

from jdfd_keras.client.signatures import verify_checksums, write_checksums
from tests.programs import find_program

PAGE = (Path(__file__).parents[1] / "docs" / "trust.md").read_text(encoding="utf-8")


@pytest.fixture
def version(tmp_path):
    """A small version, signed with the commands of the page."""
    folder = tmp_path / "saved_models" / "detector" / "1"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.index").write_bytes(b"weights")
    write_checksums(folder)
    (tmp_path / "keys").mkdir()
    (make,) = re.findall(r"^    (minisign -G .*)$", PAGE, re.MULTILINE)
    (sign,) = re.findall(r"^    (minisign -S .*)$", PAGE, re.MULTILINE)
    # Without a password, whose key takes 1 GB of memory to derive.
    assert run(f"cd keys; {make} -W; cd ../{folder.relative_to(tmp_path)}; {sign}", tmp_path) == 0
    return folder


def run(commands, home):
    find_program("minisign", "minisign")
    environment = {"HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin"}
    return subprocess.run(
        ["bash", "-e", "-c", commands],
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    ).returncode


def verify(home):
    (commands,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    return run(commands, home)


def add_a_file(version):
    (version / "openvino").mkdir()
    (version / "openvino" / "engine.json").write_bytes(b"{}")


def change_a_file(version):
    (version / "saved_model.pb").write_bytes(b"changed")


def change_a_file_and_the_sums(version):
    change_a_file(version)
    signature = (version / "SHA256SUMS.minisig").read_bytes()
    (version / "SHA256SUMS.minisig").unlink()
    write_checksums(version)
    verify_checksums(version)  # the sums alone show nothing
    (version / "SHA256SUMS.minisig").write_bytes(signature)


def remove_the_signature(version):
    (version / "SHA256SUMS.minisig").unlink()


def test_a_signed_version_is_verified(version, tmp_path):
    assert verify(tmp_path) == 0


@pytest.mark.parametrize(
    "change", [add_a_file, change_a_file, change_a_file_and_the_sums, remove_the_signature]
)
def test_a_version_changed_after_it_was_signed_is_not(version, tmp_path, change):
    change(version)
    assert verify(tmp_path) != 0

import shutil
import subprocess
from pathlib import Path

import pytest

from jdfd_keras.client import signatures
from jdfd_keras.client.signatures import find_model, verify_checksums, write_checksums


@pytest.fixture
def version(tmp_path):
    """An exported version with its list of checksums."""
    folder = tmp_path / "1"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "with space.index").write_bytes(b"\0" * 10)
    (folder / "empty").write_bytes(b"")
    write_checksums(folder)
    return folder


def test_a_complete_copy_passes(version, tmp_path):
    verify_checksums(version)
    verify_checksums(shutil.copytree(version, tmp_path / "copy"))


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_sha256sum_reads_the_list_and_detects_a_change(version):
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    checked = subprocess.run(command, cwd=version, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.count(": OK\n") == 3
    (version / "empty").write_bytes(b"x")
    checked = subprocess.run(command, cwd=version, capture_output=True, text=True)
    assert checked.returncode == 1
    assert "empty: FAILED" in checked.stdout


def test_a_list_that_is_written_again_is_the_same(version):
    before = (version / "SHA256SUMS").read_bytes()
    write_checksums(version)
    assert (version / "SHA256SUMS").read_bytes() == before


def test_a_missing_file_is_named(version):
    (version / "variables" / "with space.index").unlink()
    with pytest.raises(OSError, match=r"with space\.index with the SHA-256 .*no such"):
        verify_checksums(version)


def test_a_changed_file_is_named(version):
    (version / "saved_model.pb").write_bytes(b"grapf")
    with pytest.raises(
        OSError, match=r"saved_model\.pb with the SHA-256 .*as exported; got [0-9a-f]"
    ):
        verify_checksums(version)


def test_a_file_that_is_not_a_list_is_refused(version):
    (version / "SHA256SUMS").write_bytes(b"\xff\xfe not a list\n")
    with pytest.raises(OSError, match="`sha256sum` in .*SHA256SUMS; got"):
        verify_checksums(version)


def test_without_a_list_nothing_is_checked(version):
    (version / "SHA256SUMS").unlink()
    (version / "saved_model.pb").unlink()
    verify_checksums(version)


SHARE = "share/jdfd-keras/saved_models"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """A function that installs the package as a scheme of pip does, for a user in `work`."""

    def install(packages):
        monkeypatch.setattr(signatures, "_PACKAGE_ROOT", tmp_path / packages)
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")

    return install


def write_model(directory, version="1"):
    (directory / version).mkdir(parents=True)
    (directory / version / "saved_model.pb").touch()
    return directory


def test_a_name_is_searched_here_then_in_the_checkout_then_in_the_installation(install, tmp_path):
    install("home")
    installed = write_model(tmp_path / "home" / SHARE / "faces")
    assert find_model("faces") == installed
    checkout = write_model(tmp_path / "home" / "saved_models" / "faces")
    assert find_model("faces") == checkout
    write_model(tmp_path / "work" / "saved_models" / "faces")
    assert str(find_model("faces")) == "saved_models/faces"
    (tmp_path / "work" / "faces").mkdir()  # a path comes first
    assert str(find_model("faces")) == "faces"


@pytest.mark.parametrize(
    ("packages", "above"),
    [
        ("prefix/lib/python3.11/site-packages", "prefix"),  # venv, --user, --prefix
        ("Library/Python/3.11/lib/python/site-packages", "Library/Python/3.11"),  # --user, macOS
        ("prefix/Lib/site-packages", "prefix"),  # Windows
        ("target", "target"),  # --target
    ],
)
def test_the_shipped_model_is_found_in_every_scheme_of_pip(install, tmp_path, packages, above):
    install(packages)
    shipped = write_model(tmp_path / above / SHARE / "jdfd-faces")
    assert find_model() == find_model("jdfd-faces") == shipped


def test_the_default_is_a_name_even_where_a_file_has_it(install, tmp_path):
    install("packages")
    shipped = write_model(tmp_path / "packages" / "saved_models" / "jdfd-faces")
    (tmp_path / "work" / "jdfd-faces").mkdir()
    assert find_model() == shipped


def test_a_folder_without_a_version_is_no_model(install, tmp_path):
    install("packages")
    shipped = write_model(tmp_path / "packages" / "saved_models" / "faces")
    write_model(tmp_path / "work" / "saved_models" / "faces", "1.partial")
    assert find_model("faces") == shipped


def test_a_name_that_is_not_found_is_an_error_with_places_and_names(install, tmp_path):
    install("packages")
    for name in ("detector", "jdfd-faces"):
        write_model(tmp_path / "packages" / "saved_models" / name)
    place = f"{tmp_path}/packages/saved_models"
    with pytest.raises(OSError, match=f"Expected a model: .* in {place}; got 'faces'") as caught:
        find_model("faces")
    assert "The names there: detector, jdfd-faces. Try" in str(caught.value)
    shutil.rmtree(tmp_path / "packages")
    with pytest.raises(OSError, match="in saved_models; got 'jdfd-faces'.* names there: none"):
        find_model()


@pytest.mark.parametrize("model", ["http://h/v1/models/m", "grpc://h:8500/m", "models/none", "/no"])
def test_urls_and_other_paths_are_as_they_are(install, model):
    install("packages")
    assert find_model(model) == model


def test_the_default_is_not_searched_in_the_working_directory(tmp_path, monkeypatch):
    planted = tmp_path / "saved_models" / "jdfd-faces" / "9"
    planted.mkdir(parents=True)
    (planted / "saved_model.pb").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert find_model("jdfd-faces") == find_model("jdfd-faces/") == Path("saved_models/jdfd-faces")
    assert find_model().is_absolute() and tmp_path not in find_model().parents


def test_an_empty_or_endless_name_is_no_model():
    with pytest.raises(ValueError, match="got an empty text"):
        find_model("")
    with pytest.raises(OSError, match="Expected a model: a path, or a name"):
        find_model("m" * 300)

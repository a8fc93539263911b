"""Lists of input files: their order is that of paths, and they are equal to other sequences."""

from pathlib import Path

from jdfd_keras.prediction.file_list import FileList, list_files


def test_files_below_a_folder_have_the_order_of_their_paths(tmp_path, monkeypatch):
    names = ("a-b.mp4", "a/z.mp4", "a/b/c.mp4", "a.mp4", "a/b.mp4", "B.mp4", "a b/x.mp4", "é.mp4")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a/.hidden").mkdir()
    (tmp_path / "a/.hidden/x.mp4").touch()
    (tmp_path / "b").symlink_to(tmp_path / "a")  # a folder, which is not followed
    (tmp_path / "c.mp4").symlink_to("nothing")
    expected = sorted(tmp_path / name for name in (*names, "c.mp4"))
    assert list(list_files([tmp_path])[0]) == expected
    monkeypatch.chdir(tmp_path)
    for folder in (".", "./", str(tmp_path / "a" / "..")):
        files, _ = list_files([folder])
        assert [path.resolve() for path in files] == [path.resolve() for path in expected]
    assert list_files(["."])[0][0] == Path("B.mp4")


def test_a_list_of_files_is_a_sequence_of_paths():
    files = FileList(["a.mp4", Path("b.mp4"), "c.mp4"])
    paths = [Path("a.mp4"), Path("b.mp4"), Path("c.mp4")]
    assert files == paths and list(files) == paths and files[-1] == paths[-1]
    assert files[1:] == paths[1:] and files.select([1, 0, 1]) == [paths[0], paths[2]]
    assert paths[1] in files and files != paths[:2] and not FileList()

"""Folders of frames as DeepfakeBench stores them, described by their paths and published lists.

    FaceForensics++/manipulated_sequences/Deepfakes/c23/frames/000_003/000.png
    FaceForensics++/manipulated_sequences/Deepfakes/c23/landmarks/000_003/000.npy
    Celeb-DF-v2/Celeb-real/frames/id0_0000/000.png

The ids and sources are those of the layouts of the original videos. Reads no JSON file of
DeepfakeBench.
"""

import csv
import dataclasses
import re
from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any

from jdfd_keras.datasets.layouts.celebdf import TEST_LIST, parse_clip, read_test_list
from jdfd_keras.datasets.layouts.dfdc import METADATA, describe_entry, read_metadata
from jdfd_keras.datasets.layouts.faceforensics import describe_path
from jdfd_keras.datasets.videos import IMAGE_SUFFIXES, SPLITS, DatasetFiles, Video, has_suffix
from jdfd_keras.io.console import plural
from jdfd_keras.io.storage import LocalStore

# From these folders on, a path is the same in every tree and in every JSON file.
ANCHORS = frozenset(
    ["original_sequences", "manipulated_sequences", "Celeb-DF-v1", "Celeb-DF-v2"]
    + ["DFDC", "DFDCP", "UADFV", "DeeperForensics-1.0"]
)
COMPANION = re.compile(r"(.*/)?(videos/[^/]+\.mp4|masks/(videos/[^/]+\.mp4|[^/]+/[^/]+\.png))")
LISTS = re.compile(
    r"(.*/)?(List_of_testing_videos\.txt|labels\.csv|lists/splits/[a-z]+\.txt|"
    r"(train|val|test|dataset|metadata|conversion_dict)\.json)"
)
CELEB = re.compile(r"(?P<root>Celeb-DF-(?P<version>v[12]))/(?P<unit>[^/]+)/frames/(?P<name>[^/]+)")
UADFV = re.compile(r"UADFV/(?P<unit>real|fake)/frames/(?P<name>(?P<pair>[0-9]{4})(_fake)?)")
DFDC = re.compile(
    r"(?P<root>DFDC/(train/)?(?P<unit>dfdc_train_part_[0-9]+|test))/frames/(?P<name>[^/]+)"
)
DFDCP = re.compile(
    r"DFDCP/(?P<unit>original_videos|method_A|method_B)/(.*/)?frames/(?P<name>[^/]+)"
)
DEEPER = re.compile(
    r"DeeperForensics-1\.0/(?P<unit>(source|manipulated)_videos)/(?P<name>[^/]+/frames/[^/]+)"
)


class FrameTree:
    """The folders of frames in a dataset, with the published lists beside them.

    Example:
        >>> from jdfd_keras.io.storage import LocalStore
        >>> files = ("UADFV/real/frames/0000/7.png", "UADFV/real/landmarks/0000/7.npy")
        >>> tree = FrameTree(DatasetFiles(LocalStore("."), "rgb", files))
        >>> tree.folders
        {'UADFV/real/frames/0000': ['UADFV/real/frames/0000/7.png']}
        >>> tree.landmarks("UADFV/real/frames/0000")
        ('UADFV/real/landmarks/0000/7.npy',)
    """

    def __init__(self, root: DatasetFiles) -> None:
        self.root = root
        self._location = locate(root)
        self._names = set(root.files)
        found = defaultdict(list)
        for path in root.files:
            folder, _, name = path.rpartition("/")
            number, _, suffix = name.partition(".")
            is_frame = re.fullmatch("[0-9]+", number) and has_suffix(f".{suffix}", IMAGE_SUFFIXES)
            if folder and is_frame and self._full(folder).split("/")[-2] == "frames":
                found[folder].append((int(number), path))
        self.folders = {
            folder: [path for _, path in sorted(frames)] for folder, frames in sorted(found.items())
        }
        self.anchored = {anchor(self._full(folder)): folder for folder in self.folders}
        self._used_landmarks = {
            path for folder in self.folders for path in self.landmarks(folder) if path
        }

    def _full(self, path: str) -> str:
        return f"{self._location}/{path}"

    def landmarks(self, folder: str) -> tuple[str, ...]:
        """Return the files of landmarks of a folder's frames; "" where there is none."""
        *above, frames, video = ["", *folder.split("/")]
        # Below `frames`, the landmarks are outside the dataset.
        beside = "/".join([*above[1:], "landmarks", video]) if frames == "frames" else ""
        stems = (path.rpartition("/")[2].partition(".")[0] for path in self.folders[folder])
        paths = (f"{beside}/{stem}.npy" for stem in stems)
        return tuple(path if path in self._names else "" for path in paths)

    def is_unknown(self, path: str) -> bool:
        """Return whether a file is neither a frame nor one that is known to be beside frames."""
        return not (
            path in self._frames
            or path in self._used_landmarks
            or COMPANION.fullmatch(path)
            or LISTS.fullmatch(path)
        )

    @cached_property
    def _frames(self) -> set[str]:
        return {path for paths in self.folders.values() for path in paths}

    def notes(self) -> list[str]:
        """Return a note if there are videos from which frames were taken."""
        count = sum(bool(re.search(r"(?<!masks)/videos/", f"/{path}")) for path in self.root.files)
        return [f"The frames are read, not {plural(count, 'file')} in videos/."] * (count > 0)

    def find_folder(self, path: str) -> str:
        """Return the folder of the tree that a JSON file means by a path; "" if none."""
        if anchor(path):
            return self.anchored.get(anchor(path), "")
        parts = path.split("/")
        suffixes = ("/".join(parts[start:]) for start in range(len(parts) - 2))
        return next((suffix for suffix in suffixes if suffix in self.folders), "")

    def has_unit(self, path: str) -> bool:
        """Return whether the tree has other videos in the folder above a path of a JSON file."""
        unit = path.rpartition("/")[0]
        if anchor(path):
            return anchor(unit) in self._units
        return any(f"/{unit}".endswith(f"/{own}") for own in self._units if "/" in own)

    @cached_property
    def _units(self) -> set[str]:
        folders = (folder.rpartition("/")[0] for folder in self.folders)
        return {anchor(self._full(folder)) or folder for folder in folders}

    def describe(self, folder: str) -> tuple[Video | None, tuple[str, ...]]:
        """Describe a video by its path and the lists of its dataset; None if they do not tell."""
        path = anchor(self._full(folder))
        if path.startswith(("original_sequences/", "manipulated_sequences/")):
            return describe_path(re.sub(r"/frames/([^/]+)$", r"/videos/\1.mp4", path)), ()
        if match := CELEB.fullmatch(path):
            version, name = match["version"], f"{match['unit']}/{match['name']}.mp4"
            clip = parse_clip(name, version=version)
            if clip is None:
                return None, ()
            test = self._test_lists.get(version)
            split = "" if test is None else "test" if name in test else "train"
            return dataclasses.replace(clip.video, split=split), clip.subjects
        if match := UADFV.fullmatch(path):
            manipulation = "FakeApp" if match["unit"] == "fake" else ""
            return _video("uadfv", match, manipulation, (match["pair"],)), ()
        if match := DFDC.fullmatch(path):
            return self._describe_dfdc(match), ()
        if match := DFDCP.fullmatch(path):
            known = self._dfdcp.get((match["unit"], match["name"]), {})
            split = known.get("set", "")
            ids = (str(known[key]) for key in ("target_id", "swapped_id") if known.get(key))
            manipulation = match["unit"] if match["unit"] != "original_videos" else ""
            video = _video("dfdcp", match, manipulation)
            return dataclasses.replace(video, split=split if split in SPLITS else ""), tuple(ids)
        if match := DEEPER.fullmatch(path):
            manipulation = "DeeperForensics-1.0" if match["unit"][0] == "m" else ""
            return _video("deeperforensics", match, manipulation), ()
        return None, ()

    def _describe_dfdc(self, match: re.Match[str]) -> Video | None:
        folder, name = match["root"], f"{match['name']}.mp4"
        entry = self._metadata(f"{folder}/{METADATA}").get(name)
        if entry is not None:
            return describe_entry(self.root, f"{match['unit']}/{name}", entry)
        label = self._dfdc_test.get(name) if match["unit"] == "test" else None
        if label is None:
            return None
        video = _video("dfdc", match, "DFDC" if label else "", () if label else (match["name"],))
        return dataclasses.replace(video, split="test")

    @cached_property
    def _lists(self) -> dict[str, str]:
        """The published lists in the tree: path from the anchor on, to name."""
        return {anchor(self._full(path)): path for path in self.root.files if LISTS.fullmatch(path)}

    def _metadata(self, path: str) -> dict[str, dict[str, Any]]:
        if path not in self._lists:
            return {}
        if path not in self._read:
            self._read[path] = read_metadata(self.root, self._lists[path])
        return self._read[path]

    @cached_property
    def _read(self) -> dict[str, dict[str, dict[str, Any]]]:
        return {}

    @cached_property
    def _test_lists(self) -> dict[str, set[str]]:
        names = {version: f"Celeb-DF-{version}/{TEST_LIST}" for version in ("v1", "v2")}
        return {
            version: read_test_list(self.root, self._lists[name], version=version)
            for version, name in names.items()
            if name in self._lists
        }

    @cached_property
    def _dfdc_test(self) -> dict[str, int]:
        name = self._lists.get("DFDC/test/labels.csv")
        labels = {}
        for row in csv.DictReader(self.root.read(name).splitlines()) if name else []:
            if row.get("label") not in ("0", "1"):
                raise ValueError(
                    f"Expected the columns filename and label, with 1 for fake, in "
                    f"{self.root.store.location}/{name}; got {row}. Download it again."
                )
            labels[row.get("filename")] = int(row["label"])
        return labels

    @cached_property
    def _dfdcp(self) -> dict[tuple[str, str], dict[str, Any]]:
        entries = self._metadata("DFDCP/dataset.json")
        return {
            (path.split("/")[0], path.rpartition("/")[2].split(".")[0]): entry
            for path, entry in entries.items()
        }

    def missing_tests(self) -> list[str]:
        """Return the listed test videos that a folder of Celeb-DF in the tree lacks."""
        missing = []
        for version, test in self._test_lists.items():
            above = self._lists[f"Celeb-DF-{version}/{TEST_LIST}"].removesuffix(TEST_LIST)
            for path in test:
                unit, _, name = path.removesuffix(".mp4").partition("/")
                wanted = f"{unit}/frames/{name}"
                in_tree = f"Celeb-DF-{version}/{unit}/frames" in self._units
                if in_tree and f"Celeb-DF-{version}/{wanted}" not in self.anchored:
                    missing.append(f"{above}{wanted}")
        return missing


def locate(root: DatasetFiles) -> str:
    """Return the full path of a dataset, whose folders may tell what it is.

    Example:
        >>> from jdfd_keras.io.storage import LocalStore
        >>> locate(DatasetFiles(LocalStore("/data/rgb/../rgb"), "rgb", ()))
        '/data/rgb'
    """
    location = root.store.location
    if isinstance(root.store, LocalStore):
        location = Path(location).resolve().as_posix()
    return location.rstrip("/")


def anchor(path: str) -> str:
    """Return a path from its last published folder of a dataset on; "" if it has none.

    Example:
        >>> anchor("/data/rgb/Celeb-DF-v2/Celeb-real/frames/id0_0000")
        'Celeb-DF-v2/Celeb-real/frames/id0_0000'
    """
    parts = path.split("/")
    start = next((i for i in reversed(range(len(parts))) if parts[i] in ANCHORS), len(parts))
    return "/".join(parts[start:])


def _video(
    dataset: str, match: re.Match[str], manipulation: str, sources: tuple[str, ...] = ()
) -> Video:
    name = f"{match['unit']}/{match['name'].replace('/frames/', '/')}"
    return Video(
        f"{dataset}/{name}", match[0], int(manipulation != ""), manipulation, "", sources, ""
    )

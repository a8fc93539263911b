"""DF40: faces of 40 generation methods, in the tree of its archives.

    DF40_train/simswap/frames/001_870/000.png         for training, of FaceForensics++
    DF40/simswap/ff/frames/000_003/000.png            for testing, of FaceForensics++
    DF40/simswap/cdf/frames/id0_id1_0000/000.png      for testing, of Celeb-DF
    DF40/StyleGAN2/ff/001/seed0188.png                whole images that a network made
    DF40/stargan/{fake,real}/001.jpg                  methods with real images of their own
    FaceForensics++/..., Celeb-DF-v2/...              the real frames, as in DeepfakeBench

Reference:
    Yan et al.: "DF40: Toward Next-Generation Deepfake Detection" (2024),
    https://github.com/YZY-stack/DF40
"""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Collection
from typing import NamedTuple

from jdfd_keras.datasets.layouts.celebdf import FAKE_NAME
from jdfd_keras.datasets.layouts.deepfakebench import complete_splits, list_deepfakebench
from jdfd_keras.datasets.layouts.faceforensics import read_clips
from jdfd_keras.datasets.layouts.frame_tree import LISTS, FrameTree, anchor, locate
from jdfd_keras.datasets.layouts.frames import natural_key
from jdfd_keras.datasets.videos import (
    IMAGE_SUFFIXES,
    DatasetFiles,
    Listing,
    Video,
    has_suffix,
    layout_error,
)
from jdfd_keras.io.console import plural

SWAPS = (
    ["fsgan", "faceswap", "simswap", "inswap", "blendface", "uniface", "mobileswap", "e4s"]
    + ["facedancer", "deepfacelab"]  # 10 methods
)
REENACTMENTS = (
    ["fomm", "facevid2vid", "wav2lip", "MRAA", "one_shot_free", "pirender", "tpsm", "lia"]
    + ["danet", "sadtalker", "mcnet", "hyperreenact", "heygen"]  # 13 methods
)
WHOLE_IMAGES = (
    ["VQGAN", "StyleGAN2", "StyleGAN3", "StyleGANXL", "sd2.1", "ddim", "RDDM", "PixArt"]
    + ["DiT", "SiT", "MidJourney", "whichfaceisreal"]  # 12 methods of synthesis
    + ["CollabDiff", "e4e", "stargan", "starganv2", "styleclip"]  # 5 methods of editing
)
ALIASES = {"whichisreal": "whichfaceisreal", "collaborative_diffusion": "CollabDiff"}
ALIASES |= {"heygen_new": "heygen"}  # a folder in the archive of heygen
METHODS = {name.lower(): name for name in (*SWAPS, *REENACTMENTS, *WHOLE_IMAGES)} | ALIASES
TREES = {"df40_train": "train", "df40": "test", "df40_test": "test"}
DOMAINS = {"ff": "ffpp", "ffpp": "ffpp", "cdf": "celebdf", "cdfv2": "celebdf"}
REALS = "FaceForensics++/original_sequences and Celeb-DF-v2"
# Folders whose images are not frames of one video.
POOLS = frozenset([*DOMAINS, "fake", "real", "inversions", "frames", "celeb-real", "youtube-real"])
BESIDE = ("landmarks", "masks", "frames_wocropface")  # the last one has images before alignment


class FrameLocation(NamedTuple):
    """The location of a file in the tree of DF40."""

    tree: str  # a key of TREES, or ""
    method: str
    below: tuple[str, ...]  # the folders in that of the method


def list_df40(root: DatasetFiles, manipulations: Collection[str] = ()) -> Listing:
    """List DF40, with the real frames of DeepfakeBench if they are beside it.

    `DF40_train` is for training and `DF40` for testing. A face swap or reenactment of
    FaceForensics++ has the clips in its name as sources, a face swap of Celeb-DF the clip in its
    name; the sources of all others are unknown. Images that are not frames are listed one by one.

    Args:
        root: The folder that contains `DF40` and `DF40_train`, one of them, or a method in it.
        manipulations: Requested manipulations, for the frames of DeepfakeBench.

    Returns:
        The videos and images.

    Example:
        >>> from jdfd_keras.io.storage import LocalStore
        >>> files = ("DF40/simswap/ff/frames/000_003/0.png", "DF40/stargan/real/1.jpg")
        >>> listing = list_df40(DatasetFiles(LocalStore("."), "data", files))
        >>> [(video.video_id, video.label, video.source_ids) for video in listing.videos]
        [('ffpp/df40/simswap/ff/000_003', 1, ('000', '003')), ('df40/stargan/real/1', 0, ())]
    """
    above = locate(root).split("/")[-3:]
    locations = {path: location for path in root.files if (location := _locate(path, above))}
    if not locations:
        folders = ["DF40/<method>/{ff,cdf}/frames/", "DF40_train/<method>/frames/", "<method>/..."]
        raise layout_error(root, "DF40", folders)
    found, others = defaultdict(list), []
    for path, location in locations.items():
        if has_suffix(path) and not set(BESIDE) & set(location.below):
            found[_video_path(path)].append(path)
        else:
            others.append(path)
    videos, subjects, frames, landmarks = [], {}, {}, {}
    for path, names in found.items():
        video, of_video = _describe(path, locations[names[0]])
        videos.append(video)
        if of_video:
            subjects[video.video_id] = of_video
        if names != [path]:
            names = sorted(names, key=natural_key)
            frames[video.video_id] = tuple(names)
            beside = [
                re.sub(r"(^|/)frames/", r"\1landmarks/", name).rpartition(".")[0] + ".npy"
                for name in names
            ]
            if any(name in locations for name in beside):
                found_ones = tuple(name if name in locations else "" for name in beside)
                landmarks[video.video_id] = found_ones
    used = {name for names in landmarks.values() for name in names}
    unrecognized = [
        path
        for path in others
        if path not in used and not ("masks" in locations[path].below and path.endswith(".png"))
    ]
    reals = _list_reals(root, [path for path in root.files if path not in locations], manipulations)
    listed, split_notes = complete_splits(videos + reals.videos)
    return Listing(
        listed,
        reals.missing,
        unrecognized + reals.unrecognized,
        subjects | reals.subjects,
        reals.excluded,
        frames | reals.frames,
        landmarks | reals.landmarks,
        notes=[*_describe_doubts(videos, reals.videos), *split_notes, *reals.notes],
    )


def _locate(path: str, above: list[str]) -> FrameLocation | None:
    """Return the location of a file in the tree of DF40; None if it is in no folder of a method."""
    folders = [*above, *path.split("/")[:-1]]
    if anchor("/".join(folders)):
        return None  # frames of DeepfakeBench
    names = [folder.lower() for folder in folders]
    start = next((i for i in reversed(range(len(names))) if names[i] in METHODS), None)
    if start is None:
        return None
    tree = next((name for name in reversed(names[:start]) if name in TREES), "")
    return FrameLocation(tree, METHODS[names[start]], tuple(names[start + 1 :]))


def _video_path(path: str) -> str:
    """Return the folder whose images are one video with this one, or the path if it is alone."""
    folder, _, _ = path.rpartition("/")
    name = folder.rpartition("/")[2].lower()
    is_frame = folder and name not in POOLS and name not in METHODS and "from_" not in name
    return folder if is_frame and has_suffix(path, IMAGE_SUFFIXES) else path


def _describe(path: str, location: FrameLocation) -> tuple[Video, tuple[str, ...]]:
    """Describe the video or image at a path; and the subjects that its name tells."""
    name = path.rpartition("/")[2]
    name = name.rpartition(".")[0] if has_suffix(name) else name
    is_real = "real" in location.below
    domain = next((DOMAINS[folder] for folder in location.below if folder in DOMAINS), "")
    if not domain and location.tree == "df40_train" and not {"real", "fake"} & set(location.below):
        domain = "ffpp"  # all of them, by its documentation
    sources, subjects = (), ()
    if location.method not in WHOLE_IMAGES and not is_real:
        clips, pair = read_clips(), FAKE_NAME.fullmatch(name)
        if domain == "ffpp" and set(name.split("_")) <= set(clips):
            sources = tuple(clips[clip].source for clip in name.split("_"))
        elif domain == "celebdf":
            subjects = tuple(dict.fromkeys(re.findall(r"(?<![A-Za-z0-9])id[0-9]+", name)))
            # Which clip a reenactment shows is not documented.
            if pair and location.method in SWAPS:
                sources = ("_".join(pair.groups()),)
    tree = "df40_train" if location.tree == "df40_train" else "df40"
    below = [folder for folder in location.below if folder not in ("frames", name.lower())]
    namespace = [domain, tree] if domain else [tree]
    video = Video(
        video_id="/".join([*namespace, location.method, *below, name]),
        path=path,
        label=int(not is_real),
        manipulation="" if is_real else location.method,
        compression="",
        source_ids=sources,
        split=TREES.get(location.tree, ""),
    )
    return video, subjects


def _list_reals(root: DatasetFiles, files: list[str], manipulations: Collection[str]) -> Listing:
    """List the frames of DeepfakeBench among some files, without its JSON files."""
    json_files = [path for path in files if path.endswith(".json") and not LISTS.fullmatch(path)]
    others = tuple(path for path in files if path not in set(json_files))
    rest = dataclasses.replace(root, files=others)
    notes = []
    if json_files:
        notes.append(
            f"The folders tell the labels and splits of DF40, not "
            f"{plural(len(json_files), 'JSON file')} such as {json_files[0]}."
        )
    if not FrameTree(rest).folders:
        unknown = [path for path in others if not LISTS.fullmatch(path)]
        return Listing([], unrecognized=unknown, notes=notes)
    listing = list_deepfakebench(rest, manipulations=manipulations)
    of_validation = [video for video in listing.videos if video.split == "val"]
    if of_validation:
        notes.append(
            f"{plural(len(of_validation), 'video')} of FaceForensics++ that are published for "
            "validation are for training, since DF40 has no validation."
        )
    videos = [
        dataclasses.replace(video, split="train") if video.split == "val" else video
        for video in listing.videos
    ]
    return dataclasses.replace(listing, videos=videos, notes=notes + listing.notes)


def _describe_doubts(videos: list[Video], reals: list[Video]) -> list[str]:
    """Return notes on what the documentation of DF40 does not settle."""
    notes = [
        "The documentation of DF40 names its folders, not its files: images of one folder are "
        "taken as one video, and those in fake/, real/ or inversions/ as one each."
    ]
    if {"train", "test"} <= {video.split for video in videos}:
        notes.append(
            "DF40_train and DF40 are taken for training and testing; users report videos in both. "
            "Run `audit`, or `split --strategy strict`."
        )
    unknown = [video for video in videos if not video.source_ids]
    if unknown:
        notes.append(
            f"{plural(len(unknown), 'video')} of DF40 have no known source, such as "
            f"{unknown[0].path}."
        )
    if not reals and all(video.label for video in videos):
        notes.append(
            f"There are no real videos: DF40 takes them from {REALS}, as DeepfakeBench "
            "prepared them. Put these folders beside those of DF40."
        )
    return notes

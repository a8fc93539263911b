"""Layouts of datasets on disk: lists of their videos with labels, sources and splits.

One module per layout, each a function of the file names of a dataset. Opens no video, except to
probe files of unknown suffixes.
"""

import dataclasses
from collections.abc import Collection, Iterable
from typing import TypeVar

from jdfd_keras.datasets.layouts.celebdf import list_celebdf
from jdfd_keras.datasets.layouts.deepfakebench import list_deepfakebench
from jdfd_keras.datasets.layouts.df40 import list_df40
from jdfd_keras.datasets.layouts.dfdc import list_dfdc
from jdfd_keras.datasets.layouts.faceforensics import list_dfd, list_faceforensics
from jdfd_keras.datasets.layouts.folder import list_folder, list_uadfv
from jdfd_keras.datasets.layouts.table import list_table
from jdfd_keras.datasets.videos import DatasetFiles, Listing, read_dataset_files, sort_videos
from jdfd_keras.io.console import plural
from jdfd_keras.io.storage import LocalStore, Store
from jdfd_keras.options import LAYOUTS, PrepareOptions

CELEBDF_VERSIONS = {"celebdf": "v2", "celebdf-v1": "v1", "celebdf++": "++"}
Value = TypeVar("Value")


def list_videos(
    store: Store, options: PrepareOptions, files: Iterable[str] | None = None
) -> Listing:
    """List the videos of a dataset.

    Args:
        store: Root of the dataset.
        options: Layout, its table, and, for datasets with several, compression and manipulations.
        files: Its file names, if they were listed before.

    Returns:
        The videos sorted by id, with the missing and the unrecognized files, and notes.

    Raises:
        OSError: If the folder, or a list that the layout requires, does not exist.
        ValueError: If the folder does not have the layout, a list of the dataset is invalid, or
            the options select no videos.

    Example:
        >>> from jdfd_keras.io.storage import LocalStore
        >>> list_videos(LocalStore("videos"), PrepareOptions(layout="folder")).videos[0].video_id
        'videos/fake/person00_person01'
    """
    requested = {name.strip() for name in options.manipulations.split(",")} - {""}
    root = read_dataset_files(store, files)
    listing = _select(
        _list_layout(root, options, requested), root.name, requested, options.compression
    )
    if root.hidden:
        are = "is" if len(root.hidden) == 1 else "are"
        listing.notes.append(
            f"{plural(len(root.hidden), 'hidden file')} in {root.store.location} {are} not listed, "
            f"such as {root.hidden[0]}."
        )
    if isinstance(store, LocalStore) and (skipped := store.list_skipped()):
        listing.notes.append(
            f"Broken links, and links to folders that are listed already, are skipped: "
            f"{len(skipped)}, such as {skipped[0]}."
        )
    return listing


def _list_layout(
    root: DatasetFiles, options: PrepareOptions, manipulations: Collection[str]
) -> Listing:
    """List all videos of a dataset, as its layout has them."""
    match options.layout:
        case "folder":
            return list_folder(root, options.name)
        case "table" if options.table:
            return list_table(root, options.table, options.name)
        case "table":
            raise ValueError(
                "Expected a table for the layout table; got none. Give the path of a CSV file."
            )
        case "faceforensics":
            return list_faceforensics(root, manipulations)
        case "dfd":
            return list_dfd(root)
        case "celebdf" | "celebdf-v1" | "celebdf++":
            return list_celebdf(root, version=CELEBDF_VERSIONS[options.layout])
        case "uadfv":
            return list_uadfv(root)
        case "dfdc":
            return list_dfdc(root)
        case "deepfakebench":
            return list_deepfakebench(root, options.name, manipulations)
        case "df40":
            return list_df40(root, manipulations)
    raise ValueError(
        f"Expected one of the layouts {', '.join(LAYOUTS)}; got {options.layout!r}. Arrange your "
        "own videos in the layout `folder`, or list them in a table."
    )


def _select(listing: Listing, name: str, requested: set[str], compression: str) -> Listing:
    """Select the requested compression and manipulations, and all real videos."""
    existing = {video.manipulation for video in listing.videos} - {""}
    if requested - existing:
        raise ValueError(
            f"Expected manipulations of {name}, which has {', '.join(sorted(existing)) or 'none'}; "
            f"got {', '.join(sorted(requested - existing))}. Check the spelling."
        )
    videos = [
        video
        for video in sort_videos(listing.videos)
        if not (requested and video.manipulation and video.manipulation not in requested)
    ]
    if not videos and listing.excluded:
        raise ValueError(
            f"Expected videos in {name} that are listed by default; got only "
            f"{plural(len(listing.excluded), 'video')} that must be requested. Try "
            "--manipulations DeepFakeDetection."
        )
    compressions = sorted({video.compression for video in videos})
    videos = [video for video in videos if compression in ("all", video.compression)]
    if not videos:
        raise ValueError(
            f"Expected videos of the compression {compression!r} in {name}; got only "
            f"{', '.join(map(repr, compressions))}. Omit --compression, or download that one."
        )
    missing = listing.missing
    if compression != "all" or requested:  # of the selected folders only
        folders = {path for v in videos for path in (v.path, v.path.rpartition("/")[0])}
        missing = [path for path in missing if path.rpartition("/")[0] in folders]
    ids = {video.video_id for video in videos}

    def keep(values: dict[str, Value]) -> dict[str, Value]:
        return {video_id: value for video_id, value in values.items() if video_id in ids}

    return dataclasses.replace(
        listing,
        videos=videos,
        missing=missing,
        subjects=keep(listing.subjects),
        frames=keep(listing.frames),
        landmarks=keep(listing.landmarks),
        masks=keep(listing.masks),
    )

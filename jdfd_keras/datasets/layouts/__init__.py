"""Layouts of datasets on disk: lists of their videos with labels, sources and splits.

One module per layout, each a function of the file names of a dataset. Opens no video.
"""

import dataclasses
from collections.abc import Iterable

from jdfd_keras.datasets.layouts.celebdf import list_celebdf
from jdfd_keras.datasets.layouts.dfdc import list_dfdc
from jdfd_keras.datasets.layouts.faceforensics import list_faceforensics
from jdfd_keras.datasets.layouts.folder import list_folder, list_uadfv
from jdfd_keras.datasets.videos import Listing, read_dataset_files, sort_videos
from jdfd_keras.io.console import plural
from jdfd_keras.io.storage import Store
from jdfd_keras.options import LAYOUTS, PrepareOptions


def list_videos(
    store: Store, options: PrepareOptions, files: Iterable[str] | None = None
) -> Listing:
    """List the videos of a dataset.

    Args:
        store: Root of the dataset.
        options: Layout and, for datasets with several, compression and manipulations.
        files: Its file names, if they were listed before.

    Returns:
        The videos sorted by id, with the missing and the unrecognized files.

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
    if options.layout == "faceforensics":
        listing = list_faceforensics(root, requested)
    elif options.layout in ("celebdf", "celebdf-v1"):
        listing = list_celebdf(root, version="v1" if options.layout == "celebdf-v1" else "v2")
    elif options.layout == "uadfv":
        listing = list_uadfv(root)
    elif options.layout == "dfdc":
        listing = list_dfdc(root)
    elif options.layout == "folder":
        listing = list_folder(root, options.name)
    else:
        raise ValueError(
            f"Expected one of the layouts {', '.join(LAYOUTS)}; got {options.layout!r}. Arrange "
            "your own videos in the layout `folder`."
        )
    return _select(listing, root.name, requested, options.compression)


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
        folders = {video.path.rpartition("/")[0] for video in videos}
        missing = [path for path in missing if path.rpartition("/")[0] in folders]
    return dataclasses.replace(listing, videos=videos, missing=missing)

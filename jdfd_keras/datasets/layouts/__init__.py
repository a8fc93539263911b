"""Data sets as they lie on disk to lists of videos with labels, sources and splits.

Takes the folder of a data set; gives a Listing. Opens no video. Each module knows one layout, as
a function of the names that are there: what it expects and what it makes of them.
"""

import dataclasses
from collections.abc import Mapping

from jdfd_keras.datasets.layouts.celebdf import list_celebdf
from jdfd_keras.datasets.layouts.dfdc import list_dfdc
from jdfd_keras.datasets.layouts.faceforensics import list_faceforensics
from jdfd_keras.datasets.layouts.folder import list_folder
from jdfd_keras.datasets.layouts.uadfv import list_uadfv
from jdfd_keras.datasets.videos import Listing, read_tree
from jdfd_keras.io.storage import Store
from jdfd_keras.options import LAYOUTS, PrepareOptions


def list_videos(
    store: Store, options: PrepareOptions, files: Mapping[str, int] | None = None
) -> Listing:
    """List the videos of a data set.

    Args:
        store: Its root.
        options: Layout and, where the data set has several, compression and manipulations.
        files: What is in it, as its `list()` gives it; that is asked for if not given.

    Returns:
        The videos in the order of their ids; what is missing, and what the layout does not know.

    Raises:
        OSError: If there is no such folder, or a list of the data set is not there.
        ValueError: If the folder is not laid out so: then the folders that were looked for are
            named; if a list of the data set names what cannot be; if the options leave no
            videos; or if the layout is unknown.
    """
    if options.layout not in LAYOUTS:
        raise ValueError(
            f"Expected one of the layouts {', '.join(LAYOUTS)}; got {options.layout!r}. Lay your "
            "own videos out as `folder`."
        )
    tree = read_tree(store, files)
    if options.layout == "faceforensics":
        listing = list_faceforensics(tree, _names_in(options.manipulations))
    elif options.layout in ("celebdf", "celebdf-v1"):
        listing = list_celebdf(tree, version="v1" if options.layout == "celebdf-v1" else "v2")
    elif options.layout == "uadfv":
        listing = list_uadfv(tree)
    elif options.layout == "dfdc":
        listing = list_dfdc(tree)
    else:
        listing = list_folder(tree, options.name)
    return _choose(listing, tree.name, options)


def _choose(listing: Listing, place: str, options: PrepareOptions) -> Listing:
    """Keep the compression and the manipulations asked for, and all that is real."""
    wanted = _names_in(options.manipulations)
    known = {video.manipulation for video in listing.videos} - {""}
    if wanted - known:
        raise ValueError(
            f"Expected manipulations of {place}, which has {', '.join(sorted(known)) or 'none'}; "
            f"got {', '.join(sorted(wanted - known))}. Check the spelling."
        )
    videos = [
        video
        for video in listing.videos
        if not (wanted and video.manipulation and video.manipulation not in wanted)
    ]
    if not videos and listing.left_out:
        raise ValueError(
            f"Expected videos in {place} that are taken without being asked for; got only "
            f"{len(listing.left_out)} that are not. Try --manipulations DeepFakeDetection."
        )
    there = sorted({video.compression for video in videos})
    videos = [video for video in videos if options.compression in ("all", video.compression)]
    if not videos:
        raise ValueError(
            f"Expected videos of the compression {options.compression!r} in {place}; got only "
            f"{', '.join(map(repr, there))}. Leave --compression out, or download that one."
        )
    # What is missing is told of the folders that are used.
    folders = {video.path.rpartition("/")[0] for video in videos}
    used = listing.missing
    if options.compression != "all" or wanted:
        used = [path for path in listing.missing if path.rpartition("/")[0] in folders]
    return dataclasses.replace(listing, videos=videos, missing=used)


def _names_in(manipulations: str) -> set[str]:
    return {name.strip() for name in manipulations.split(",")} - {""}

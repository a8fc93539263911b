"""A folder of your own.

    real/anna.mp4    fake/anna_bob.mp4    unlabelled/...
or  train/real/anna.mp4    train/fake/...    val/real/...    test/real/...
"""

import re

from jdfd_keras.datasets.videos import (
    CLASSES,
    IMAGE_SUFFIXES,
    LABEL_NAMES,
    MEDIA_SUFFIXES,
    SPLITS,
    Listing,
    Tree,
    Video,
    has_suffix,
    refuse,
    sort_videos,
)

LABELS = {name: label for label, name in LABEL_NAMES.items()}


def list_folder(tree: Tree, name: str = "") -> Listing:
    """List a data set of your own: `real/` and `fake/`, optionally below `train/ val/ test/`.

    A folder below `fake/` names the manipulation. A fake is held to show the real videos that
    its name names: `fake/anna_bob.mp4` shows `real/anna.mp4` and `real/bob.mp4`, and
    `fake/0000_fake.mp4` shows `real/0000.mp4`. Files that share a name, leaving out the
    suffix, share their source. Images in a folder of their own, such as the frames of one video,
    are named by it: `real/anna/0001.png` shows `anna`. Hidden files and folders are passed over.
    What lies in `unlabelled/` is of neither class.

    Args:
        tree: The folder.
        name: What the data set is called, at the head of its ids; the folder's name if not given.
            Two data sets of one name are held to show the same people under the same names.

    Returns:
        The videos; unknown are those beside these folders.

    Raises:
        ValueError: If it does not hold both classes, holds some files with and some without a
            split, or two files would have one id.
    """
    found, unknown = [], []
    for path in tree.media():
        parts = path.split("/")
        split = parts.pop(0) if parts[0] in SPLITS else ""
        if len(parts) > 1 and parts[0] in LABELS:
            found.append((path, parts[1:], split, LABELS[parts[0]]))
        else:
            unknown.append(path)
    _check_classes(tree, [label for *_, label in found])
    _check_splits(tree, [split for *_, split, _ in found])

    real_names = {_source_name(below) for _, below, _, label in found if label == 0}
    videos = [
        Video(
            video_id=f"{name or tree.name}/{path.rsplit('.', 1)[0]}",
            path=path,
            label=label,
            manipulation=(below[0] if len(below) > 1 else "fake") if label == 1 else "",
            compression="",
            source_ids=_find_sources(below, real_names),
            split=split,
        )
        for path, below, split, label in found
    ]
    return Listing(sort_videos(videos), [], unknown)


def _check_classes(tree: Tree, labels: list[int]) -> None:
    if not labels:
        layouts = [f"{name}/" for name in CLASSES]
        raise refuse(tree, "videos of both classes", [*layouts, *(f"train/{n}" for n in layouts)])
    for name, label in CLASSES.items():
        if label not in labels:
            raise ValueError(
                f"Expected videos of both classes in {tree.store.place}: real/ and fake/, or "
                f"train/real/, train/fake/ and so on; got {len(labels)} files and none that is "
                f"{name}. Put {name} videos ({', '.join(sorted(MEDIA_SUFFIXES))}) into {name}/."
            )


def _check_splits(tree: Tree, splits: list[str]) -> None:
    if all(splits) or not any(splits):
        return
    without = splits.count("")
    raise ValueError(
        f"Expected all videos of {tree.store.place} below train/, val/ and test/, or none; got "
        f"{len(splits) - without} below them and {without} in real/ and fake/ beside them. Move "
        "one part elsewhere."
    )


def _source_name(below: list[str]) -> str:
    """Name the footage: after the file, or the folder where it is one image of several."""
    is_frame = len(below) > 1 and has_suffix(below[-1], IMAGE_SUFFIXES)
    return below[-2] if is_frame else below[-1].rsplit(".", 1)[0]


def _find_sources(below: list[str], real_names: set[str]) -> tuple[str, ...]:
    """Find the real footage that a file, or else its folder of frames, names; itself if none."""
    stem, name = below[-1].rsplit(".", 1)[0], _source_name(below)
    return _named_in(stem, real_names) or _named_in(name, real_names) or (name,)


def _named_in(text: str, real_names: set[str]) -> tuple[str, ...]:
    """Find the real names in a text, whole words only."""
    words = re.split(r"([_\-. ])", text)
    runs = {
        "".join(words[start:stop])
        for start in range(0, len(words), 2)
        for stop in range(start + 1, len(words) + 1, 2)
    }
    return tuple(sorted(runs & real_names))

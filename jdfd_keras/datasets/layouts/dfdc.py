"""The DeepFake Detection Challenge data set: folders of videos, each with a metadata.json.

    dfdc_train_part_0/metadata.json    {"a.mp4": {"label": "FAKE", "split": "train",
    dfdc_train_part_0/a.mp4                       "original": "b.mp4"}, ...}

Reference:
    Dolhansky et al.: "The DeepFake Detection Challenge (DFDC) Dataset" (2020),
    https://arxiv.org/abs/2006.07397
"""

import dataclasses
import json

from jdfd_keras.datasets.videos import UNLABELLED, Listing, Tree, Video, refuse, sort_videos

METADATA = "metadata.json"
LABELS = {"REAL": 0, "FAKE": 1}
IS_FAKE = {"0": 0, "1": 1}  # of the test videos, which have no `label`
SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}


def list_dfdc(tree: Tree) -> Listing:
    """List DFDC, part by part, as each part's metadata.json has it.

    The published parts are all for training. Where no other split is named, they are left open.

    A fake's source is its original. A video of which the metadata gives no label is unlabelled.

    Args:
        tree: The folder that holds the parts, or one part.

    Returns:
        The videos; missing are those that the metadata has and the folder has not, unknown those
        that no metadata has.

    Raises:
        ValueError: If no folder has a metadata.json, or one cannot be understood.
    """
    parts = [
        name.removesuffix(METADATA) for name in tree.files if f"/{name}".endswith(f"/{METADATA}")
    ]
    if not parts:
        raise refuse(tree, f"DFDC (a {METADATA} beside the videos)", ["dfdc_train_part_0/ ..."])
    there = set(tree.media())
    videos, missing, known = [], [], set()
    for part in parts:
        for name, facts in _read_metadata(tree, f"{part}{METADATA}").items():
            path = f"{part}{name}"
            known.add(path)
            if path not in there:
                missing.append(path)
                continue
            label = _label(tree, path, facts)
            source = str(facts.get("original") or name)
            videos.append(
                Video(
                    video_id=f"dfdc/{part or tree.name + '/'}{name.rsplit('.', 1)[0]}",
                    path=path,
                    label=label,
                    manipulation="DFDC" if label == 1 else "",
                    compression="",
                    source_ids=(source.rsplit(".", 1)[0],),
                    split=_split(tree, path, facts),
                )
            )
    if not videos:
        raise ValueError(
            f"Expected the videos of DFDC beside {', '.join(f'{p}{METADATA}' for p in parts[:3])} "
            f"in {tree.store.place}; got none of the {len(missing)} that it names. Unpack the "
            "parts there."
        )
    if {video.split for video in videos} == {"train"}:
        videos = [dataclasses.replace(video, split="") for video in videos]
    return Listing(sort_videos(videos), sorted(missing), sorted(there - known))


def _read_metadata(tree: Tree, name: str) -> dict[str, dict]:
    try:
        content = json.loads(tree.read(name))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"Expected JSON in {tree.store.place}/{name}; got '{error}'. Download it again."
        ) from error
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise ValueError(
            f"Expected an object for each video in {tree.store.place}/{name}; got "
            f"{type(content).__name__} of other things. Download it again."
        )
    return content


def _label(tree: Tree, path: str, facts: dict) -> int:
    key, known = ("is_fake", IS_FAKE) if "is_fake" in facts else ("label", LABELS)
    label = facts.get(key)
    if label is None:
        return UNLABELLED
    if str(label) not in known:
        raise ValueError(
            f"Expected {key} to be {' or '.join(known)} for {path} in its {METADATA} in "
            f"{tree.store.place}; got {label!r}. Download it again."
        )
    return known[str(label)]


def _split(tree: Tree, path: str, facts: dict) -> str:
    split = str(facts.get("split", "train")).lower()
    if split not in SPLITS:
        raise ValueError(
            f"Expected a split of {', '.join(SPLITS)} for {path} in its {METADATA} in "
            f"{tree.store.place}; got {facts['split']!r}. Download it again."
        )
    return SPLITS[split]

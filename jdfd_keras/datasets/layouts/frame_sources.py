"""Sources of videos, found by their names: whose footage they show.

Takes the groups of `layouts.frames`; returns the names of their sources, which two splits must not
share.
"""

import re
from collections import defaultdict
from collections.abc import Sequence

from jdfd_keras.datasets.layouts.frames import NUMBER, SINGLE, FrameGroup, is_generic
from jdfd_keras.datasets.videos import LINK

# A Celeb-DF fake: the clip 0001 of subject 0 with the face of subject 16.
_CELEBDF_FAKE = re.compile(r"(id[0-9]+)_id[0-9]+_([0-9]{4})(?![0-9])")


def find_sources(groups: Sequence[FrameGroup]) -> list[tuple[str, ...]]:
    """Return the sources of videos: those stated, or else those found by their names.

    A name that a fake shares with a single real image links the two, as LINK and the name: that
    they belong together is known, but not the footage.

    Example:
        >>> from jdfd_keras.datasets.layouts.frames import MediaEntry, group_frames
        >>> paths = {"fake/a_b.mp4": 1, "real/a.mp4": 0, "real/0001.png": 0}
        >>> entries = [MediaEntry(p, label, "", (), "png" in p) for p, label in paths.items()]
        >>> find_sources(group_frames(entries))  # sorted by path
        [('a',), (), ('a',)]
    """
    known, links = defaultdict(set), set()  # name to sources; names of single real images
    for group in groups:
        if group.entries[0].label == 0 and not _is_single_image(group):
            known[group.name].add(_own_source(group))
        elif group.entries[0].label == 0 and group.entries[0].sources:
            known[group.name].add(group.name)
        elif group.entries[0].label == 0 and not is_generic(re.sub("[0-9]", "", group.name)):
            links.add(group.name)
    for name in links:
        known.setdefault(name, {LINK + name})
    found, named = [], set()
    for group in groups:
        entry = group.entries[0]
        names = set(entry.sources) or _find_names(group.name, known)
        if entry.label and not entry.sources and (match := _CELEBDF_FAKE.match(group.name)):
            names.add("_".join(match.groups()))
        if not names and _is_single_image(group) and entry.folders:
            names = _find_names(entry.folders[-1], known)
        if entry.label == 0 and _is_single_image(group) and not entry.sources:
            names -= {group.name, LINK + group.name}
        found.append(names)
        named |= names
    for group, names in zip(groups, found, strict=True):
        if not _is_single_image(group):
            names |= set() if names else {_own_source(group)}
        elif group.entries[0].label == 0 and not group.entries[0].sources:
            names |= {group.name, LINK + group.name} & named
    return [tuple(sorted(names)) for names in found]


def _own_source(group: FrameGroup) -> str:
    """Return the name of a group, with its folder if it is a number, which many folders have."""
    folders = [folder for folder in group.entries[0].folders if not is_generic(folder)]
    is_numbered = group.rule == NUMBER and not re.search("[^0-9_-]", group.name)
    return f"{folders[-1]}/{group.name}" if is_numbered and folders else group.name


def _is_single_image(group: FrameGroup) -> bool:
    return group.rule == SINGLE and group.entries[0].is_image


def _find_names(text: str, known: dict[str, set[str]]) -> set[str]:
    """Return the sources of the known names that are whole words in a text."""
    words = re.split(r"([_\-. ])", text)
    whole_words = {
        "".join(words[start:stop])
        for start in range(0, len(words), 2)
        for stop in range(start + 1, len(words) + 1, 2)
    }
    return set().union(*(known[word] for word in whole_words if word in known))

"""Image files to videos, by their names: which images are frames of one video.

An image is a frame of the video that its name or its folder states:

    word      FILM_frame_10_face_0.jpg, FILM-frame10.png, FILM_f010.png    what precedes: FILM
    number    id0_id16_0001_00120.png, 000_003_120.png    what precedes: id0_id16_0001, 000_003
    folder    anna/0001.png, 000_003/frame_12.png, anna/anna_7.png    the folder: anna, 000_003
    single    00001.jpg, 0A266M95TD.jpg, img_12.png, real_7.png    none: a video of its own

`number`, and `folder` without the word frame, are guesses, which `Listing.notes` states. They are
not made where they would join images that have only a naming scheme in common:

- `number`, if all images of a class in one folder, whatever their split, would be one video
  (`ffhq_00001.png`), or fewer than half of them have a name that another image shares;
- `folder`, if fewer than half of the images in the folder have such names, or it has both classes;
- both, beyond MAX_FRAMES images, or FEW_FRAMES if the class would have one or two such videos.

A last number of one digit is that of a face (`FILM_00120_0.png`) if each frame has about one.
Generic words, such as img, face or real, state no video, as a name or as a folder.
"""

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jdfd_keras.io.console import plural

WORD, NUMBER, FOLDER, SINGLE = "word", "number", "folder", "single"
MAX_FRAMES = 3000  # of a video that is a guess: 100 s at 30 frames per second
FEW_FRAMES = 300  # the same where a class has one or two such videos
SHARE = 0.5  # of the images of a folder that a guess must explain
FRAME_WORDS = frozenset(
    ["frame", "frames", "frm", "im", "img", "imgs", "image", "images", "pic", "face", "faces"]
    + ["crop", "crops", "cropped", "aligned"]
)
GENERIC_WORDS = FRAME_WORDS | frozenset(
    ["real", "reals", "fake", "fakes", "unlabelled", "original", "originals", "raw"]
    + ["train", "training", "val", "valid", "validation", "test", "testing", "data", "dataset"]
    + ["pics", "picture", "pictures", "photo", "photos", "video", "videos", "vid", "clip", "clips"]
    + ["sample", "samples", "output", "generated", "screenshot", "dsc", "pxl", "file", "files"]
)
_FLAGS = re.IGNORECASE | re.DOTALL
# After the number of a frame: `_face_0`, `-crop`.
_FACE = r"(?:[\W_]*(?:faces?|crops?|cropped|aligned|person|track)[\W_]*[0-9]*)*[\W_]*"
_WORD_NAME = re.compile(r"(?P<video>.*?)(?:(?:key)?frames?|(?<![^\W_])frm)[\W_]*[0-9].*", _FLAGS)
_NUMBER_NAME = re.compile(rf"(?P<video>.*?)[\W_]*[0-9]+{_FACE}", _FLAGS)
_FACE_NUMBER_NAME = re.compile(r"(?P<frame>(?P<video>.*?)[0-9]+)[\W_]+f?[0-9]", _FLAGS)
# At the end of what precedes the number: `FILM_img`, `FILM_face_0`.
_WORDS = "|".join(sorted(FRAME_WORDS))
_LAST_WORD = re.compile(rf"(?:^|[\W_]|(?<=[0-9]))(?:{_WORDS}|face[\W_]*[0-9]+)$", _FLAGS)


class MediaEntry(NamedTuple):
    """A file of a dataset, or a folder of frames, before images are grouped."""

    path: str  # relative to the root
    label: int
    split: str
    folders: tuple[str, ...]  # folders, from the outermost, that may name a video or manipulation
    is_image: bool
    frames: tuple[str, ...] = ()  # images of the folder `path`, if it is one
    manipulation: str = ""  # "": that of the folders
    compression: str = ""
    sources: tuple[str, ...] = ()  # stated ones; empty to find them by the names
    origin: str = ""  # where it is stated, such as "line 7"; "": its path


class FrameGroup(NamedTuple):
    """A video: a single file, or images that are its frames, in order."""

    name: str  # of the footage
    rule: str  # WORD, NUMBER, FOLDER or SINGLE
    entries: tuple[MediaEntry, ...]
    is_guess: bool = False

    @property
    def path(self) -> str:
        """Path of the file, of the folder of the frames, or the start of their names."""
        path = self.entries[0].path
        if self.rule == SINGLE:
            return path
        folder = posixpath.dirname(path)
        return folder if self.rule == FOLDER else posixpath.join(folder, self.name)

    @property
    def frames(self) -> tuple[str, ...]:
        """Paths of the image files; empty for a single file."""
        if self.rule == SINGLE:
            return self.entries[0].frames
        return tuple(entry.path for entry in self.entries)


class _Name(NamedTuple):
    """What the name of an image states."""

    video: str  # "" if none
    has_word: bool = False
    is_frame: bool = True  # whether it has a number or the word frame


def stem_of(path: str) -> str:
    """Return the name of a file, without its folder and its suffix.

    Example:
        >>> stem_of("real/anna.smith.mp4")
        'anna.smith'
    """
    return posixpath.splitext(posixpath.basename(path))[0]


def natural_key(path: str) -> list[tuple[int, str]]:
    """Return a key that sorts names by the numbers in them.

    Example:
        >>> sorted(["f_10.png", "f_9.png"], key=natural_key)
        ['f_9.png', 'f_10.png']
    """
    parts = re.split(r"([0-9]+)", path)
    return [(int(part) if index % 2 else 0, part) for index, part in enumerate(parts)]


def is_generic(text: str) -> bool:
    """Return whether a name has only generic words, such as `face_crops`, which state no video.

    Example:
        >>> is_generic("Face-crops"), is_generic("img_12")
        (True, False)
    """
    return GENERIC_WORDS.issuperset(re.findall(r"[0-9]+|[^\W\d_]+", text.lower()))


def group_frames(entries: Sequence[MediaEntry]) -> list[FrameGroup]:
    """Group images into videos; other files are videos of their own.

    Frames of one video are in one folder and split, and their stated sources are equal. The videos
    are sorted by path.

    Example:
        >>> names = ["a_frame_10.png", "a_frame_9.png", "b.png"]
        >>> entries = [MediaEntry(f"real/{name}", 0, "", (), True) for name in names]
        >>> [(group.name, group.rule, group.frames) for group in group_frames(entries)]
        [('a', 'word', ('real/a_frame_9.png', 'real/a_frame_10.png')), ('b', 'single', ())]
    """
    scopes, groups = defaultdict(list), []
    for entry in entries:
        if entry.is_image:
            folders = tuple(folder for folder in entry.folders if not is_generic(folder))
            scopes[entry.label, folders].append(entry)
        else:
            groups.append(_single(entry))
    names = {scope: _parse_names(images) for scope, images in scopes.items()}
    # Of one class, in any folder and split, or of one folder: a name in real/ and fake/ is a pair.
    counts = Counter()
    for scope, images in scopes.items():
        for entry, name in zip(images, names[scope], strict=True):
            counts[scope[0], name.video] += 1
            counts[posixpath.dirname(entry.path), name.video] += 1
    most: dict[str, int] = defaultdict(int)
    for (_, video), count in counts.items():
        most[video] = max(most[video], count)
    running = set()  # in any class and folder
    for (_, folders), parsed in names.items():
        running |= _find_running(parsed, folders, most)
    members = defaultdict(list)
    for scope, images in scopes.items():
        rules = _choose_rules(names[scope], scope[1], running)
        for entry, (name, rule, is_guess) in zip(images, rules, strict=True):
            if rule == SINGLE:
                groups.append(_single(entry))
            else:
                place = posixpath.dirname(entry.path), name, rule == FOLDER
                members[*place, entry.split, entry.sources].append((entry, rule, is_guess))
    groups += _join(members)
    return sorted(groups, key=lambda group: group.entries[0].path)


def describe_groups(groups: Iterable[FrameGroup]) -> list[str]:
    """Return sentences on how images were grouped, where that is a guess or unknown.

    Example:
        >>> entries = [MediaEntry("real/0001.jpg", 0, "", (), True)]
        >>> describe_groups(group_frames(entries))
        ['1 image name states no video, such as real/0001.jpg: ...']
    """
    guesses, notes = defaultdict(list), []
    for group in groups:
        if group.rule != SINGLE or group.entries[0].is_image:
            guesses[group.rule if group.is_guess or group.rule == SINGLE else ""].append(group)
    for rule, reason in (
        (NUMBER, "Images are grouped by what precedes the last number in their names"),
        (FOLDER, "Numbered images in one folder are taken as frames of one video"),
    ):
        if chosen := guesses[rule]:
            largest = max(chosen, key=lambda group: len(group.entries))
            count = plural(sum(len(group.entries) for group in chosen), "image")
            notes.append(
                f"{reason}: {count} in {plural(len(chosen), 'video')}, such as {largest.path} "
                f"({plural(len(largest.entries), 'image')}). If that is wrong, state the videos "
                "exactly with `prepare table`."
            )
    if chosen := [group for group in guesses[SINGLE] if not group.entries[0].sources]:
        count = plural(len(chosen), "image name") + (" states" if len(chosen) == 1 else " state")
        notes.append(
            f"{count} no video, such as {chosen[0].path}: each of these images is taken as a video "
            "of its own. Its source is unknown unless the name of a fake has its name."
        )
    return notes


def _single(entry: MediaEntry) -> FrameGroup:
    name = posixpath.basename(entry.path) if entry.frames else stem_of(entry.path)
    return FrameGroup(name, SINGLE, (entry,))


def _parse_names(entries: Sequence[MediaEntry]) -> list[_Name]:
    """Return what the names of the images of one class and folder state."""
    stems = [stem_of(entry.path) for entry in entries]
    rest = [index for index, stem in enumerate(stems) if not _WORD_NAME.fullmatch(stem)]
    matches = [_FACE_NUMBER_NAME.fullmatch(stems[index]) for index in rest]
    if matches and all(matches):
        frames = {match["frame"] for match in matches if match}
        videos = {match["video"] for match in matches if match}
        # Else the last number is that of the frame, as in `000_003_0`, `000_003_1` and so on.
        if len(matches) <= 2 * len(frames) and len(frames) >= 2 * len(videos):
            for index, match in zip(rest, matches, strict=True):
                stems[index] = match["frame"] if match else ""
    return [_parse_name(stem) for stem in stems]


def _parse_name(stem: str) -> _Name:
    if match := _WORD_NAME.fullmatch(stem):
        return _Name(_clean(match["video"]), has_word=True)
    if match := _NUMBER_NAME.fullmatch(stem):
        before, num_words = re.subn(r"(^|[\W_])f$", "", match["video"], flags=re.IGNORECASE)
        video = _clean(before)  # that of `FILM_f010`
        return _Name(video, has_word=bool(video and num_words))
    return _Name("", is_frame=False)


def _clean(text: str) -> str:
    """Remove separators and words such as `img` from the end; return "" if the rest is generic."""
    text, before = text.rstrip("_-. (["), None
    while text != before:
        before, text = text, _LAST_WORD.sub("", text).rstrip("_-. ([")
    return "" if is_generic(text) else text


def _find_running(
    names: Sequence[_Name], folders: tuple[str, ...], counts: dict[str, int]
) -> set[str]:
    """Return the videos that precede running numbers in the images of one class and folder."""
    videos = [name.video for name in names if name.video and not _is_bare(name, folders)]
    num_shared = sum(counts[video] > 1 for video in videos)
    return set(videos) if len(set(videos)) > 1 and num_shared >= SHARE * len(names) else set()


def _choose_rules(
    names: Sequence[_Name], folders: tuple[str, ...], running: set[str]
) -> list[tuple[str, str, bool]]:
    """Choose the video, the rule and whether it is a guess, of each image of a class and folder."""
    bare = [_is_bare(name, folders) for name in names]
    is_video = bool(folders) and sum(bare) >= SHARE * len(names)
    rules = []
    for name, is_bare in zip(names, bare, strict=True):
        if is_bare and is_video:
            rules.append((folders[-1], FOLDER, not name.has_word))
        elif name.video and not is_bare and name.has_word:
            rules.append((name.video, WORD, False))
        elif name.video in running and not is_bare:
            rules.append((name.video, NUMBER, True))
        else:
            rules.append(("", SINGLE, False))
    return rules


def _is_bare(name: _Name, folders: tuple[str, ...]) -> bool:
    """Return whether the name of an image states a frame, but no video or that of its folder."""
    video = name.video.lower()
    return name.is_frame and (not video or (video,) == tuple(map(str.lower, folders[-1:])))


def _join(members: dict[tuple, list[tuple[MediaEntry, str, bool]]]) -> list[FrameGroup]:
    """Return the groups; the images of a guess that would join too many remain single."""
    groups = []
    for (_, name, *_), images in members.items():
        entries = tuple(sorted((entry for entry, *_ in images), key=lambda e: natural_key(e.path)))
        rule = min(rule for _, rule, _ in images)  # NUMBER rather than WORD
        groups.append(FrameGroup(name, rule, entries, any(guess for *_, guess in images)))
    guesses = Counter()  # label and name to number of images
    for group in groups:
        if group.is_guess:
            guesses[group.entries[0].label, group.name] += len(group.entries)
    num_videos = Counter(label for label, _ in guesses)
    # Numbered folders of numbers that run on over all of them, such as FFHQ's, are no videos.
    stems = defaultdict(list)  # label to the names in its numbered folders, by folder
    for group in groups:
        if group.is_guess and group.rule == FOLDER and group.name.isdecimal():
            stems[group.entries[0].label].append({stem_of(entry.path) for entry in group.entries})
    runs_on = {
        c for c, s in stems.items() if len(s) > 1 and len(set().union(*s)) == sum(map(len, s))
    }
    joined = []
    for group in groups:
        label = group.entries[0].label
        most = MAX_FRAMES if num_videos[label] > 2 else FEW_FRAMES
        is_mixed = group.rule == FOLDER and len({entry.label for entry in group.entries}) > 1
        count = guesses[label, group.name]
        is_alone = group.rule == NUMBER and count == 1
        is_part = group.rule == FOLDER and group.name.isdecimal() and label in runs_on
        if group.is_guess and (is_mixed or is_alone or is_part or count > most):
            joined += map(_single, group.entries)
        else:
            joined.append(group)
    return joined

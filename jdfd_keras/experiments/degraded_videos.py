"""The task of `experiment robustness` for one video: degrade it, and extract its faces again.

Runs in worker processes, with the options that the dataset was prepared with. Finds the files of a
prepared dataset in the folder of its videos, and checks that they are the same ones.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jdfd_keras.datasets.layouts import list_videos
from jdfd_keras.datasets.manifest import VideoRow
from jdfd_keras.datasets.synthetic.video_degradations import degrade_video
from jdfd_keras.datasets.videos import Listing
from jdfd_keras.faces.extract import Face, extract_faces
from jdfd_keras.faces.media import UnreadableFileError, choose_frames
from jdfd_keras.faces.quality import find_marked_track
from jdfd_keras.io.console import plural, track
from jdfd_keras.io.files import OPTIONS, load_options, sha256_of
from jdfd_keras.io.storage import LocalStore
from jdfd_keras.io.temporary_folder import TemporaryFolder
from jdfd_keras.options import FaceOptions, FilterOptions, LimitOptions, PrepareOptions

LAYOUTS_WITH_FILES_BESIDE = ("faceforensics", "dfd", "deepfakebench", "df40")  # masks, landmarks


@dataclass(frozen=True)
class SourceVideo:
    """A video of a prepared dataset in the folder of its videos.

    Attributes:
        video_id: As in the dataset.
        files: Its file, or its image files in order.
        is_images: Whether it is stored as image files.
        landmarks: Files of landmarks in the order of the image files; "" for none.
        mask: The mask video that marks its manipulated pixels; "" for none.
        frame_rate: Frames per second; 0 if unknown, as of image files.
    """

    video_id: str
    files: tuple[str, ...]
    is_images: bool = False
    landmarks: tuple[str, ...] = ()
    mask: str = ""
    frame_rate: float = 0.0

    def __str__(self) -> str:
        return self.files[0]


@dataclass(frozen=True, eq=False)
class DegradedFaces:
    """The faces of a degraded video; none with a reason.

    Attributes:
        video_id: As in the dataset.
        crops: uint8[n, size, size, 3].
        frame_index: int64[n], position of the frame in the degraded video.
        track_id: int64[n].
        reason: Why the video has no faces; "" if it has some.
    """

    video_id: str
    crops: np.ndarray
    frame_index: np.ndarray
    track_id: np.ndarray
    reason: str = ""


@dataclass(frozen=True)
class ExtractDegraded:
    """Task that degrades one video and extracts its faces."""

    name: str
    strength: float
    seed: int
    faces: FaceOptions
    filters: FilterOptions
    limits: LimitOptions

    def __call__(self, item: SourceVideo) -> DegradedFaces:
        """Return the faces, or the reason why there are none."""
        with TemporaryFolder() as folder:
            try:
                faces, reason = self._extract(item, Path(folder))
            except UnreadableFileError as error:
                # Without the temporary folder of the degraded file.
                faces, reason = [], " ".join(str(error).replace(f"{folder}/", "").split())
            size = self.faces.face_size
            crops = np.array([face.crop for face in faces], np.uint8).reshape(-1, size, size, 3)
        return DegradedFaces(
            item.video_id,
            crops,
            np.array([face.frame_index for face in faces], np.int64),
            np.array([face.track_id for face in faces], np.int64),
            reason,
        )

    def _extract(self, item: SourceVideo, folder: Path) -> tuple[list[Face], str]:
        options = {"faces": self.faces, "limits": self.limits, "seed": self.seed}
        path = item.files if item.is_images else item.files[0]
        degraded = degrade_video(path, self.name, self.strength, folder, **options)
        # Of image files, the positions of their frames in the video, unless these are their own.
        positions = [] if isinstance(degraded, Path) else [int(file.stem) for file in degraded]
        count, every = self.faces.frames_per_video, self.faces.every
        sampled = choose_frames(len(positions), count, every) if positions else []
        is_renumbered = any(positions[index] != index for index in sampled)
        own, landmarks, mask = self.faces, item.landmarks, item.mask
        if is_renumbered and landmarks:
            landmarks = tuple(landmarks[position] for position in positions)
        is_marked = is_renumbered and bool(mask) and own.detector != "none"
        if is_marked:
            own, mask = dataclasses.replace(own, tracks="all"), ""
        # Faces are tracked by the times of frames, as in the video itself.
        times_s = []
        if item.frame_rate:
            where = positions if is_renumbered else range(len(positions))
            times_s = [position / item.frame_rate for position in where]
        found = extract_faces(
            degraded,
            own,
            self.filters,
            self.limits,
            landmarks,
            mask or None,
            times_s=times_s,
        )
        faces = found.faces
        if is_marked and faces:
            boxes = [(positions[face.frame_index], face.track_id, face.box) for face in faces]
            size = (found.width, found.height)
            marked, _ = find_marked_track(item.mask, boxes, max(positions) + 1, size, self.limits)
            faces = [face for face in faces if face.track_id == marked]
        if faces:
            return faces, ""
        problem = "all faces were filtered out" if found.filtered else "no face was found"
        return [], f"{problem} in {plural(found.num_frames, 'sampled frame')}"


def find_source_videos(
    directory: Path, videos: Sequence[VideoRow], root: Path
) -> dict[str, SourceVideo]:
    """Find the videos of a prepared dataset, and check that their files are the prepared ones.

    Args:
        directory: The prepared dataset.
        videos: Its videos to find; those that could not be decoded are skipped.
        root: Folder of the videos.

    Returns:
        Video id to the files.

    Raises:
        OSError: If a file is missing.
        ValueError: If a file has other bytes than the one that was prepared.

    Example:
        >>> from jdfd_keras.datasets.manifest import read_videos
        >>> found = find_source_videos(Path("prepared"), read_videos("prepared"), Path("videos"))
        >>> len(found), found["videos/real/person00"].files[0]
        (16, 'videos/real/person00.mp4')
    """
    wanted = [video for video in videos if video.sha256]
    names = {video.video_id: video.frames or (video.path,) for video in wanted}
    if not root.is_dir():
        raise FileNotFoundError(f"{root} does not exist")
    faces = load_options(directory / OPTIONS, "faces", FaceOptions)
    sampled = {
        video_id: choose_frames(len(files), faces.frames_per_video, faces.every)
        for video_id, files in names.items()
    }
    missing = [
        files[index]
        for video_id, files in names.items()
        for index in sampled[video_id]
        if not (root / files[index]).is_file()
    ]
    if missing:
        raise FileNotFoundError(
            f"{plural(len(missing), 'file')} of the dataset missing in {root}, such as {missing[0]}"
        )
    for video in track(wanted, f"checking the videos of {directory.name}", len(wanted), "videos"):
        files = [root / names[video.video_id][index] for index in sampled[video.video_id]]
        if video.frames and video.warning:  # its digest is of the decodable files only
            continue
        if _digest(files, is_images=bool(video.frames)) != video.sha256:
            raise ValueError(
                f"{root / video.path} is not the file that the dataset was prepared from"
            )
    beside = _list_beside(directory, root)
    ids = {path: video_id for video_id, path in ((v.video_id, v.path) for v in beside.videos)}
    found = {}
    for video in wanted:
        own = ids.get(video.path, "")  # the id depends on the name of the folder
        landmarks, mask = beside.landmarks.get(own, ()), beside.masks.get(own, "")
        found[video.video_id] = SourceVideo(
            video.video_id,
            tuple(str(root / name) for name in names[video.video_id]),
            bool(video.frames),
            tuple(str(root / name) if name else "" for name in landmarks),
            str(root / mask) if mask else "",
            0.0 if video.frames else video.frame_rate,
        )
    return found


def _digest(files: Sequence[Path], *, is_images: bool) -> str:
    """Return the SHA-256 of a file; of image files that of their digests, as the manifest has."""
    digests = [sha256_of(file) for file in files]
    if not is_images:
        return digests[0]
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


def _list_beside(directory: Path, root: Path) -> Listing:
    """List the masks and landmarks of the layouts that have some."""
    options = load_options(directory / OPTIONS, "prepare", PrepareOptions)
    if options.layout in LAYOUTS_WITH_FILES_BESIDE:
        return list_videos(LocalStore(str(root)), options)
    return Listing([])

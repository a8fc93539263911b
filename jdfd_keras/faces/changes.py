"""What of a scene has changed since it was searched for faces: frames to windows.

Where a picture has not changed, a search that found all faces finds no other one now. Knows
nothing of faces.
"""

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np

# Changes are found in the means of blocks of this width; the smallest face has 25 of them.
BLOCK = 8
# Grey levels by which a block changes at least, after a change of the exposure. The mean of a
# block has a hundredth of the variance of sensor noise; codecs move it by one or two levels.
MIN_CHANGE = 4.0
# Blocks with fewer changed ones among themselves and their 8 neighbours do not count: edges that
# tremble, and errors of the codec. Of a new face most blocks change.
MIN_NEIGHBOURS = 4
# Blocks around a change that are searched as well.
MARGIN = 3
# If more of the frame has changed, searching all of it takes no more time.
MAX_SHARE = 0.6


class Window(NamedTuple):
    """A part of a frame, in pixels."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def area(self) -> int:
        """Area in pixels."""
        return (self.right - self.left) * (self.bottom - self.top)


class SearchedScene:
    """The scene as it was when each part of it was searched last.

    Example:
        >>> scene, frame = SearchedScene(), np.zeros((480, 640, 3), np.uint8)
        >>> scene.find_changes(frame) is None  # nothing has been searched yet
        True
        >>> scene.add_search(frame, None)
        >>> moved = frame.copy()
        >>> moved[200:240, 320:360] = 255
        >>> scene.find_changes(frame), scene.find_changes(moved)
        ([], [Window(left=296, top=176, right=384, bottom=264)])
    """

    def __init__(self) -> None:
        self._searched: np.ndarray | None = None  # float32[rows, columns], means of blocks

    def find_changes(
        self, pixels: np.ndarray, others: Iterable[tuple[int, int, int, int]] = ()
    ) -> list[Window] | None:
        """Find the parts of a frame that were not searched as they are now.

        Args:
            pixels: uint8[height, width, 3], RGB, of the size of the searched frames.
            others: Left, top, right and bottom edge of parts that count as changed.

        Returns:
            Windows that do not overlap; None if most of the frame has changed, or none was
            searched.
        """
        if self._searched is None:
            return None
        blocks = _block_means(pixels)
        changed = np.abs(blocks - _match_exposure(self._searched, blocks)) >= MIN_CHANGE
        counts = cv2.boxFilter(changed.astype(np.float32), -1, (3, 3), normalize=False)
        changed &= counts > MIN_NEIGHBOURS - 0.5
        for left, top, right, bottom in [
            [max(edge, 0) // BLOCK for edge in part] for part in others
        ]:
            changed[top : bottom + 1, left : right + 1] = True
        side = 2 * MARGIN + 1
        changed = cv2.dilate(changed.astype(np.uint8), np.ones((side, side), np.uint8))
        _, _, stats, _ = cv2.connectedComponentsWithStats(changed)
        height, width = pixels.shape[:2]
        windows: list[Window] = []
        for left, top, columns, rows, _ in (BLOCK * stats[1:]).tolist():
            window = Window(left, top, min(left + columns, width), min(top + rows, height))
            windows = _merge(windows, window)
        if sum(window.area for window in windows) > MAX_SHARE * height * width:
            return None
        return windows

    def add_search(self, pixels: np.ndarray, windows: list[Window] | None) -> None:
        """Record that these windows of a frame, or all of it with None, have been searched."""
        blocks = _block_means(pixels)
        if self._searched is None or windows is None:
            self._searched = blocks
            return
        searched = _match_exposure(self._searched, blocks)
        for left, top, right, bottom in windows:
            part = np.s_[top // BLOCK : -(-bottom // BLOCK), left // BLOCK : -(-right // BLOCK)]
            searched[part] = blocks[part]
        self._searched = searched


def _block_means(pixels: np.ndarray) -> np.ndarray:
    """Compute the grey means of blocks, float32[rows, columns]; at least one."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    shape = [-(-side // BLOCK) for side in grey.shape[::-1]]
    return cv2.resize(grey, shape, interpolation=cv2.INTER_AREA).astype(np.float32)


def _match_exposure(searched: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Scale and shift grey levels to those of another frame, by the blocks that agree best."""
    gain, offset = 1.0, 0.0
    for _ in range(3):
        residual = np.abs(gain * searched + offset - blocks)
        same = residual <= np.median(residual)
        x, y = searched[same], blocks[same]
        spread = float(x.var())
        gain = float(np.mean((x - x.mean()) * (y - y.mean()))) / spread if spread > 1 else 1.0
        offset = float(y.mean()) - gain * float(x.mean())
    return (gain * searched + offset).astype(np.float32)


def _merge(windows: list[Window], window: Window) -> list[Window]:
    """Add a window; it becomes one with those that it overlaps."""
    left, top, right, bottom = window
    apart: list[Window] = []
    for other in windows:
        if other.left < right and left < other.right and other.top < bottom and top < other.bottom:
            left, top = min(left, other.left), min(top, other.top)
            right, bottom = max(right, other.right), max(bottom, other.bottom)
        else:
            apart.append(other)
    merged = Window(left, top, right, bottom)
    return _merge(apart, merged) if len(apart) < len(windows) else [*windows, merged]

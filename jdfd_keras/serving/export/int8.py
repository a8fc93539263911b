"""Quantisation of an exported detector to int8 for OpenVINO, and what its scores lose by it.

Takes the float32 network of `openvino_export` and two prepared datasets; writes int8.xml, with the
layers that cost most accuracy kept in floating point, if its loss is small.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jdfd_keras.client.signatures import ENGINE_FOLDER
from jdfd_keras.datasets.records import choose_evenly, read_crops
from jdfd_keras.evaluation.metrics import measure_auc
from jdfd_keras.inference.openvino_network import (
    HINTS,
    SCORES,
    CompiledOutput,
    computes_in_bfloat16,
    read_network,
    select_outputs,
    suits_bfloat16,
)
from jdfd_keras.io.console import Progress, import_openvino, plural, track
from jdfd_keras.io.results import Result
from jdfd_keras.options import EvaluateOptions
from jdfd_keras.serving.export.formats import OPENVINO_INT8
from jdfd_keras.serving.export.int8_loss import (
    AUC_RANGE,
    MAX_AUC_LOSS,
    MAX_MOVE,
    ComparedSet,
    SetLoss,
    measure_loss,
)
from jdfd_keras.serving.export.openvino_export import FLOAT32_FILE, write_network
from jdfd_keras.serving.export.quantized_layers import find_quantizers, keep_float, quantize

INT8_FILE = "int8.xml"
NUM_CALIBRATION_FACES = 300  # NNCF's default
NUM_RANKING_FACES = 16  # of each dataset, and as many others
CHUNK = 64  # faces in memory


@dataclass(frozen=True)
class Int8Result(Result):
    """An int8 network and what was measured of it.

    Attributes:
        accepted: Whether both datasets accept it; only then is it used unasked.
        bytes: Size of its files, as `float32_bytes` of those in float32.
        precision: Of the layers that are not in int8: `bfloat16` or `float32`.
        num_layers: Number of layers with weights.
        kept: Names of those that are not in int8, as in float32.xml.
        sets: Loss on the validation split, and on the foreign dataset.
    """

    accepted: bool
    bytes: int
    float32_bytes: int
    precision: str
    num_layers: int
    kept: tuple[str, ...]
    sets: tuple[SetLoss, ...]


def write_int8(
    version: Path, sets: Sequence[ComparedSet], *, allow_loss: bool = False
) -> Int8Result:
    """Quantise the network of a version to int8, and write it if it is accurate enough.

    All layers are quantised first. If that loses too much, those whose quantisation alone changes
    the scores most are kept in floating point, as few as suffice and at most half of them.

    Args:
        version: Folder of the version, with its float32 network.
        sets: As `load_compared_sets` returns them; value ranges are of faces of the first.
        allow_loss: Write a network that loses too much.

    Raises:
        OSError: If a dataset is damaged.
        ValueError: If the AUC in float32 on the first is outside AUC_RANGE, faces have another
            size than the model's, or int8 loses too much.

    Example:
        >>> label = np.array([False, True])
        >>> one = ComparedSet("clips", Path(), [], [], label, np.arange(2), ["a", "b"])
        >>> write_int8(Path("missing"), [one, one])
        Traceback (most recent call last):
        OSError: Expected the network missing/openvino/float32.xml; got no such file...
    """
    import_openvino()
    source = version / ENGINE_FOLDER / FLOAT32_FILE
    if not source.is_file():
        raise OSError(f"Expected the network {source}; got no such file. Export the model again.")
    judge = _Judge(source, sets)
    spread = choose_evenly(range(len(sets[0].label)), NUM_CALIBRATION_FACES)
    quantized = quantize(judge.network, judge.read(sets[0], spread))
    quantizers = find_quantizers(quantized)
    layers = list(dict.fromkeys(layer for names in quantizers.values() for layer in names))

    def keep(kept: Sequence[str]) -> Any:
        return keep_float(quantized, judge.network, quantizers, kept)

    best = judge.measure(quantized, ())
    if not best.accepted:
        ranked = judge.rank(list(quantizers), keep, best.scores)
        # The fewest that suffice, by bisection, as if each layer that is kept could only help.
        too_few, enough = 0, len(ranked) // 2
        best = judge.measure(keep(ranked[:enough]), ranked[:enough])
        while best.accepted and enough - too_few > 1:
            count = (too_few + enough) // 2
            tried = judge.measure(keep(ranked[:count]), ranked[:count])
            if tried.accepted:
                best, enough = tried, count
            else:
                too_few = count
    if not (best.accepted or allow_loss):
        raise ValueError(_describe_refusal(best, len(layers)))
    path = version / ENGINE_FOLDER / INT8_FILE
    write_network(best.network, path)
    kept = {layer for name in best.kept for layer in quantizers[name]}
    return Int8Result(
        accepted=best.accepted,
        bytes=_count_bytes(path),
        float32_bytes=_count_bytes(source),
        precision=judge.precision,
        num_layers=len(layers),
        kept=tuple(layer for layer in layers if layer in kept),
        sets=tuple(judge.compare(best.scores, EvaluateOptions.n_resamples)),
    )


class _Tried(NamedTuple):
    """A network, the quantisers that it lacks, its scores of each dataset, and their loss."""

    network: Any
    kept: Sequence[str]
    scores: list[np.ndarray]
    losses: list[SetLoss]

    @property
    def accepted(self) -> bool:
        return all(loss.accepted for loss in self.losses)


class _Judge:
    """The network in float32 and its scores, with which those of others are compared."""

    def __init__(self, path: Path, sets: Sequence[ComparedSet]):
        import openvino

        self.core, self.sets = openvino.Core(), sets
        full = read_network(self.core, path)
        self.network: Any = select_outputs(full, SCORES)
        self.size = int(full.input().get_partial_shape().get_max_shape()[1])
        is_bfloat16 = computes_in_bfloat16(self.core) and suits_bfloat16(self.network)
        self.precision = "bfloat16" if is_bfloat16 else "float32"
        self.expected = self._score_all(self.network, "scoring in float32", "float32")
        one = sets[0]
        auc = measure_auc(one.label, self.expected[0])
        if auc is None or not AUC_RANGE[0] <= auc <= AUC_RANGE[1]:
            raise ValueError(
                f"Expected a detector with a frame AUC from {AUC_RANGE[0]} to {AUC_RANGE[1]} on "
                f"the validation faces of {one.directory}, where a loss of int8 shows; got "
                f"{auc:.3f}. Give validation data that is harder or easier."
            )

    def read(self, one: ComparedSet, chosen: Sequence[int]) -> np.ndarray:
        """Read chosen faces of a dataset, uint8[n, size, size, 3]."""
        crops = list(read_crops(one.directory, one.shards, one.offsets, chosen).values())
        if crops[0].shape[0] != self.size:
            raise ValueError(
                f"Expected faces of {self.size} pixels, the size of the model, in "
                f"{one.directory}; got {crops[0].shape[0]}. Prepare the dataset with "
                f"--face-size {self.size}."
            )
        return np.stack(crops)

    def measure(self, network: Any, kept: Sequence[str]) -> _Tried:
        """Score all faces with a network."""
        words = f"scoring in int8, {plural(len(kept), 'value')} kept in {self.precision}"
        scores = self._score_all(network, words, self.precision)
        return _Tried(network, kept, scores, self.compare(scores))

    def compare(self, scores: Sequence[np.ndarray], n_resamples: int = 0) -> list[SetLoss]:
        """Compare scores with those in float32."""
        return [
            measure_loss(one, expected, found, n_resamples)
            for one, expected, found in zip(self.sets, self.expected, scores, strict=True)
        ]

    def rank(
        self, names: list[str], keep: Callable[[Sequence[str]], Any], scores: Sequence[np.ndarray]
    ) -> list[str]:
        """Sort quantisers by the change of the scores when only one of them is there.

        It is measured on the faces whose score moves most with all of them, and on others.

        Args:
            names: The quantisers.
            keep: Function from names of quantisers to a network without them.
            scores: Scores of each dataset with all quantisers.
        """
        faces, expected = [], []
        for one, before, after in zip(self.sets, self.expected, scores, strict=True):
            moved = np.argsort(-np.abs(after - before))[:NUM_RANKING_FACES]
            spread = choose_evenly(range(len(before)), NUM_RANKING_FACES)
            chosen = np.union1d(moved, spread)
            faces.append(self.read(one, chosen.tolist()))
            expected.append(before[chosen])
        pixels, wanted, changes = np.concatenate(faces), np.concatenate(expected), {}
        for name in track(names, "ranking layers by their loss", len(names), "layers"):
            alone = keep([other for other in names if other != name])
            compiled = CompiledOutput(self.core, alone, SCORES, HINTS["float32"])
            changes[name] = float(np.square(compiled(pixels) - wanted).mean())
            compiled.close()
        return sorted(names, key=lambda name: -changes[name])

    def _score_all(self, network: Any, words: str, precision: str) -> list[np.ndarray]:
        progress = Progress(words, sum(len(one.label) for one in self.sets), "faces")
        compiled = CompiledOutput(self.core, network, SCORES, HINTS[precision])
        found = []
        try:
            for one in self.sets:
                scores = []
                for start in range(0, len(one.label), CHUNK):
                    chosen = range(start, min(start + CHUNK, len(one.label)))
                    scores.append(compiled(self.read(one, chosen)).astype(np.float64))
                    progress.advance(len(chosen))
                found.append(np.concatenate(scores))
        finally:
            compiled.close()
            progress.close()
        return found


def _describe_refusal(tried: _Tried, num_layers: int) -> str:
    measured = "; ".join(
        f"{loss.data}: frame AUC {loss.frame_auc.value:.4f} to {loss.frame_auc_int8.value:.4f}, "
        f"video AUC {loss.video_auc.value:.4f} to {loss.video_auc_int8.value:.4f}, score of "
        f"{loss.moved_video} moved by {loss.largest_move:.3f}"
        for loss in tried.losses
    )
    return (
        f"Expected int8 to lose at most {MAX_AUC_LOSS} of AUC and to move no video's score by more "
        f"than {MAX_MOVE}; got, with {plural(len(tried.kept), 'value')} of {num_layers} layers "
        f"kept in floating point, {measured}. Try without {OPENVINO_INT8}, or --allow-loss to "
        "write it anyway, for use with --precision int8 only."
    )


def _count_bytes(path: Path) -> int:
    files = [path, *path.parent.glob(f"{path.stem}.bin*")]
    return sum(file.stat().st_size for file in files)

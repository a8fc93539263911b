"""Scores of the cells of `experiment robustness`: computed once, and stored with their inputs.

    OUT/robustness/KEY/crops/jpeg-30/scores.parquet    a cell of the dataset KEY
    OUT/robustness/KEY/crops/jpeg-30.json              its inputs; written last

A cell whose inputs have changed is computed again.
"""

import contextlib
import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jdfd_keras.datasets.manifest import MANIFEST
from jdfd_keras.datasets.synthetic.degradations import (
    DEGRADATIONS,
    check_encoder,
    choose_kept_frames,
)
from jdfd_keras.evaluation.crop_scores import describe_degradation, score_crops
from jdfd_keras.evaluation.eval_data import (
    EvalSet,
    Protocol,
    check_leakage,
    join_manifest,
    load_eval_sets,
)
from jdfd_keras.evaluation.model_scores import describe_coverage, describe_data, find_excluded
from jdfd_keras.evaluation.report import SCORES, ScoresMetadata
from jdfd_keras.evaluation.scores import Scores
from jdfd_keras.evaluation.scores_file import read_scores_file, write_scores
from jdfd_keras.experiments.degraded_videos import (
    DegradedFaces,
    ExtractDegraded,
    SourceVideo,
    find_source_videos,
)
from jdfd_keras.experiments.sets import check_prepared
from jdfd_keras.faces.align import check_same_landmarks
from jdfd_keras.inference.backends import Predictor
from jdfd_keras.inference.dataset_scores import FacePredictions
from jdfd_keras.io.console import Progress
from jdfd_keras.io.files import OPTIONS, load_groups, load_options, sha256_of, write_text_atomically
from jdfd_keras.io.origin import describe_origin
from jdfd_keras.io.workers import WorkerCrashed, count_workers, run_all
from jdfd_keras.options import (
    EvaluateOptions,
    FaceOptions,
    FilterOptions,
    LimitOptions,
    RobustnessOptions,
)
from jdfd_keras.training.run_folder import was_imported

NONE = "none"  # the data as it is
FOLDER = "robustness"


@dataclass(frozen=True)
class DegradedCell:
    """One dataset with one degradation at one strength; `none` with strength 0: as it is."""

    data: str
    degradation: str
    strength: float

    @property
    def pair(self) -> tuple[str, float] | None:
        """Name and strength of the degradation; None if the dataset is as it is."""
        return None if self.degradation == NONE else (self.degradation, self.strength)

    def __str__(self) -> str:
        return f"{self.data}, {self.degradation}{f'={self.strength:g}' if self.pair else ''}"


class CellRunner:
    """Scores of cells in a folder.

    Attributes:
        out: Folder of the experiment.
        evaluate: Split and aggregation.
        leakage: A sentence on leakage for each dataset that can be used.
        dataset_options: Options of each of these datasets, by group.
    """

    def __init__(
        self,
        out: Path,
        model: Path,
        predictor: Predictor,
        options: RobustnessOptions,
        evaluate: EvaluateOptions,
        limits: LimitOptions,
    ):
        self.out, self.evaluate = out, evaluate
        self._model, self._predictor = model, predictor
        self._options, self._limits = options, limits
        self.leakage: dict[str, str] = {}
        self.dataset_options: dict[str, dict[str, dict[str, Any]]] = {}
        self._sets: dict[str, EvalSet] = {}
        self._digests: dict[str, str] = {}
        self._problems: dict[str, str] = {}  # by key, of a dataset that cannot be used
        self._folders: dict[str, Path] = {}  # of videos
        self._sources: dict[str, dict[str, SourceVideo] | str] = {}  # or why there are none

    def open_dataset(self, key: str, directory: Path, videos: str | Path | None = None) -> None:
        """Load a dataset; if it cannot be used, the reason is that of its cells."""
        split = self.evaluate.split
        try:
            check_prepared(directory)
            self._check_faces(load_options(directory / OPTIONS, "faces", FaceOptions))
            (one,) = load_eval_sets([directory], split, self.evaluate.split_table)
            allow_leak = self.evaluate.allow_leak
            leakage = check_leakage(self._model, [one], split, allow_leak=allow_leak)
            options = load_groups(directory / OPTIONS)
            digest = hashlib.sha256(f"{sha256_of(directory / MANIFEST)} {split}".encode())
        except (OSError, ValueError) as error:
            self._problems[key] = " ".join(str(error).split())
            return
        if table := one.split_table:
            digest.update(table.rows.to_csv(index=False).encode())
            options["split"] = {"table": table.name} | dataclasses.asdict(table.options)
        self._sets[key], self._digests[key] = dataclasses.replace(one, name=key), digest.hexdigest()
        self.leakage[key], self.dataset_options[key] = leakage, options
        if videos is not None:
            self._folders[key] = Path(videos)

    def _check_faces(self, faces: FaceOptions) -> None:
        trained = self._predictor.metadata.faces
        if not was_imported(self._model):  # the faces of other trainings are unknown
            check_same_landmarks(trained, faces)
        if faces.face_size != trained.face_size:
            raise ValueError(
                f"Expected faces of {trained.face_size} px, the size of the model; got "
                f"{faces.face_size}. Prepare the dataset with --face-size {trained.face_size}."
            )

    def folder_of(self, cell: DegradedCell) -> Path:
        """Return the folder of the scores of a cell; crops as they are belong to both kinds."""
        folder = self.out / FOLDER / cell.data
        if not cell.pair:
            return folder / NONE
        applied_to = "crops" if self._options.quick else "videos"
        return folder / applied_to / f"{cell.degradation}-{cell.strength:g}"

    def count_videos(self, key: str) -> int:
        """Return the number of videos of a dataset, with or without a face; 0 if unusable."""
        return len(self._sets[key].videos) if key in self._sets else 0

    def read(self, cell: DegradedCell) -> Scores | None:
        """Return the scores of a finished cell; None if it is incomplete, or of other inputs."""
        self._check(cell.data)
        folder = self.folder_of(cell)
        with contextlib.suppress(OSError, ValueError):  # a damaged cell is run again
            inputs = json.loads(Path(f"{folder}.json").read_text(encoding="utf-8"))
            if inputs == self._find_inputs(cell):
                file = read_scores_file(folder / SCORES)
                return file.scores if file.metadata else None
        return None

    def run(self, cell: DegradedCell, description: str) -> Scores:
        """Compute and write the scores of a cell.

        Raises:
            OSError: If they cannot be written, or a crop or a video cannot be read.
            ValueError: If the cell cannot be run.
        """
        self._check(cell.data)
        one, reasons = self._sets[cell.data], {}
        if cell.pair:
            check_encoder(cell.degradation)
        if cell.pair and not self._options.quick:
            scores, reasons = self._score_videos(cell, description)
        elif cell.pair and DEGRADATIONS[cell.degradation].is_of_videos:
            scores = self._drop_frames(cell)
        else:
            scores = join_manifest([one], self._score_crops(cell, description))
        excluded = tuple(
            dataclasses.replace(video, reason=reasons.get(video.video_id, video.reason))
            for video in find_excluded([one], scores)
        )
        folder = self.folder_of(cell)
        folder.mkdir(parents=True, exist_ok=True)
        Path(f"{folder}.json").unlink(missing_ok=True)
        metadata = ScoresMetadata(self._describe(cell), excluded)
        write_scores(folder / SCORES, scores, metadata)
        write_text_atomically(
            f"{folder}.json", json.dumps(self._find_inputs(cell), indent=1) + "\n"
        )
        return scores

    def _check(self, key: str) -> None:
        if key in self._problems:
            raise ValueError(self._problems[key])

    def _find_inputs(self, cell: DegradedCell) -> dict[str, Any]:
        inputs = {
            "model": self._predictor.metadata.digest,
            "engine": self._predictor.engine.describe(),
            "data": self._digests[cell.data],
            "degradation": cell.degradation,
            "strength": cell.strength,
        }
        if cell.pair:
            inputs |= {"noise_seed": self._options.noise_seed, "quick": self._options.quick}
        if cell.pair and not self._options.quick:
            inputs |= {"limits": dataclasses.asdict(self._limits)}
        return inputs

    def _describe(self, cell: DegradedCell) -> Protocol:
        model, one = self._predictor.metadata, self._sets[cell.data]
        of = "face crops" if self._options.quick else "videos"
        return Protocol(
            model=f"{model.name}, version {model.version}",
            model_digest=model.digest,
            training_faces=model.faces,
            demonstration=model.demonstration,
            calibration=model.calibration,
            split=self.evaluate.split,
            data={cell.data: describe_data(one)},
            coverage=describe_coverage([one]),
            leakage=self.leakage[cell.data],
            engine=self._predictor.engine.describe(),
            degradation=describe_degradation(cell.pair, of),
            **describe_origin(),
        )

    def _score_crops(self, cell: DegradedCell, description: str) -> FacePredictions:
        one = self._sets[cell.data]
        score = score_crops(
            self._predictor,
            [one],
            self._predictor.metadata.faces.face_size,
            degradation=cell.pair,
            seed=self._options.noise_seed,
            batch_size=self.evaluate.batch_size,
            description=description,
        )
        return FacePredictions(score, one.rows["label"].to_numpy())

    def _drop_frames(self, cell: DegradedCell) -> Scores:
        """Drop a share of the sampled frames of each video; their scores are known."""
        whole = self.read(DegradedCell(cell.data, NONE, 0.0))
        if whole is None:
            raise ValueError("the faces as they are have no scores to choose from")
        keep = np.zeros(len(whole), bool)
        for video in range(len(whole.videos)):
            rows = np.flatnonzero(whole.video == video)
            frames, owner = np.unique(whole.frame_index[rows], return_inverse=True)
            seed = _seed_of(self._options.noise_seed, str(whole.videos.video_id[video]))
            kept = choose_kept_frames(len(frames), cell.strength, seed=seed)
            keep[rows] = np.isin(owner, kept)
        return whole.select_faces(keep)

    def _score_videos(self, cell: DegradedCell, description: str) -> tuple[Scores, dict[str, str]]:
        """Degrade the videos and score their faces; also return why some have none."""
        one = self._sets[cell.data]
        sources = self._find_sources(cell.data)
        faces = load_options(one.directory / OPTIONS, "faces", FaceOptions)
        filters = load_options(one.directory / OPTIONS, "filters", FilterOptions)
        pair, seed = (cell.degradation, cell.strength), self._options.noise_seed
        task = ExtractDegraded(*pair, seed, faces, filters, self._limits)
        items = [sources[v.video_id] for v in one.videos if v.video_id in sources and not v.reason]
        workers = count_workers(self._options.workers, len(items))
        found: dict[str, tuple[DegradedFaces, np.ndarray]] = {}
        reasons: dict[str, str] = {}
        progress = Progress(description, len(items), "videos")
        try:
            for item, result in run_all(task, items, workers, self._limits):
                if isinstance(result, WorkerCrashed):
                    text = f"Expected a video that can be analysed; got {item}, {result}"
                    reasons[item.video_id] = text
                elif result.reason:
                    reasons[item.video_id] = result.reason
                else:
                    score = self._predictor(result.crops)
                    # Without the crops, which need not stay in memory.
                    kept = dataclasses.replace(result, crops=result.crops[:0])
                    found[item.video_id] = kept, score
                progress.advance()
        finally:
            progress.close()
        videos = [video for video in one.videos if video.video_id in found]
        if not videos:
            raise ValueError(
                "Expected a face in at least one degraded video; got none in all "
                f"{len(items)}: {next(iter(reasons.values()), 'no video was decoded')}"
            )
        parts = [found[video.video_id] for video in videos]
        counts = [len(score) for _, score in parts]
        columns = {
            name: np.repeat([getattr(video, name) for video in videos], counts)
            for name in ("video_id", "label", "split", "compression", "manipulation")
        }
        scores = Scores.from_faces(
            **columns,
            score=np.concatenate([score for _, score in parts]),
            frame_index=np.concatenate([kept.frame_index for kept, _ in parts]),
            track_id=np.concatenate([kept.track_id for kept, _ in parts]),
            data=np.repeat(cell.data, sum(counts)),
        )
        return scores, reasons

    def _find_sources(self, key: str) -> dict[str, SourceVideo]:
        one = self._sets[key]
        if key not in self._sources:
            try:
                self._sources[key] = self._list_sources(key, one)
            except (OSError, ValueError) as error:
                self._sources[key] = " ".join(str(error).split())
        found = self._sources[key]
        if isinstance(found, str):
            raise ValueError(found)
        return found

    def _list_sources(self, key: str, one: EvalSet) -> dict[str, SourceVideo]:
        if key not in self._folders:
            raise ValueError(
                f"Expected the folder of the videos of {key}; got none. Give --videos {key}=DIR, "
                "or --quick to degrade the prepared face crops."
            )
        if one.split_table and one.split_table.of_faces:
            raise ValueError(
                f"Expected a split of whole videos; got the split table {one.split_table.name} of "
                "single faces. Try --quick, or another --split-table."
            )
        return find_source_videos(one.directory, one.videos, self._folders[key])


def _seed_of(seed: int, video_id: str) -> int:
    digest = hashlib.sha256(f"{seed} {video_id}".encode()).digest()
    return int.from_bytes(digest[:8])

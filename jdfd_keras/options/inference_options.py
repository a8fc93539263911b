"""The settings of measuring a detector.

The settings of serving a detector, and of asking it.
"""

from dataclasses import dataclass

from jdfd_keras.options.data_options import FaceOptions, setting


@dataclass(frozen=True)
class EvaluateOptions:
    """How `evaluate` scores and measures; stated in its report."""

    split: str = setting("test", "split to score", choices=("train", "val", "test"))
    threshold: float | None = setting(
        None,
        "a score at or above it is called fake; if not given that of the run's calibration, "
        "else 0.5",
    )
    aggregation: str = setting(
        "mean",
        "how a video's score is made of those of its faces: their mean, median or max, or track, "
        "the highest of the means of its people, much as predict judges",
        choices=("mean", "median", "max", "track"),
    )
    rounds: int = setting(
        1000, "rounds of the bootstrap behind the intervals, 100 or more; 0: no intervals"
    )
    seed: int = setting(0, "seed of the bootstrap")
    batch_size: int = setting(32, "faces scored at once")
    reconstruction: bool = setting(False, "run the decoder too, and measure its error")
    allow_leak: bool = setting(
        False, "evaluate although training saw sources or near-duplicates; the report says so"
    )


@dataclass(frozen=True)
class CalibrateOptions:
    """What `calibrate` is to reach on validation videos; kept in the run folder."""

    fpr: float = setting(
        0.05,
        "largest share of real videos called fake; the same of fakes called real, beyond which "
        "the verdict is `uncertain`",
    )
    batch_size: int = setting(32, "faces scored at once")
    allow_leak: bool = setting(False, "calibrate although training saw sources or near-duplicates")


EXPERIMENTS = ("cross-dataset", "ablation", "foreign-data", "statistics")


@dataclass(frozen=True)
class ExperimentOptions:
    """How often `experiment` does what it does."""

    seeds: tuple[int, ...] = setting(
        (0,), "seeds of the trainings; of several, tables give mean and standard deviation"
    )


ENGINES = ("auto", "tensorflow-model-server", "docker", "embedded")


@dataclass(frozen=True)
class ServeOptions:
    """How `serve` listens, and what it bears."""

    engine: str = setting(
        "auto",
        "what answers: TensorFlow Serving's own binary, its Docker image, or a server in this "
        "process; auto takes the first of these that is there",
        choices=ENGINES,
    )
    host: str = setting("127.0.0.1", "address to listen on; the default is this machine alone")
    port: int = setting(8501, "port of REST; 0 takes a free one (embedded)")
    grpc_port: int = setting(8500, "port of gRPC; 0 takes a free one (embedded)")
    max_batch_size: int = setting(32, "faces that are scored at once, of requests that wait")
    batch_timeout_ms: float = setting(
        0.0, "how long a batch that is not full waits for more; 0: takes what waits already"
    )
    timeout_s: float = setting(60.0, "seconds after which a request is answered 504")
    max_queue: int = setting(256, "requests that may wait, embedded; more are answered 503")
    max_body_mb: int = setting(32, "largest request in MiB, embedded; a larger one is answered 413")

    def __post_init__(self):
        """See that a server with these limits can answer anything.

        Raises:
            ValueError: If it could not.
        """
        least = {
            "port": 0,
            "grpc_port": 0,
            "max_batch_size": 1,
            "batch_timeout_ms": 0,
            "max_queue": 1,
            "max_body_mb": 1,
        }
        for name, bound in least.items():
            if not getattr(self, name) >= bound:
                raise ValueError(
                    f"Expected --{name.replace('_', '-')} of {bound} or more; got "
                    f"{getattr(self, name)}. Try the default."
                )
        if not 0 < self.timeout_s < float("inf"):
            raise ValueError(
                f"Expected --timeout-s above 0; got {self.timeout_s}. Try the default."
            )


@dataclass(frozen=True)
class PredictOptions:
    """How `predict` looks at a file, and judges."""

    threshold: float | None = setting(
        None,
        "a score at or above it is called fake, below it real; if not given as the model was "
        "calibrated, with `uncertain` between, else 0.5",
    )
    frames_per_video: int = setting(
        FaceOptions.frames_per_video, "frames looked at per video, spread evenly"
    )
    every: int = setting(FaceOptions.every, "look at every Nth frame instead; 1 takes all of them")
    tracks: str = setting(
        "all",
        "people judged: all, or the one who fills most of the video",
        choices=("all", "largest"),
    )


@dataclass(frozen=True)
class PredictWorkOptions:
    """How `predict` goes about it; changes no verdict."""

    workers: int = setting(
        0, "processes that take faces out of files; 0: one for each core, but no more than files"
    )
    explain: int = setting(3, "strongest frames of each file that a report shows and explains")

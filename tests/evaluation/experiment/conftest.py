"""Data sets by name alone, and training and evaluation stood in for by a few lines of files."""

import json
import zlib

import pytest

from jdfd_keras.claims import save_options
from jdfd_keras.options import FaceOptions, FilterOptions, PrepareOptions, SplitOptions


@pytest.fixture
def named_sets(tmp_path):
    """Key to folder of the paper's three, which hold options and a manifest and no face."""
    sets = {}
    for key in ("ff", "celebdf", "uadfv"):
        sets[key] = tmp_path / "sets" / key
        sets[key].mkdir(parents=True)
        (sets[key] / "manifest.csv").write_text(f"of {key}\n")
        save_options(
            sets[key] / "options.json",
            faces=FaceOptions(face_size=71),
            filters=FilterOptions(),
            prepare=PrepareOptions(),
            split=SplitOptions(split="strict"),
        )
    return sets


class Rooms:
    """What `train` and `evaluate` were asked for, and how they answer.

    Attributes:
        trained: The arguments of each training, with the run as `out`.
        tested: Run and data set of each evaluation.
        refuse: Called with the same; raises where it is to fail.
        bounds: Whether reports give intervals.
    """

    def __init__(self):
        self.trained, self.tested = [], []
        self.refuse = lambda kind, run, data: None
        self.bounds = True

    def train(self, data, out, **told):
        """Leave a run behind."""
        self.refuse("train", out, data)
        if not (out / "best.keras").is_file():
            out.mkdir(parents=True)
            (out / "best.keras").write_text(f"{data} {told}")
            (out / "history.csv").write_text(
                "loss,val_classification_frame_auc\n0.6,0.7\n0.5,0.9\n0.4,0.8\n"
            )
        self.trained.append({"data": data, "out": out, **told})

    def evaluate(self, run, data, out, options):
        """Leave a report behind."""
        out.mkdir(parents=True, exist_ok=True)
        self.refuse("evaluate", run, data)
        report = {level: {"auc": self.auc(run, data, level)} for level in ("frame", "video")}
        (out / "report.json").write_text(json.dumps(report))
        self.tested.append((run, data))
        return report

    def auc(self, run, data, level):
        """Give an AUC that is another one for each run, data set and level."""
        own = "/".join([*run.parts[-3:], data.name, level])
        value = 0.5 + zlib.crc32(own.encode()) % 4000 / 10000
        return {"value": value, "low": value - 0.1, "high": value + 0.05} | (
            {} if self.bounds else {"low": None, "high": None}
        )


@pytest.fixture
def rooms(monkeypatch):
    """Stand in for training, evaluation and drawing."""
    own = Rooms()
    monkeypatch.setattr("jdfd_keras.training.train.train", own.train)
    monkeypatch.setattr("jdfd_keras.evaluation.evaluate.evaluate", own.evaluate)
    monkeypatch.setattr("jdfd_keras.evaluation.experiment.pictures.draw", lambda *_: None)
    monkeypatch.setattr("keras.utils.clear_session", lambda: None)  # a third of a second
    return own


@pytest.fixture(scope="session")
def three_sets(tmp_path_factory):
    """Key to folder of three small prepared sets that share no source and look unlike."""
    from skimage import data

    from jdfd_keras.data.clips import make_clips, vary_portrait
    from jdfd_keras.data.prepare import prepare

    root = tmp_path_factory.mktemp("three")
    for seed, key in enumerate(("ff", "celebdf", "uadfv")):
        people = vary_portrait(data.astronaut(), 8, seed=seed)
        for _ in make_clips(people, root / "clips" / key, num_frames=6, seed=seed):
            pass
        faces = FaceOptions(frames_per_video=4, face_size=71)
        prepare(root / "clips" / key, root / key, faces, PrepareOptions(name=key))
    return {key: root / key for key in ("ff", "celebdf", "uadfv")}


@pytest.fixture
def small_network(monkeypatch):
    """In training, a network of a few weights with the layers that a report looks for."""

    def build(options):
        import keras

        image = keras.Input((options.image_size, options.image_size, 3), name="image")
        x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(image)
        x = keras.layers.Conv2D(4, 7, strides=7, use_bias=False)(x)
        cells = keras.layers.ReLU(name="squeeze_relu")(x)
        logit = keras.layers.Dense(1, name="classifier_logit")(keras.layers.Flatten()(cells))
        outputs = {"classification": keras.layers.Activation("sigmoid")(logit)}
        if options.decoder:
            up = keras.layers.UpSampling2D(8)(cells)
            up = keras.layers.CenterCrop(options.image_size, options.image_size)(up)
            outputs["reconstruction"] = keras.layers.Conv2D(3, 1)(up)
        return keras.Model(image, outputs)

    monkeypatch.setattr("jdfd_keras.training.train.build_detector", build)

"""What several test files share: one tiny detector, so TensorFlow is set up once a run."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
import pytest
from hypothesis import settings

from jdfd_keras.options import ModelOptions

# The same examples in every run; `pytest --hypothesis-profile default` draws new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def build_tiny():
    """A function that builds a detector of 71 px with random weights, always the same ones."""
    import keras

    from jdfd_keras.model.methods import build_detector

    def build() -> keras.Model:
        keras.utils.set_random_seed(0)
        return build_detector(ModelOptions(image_size=71, latent_dim=16, encoder_weights="none"))

    return build


@pytest.fixture(scope="session")
def tiny_detector(build_tiny):
    """One such detector; tests must not change it."""
    return build_tiny()


@pytest.fixture(scope="session")
def build_stand_in():
    """A function that builds a detector of a few weights."""

    def build(options):
        import keras

        image = keras.Input((options.image_size, options.image_size, 3), name="image")
        small = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(image)
        last = keras.layers.ReLU(name="squeeze_relu")(keras.layers.Conv2D(3, 1)(small))
        mean = keras.layers.GlobalAveragePooling2D()(last)
        logit = keras.layers.Dense(1, name="classifier_logit")(mean)
        outputs = {
            "classification": keras.layers.Activation("sigmoid", name="classification")(logit),
            "reconstruction": keras.layers.Conv2D(3, 1, name="reconstruction")(small),
        }
        return keras.Model(image, outputs)

    return build


@pytest.fixture
def stand_in(monkeypatch, build_stand_in):
    """Replace the detector of training by a network of a few weights."""
    monkeypatch.setattr("jdfd_keras.training.train.build_detector", build_stand_in)


@pytest.fixture(scope="session")
def face_batch():
    """uint8[4, 71, 71, 3] smooth random images, for tests that need no real face."""
    import cv2

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    return np.stack([cv2.resize(image, (71, 71)) for image in coarse])


@pytest.fixture(scope="session")
def clips_folder(tmp_path_factory):
    """A dataset of short clips: 8 subjects from one portrait, each with a real and a fake clip."""
    from skimage import data

    from jdfd_keras.datasets.synthetic.clips import make_clips, vary_portrait

    root = tmp_path_factory.mktemp("data") / "clips"
    for _ in make_clips(vary_portrait(data.astronaut(), 8, seed=0), root, num_frames=6, seed=0):
        pass
    return root


@pytest.fixture(scope="session")
def prepared_set(clips_folder, tmp_path_factory):
    """The same clips prepared: 4 faces of 71 px each, split by source; tests must not change it."""
    from jdfd_keras.datasets.prepare import prepare
    from jdfd_keras.options import FaceOptions

    out = tmp_path_factory.mktemp("data") / "prepared"
    prepare(clips_folder, out, FaceOptions(frames_per_video=4, face_size=71))
    return out


@pytest.fixture(scope="session")
def headpose_run(prepared_set, tmp_path_factory):
    """A run folder of Headpose, trained on the prepared clips; tests must not change it."""
    from jdfd_keras.training.train import train

    out = tmp_path_factory.mktemp("runs") / "headpose"
    train(prepared_set, out, model=ModelOptions(method="headpose"))
    return out


# A module of its own, because other processes cannot import a test or see what it replaces.
HARMFUL = '''
import os
import signal
import time
from pathlib import Path

from jdfd_keras.datasets.prepare_tasks import ExtractVideo
from jdfd_keras.faces.extract import extract_faces
from jdfd_keras.faces.video import VideoReader
from jdfd_keras.prediction.extraction import extract_file

read = VideoReader.read


def read_harmfully(self, *arguments, **options):
    name = self.file.path.stem
    for frame in read(self, *arguments, **options):
        if name == "changes":
            with open(self.file.path, "ab") as file:
                file.write(b"more")
        if name == "raises":
            raise IndexError("list index out of range")
        yield frame


def harm(path):
    """Do what the name of a file states; nothing of it is in the file."""
    VideoReader.read = read_harmfully
    name = Path(path).stem
    if name == "exits":
        os._exit(3)
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "memory":
        raise MemoryError("no memory")
    if name == "sleeps":
        time.sleep(60)
    if name == "allocates":
        memory = b"1" * 10**9
        time.sleep(60)
        return memory


def extract_harmful_file(path, **options):
    harm(path)
    return extract_file(path, **options)


def extract_harmful_faces(path, **options):
    harm(path)
    return extract_faces(path, **options)


def annotate_harmful_file(path, **options):
    os.kill(os.getpid(), signal.SIGSEGV)


class ExtractHarmfulVideo(ExtractVideo):
    def __call__(self, item):
        harm(item.video.path)
        return super().__call__(item)
'''
# File name to a part of its reason.
REASONS = {
    "exits": "whose process died twice (exit code 3)",
    "killed": "whose process died twice (SIGKILL), perhaps because memory ran out",
    "crashes": "whose process died twice (SIGSEGV)",
    "memory": "whose process died twice (MemoryError), perhaps because memory ran out",
    "sleeps": "whose analysis took more than 6 s. Try --max-seconds 12",
    "allocates": "whose analysis needed more than 0.8 GB of memory. Try --max-memory 1.6",
    "changes": "which was written to during the analysis",
    "raises": "failed with 'IndexError: list index out of range'",
}


@pytest.fixture
def harm(tmp_path, monkeypatch):
    """Let the analysis of a file do what its name states, in `predict` and in `prepare`.

    Returns names to reasons. `sleeps` needs 60 s and `allocates` 1 GB.
    """
    import sys

    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "harmful_functions.py").write_text(HARMFUL)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    import harmful_functions as functions

    monkeypatch.setattr(
        "jdfd_keras.prediction.extraction.extract_file", functions.extract_harmful_file
    )
    monkeypatch.setattr("jdfd_keras.datasets.prepare.ExtractVideo", functions.ExtractHarmfulVideo)
    monkeypatch.setattr(
        "jdfd_keras.datasets.inspection.extract_faces", functions.extract_harmful_faces
    )
    yield REASONS
    del sys.modules["harmful_functions"]


@pytest.fixture
def in_this_process(monkeypatch):
    """Let `prepare` work in this process, so that a test can replace its functions."""

    def run_all(function, items, num_workers, limits=None):
        return ((item, function(item)) for item in items)

    monkeypatch.setattr("jdfd_keras.datasets.prepare.run_all", run_all)


@pytest.fixture(scope="session")
def change_table():
    """A function that changes the rows of a table of a prepared dataset."""
    import pyarrow.parquet as pq

    from jdfd_keras.datasets import manifest

    names = {manifest.FaceRow: manifest.MANIFEST, manifest.VideoRow: manifest.VIDEOS}

    def change(directory, kind, function):
        path = directory / names[kind]
        rows = function(manifest.to_rows(pq.read_table(path), kind))
        with open(path, "wb") as file:
            manifest.write_table(file, kind, [manifest.to_table(rows, kind)])

    return change


@pytest.fixture
def remove_landmarks(prepared_set, change_table, tmp_path):
    """A function that copies the prepared clips, without the landmarks of some faces."""
    import dataclasses
    import shutil

    from jdfd_keras.datasets.manifest import FaceRow

    def remove(is_removed):
        data = tmp_path / "without_landmarks"
        shutil.copytree(prepared_set, data)

        def change(rows):
            return [
                dataclasses.replace(row, landmarks=()) if is_removed(row) else row for row in rows
            ]

        change_table(data, FaceRow, change)
        return data

    return remove


@pytest.fixture(scope="session")
def astronaut():
    """uint8[512, 512, 3], a public-domain portrait; dlib's box is 179, 83, 266, 170."""
    from skimage import data

    return data.astronaut()


@pytest.fixture(scope="session")
def astronaut_landmarks(astronaut):
    """float32[68, 2] of that face."""
    from jdfd_keras.faces.detect import Box
    from jdfd_keras.faces.landmarks import find_landmarks

    return find_landmarks(astronaut, Box(179, 83, 266, 170, 1.0))


import contextlib

import cv2
import pytest

from jdfd_keras.options import EngineOptions, FaceOptions, ServeOptions


@pytest.fixture(scope="session")
def tiny_faces():
    """Face options of the tiny detector, different from the defaults."""
    return FaceOptions(face_size=71, frames_per_video=5, margin=1.4)


@pytest.fixture(scope="session")
def detector(tiny_detector):
    """The tiny detector with an amplified last layer.

    With random weights every score is 0.5 to six digits, so that no comparison could fail. Here
    the scores of `face_batch` differ clearly.
    """
    import keras

    model = keras.models.clone_model(tiny_detector)
    model.set_weights(tiny_detector.get_weights())
    layer = model.get_layer("classifier_logit")
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel * 4e5, bias])
    return model


@pytest.fixture(scope="session")
def expected_scores(detector, face_batch):
    """float32[4], the scores of Keras itself for `face_batch`."""
    scores = detector.predict(face_batch.astype("float32"), verbose=0)["classification"][:, 0]
    assert np.ptp(scores) > 0.02, "equal scores would hide an error"
    return scores


@pytest.fixture(scope="session")
def encoded_faces(face_batch):
    """`face_batch` as PNG files."""
    return [cv2.imencode(".png", face[..., ::-1])[1].tobytes() for face in face_batch]


@pytest.fixture(scope="session")
def exported(detector, tiny_faces, tmp_path_factory):
    """saved_models/tiny/1, exported once."""
    from jdfd_keras.serving.export.exporter import export_detector

    directory = tmp_path_factory.mktemp("saved_models") / "tiny"
    card = {"Training data": {"name": "made on the spot", "faces": 4}}
    return export_detector(detector, directory, faces=tiny_faces, card=card).path


@pytest.fixture(scope="session")
def engine(exported):
    """The export, loaded by the version-1 session loader as TensorFlow Serving does."""
    from jdfd_keras.inference.saved_model import SavedModelEngine

    with SavedModelEngine(exported) as engine:
        yield engine


@pytest.fixture(scope="session")
def start_server():
    """A function from ModelConfigs to a server on free ports, which runs until the last test.

    Scores are TensorFlow's. Request bodies are limited to 1 MiB; keyword arguments are further
    options.
    """
    from jdfd_keras.serving.server.model_server import ModelServer

    with contextlib.ExitStack() as running:

        def start(configs, **options):
            options = ServeOptions(**{"port": 0, "grpc_port": 0, "max_body_mb": 1} | options)
            engine = EngineOptions(backend="tensorflow")
            return running.enter_context(ModelServer(configs, options, engine))

        yield start


@pytest.fixture(scope="session")
def server(exported, start_server):
    """A server of the exported model; its label `stable` is version 1."""
    from jdfd_keras.serving.model_config import ModelConfig

    return start_server([ModelConfig("tiny", exported.parent, labels={"stable": 1, "next": 2})])


@pytest.fixture(scope="session")
def model_url(server):
    """The REST URL of the exported model."""
    return f"{server.url}/v1/models/tiny"


@pytest.fixture(scope="session")
def grpc_target(server):
    """The gRPC address of the same server, `127.0.0.1:PORT`."""
    return server.grpc_target


@pytest.fixture(scope="session")
def small_model(tmp_path_factory):
    """The configuration of a small model that doubles numbers."""
    import tensorflow as tf

    from jdfd_keras.serving.model_config import ModelConfig

    directory = tmp_path_factory.mktemp("small")
    spec = tf.TensorSpec([None], tf.float32, name="x")
    double = tf.function(lambda x: {"y": 2 * x}, input_signature=[spec])
    tf.saved_model.save(tf.Module(), str(directory / "1"), signatures={"serving_default": double})
    return ModelConfig("small", directory)


import struct

import pytest

FRAMES_PER_S = 25


class Actor:
    """A head with a soft edge; `place` draws it on a frame with the face at a point."""

    def __init__(self, pixels, center, width):
        """`center` and `width` are those of the face in the portrait."""
        self.pixels = pixels.astype(np.float32)
        self.center, self.width = center, width
        rows, columns = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
        away = np.hypot((columns - center[0]) / width, (rows - center[1]) / (1.25 * width))
        self.mask = np.clip((1.05 - away) / 0.15, 0, 1).astype(np.float32)

    def place(self, frame, x, y, width=70.0, roll_deg=0.0):
        matrix = cv2.getRotationMatrix2D(self.center, roll_deg, width / self.width)
        matrix[:, 2] += (x - self.center[0], y - self.center[1])
        size = frame.shape[1::-1]
        mask = cv2.warpAffine(self.mask, matrix, size)[..., None]
        return frame * (1 - mask) + cv2.warpAffine(self.pixels, matrix, size) * mask


@pytest.fixture(scope="session")
def collins(astronaut):
    """Eileen Collins, NASA; public domain."""
    return Actor(astronaut, (222.0, 126.0), 87.0)


@pytest.fixture(scope="session")
def hopper():
    """Grace Hopper, US Navy; public domain."""
    from matplotlib.cbook import get_sample_data
    from PIL import Image

    with get_sample_data("grace_hopper.jpg") as file:
        pixels = np.asarray(Image.open(file).convert("RGB"))
    return Actor(pixels, (270.0, 235.0), 150.0)


@pytest.fixture(scope="session")
def wall():
    """float32[240, 400, 3], a background without a face: smooth light and dark."""
    coarse = np.random.default_rng(3).uniform(60, 160, (4, 6, 3)).astype(np.float32)
    return cv2.resize(coarse, (400, 240), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def write_video():
    """A function that writes float or uint8 RGB frames as a video."""

    def write(path, frames, codec="mp4v", fps=FRAMES_PER_S):
        height, width = frames[0].shape[:2]
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, (width, height))
        for frame in frames:
            writer.write(np.clip(frame, 0, 255).astype(np.uint8)[..., ::-1].copy())
        writer.release()
        return path

    return write


@pytest.fixture(scope="session")
def turn_header():
    """A function that sets the rotation of an MPEG-4 file, as phones do."""

    def turn(path):
        upright, turned = (
            struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
            for a, b, c, d in [(1 << 16, 0, 0, 1 << 16), (0, 1 << 16, -1 << 16, 0)]
        )
        data = path.read_bytes()
        header = data.index(b"tkhd")
        path.write_bytes(data[:header] + data[header:].replace(upright, turned, 1))

    return turn


import dataclasses
import zlib

import pytest

from jdfd_keras.io.files import save_options
from jdfd_keras.options import EvaluateOptions, FilterOptions, PrepareOptions, SplitOptions


@pytest.fixture
def named_sets(tmp_path):
    """Key to folder of the paper's three datasets, with options and tables but no faces."""
    import pandas as pd

    from jdfd_keras.datasets.manifest import VideoRow, to_table, write_table
    from jdfd_keras.datasets.split_tables import write_split_table
    from jdfd_keras.io.storage import LocalStore

    sets = {}
    for key in ("ff", "celebdf", "uadfv"):
        sets[key] = tmp_path / "sets" / key
        sets[key].mkdir(parents=True)
        (sets[key] / "manifest.parquet").write_text(f"of {key}\n")
        save_options(
            sets[key] / "options.json",
            faces=FaceOptions(face_size=71),
            filters=FilterOptions(),
            prepare=PrepareOptions(),
        )
        video = VideoRow(f"{key}/a", "a.mp4", 0, "", "", ("a",), "", file_bytes=1)
        with open(sets[key] / "videos.parquet", "wb") as file:
            write_table(file, VideoRow, [to_table([video], VideoRow)])
        rows = pd.DataFrame({"video_id": [f"{key}/a"], "split": ["test"], "reason": [""]})
        for name, options in (("official", SplitOptions()), ("own", SplitOptions("kfold", fold=2))):
            write_split_table(LocalStore(str(sets[key])), name, rows, options)
    return sets


class Rooms:
    """Replacements of `train` and `evaluate`, and the calls that they got.

    Attributes:
        trained: Arguments of each training, with the run folder as `out`.
        tested: Run folder and dataset of each evaluation.
        refuse: Called before each; raises if the call must fail.
        bounds: Whether reports have intervals.
    """

    def __init__(self):
        self.trained, self.tested = [], []
        self.refuse = lambda kind, run, data: None
        self.bounds = True

    def train(self, data, out, **options):
        """Write a run folder."""
        self.refuse("train", out, data)
        if not (out / "best.keras").is_file():
            out.mkdir(parents=True)
            (out / "best.keras").write_text(f"{data} {options}")
            (out / "history.csv").write_text(
                "val_loss,val_classification_frame_auc\n0.6,0.7\n0.5,0.9\n0.4,0.8\n"
            )
        self.trained.append({"data": data, "out": out, **options})

    def evaluate(self, run, data, options):
        """Return a report of two faces whose AUCs are those of `auc`."""
        from jdfd_keras.evaluation.eval_data import Protocol
        from jdfd_keras.evaluation.report import build_report
        from jdfd_keras.evaluation.scores import Scores

        self.refuse("evaluate", run, data)
        self.tested.append((run, data))
        scores = Scores.from_faces(video_id=["a", "b"], label=[0, 1], score=[0.1, 0.9])
        report = build_report(
            scores,
            options=EvaluateOptions(n_resamples=0),
            protocol=Protocol(model="best.keras", data={}, leakage="none", split=options.split),
        )
        levels = {
            level: dataclasses.replace(getattr(report, level), auc=self.auc(run, data, level))
            for level in ("frame", "video")
        }
        return dataclasses.replace(report, **levels)

    def auc(self, run, data, level):
        """Return an AUC that differs for each run, dataset and level."""
        from jdfd_keras.evaluation.metrics import Estimate

        own = "/".join([*run.parts[-3:], data.name, level])
        value = 0.5 + zlib.crc32(own.encode()) % 4000 / 10000
        return Estimate(value, value - 0.1, value + 0.05) if self.bounds else Estimate(value)


@pytest.fixture
def rooms(monkeypatch):
    """Replace training, evaluation and drawing."""
    own = Rooms()
    monkeypatch.setattr("jdfd_keras.training.train.train", own.train)
    monkeypatch.setattr("jdfd_keras.evaluation.evaluate.evaluate", own.evaluate)
    monkeypatch.setattr("jdfd_keras.reporting.experiment_report.draw_figure", lambda *_: None)
    monkeypatch.setattr("jdfd_keras.reporting.evaluation_folder.write_pages", lambda *_: None)
    monkeypatch.setattr("keras.utils.clear_session", lambda: None)  # a third of a second
    return own


@pytest.fixture(scope="session")
def three_sets(tmp_path_factory):
    """Key to folder of three small prepared datasets without shared sources or near-duplicates."""
    from skimage import data

    from jdfd_keras.datasets.prepare import prepare
    from jdfd_keras.datasets.synthetic.clips import make_clips, vary_portrait

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
    """In training, a network of a few weights with the layers that a report needs."""

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

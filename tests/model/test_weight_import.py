import itertools
import re
import struct
import zipfile

import h5py
import keras
import numpy as np
import pytest

from jdfd_keras.model.methods import build_detector
from jdfd_keras.model.weight_import import (
    convert_xception,
    describe_import,
    import_encoder,
    import_mesonet,
)
from jdfd_keras.options import ModelOptions

# Channels and number of separable convolutions of the blocks 1 to 12 of PyTorch's Xception, and
# whether the first convolution changes the channels.
BLOCKS = [
    *((64, 128, 2, True), (128, 256, 2, True), (256, 728, 2, True)),
    *[(728, 728, 3, True)] * 8,
    (728, 1024, 2, False),
]


def name_shapes() -> dict[str, tuple[int, ...]]:
    """List the arrays of PyTorch's Xception without classifier, by their published names."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, width: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (width,)

    def separable(name: str, before: int, after: int) -> None:
        shapes[f"{name}.conv1.weight"] = (before, 1, 3, 3)
        shapes[f"{name}.pointwise.weight"] = (after, before, 1, 1)

    shapes["conv1.weight"], shapes["conv2.weight"] = (32, 3, 3, 3), (64, 32, 3, 3)
    norm("bn1", 32)
    norm("bn2", 64)
    for block, (before, after, count, grows_first) in enumerate(BLOCKS, start=1):
        widths = [before, *[after if grows_first else before] * (count - 1), after]
        place = 0 if block == 1 else 1
        for first, second in itertools.pairwise(widths):
            separable(f"block{block}.rep.{place}", first, second)
            norm(f"block{block}.rep.{place + 1}", second)
            place += 3
        if before != after:
            shapes[f"block{block}.skip.weight"] = (after, before, 1, 1)
            norm(f"block{block}.skipbn", after)
    separable("conv3", 1024, 1536)
    norm("bn3", 1536)
    separable("conv4", 1536, 2048)
    norm("bn4", 2048)
    return shapes


def draw_state(seed: int = 0) -> dict[str, np.ndarray]:
    """Draw weights that keep the scale of the features, and statistics of normalisation."""
    rng = np.random.default_rng(seed)
    state = {}
    for name, shape in name_shapes().items():
        if len(shape) == 4:
            array = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        elif name.endswith(("weight", "running_var")):
            array = rng.uniform(0.5, 1.5, shape)
        else:
            array = rng.normal(0, 0.2, shape)
        state[name] = array.astype(np.float32)
    return state


@pytest.fixture(scope="module")
def state():
    return draw_state()


def write_zip(path, state: dict[str, np.ndarray]) -> None:
    """Write a state dict of float32 as torch.save does, without PyTorch, in opcodes of pickle."""

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    content = b"\x80\x02}("
    for name, array in state.items():
        strides = [step // array.itemsize for step in array.strides]
        content += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(("
        content += text("storage") + b"ctorch\nFloatStorage\n" + text(name) + text("cpu")
        content += number(array.size) + b"tQ" + number(0)
        content += b"(" + b"".join(map(number, array.shape)) + b"t"
        content += b"(" + b"".join(map(number, strides)) + b"t\x89NtR"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("any name/data.pkl", content + b"u.")
        archive.writestr("any name/byteorder", "little")
        for name, array in state.items():
            archive.writestr(f"any name/data/{name}", array.tobytes())


def normalize(x, state, name):
    """Normalise with the statistics of a layer, with the epsilon of PyTorch."""
    scale, shift, mean, variance = (
        state[f"{name}.{part}"][:, None, None]
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / np.sqrt(variance + 1e-5) * scale + shift


def windows(x, size, stride=1):
    view = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    return view[:, ::stride, ::stride]


def separate(x, state, name):
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    depthwise = np.einsum("chwij,cij->chw", windows(padded, 3), state[f"{name}.conv1.weight"][:, 0])
    return np.einsum("chw,oc->ohw", depthwise, state[f"{name}.pointwise.weight"][:, :, 0, 0])


def compute_features(image: np.ndarray, state: dict[str, np.ndarray]) -> np.ndarray:
    """Compute the features of PyTorch's Xception of one image [3, h, w] in NumPy."""

    def convolve(x, name, stride):
        return np.einsum("chwij,ocij->ohw", windows(x, 3, stride), state[f"{name}.weight"])

    x = np.maximum(normalize(convolve(image, "conv1", 2), state, "bn1"), 0)
    x = np.maximum(normalize(convolve(x, "conv2", 1), state, "bn2"), 0)
    for block in range(1, 13):
        shortcut, place = x, 0 if block == 1 else 1
        while f"block{block}.rep.{place}.conv1.weight" in state:
            x = x if place == 0 else np.maximum(x, 0)
            x = separate(x, state, f"block{block}.rep.{place}")
            x = normalize(x, state, f"block{block}.rep.{place + 1}")
            place += 3
        if f"block{block}.skip.weight" in state:
            padded = np.pad(x, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
            x = windows(padded, 3, 2).max(axis=(-2, -1))
            kernel = state[f"block{block}.skip.weight"][:, :, 0, 0]
            shortcut = np.einsum("chw,oc->ohw", shortcut[:, ::2, ::2], kernel)
            shortcut = normalize(shortcut, state, f"block{block}.skipbn")
        x = x + shortcut
    for number in (3, 4):
        x = np.maximum(normalize(separate(x, state, f"conv{number}"), state, f"bn{number}"), 0)
    return x


def encode(weights, image: np.ndarray) -> np.ndarray:
    """Return the features of our encoder of faces uint8[n, size, size, 3], channels first."""
    detector = build_detector(
        ModelOptions(
            network="xception-pytorch",
            image_size=image.shape[1],
            encoder_weights=str(weights),
            decoder=False,
            latent_dim=4,
        )
    )
    encoder = keras.Model(detector.input, detector.get_layer("block14_sepconv2_act").output)
    return np.moveaxis(encoder.predict(image.astype(np.float32), verbose=0), -1, 1)


def draw_face(size: int) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 256, (1, size, size, 3), np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("size", [80, 99])
def test_imported_features_are_those_of_the_published_network(state, tmp_path, size):
    write_zip(tmp_path / "published.pth", {f"backbone.{n}": array for n, array in state.items()})
    out = tmp_path / "db.weights.h5"
    import_encoder(tmp_path / "published.pth", "deepfakebench-xception", out)
    face = draw_face(size)
    expected = compute_features(np.moveaxis((face[0] / 255 - 0.5) / 0.5, -1, 0), state)
    assert np.abs(encode(out, face)[0] - expected).max() < 1e-4 * np.abs(expected).max()
    with h5py.File(out) as file:
        assert file.attrs["network"] == "xception-pytorch"
        assert file.attrs["file"] == "published.pth"


@pytest.mark.slow
@pytest.mark.parametrize("size", [299, 160])
def test_imported_features_are_those_of_pytorch(tmp_path, size):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    weights = {name: torch.from_numpy(array) for name, array in draw_state(size).items()}

    def normalize(x, name):
        parts = [weights[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(x, *parts, eps=1e-5)

    def separate(x, name):
        kernel = weights[f"{name}.conv1.weight"]
        x = functional.conv2d(x, kernel, padding=1, groups=len(kernel))
        return functional.conv2d(x, weights[f"{name}.pointwise.weight"])

    face = draw_face(size)
    x = (torch.from_numpy(face.astype(np.float32)).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    x = normalize(functional.conv2d(x, weights["conv1.weight"], stride=2), "bn1").relu()
    x = normalize(functional.conv2d(x, weights["conv2.weight"]), "bn2").relu()
    for block, (before, after, count, _) in enumerate(BLOCKS, start=1):
        shortcut, first = x, 0 if block == 1 else 1
        for place in range(first, first + 3 * count, 3):
            x = x if place == 0 else x.relu()
            x = normalize(separate(x, f"block{block}.rep.{place}"), f"block{block}.rep.{place + 1}")
        if before != after:
            x = functional.max_pool2d(x, 3, 2, 1)
            shortcut = functional.conv2d(shortcut, weights[f"block{block}.skip.weight"], stride=2)
            shortcut = normalize(shortcut, f"block{block}.skipbn")
        x = x + shortcut
    for number in (3, 4):
        x = normalize(separate(x, f"conv{number}"), f"bn{number}").relu()
    expected = x.numpy()

    counters = {"bn1.num_batches_tracked": torch.tensor(7)}
    torch.save({"state_dict": weights | counters}, tmp_path / "torch.pth")
    imported = import_encoder(
        tmp_path / "torch.pth", "timm-legacy_xception", tmp_path / "t.weights.h5"
    )
    assert imported.unused == ("bn1.num_batches_tracked",)
    assert np.abs(encode(imported.path, face) - expected).max() < 1e-4 * np.abs(expected).max()


def test_names_without_a_place_are_unused_and_missing_ones_an_error(state):
    _, unused = convert_xception(state | {"last_linear.weight": np.ones((2, 2048))})
    assert unused == ("last_linear.weight",)
    rest = {name: array for name, array in state.items() if not name.startswith("bn4.")}
    with pytest.raises(ValueError, match="got no bn4.weight and 3 others.*--from"):
        convert_xception(rest)


@pytest.mark.parametrize(
    ("array", "message"),
    [(np.ones((64, 3, 3, 3)), "got shape"), (np.full((32, 3, 3, 3), np.nan), "got NaN")],
)
def test_wrong_shapes_and_values_are_errors(state, array, message):
    with pytest.raises(ValueError, match=f"conv1.weight.*{message}"):
        convert_xception(state | {"conv1.weight": array})


def test_pointwise_kernels_of_two_axes_are_accepted(state):
    flat = {n: a[:, :, 0, 0] if n.endswith("pointwise.weight") else a for n, a in state.items()}
    one, other = convert_xception(state)[0], convert_xception(flat)[0]
    for expected, found in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_an_existing_file_is_not_overwritten(tmp_path):
    out = tmp_path / "old.weights.h5"
    out.write_bytes(b"mine")
    with pytest.raises(ValueError, match="which exists"):
        import_encoder(tmp_path / "published.pth", "faceforensics", out)
    assert out.read_bytes() == b"mine"


def write_mesonet(path, shapes, seed=0) -> list[np.ndarray]:
    """Write a weights file of Keras 2 whose layers are listed in another order than created."""
    rng = np.random.default_rng(seed)
    arrays = []
    with h5py.File(path, "w") as file:
        names = [name for name, _ in shapes]
        file.attrs["layer_names"] = [name.encode() for name in reversed(names)]
        for name, parts in shapes:
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{i}:0".encode() for i in range(len(parts))]
            for index, shape in enumerate(parts):
                arrays.append(rng.uniform(0.1, 0.3, shape).astype(np.float32))
                group[f"{name}/{index}:0"] = arrays[-1]
    return arrays


MESO4 = [
    ("conv2d_9", [(3, 3, 3, 8), (8,)]),
    ("batch_normalization_9", [(8,)] * 4),
    ("conv2d_10", [(5, 5, 8, 8), (8,)]),
    ("batch_normalization_10", [(8,)] * 4),
    ("conv2d_11", [(5, 5, 8, 16), (16,)]),
    ("batch_normalization_11", [(16,)] * 4),
    ("conv2d_12", [(5, 5, 16, 16), (16,)]),
    ("batch_normalization_12", [(16,)] * 4),
    ("flatten_1", []),
    ("dense_3", [(1024, 16), (16,)]),
    ("dense_4", [(16, 1), (1,)]),
]


def test_mesonet_keeps_its_arrays_and_negates_the_last_layer(tmp_path):
    arrays = write_mesonet(tmp_path / "meso.h5", MESO4)
    model = import_mesonet(tmp_path / "meso.h5", "meso4")
    *expected, kernel, bias = arrays
    for found, array in zip(model.get_weights(), [*expected, -kernel, -bias], strict=True):
        np.testing.assert_array_equal(found, array)


def test_the_first_layer_of_each_kind_may_be_without_number(tmp_path):
    """As in files of tf.keras."""
    shapes = [(re.sub("_(9|1|3)$", "", name), parts) for name, parts in MESO4]
    assert [name for name, _ in shapes[:2]] == ["conv2d", "batch_normalization"]
    *_, bias = write_mesonet(tmp_path / "meso.h5", shapes)
    model = import_mesonet(tmp_path / "meso.h5", "meso4")
    np.testing.assert_array_equal(model.get_weights()[-1], -bias)
    with h5py.File(tmp_path / "meso.h5") as file:
        kernel = model.get_layer("block1_conv").get_weights()[0]
        np.testing.assert_array_equal(kernel, file["conv2d/conv2d/0:0"])


def test_missing_files_and_folders_are_errors_with_advice(tmp_path):
    for source in ("faceforensics", "mesonet-meso4"):
        with pytest.raises(FileNotFoundError, match="Expected .*; got .*does not exist. Try"):
            describe_import(tmp_path / "none.pth", source)
        with pytest.raises(IsADirectoryError, match="Expected .*; got .*a folder. Try"):
            describe_import(tmp_path, source)


def test_a_file_of_the_other_mesonet_is_an_error(tmp_path):
    write_mesonet(tmp_path / "meso.h5", MESO4)
    with pytest.raises(ValueError, match="layers of mesoinception4.*16 conv2d.*got.*4 conv2d"):
        import_mesonet(tmp_path / "meso.h5", "mesoinception4")


def test_parallel_convolutions_are_told_apart_by_the_order_of_creation(tmp_path):
    def inception(first, before, widths):
        kernels = [(1, 1, before, widths[0])]
        for width in widths[1:]:
            kernels += [(1, 1, before, width), (3, 3, width, width)]
        return [(f"conv2d_{first + i}", [k, k[-1:]]) for i, k in enumerate(kernels)]

    shapes = inception(1, 3, (1, 4, 4, 2)) + inception(8, 11, (2, 4, 4, 2))
    shapes += [("conv2d_15", [(5, 5, 12, 16), (16,)]), ("conv2d_16", [(5, 5, 16, 16), (16,)])]
    widths = enumerate((11, 12, 16, 16), start=1)
    shapes += [(f"batch_normalization_{i}", [(width,)] * 4) for i, width in widths]
    shapes += MESO4[-2:]
    write_mesonet(tmp_path / "meso.h5", shapes)
    model = import_mesonet(tmp_path / "meso.h5", "mesoinception4")
    with h5py.File(tmp_path / "meso.h5") as file:
        for number, name in [(1, "conv0"), (2, "reduce1"), (4, "reduce2"), (5, "conv2")]:
            kernel = model.get_layer(f"block1_{name}").get_weights()[0]
            np.testing.assert_array_equal(kernel, file[f"conv2d_{number}/conv2d_{number}/0:0"])

"""Configuration of the served models and their versions.

Reads TensorFlow Serving's own configuration file, or the folder of one model, into `ModelConfig`
objects. Imports no TensorFlow.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from jdfd_keras.client.signatures import find_versions

PLATFORM = "tensorflow"
_protos: Any = model_server_config_pb2  # generated classes, which type checkers do not see


@dataclass(frozen=True)
class ModelConfig:
    """One served model.

    Attributes:
        name: Name in URLs.
        base_path: Absolute path of its folder, which has one subfolder per version.
        latest: Number of newest versions to serve; 0: all.
        versions: Serve exactly these versions; overrides `latest` if not empty.
        labels: Version numbers by label, such as stable and canary. A label may name a version
            that is not served yet; requests for it fail until then.

    Example:
        >>> ModelConfig("detector", Path("/models/detector"), latest=2).choose([1, 2, 3])
        [3, 2]
    """

    name: str
    base_path: Path
    latest: int = 1
    versions: tuple[int, ...] = ()
    labels: dict[str, int] = field(default_factory=dict)

    def __post_init__(self):
        """Validate the fields."""
        if not re.fullmatch(r"(?!\.+$)[\w.-]+", self.name, re.ASCII):
            raise ValueError(
                f"Expected a model name of letters, digits, `.`, `_` and `-`, since it is part of "
                f"a URL; got {self.name!r}. Choose another name."
            )
        if not self.base_path.is_absolute():
            raise ValueError(
                f"Expected the base_path of model {self.name} to be an absolute path, as "
                f"TensorFlow Serving requires; got {str(self.base_path)!r}. Start it with `/`; "
                "only TensorFlow Serving itself supports gs:// and other remote folders."
            )
        for label in self.labels:
            if not re.fullmatch(r"[\w-]+", label, re.ASCII):
                raise ValueError(
                    f"Expected a label of model {self.name} to be letters, digits, `_` and `-`; "
                    f"got {label!r}. Try stable or canary."
                )
        if min(self.latest, *self.versions, *self.labels.values(), 0) < 0:
            raise ValueError(
                f"Expected numbers of 0 or more for model {self.name}; got {self.latest} latest "
                f"versions, versions {self.versions}, labels {self.labels}. Use the names of the "
                "folders in its base_path as versions."
            )

    def choose(self, existing: Iterable[int]) -> list[int]:
        """Choose which of the existing versions to serve, newest first."""
        newest_first = sorted(set(existing), reverse=True)
        if self.versions:
            return [version for version in newest_first if version in self.versions]
        return newest_first[: self.latest or None]


def configure_directory(directory: str | Path) -> ModelConfig:
    """Configure the model `saved_models/<name>` to be served by its newest version.

    Raises:
        ValueError: If that name is invalid in a URL.
        OSError: If the folder has no version.

    Example:
        >>> configure_directory("saved_models/detector").name
        'detector'
    """
    directory = Path(directory).resolve()
    find_versions(directory)
    return ModelConfig(directory.name, directory)


def read_models_config(path: str | Path) -> tuple[ModelConfig, ...]:
    """Read TensorFlow Serving's model configuration: a `ModelServerConfig` in text format.

    Returns:
        The models in the order of the file, at least one.

    Raises:
        OSError: If the file does not exist, has another format, or has settings that TensorFlow
            Serving would reject; with the line if it is known.

    Example:
        >>> model = 'name: "m" base_path: "/models/m" model_platform: "tensorflow"'
        >>> _ = Path("models.config").write_text(f"model_config_list {{ config {{ {model} }} }}")
        >>> [config.name for config in read_models_config("models.config")]
        ['m']
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        models = text_format.Parse(text, _protos.ModelServerConfig()).model_config_list.config
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise OSError(
            f"Expected {path} to be a ModelServerConfig of TensorFlow Serving in protobuf's text "
            f"format; got '{error}'. Start from serving/models.config."
        ) from error
    if not models:
        raise OSError(
            f"Expected a model_config_list with at least one config in {path}; got no model. Start "
            "from serving/models.config."
        )
    try:
        configs = tuple(map(_read_model, models))
        names = [config.name for config in configs]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"Expected distinct model names; got {', '.join(repeated)} more than once. "
                "Put the versions of one model into one base_path."
            )
    except ValueError as error:
        raise OSError(f"{error} The file is {path}.") from error
    return configs


def _read_model(model) -> ModelConfig:
    # Older files have `model_type: TENSORFLOW` instead; TensorFlow Serving allows one of them.
    platforms = [model.model_platform] if model.model_platform else []
    if model.model_type:
        platforms.append(_protos.ModelType.Name(model.model_type).lower())
    if platforms != [PLATFORM]:
        raise ValueError(
            f'Expected model_platform: "{PLATFORM}" for model {model.name!r}, given once; got '
            f"{' and '.join(platforms) or 'none'}. Other platforms are not supported."
        )
    policy = model.model_version_policy
    chosen = policy.WhichOneof("policy_choice")
    if chosen == "specific" and not policy.specific.versions:
        raise ValueError(
            f"Expected `specific` of model {model.name!r} to list versions; got none. "
            "Add for example `versions: 1`."
        )
    latest = 0 if chosen == "all" else policy.latest.num_versions or 1
    versions, labels = tuple(policy.specific.versions), dict(model.version_labels)
    return ModelConfig(model.name, Path(model.base_path), latest, versions, labels)

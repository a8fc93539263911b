"""Which models are served, and which of their versions.

Takes TensorFlow Serving's own configuration file, or the folder of one model; gives a
`ModelConfig` each. Knows nothing of the servers that read it, and imports no TensorFlow.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig, ModelType

from jdfd_keras.client.signatures import find_versions

PLATFORM = "tensorflow"


@dataclass(frozen=True)
class ModelConfig:
    """One served model.

    Attributes:
        name: What it is asked for by.
        base_path: Its folder, absolute, that holds a folder per version.
        latest: How many of the newest versions are served; 0: all.
        versions: Exactly these versions, where given; `latest` then says nothing.
        labels: Versions by further names, such as stable and canary. They may name a version that
            is not served yet; whoever asks for it is then told so.

    Raises:
        ValueError: If a name or a label cannot stand in a URL, the path is not absolute or a
            number is below 0.
    """

    name: str
    base_path: Path
    latest: int = 1
    versions: tuple[int, ...] = ()
    labels: dict[str, int] = field(default_factory=dict)

    def __post_init__(self):
        """Check what servers and their URLs rely on."""
        if not re.fullmatch(r"(?!\.+$)[\w.-]+", self.name, re.ASCII):
            raise ValueError(
                f"Expected the name of a model to be letters, digits, `.`, `_` and `-`, since it "
                f"is part of a URL; got {self.name!r}. Give it another name."
            )
        if not self.base_path.is_absolute():
            raise ValueError(
                f"Expected the base_path of model {self.name} to be an absolute path, as "
                f"TensorFlow Serving wants it; got {str(self.base_path)!r}. Begin it with `/`; "
                "gs:// and other remote folders are for TensorFlow Serving alone."
            )
        for label in self.labels:
            if not re.fullmatch(r"[\w-]+", label, re.ASCII):
                raise ValueError(
                    f"Expected a label of model {self.name} to be letters, digits, `_` and `-`; "
                    f"got {label!r}. Usual ones are stable and canary."
                )
        if min(self.latest, *self.versions, *self.labels.values(), 0) < 0:
            raise ValueError(
                f"Expected numbers of 0 and more for model {self.name}; got {self.latest} latest "
                f"versions, versions {self.versions}, labels {self.labels}. Versions are the names "
                "of the folders in its base_path."
            )

    def choose(self, found: Iterable[int]) -> list[int]:
        """Choose the versions to serve.

        Args:
            found: Versions that are there, in any order.

        Returns:
            Those wanted of them, newest first.
        """
        newest_first = sorted(set(found), reverse=True)
        if self.versions:
            return [version for version in newest_first if version in self.versions]
        return newest_first[: self.latest or None]


def configure_directory(directory: str | Path) -> ModelConfig:
    """Configure the newest version of one model to be served, under the name of its folder.

    Args:
        directory: `saved_models/<name>`.

    Returns:
        Its configuration.

    Raises:
        ValueError: If that name cannot stand in a URL.
        OSError: If the folder holds no version.
    """
    directory = Path(directory).resolve()
    find_versions(directory)
    return ModelConfig(directory.name, directory)


def read_models_config(path: str | Path) -> tuple[ModelConfig, ...]:
    """Read TensorFlow Serving's model configuration: a `ModelServerConfig` in text format.

    Args:
        path: What TensorFlow Serving takes as `--model_config_file`.

    Returns:
        The models in the order of the file, one at least.

    Raises:
        OSError: If there is no such file, it is not of that format, or it says what TensorFlow
            Serving would refuse; where known with the line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OSError(
            f"Expected {path} to be a model configuration of TensorFlow Serving; got "
            f"'{error}'. serving/models.config is one to start from."
        ) from error
    try:
        message = text_format.Parse(text, ModelServerConfig())
    except text_format.ParseError as error:
        raise OSError(
            f"Expected {path} to be TensorFlow Serving's ModelServerConfig in protobuf's text "
            f"format; got '{error}' (line:column before the colon). "
            "serving/models.config is one to start from."
        ) from error
    if message.HasField("custom_model_config") or not message.model_config_list.config:
        found = "a custom_model_config" if message.HasField("custom_model_config") else "no model"
        raise OSError(
            f"Expected a model_config_list with one config at least in {path}; got {found}. "
            "serving/models.config is one to start from."
        )
    try:
        configs = tuple(map(_read_model, message.model_config_list.config))
        _check_names(configs)
    except ValueError as error:
        raise OSError(f"{error} It stands in {path}.") from error
    return configs


def write_models_config(configs: Sequence[ModelConfig]) -> str:
    """Write configurations as TensorFlow Serving reads them.

    Args:
        configs: Models, each of a different name.

    Returns:
        The text of a file that `read_models_config` reads as the same.
    """
    message = ModelServerConfig()
    for config in configs:
        model = message.model_config_list.config.add(
            name=config.name, base_path=str(config.base_path), model_platform=PLATFORM
        )
        policy = model.model_version_policy
        if config.versions:
            policy.specific.versions.extend(config.versions)
        elif config.latest:
            policy.latest.num_versions = config.latest
        else:
            policy.all.SetInParent()
        model.version_labels.update(config.labels)
    return text_format.MessageToString(message)


def _read_model(model) -> ModelConfig:
    # Older files say `model_type: TENSORFLOW` instead; TensorFlow Serving takes either, not both.
    platforms = [model.model_platform] if model.model_platform else []
    if model.model_type:
        platforms.append(ModelType.Name(model.model_type).lower())
    if platforms != [PLATFORM]:
        raise ValueError(
            f'Expected model_platform: "{PLATFORM}", once, of model {model.name!r}; got '
            f"{' and '.join(platforms) or 'none'}. Other platforms are not served."
        )
    policy = model.model_version_policy
    chosen = policy.WhichOneof("policy_choice")
    if chosen == "specific" and not policy.specific.versions:
        raise ValueError(
            f"Expected `specific` of model {model.name!r} to name versions; got none. "
            "Add such as `versions: 1`."
        )
    latest = 0 if chosen == "all" else policy.latest.num_versions or 1
    return ModelConfig(
        name=model.name,
        base_path=Path(model.base_path),
        latest=latest,
        versions=tuple(policy.specific.versions),
        labels=dict(model.version_labels),
    )


def _check_names(configs: Sequence[ModelConfig]) -> None:
    names = [config.name for config in configs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"Expected each model under a name of its own; got two of {', '.join(twice)}. "
            "Several versions of a model are several folders in one base_path."
        )

"""What a folder was made with: options as JSON, and the refusal to mix others into it.

Takes groups of options; gives the options.json beside whatever they made, and reads it back.
"""

import dataclasses
import json
import os
from pathlib import Path

OPTIONS = "options.json"


def claim_directory(directory: str | Path, **groups) -> None:
    """Mark a folder as made with these options, so that no other options are mixed into it.

    Args:
        directory: The folder; made if it is not there.
        **groups: Frozen dataclasses, such as `faces=FaceOptions()`.

    Raises:
        ValueError: If the folder was made with other options, or holds other files.
    """
    directory = Path(directory)
    path = directory / OPTIONS
    if path.is_file():
        check_claim(path.read_text(encoding="utf-8"), directory, groups)
        return
    if directory.is_dir() and any(p.name != f"unfinished-{OPTIONS}" for p in directory.iterdir()):
        raise ValueError(
            f"Expected a new or empty folder, or one to go on with; got {directory}, which holds "
            "other files. Choose another --out."
        )
    directory.mkdir(parents=True, exist_ok=True)
    save_options(path, **groups)


def check_claim(text: str, place: str | Path, groups: dict) -> None:
    """See that a folder was made with these options.

    Args:
        text: What its options.json holds.
        place: Its name.
        groups: Frozen dataclasses by the names they were written under.

    Raises:
        ValueError: If one differs.
    """
    made = _parse_json(text, f"{place}/{OPTIONS}")
    asked = json.loads(to_json(groups))
    changed = [
        f"{name} {made.get(group, {}).get(name)!r} -> {value!r}"
        for group, values in asked.items()
        for name, value in values.items()
        if made.get(group, {}).get(name) != value
    ]
    changed += [
        f"{name} {made[group][name]!r} -> unknown here"
        for group in asked.keys() & made.keys()
        for name in made[group].keys() - asked[group].keys()
    ]
    if changed:
        raise ValueError(
            f"Expected the options that {place} was made with; got other ones "
            f"({', '.join(changed)}). Choose another --out, or remove that folder."
        )


def save_options(path: str | Path, **groups) -> None:
    """Write option groups as JSON, one object a group, under the names given.

    Args:
        path: The file, replaced if it is there.
        **groups: Frozen dataclasses of this module, such as `faces=FaceOptions()`.
    """
    path = Path(path)
    unfinished = path.with_name(f"unfinished-{path.name}")
    unfinished.write_text(to_json(groups), encoding="utf-8")
    os.replace(unfinished, path)


def load_options(path: str | Path, group: str, kind: type):
    """Read one option group back.

    Args:
        path: A file that `save_options` wrote.
        group: The name it was written under, such as `faces`.
        kind: Its dataclass, such as `FaceOptions`.

    Returns:
        An instance of `kind`.

    Raises:
        OSError: If the file is not there.
        ValueError: If it is not such a file, or holds keys that `kind` does not know.
    """
    try:
        values = _read_json(Path(path))[group]
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"Expected {path} to hold the group {group!r} with the options of "
            f"{kind.__name__}; got {error!r}. It was perhaps written by another version of "
            "jdfd-keras: make it again with this one."
        ) from error


def to_json(groups: dict) -> str:
    """Put option groups into the text of an options.json."""
    plain = {name: dataclasses.asdict(group) for name, group in groups.items()}
    return json.dumps(plain, indent=2) + "\n"


def _read_json(path: Path) -> dict:
    return _parse_json(path.read_text(encoding="utf-8"), str(path))


def _parse_json(text: str, place: str) -> dict:
    try:
        options = json.loads(text)
        if not isinstance(options, dict):
            raise ValueError(f"{type(options).__name__} and no object")
    except ValueError as error:
        raise ValueError(
            f"Expected options as JSON in {place}; got '{error}'. The file is damaged: restore it, "
            "or make its folder again."
        ) from error
    return options

"""Where `predict` reads and writes: files listed, and nothing written over what is read.

Takes paths; gives the files to be judged, and refuses places. Opens no file.
"""

from collections.abc import Sequence
from pathlib import Path

from jdfd_keras.claims import OPTIONS
from jdfd_keras.data.videos import has_suffix
from jdfd_keras.serving.verdict.folder import LINES, TABLE


def list_files(paths: Sequence[str | Path]) -> tuple[list[Path], list[Path]]:
    """List files, and the videos and images below folders in the order of their names, each once.

    Returns:
        These, links that lead nowhere among them, and the other files below folders that are not
        hidden.

    Raises:
        ValueError: If a folder holds none.
    """
    files: dict[Path, None] = {}
    others: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            files[path] = None
            continue
        seen = sorted(found for found in path.rglob("*") if not _is_hidden(found, path))
        seen = [found for found in seen if found.is_file() or _leads_nowhere(found)]
        below = [found for found in seen if has_suffix(found.name)]
        if not below:
            raise ValueError(
                f"Expected videos or images below {path}; got none. They are known by their "
                "suffix, such as .mp4 or .jpg: name a file of another suffix itself."
            )
        files |= dict.fromkeys(below)
        others |= dict.fromkeys(found for found in seen if not has_suffix(found.name))
    return list(files), [path for path in others if path not in files]


def check_places(
    files: Sequence[Path],
    *,
    model: str | Path | None = None,
    out: str | Path | None = None,
    report: str | Path | None = None,
    annotate: str | Path | None = None,
) -> None:
    """See that nothing is written over what is read or is written too, before a file is opened.

    Raises:
        OSError: If there is no folder for something, or a folder or file of another kind there.
        ValueError: If two places are the same, or one lies within the model.
    """
    taken = {path.resolve(): "which is looked at" for path in files}
    if out is not None:
        _check_out(Path(out))
        kept = {Path(out, name).resolve() for name in (OPTIONS, LINES, TABLE)}
        taken |= dict.fromkeys(kept, "in which verdicts are kept")
    for place in (report, annotate):
        if place is None:
            continue
        where = Path(place).resolve()
        if not where.parent.is_dir():
            raise FileNotFoundError(
                f"Expected a folder that is there for {place}; got {Path(place).parent}, which is "
                "none. Make it, or choose another."
            )
        if where.is_dir():
            raise IsADirectoryError(
                f"Expected a file to write to; got the folder {place}. Name a file in it."
            )
        if model is not None and where.is_relative_to(Path(model).resolve()):
            taken[where] = f"which lies within the model {model}"
        if where in taken:
            raise ValueError(
                f"Expected a place of its own to write to; got {place}, {taken[where]}. Choose "
                "another name."
            )
        taken[where] = "which is written already"


def _check_out(out: Path) -> None:
    nearest = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(
            f"Expected a folder, or a name for one, to keep verdicts in; got {out}, where "
            f"{nearest} is a file. Choose another --out."
        )


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not path.exists()

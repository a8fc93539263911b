"""What a builder does with Dockerfile and .dockerignore, as far as tests need it."""

import os
import re
import shlex
import shutil
from pathlib import Path

VARIABLE = re.compile(r"\$(\w+)|\$\{(\w+)(?::\?([^}]*))?\}")


def read_instructions(path: Path) -> list[tuple[str, str]]:
    """Return instructions and their arguments; lines are joined, comments removed."""
    lines = path.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n", " ", text)
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def split_stages(
    instructions: list[tuple[str, str]],
) -> tuple[list[tuple[str, str]], list[list[tuple[str, str]]]]:
    """Return the instructions before the first FROM, and those of each stage."""
    stages = [[]]
    for instruction in instructions:
        if instruction[0] == "FROM":
            stages.append([])
        stages[-1].append(instruction)
    return stages[0], stages[1:]


def expand(text: str, variables: dict[str, str]) -> str:
    """Replace variables, as a builder does outside RUN.

    Raises:
        ValueError: If a required one, ${NAME:?message}, is missing or empty.
    """

    def replace(match):
        name = match[1] or match[2]
        value = variables.get(name, "")
        if match[3] is not None and not value:
            raise ValueError(f"{name}: {match[3]}")
        return value

    return VARIABLE.sub(replace, text)


def read_pairs(text: str, variables: dict[str, str]) -> dict[str, str]:
    """Return the pairs of ENV, LABEL or ARG; ARG may have no value."""
    pairs = (word.partition("=") for word in shlex.split(text))
    return {name: expand(value, variables) for name, _, value in pairs}


class IgnoreFile:
    """The rules of a .dockerignore file: the last one that matches a path or its folder decides."""

    def __init__(self, path: Path):
        """Read the rules."""
        lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
        self.rules = [
            (line.startswith("!"), _compile(line.lstrip("!").strip("/")))
            for line in lines
            if line and not line.startswith("#")
        ]

    def includes(self, path: str) -> bool:
        """Return whether a file, by its path below the root, is sent to the builder."""
        parts = path.split("/")
        prefixes = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
        is_included = True
        for includes, pattern in self.rules:
            if any(pattern.fullmatch(prefix) for prefix in prefixes):
                is_included = includes
        return is_included


def _compile(rule: str) -> re.Pattern:
    pieces = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", rule)
    return re.compile("".join(pieces.get(part, re.escape(part)) for part in parts))


def copy_context(root: Path, out: Path, skipped: tuple[str, ...] = ()) -> list[str]:
    """Copy the files that are sent to a builder; return their paths.

    Args:
        root: The folder of the Dockerfile.
        out: A new folder.
        skipped: Folders below the root that are large and hold no such file.
    """
    ignore, copied = IgnoreFile(root / ".dockerignore"), []
    for folder, names, files in os.walk(root):
        relative = Path(folder).relative_to(root)
        names[:] = [name for name in names if (relative / name).as_posix() not in skipped]
        for name in files:
            path = (relative / name).as_posix()
            if ignore.includes(path):
                (out / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / path, out / path)
                copied.append(path)
    return copied

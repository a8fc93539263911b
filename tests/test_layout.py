"""The rooms stand in a row; each imports only from rooms before it."""

import ast
import subprocess
import sys
from pathlib import Path

import jdfd_keras

PACKAGE = Path(jdfd_keras.__file__).parent
ORDER = [
    "options",
    "claims",
    "storage",
    "progress",
    "quiet",
    "markdown",
    "faces",
    "data",
    "model",
    "training",
    "evaluation",
    "serving",
    "demo",
    "commands",
    "flags",
    "parser",
    "cli",
    "__main__",
]


def imports_of(path: Path) -> set[str]:
    """Rooms that a module imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "jdfd_keras":
            names |= {alias.name for alias in node.names} & set(ORDER)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jdfd_keras."):
            names.add(node.module.split(".")[1])
    return names


def test_every_room_imports_only_from_its_left():
    backwards = []
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        backwards += [
            f"{path.name} ({room}) imports {name}"
            for name in imports_of(path)
            if ORDER.index(name) > ORDER.index(room)
        ]
    assert backwards == []


def test_the_network_is_pure_keras():
    for path in (PACKAGE / "model").glob("*.py"):
        assert "import tensorflow" not in path.read_text(encoding="utf-8")


def test_what_needs_no_tensorflow_imports_none():
    modules = [
        "jdfd_keras.cli",
        "jdfd_keras.demo",
        "jdfd_keras.faces.extract",
        "jdfd_keras.data.inspect",
        "jdfd_keras.data.prepare",
        "jdfd_keras.data.audit",
        "jdfd_keras.data.samples",
        "jdfd_keras.data.blending",
        "jdfd_keras.evaluation.metrics",
        "jdfd_keras.evaluation.calibration",
        "jdfd_keras.evaluation.folder",
        "jdfd_keras.evaluation.page",
        "jdfd_keras.evaluation.gather",
        "jdfd_keras.evaluation.from_scores",
        "jdfd_keras.evaluation.experiment.run",
        "jdfd_keras.serving.checksums",
        "jdfd_keras.serving.client",
        "jdfd_keras.serving.launch",
        "jdfd_keras.serving.scorers",
        "jdfd_keras.serving.verdict.page",
        "jdfd_keras.serving.verdict.predict",
    ]
    code = f"import sys, {', '.join(modules)}; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_public_names_can_be_imported():
    for name in jdfd_keras.__all__:
        assert getattr(jdfd_keras, name) is not None

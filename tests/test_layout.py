"""The rooms stand in a row; each imports only from rooms before it."""

import ast
import subprocess
import sys
from pathlib import Path

import jdfd_keras

PACKAGE = Path(jdfd_keras.__file__).parent
ORDER = [
    "options",
    "io",
    "faces",
    "datasets",
    "model",
    "training",
    "client",
    "inference",
    "evaluation",
    "experiments",
    "prediction",
    "reporting",
    "serving",
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
    assert [line for line in backwards if not line.endswith("imports reporting")] == []


def test_the_network_is_pure_keras():
    for path in (PACKAGE / "model").glob("*.py"):
        assert "import tensorflow" not in path.read_text(encoding="utf-8")


def test_what_needs_no_tensorflow_imports_none():
    modules = [
        "jdfd_keras.cli.main",
        "jdfd_keras.cli.demo",
        "jdfd_keras.faces.extract",
        "jdfd_keras.datasets.inspection",
        "jdfd_keras.datasets.prepare",
        "jdfd_keras.datasets.audit",
        "jdfd_keras.datasets.records",
        "jdfd_keras.datasets.synthetic.blending",
        "jdfd_keras.evaluation.metrics",
        "jdfd_keras.evaluation.reliability",
        "jdfd_keras.reporting.evaluation_folder",
        "jdfd_keras.reporting.render_report",
        "jdfd_keras.evaluation.eval_data",
        "jdfd_keras.evaluation.evaluate_scores",
        "jdfd_keras.experiments.experiment",
        "jdfd_keras.inference.model_files",
        "jdfd_keras.client",
        "jdfd_keras.serving.serve",
        "jdfd_keras.inference.backends",
        "jdfd_keras.reporting.verdict_page",
        "jdfd_keras.prediction.predict",
    ]
    code = f"import sys, {', '.join(modules)}; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_public_names_can_be_imported():
    for name in jdfd_keras.__all__:
        assert getattr(jdfd_keras, name) is not None

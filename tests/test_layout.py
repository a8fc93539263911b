"""The layout of the package: rooms in a row, one base name for one idea, a short public list."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import jdfd_keras

PACKAGE = Path(jdfd_keras.__file__).parent
ROOT = PACKAGE.parent
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
    """Return the rooms that a module imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "jdfd_keras":
            names |= {alias.name for alias in node.names} & set(ORDER)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jdfd_keras."):
            names.add(node.module.split(".")[1])
    return names


def test_a_room_imports_only_from_rooms_before_it():
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


def test_a_base_name_stands_for_one_idea():
    """A module of `cli/` is named after its command, so it may share the name of a stage."""
    paths = [p for p in PACKAGE.rglob("*.py") if p.parent.name != "cli" and p.stem != "__init__"]
    names = [path.stem for path in paths]
    rooms = {path.name for path in PACKAGE.rglob("*") if path.is_dir()}
    assert sorted(name for name in names if names.count(name) > 1) == []
    assert set(names) & rooms == {"client"}, "the client room is about the class in client.py"


def test_the_package_stays_small_enough_to_read():
    assert len(list(PACKAGE.rglob("*.py"))) <= 296


def test_the_network_is_pure_keras():
    for path in (PACKAGE / "model").glob("*.py"):
        assert "import tensorflow" not in path.read_text(encoding="utf-8")


def test_modules_that_need_no_tensorflow_do_not_import_it():
    modules = [
        "jdfd_keras.cli.main",
        "jdfd_keras.cli.demo",
        "jdfd_keras.faces.extract",
        "jdfd_keras.datasets.inspection",
        "jdfd_keras.datasets.prepare",
        "jdfd_keras.datasets.audit",
        "jdfd_keras.datasets.records",
        "jdfd_keras.datasets.synthetic.blending",
        "jdfd_keras.datasets.synthetic.fakes",
        "jdfd_keras.evaluation.metrics",
        "jdfd_keras.evaluation.calibrate",
        "jdfd_keras.reporting.evaluation_folder",
        "jdfd_keras.reporting.report_text",
        "jdfd_keras.evaluation.eval_data",
        "jdfd_keras.evaluation.evaluate",
        "jdfd_keras.experiments.experiment",
        "jdfd_keras.client",
        "jdfd_keras.serving.serve",
        "jdfd_keras.serving.app",
        "jdfd_keras.serving.jobs.file_routes",
        "jdfd_keras.serving.server.app_server",
        "jdfd_keras.inference.backends",
        "jdfd_keras.reporting.verdict_page",
        "jdfd_keras.prediction.predict",
    ]
    code = f"import sys, {', '.join(modules)}; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_client_is_light():
    heavy = {"tensorflow", "scipy", "pyarrow", "pandas", "keras"}
    code = (
        # CPU time, which other processes hardly change
        "import sys, time; start = time.process_time(); import jdfd_keras.client\n"
        f"print(time.process_time() - start); sys.exit(bool({heavy} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    runs = [subprocess.run(command, capture_output=True, text=True) for _ in range(5)]
    assert [run.returncode for run in runs] == [0] * 5
    assert min(float(run.stdout) for run in runs) < 0.4


def test_public_names_are_few_documented_and_importable():
    names = set(jdfd_keras.__all__) - {"__version__"}
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    assert 0 < len(names) <= 35
    assert names - set(re.findall(r"\bjk\.(\w+)", text)) == set()
    for name in names:
        assert getattr(jdfd_keras, name) is not None


def test_every_public_function_has_an_example():
    """`make test-slow` runs them; a module of `cli/` has examples of commands instead."""
    without, count = [], 0
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            is_public = isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
            if is_public and path.parent.name != "cli":
                count += 1
                if ">>> " not in (ast.get_docstring(node) or ""):
                    without.append(f"{path.name}: {node.name}")
    assert without == []
    assert count > 200


def test_files_that_the_design_names_exist():
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    paths = re.findall(r"`(jdfd_keras/[\w/]+\.py)`", text)
    assert len(paths) >= 7
    assert [path for path in paths if not (ROOT / path).is_file()] == []

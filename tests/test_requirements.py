"""The requirements: what the package imports, and the lock files with their hashes."""

import configparser
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

ROOT = Path(__file__).parent.parent
PIN = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[\w.!+]+)(?: ; (?P<marker>[\w .'=]+))? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?")
IMPORT = re.compile(r"^ *(?:from (?P<of>\w+)[\w.]* import |import (?P<name>\w+))", re.MULTILINE)
OWN_EXTRAS = ("test", "benchmark", "docs")  # for developers: the package itself must not need them
LOCKS = ("requirements.lock", "requirements-build.lock")


@pytest.fixture(scope="module")
def setup():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def read_requirements(text):
    return [Requirement(line) for line in text.splitlines() if line.strip()]


def read_lock(name):
    """Return version and number of hashes of each package; any other line, such as a URL, fails."""
    found, last = {}, None
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if pin := PIN.fullmatch(line):
            last = canonicalize_name(pin["name"])
            assert last not in found
            found[last] = (pin["version"], 0)
        elif not line.startswith("#"):
            assert HASH.fullmatch(line), line
            version, hashes = found[last]
            found[last] = (version, hashes + 1)
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_each_locked_package_has_hashes_and_no_host(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"https?:|file:|--index|--find-links| @ ", text)
    assert all(hashes > 0 for _, hashes in read_lock(name).values())


@pytest.mark.parametrize("name", LOCKS)
def test_locked_versions_are_those_of_the_constraints(name):
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:]
    constraints = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}
    for package, (version, _) in read_lock(name).items():
        assert constraints[package] == version, f"{package}: run `make lock`"


def test_the_lock_has_every_requirement_of_a_plain_install(setup):
    lock = read_lock("requirements.lock")
    asked = read_requirements(setup["options"]["install_requires"])
    assert len(asked) > 20
    seen = set()
    while asked:
        requirement = asked.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        assert name in lock, f"{requirement}: run `make lock`"
        assert requirement.specifier.contains(lock[name][0], prereleases=True), str(requirement)
        if name not in seen:
            seen.add(name)
            asked += map(Requirement, metadata.requires(name) or [])


def test_the_lock_of_the_build_has_what_the_build_needs():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]
    lock = read_lock("requirements-build.lock")
    for requirement in map(Requirement, build["requires"]):
        assert requirement.specifier.contains(lock[canonicalize_name(requirement.name)][0])


def test_the_package_imports_only_what_a_user_installs(setup):
    extras = setup["options.extras_require"]
    texts = [extras[name] for name in extras if name not in OWN_EXTRAS]
    asked = {canonicalize_name(item.name) for item in read_requirements("\n".join(texts))}
    allowed = asked | set(read_lock("requirements.lock"))
    distributions = metadata.packages_distributions()
    found = {}
    for path in (ROOT / "jdfd_keras").rglob("*.py"):
        for line in IMPORT.finditer(path.read_text(encoding="utf-8")):
            found[line["of"] or line["name"]] = path.name
    assert {"keras", "numpy", "apache_beam"} < set(found)
    for name in set(found) - sys.stdlib_module_names - {"jdfd_keras", "_typeshed"}:
        owners = set(map(canonicalize_name, distributions[name]))
        assert owners & allowed, f"{found[name]} imports {name}"


def test_the_portrait_of_the_demo_is_that_of_scikit_image():
    from skimage.data import astronaut

    with Image.open(ROOT / "jdfd_keras" / "cli" / "astronaut.webp") as image:
        np.testing.assert_array_equal(np.asarray(image), astronaut())

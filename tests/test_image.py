"""What goes into the image: hashed requirements, what .dockerignore lets in, and the wheels that come of it.

``make image-check`` builds it and runs it; what is here is quick.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, requires
from itertools import product
from pathlib import Path
from zipfile import ZipFile

import pytest
from docker.utils.build import exclude_paths
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from serving import ROOT

# The oldest of each Python: what a marker adds for one of them counts.
PYTHONS = ("3.11.0", "3.12.0", "3.13.0", "3.14.0")
ENVIRONMENTS = [
    {
        **default_environment(),
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "platform_system": "Linux",
        "sys_platform": "linux",
        "platform_machine": machine,
        "python_full_version": python,
        "python_version": python.rpartition(".")[0],
    }
    for python, machine in product(PYTHONS, ("x86_64", "aarch64"))
]
HASHED = re.compile(r"(\S+==[^\\\n]+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n")


def shipped() -> list[Path]:
    """The folders of the packages that are installed in the image, by .dockerignore."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [ROOT, *(ROOT / line.removeprefix("!") for line in lines if line.startswith("!plugins/"))]


def said(folder: Path) -> ConfigParser:
    """A package's setup.cfg."""
    parser = ConfigParser(interpolation=None)
    parser.read(folder / "setup.cfg")
    return parser


OWN = {said(folder)["metadata"]["name"]: said(folder) for folder in shipped()}


def requirements() -> list[Requirement]:
    """What the image installs of other people's."""
    text = re.sub(r"(?m)^#.*\n", "", (ROOT / "requirements.txt").read_text())
    assert HASHED.sub("", text) == "", "a line without a version, or without a hash"
    return [Requirement(found[0]) for found in HASHED.findall(text)]


def asked(name: str, extras: frozenset[str], environment: dict[str, str]) -> list[Requirement]:
    """What a package needs, with its extras, somewhere."""
    if name in OWN:
        told = OWN[name]
        lines = told["options"]["install_requires"].split("\n")
        lines += [line for extra in extras for line in told["options.extras_require"][extra].split("\n")]
        found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    else:
        try:
            found = [Requirement(line) for line in requires(name) or []]
        except PackageNotFoundError:
            # another Python's, so not here to be asked
            found = []
    worlds = [{**environment, "extra": extra} for extra in extras or {""}]
    return [one for one in found if one.marker is None or any(one.marker.evaluate(world) for world in worlds)]


def needed(environment: dict[str, str]) -> set[str]:
    """The names of all that the shipped packages need somewhere, of other people's."""
    seen: set[tuple[str, frozenset[str]]] = set()
    # and the core's way to trace: nothing can be added to an image that runs
    left = [(name, frozenset({"tracing"} if name == "customer-orders" else ())) for name in OWN]
    while left:
        one = left.pop()
        if one not in seen:
            seen.add(one)
            left += [(canonicalize_name(told.name), frozenset(told.extras)) for told in asked(*one, environment)]
    return {name for name, _ in seen} - set(OWN)


def installed(environment: dict[str, str]) -> set[str]:
    """The names of what requirements.txt installs somewhere."""
    return {
        canonicalize_name(one.name) for one in requirements() if one.marker is None or one.marker.evaluate(environment)
    }


@pytest.mark.parametrize(
    "environment", ENVIRONMENTS, ids=lambda told: f"{told['python_version']}-{told['platform_machine']}"
)
def test_what_is_needed_is_installed(environment: dict[str, str]) -> None:
    assert len(needed(environment)) > 40
    assert needed(environment) - installed(environment) == set(), "`make requirements` adds it"


def test_nothing_is_installed_that_is_needed_nowhere() -> None:
    somewhere = set().union(*map(needed, ENVIRONMENTS))
    assert {canonicalize_name(one.name) for one in requirements()} - somewhere == set()


def test_versions_are_those_that_are_tested() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = {canonicalize_name(pin.name): pin.specifier for pin in map(Requirement, lines)}
    other = [one for one in requirements() if pins.get(canonicalize_name(one.name), one.specifier) != one.specifier]
    assert other == [], "`make requirements` takes the versions of constraints.txt"
    # what only some Pythons need, constraints.txt lacks if another made it
    assert [one for one in requirements() if canonicalize_name(one.name) not in pins and one.marker is None] == []


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what .dockerignore lets into a build."""
    folder = tmp_path_factory.mktemp("context")
    for name in exclude_paths(str(ROOT), (ROOT / ".dockerignore").read_text().splitlines()):
        # these two go to the builder, and no further
        if (ROOT / name).is_file() and name not in ("Dockerfile", ".dockerignore"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheels(context: Path, tmp_path_factory: pytest.TempPathFactory) -> list[ZipFile]:
    """The wheels that are built of nothing else, without network, as the Dockerfile does it."""
    made, tree = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("tree") / "tree"
    # building leaves things behind
    shutil.copytree(context, tree)
    words = ["--no-index", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(made)]
    packages = [".", *(f"./{folder.relative_to(tree)}" for folder in tree.glob("plugins/*"))]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *words, *packages], cwd=tree, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [ZipFile(path) for path in sorted(made.iterdir())]


def test_a_build_is_let_see_what_it_needs_and_nothing_else(context: Path) -> None:
    found = {path.relative_to(context) for path in context.rglob("*") if path.is_file()}
    assert {path.parts[0] for path in found} == {
        *("README.md", "plugins", "production.ini", "pyproject.toml", "requirements.txt", "setup.cfg", "src")
    }
    assert {path.parts[1] for path in found if path.parts[0] == "plugins"} == set(OWN) - {"customer-orders"}
    strange = {"tests", "__pycache__", "build"}
    assert [path for path in found if strange & set(path.parts) or "egg-info" in str(path)] == []


def test_the_wheels_have_all_of_the_packages(wheels: list[ZipFile]) -> None:
    assert [Path(str(wheel.filename)).name.partition("-")[0].replace("_", "-") for wheel in wheels] == sorted(OWN)
    packed = {name for wheel in wheels for name in wheel.namelist() if ".dist-info/" not in name}
    there = {
        str(path.relative_to(folder / "src"))
        for folder in shipped()
        for path in (folder / "src").rglob("*")
        if path.is_file() and path.suffix != ".pyc" and not re.search(r"\.egg-info/", str(path))
    }
    assert packed == there


def test_the_image_has_the_plugins_of_its_ini_and_no_sign_in_that_believes_anybody(wheels: list[ZipFile]) -> None:
    points = ConfigParser()
    for wheel in wheels:
        for name in wheel.namelist():
            if name.endswith("/entry_points.txt"):
                points.read_string(wheel.read(name).decode())
    ini = ConfigParser(interpolation=None)
    ini.read(ROOT / "production.ini")
    assert set(points["customer_orders.plugins"]) == set(ini["app:main"]["plugins"].split())
    assert "customer-orders" in points["console_scripts"]


def test_the_image_stands_on_a_python_that_is_tested() -> None:
    default = re.search(r"(?m)^ARG PYTHON_IMAGE=\S+/python:([\d.]+)-slim-\w+$", (ROOT / "Dockerfile").read_text())
    assert default is not None
    assert f"Programming Language :: Python :: {default[1]}" in said(ROOT)["metadata"]["classifiers"]

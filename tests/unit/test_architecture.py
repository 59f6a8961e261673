"""The packages, and which of them may import which, as docs/README.md and CONTRIBUTING.md describe."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.helpers.serving import ROOT

LEAVES = {"config", "errors", "findings", "logs"}
MAY_IMPORT = {
    "api": {"operations", "payments", "pictures", "stores"} | LEAVES,
    "operations": {"parsers", "stores"} | LEAVES,
    "payments": {"stores"} | LEAVES,
    "pictures": {"stores"} | LEAVES,
    "stores": LEAVES,
    "config": {"parsers"},
    "env_file": {"config"},
    "errors": set(),
    "findings": {"logs"},
    "logs": set(),
    "parsers": set(),
}
WITHOUT_FLASK = ("operations", "payments", "pictures", "stores")

# heroimg/__init__.py makes the Flask application, so its modules are imported here without it.
IMPORT_ALL = """
import importlib, pkgutil, sys, types
sys.modules |= dict.fromkeys(["flask", "flask_cors"])
package = sys.modules["heroimg"] = types.ModuleType("heroimg")
package.__path__ = [sys.argv[1]]
for room in sys.argv[2:]:
    for module in pkgutil.walk_packages([f"{sys.argv[1]}/{room}"], f"heroimg.{room}."):
        importlib.import_module(module.name)
        print(module.name)
"""


def name_of(path: Path) -> str:
    """Return the dotted name of a module."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    """List the imports of a file. ``from a import b`` becomes ``a.b``; a relative import starts with a dot."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{'.' * node.level}{node.module}.{alias.name}" for alias in node.names}
    return names


def is_imported(module: str, names: Iterable[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for name in names)


MODULES = {name_of(path): path for path in sorted((ROOT / "heroimg").rglob("*.py"))}
IMPORTS = {module: imports_of(path) for module, path in MODULES.items()}
ROOMS = {module.split(".")[1] for module in MODULES if "." in module}


def test_the_top_of_heroimg_has_at_most_14_names() -> None:
    names = {path.name for path in (ROOT / "heroimg").iterdir()} - {"__pycache__", "py.typed", "static"}
    assert len(names) <= 14, names


def test_rooms_import_only_the_rooms_below_them() -> None:
    wrong = []
    for room, others in MAY_IMPORT.items():
        for module in (module for module in MODULES if is_imported(f"heroimg.{room}", [module])):
            ours = [name for name in sorted(IMPORTS[module]) if name.startswith(("heroimg.", "."))]
            wrong += [f"{module} imports {name}" for name in ours if name.split(".")[1] not in others | {room}]
    assert wrong == []


def test_every_room_is_in_the_table_above() -> None:
    assert {*MAY_IMPORT, "gunicorn_conf", "wsgi"} == ROOMS


def test_nothing_below_the_api_needs_flask() -> None:
    command = [sys.executable, "-c", IMPORT_ALL, str(ROOT / "heroimg"), *WITHOUT_FLASK]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    below = [name for name in MODULES for room in WITHOUT_FLASK if is_imported(f"heroimg.{room}", [name])]
    assert set(below) - set(done.stdout.split()) == {f"heroimg.{room}" for room in WITHOUT_FLASK}


def test_no_blueprint_imports_another() -> None:
    blueprints = [module for module, path in MODULES.items() if "\nbp = " in path.read_text()]
    assert len(blueprints) >= 2
    assert [(a, b) for a in blueprints for b in blueprints if a != b and is_imported(b, IMPORTS[a])] == []


def test_no_small_module_serves_one_other_module_alone() -> None:
    small = [module for module, path in MODULES.items() if 0 < len(path.read_text().splitlines()) < 30]
    importers = {module: [other for other in MODULES if is_imported(module, IMPORTS[other])] for module in small}
    assert {module: others for module, others in importers.items() if len(others) == 1} == {}


def test_the_application_imports_neither_the_demo_nor_the_tests() -> None:
    assert [
        module
        for module, names in IMPORTS.items()
        if any(is_imported(outside, names) for outside in ("benchmarks", "demo", "docs", "tests"))
    ] == []


def test_only_conftest_lies_flat_in_tests() -> None:
    assert {path.name for path in (ROOT / "tests").iterdir() if path.is_file()} == {"__init__.py", "conftest.py"}


def test_no_test_imports_from_another_test() -> None:
    imports = {name_of(path): imports_of(path) for path in sorted((ROOT / "tests").rglob("*.py"))}
    from_tests = re.compile(r"tests\.(.*\.)?(test_|conftest\b)")
    assert {test: wrong for test, names in imports.items() if (wrong := [*filter(from_tests.match, names)])} == {}


def test_benchmarks_and_the_rehearsal_import_only_the_helpers_of_the_tests() -> None:
    paths = [*(ROOT / "benchmarks").glob("*.py"), ROOT / "deploy" / "rehearse"]
    from_tests = re.compile(r"tests\.(?!helpers\.)")
    assert [(path.name, name) for path in paths for name in imports_of(path) if from_tests.match(f"{name}.")] == []

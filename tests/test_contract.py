"""What holds for the source of every module: length of files and functions, one way of imports, no private ones."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "invsr").rglob("*.py"))
MOST_LINES_OF_FILE, MOST_LINES_OF_FUNCTION = 350, 80


def functions(tree):
    return [one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]


def lines(function):
    """From `def` to the end, without decorators and docstring."""
    count = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is None:
        return count
    docstring = function.body[0]
    return count - (docstring.end_lineno - docstring.lineno + 1)


def private_imports(tree):
    """Names with a leading underscore that come from another module of the package."""
    return [
        f"{one.module}.{alias.name}"
        for one in ast.walk(tree)
        if isinstance(one, ast.ImportFrom) and (one.module or "").startswith("invsr")
        for alias in one.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]


def test_the_measures_see_what_they_are_to_find():
    text = 'def f():\n    """One.\n\n    Two.\n    """\n    a = 1\n    return a\n\nfrom invsr.a import _b, c\n'
    tree = ast.parse(text)
    assert [lines(one) for one in functions(tree)] == [3]
    assert private_imports(tree) == ["invsr.a._b"]


def test_no_file_is_long():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert len(lengths) > 50
    assert {name: n for name, n in lengths.items() if n > MOST_LINES_OF_FILE} == {}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_are_short_and_imports_public(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert {one.name: lines(one) for one in functions(tree) if lines(one) > MOST_LINES_OF_FUNCTION} == {}
    assert private_imports(tree) == []
    assert "fmt: skip" not in text


def test_imports_run_one_way_and_every_module_is_in_the_contract():
    # Exhaustive: a module that no layer lists breaks the contract.
    assert "exhaustive = true" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 broken" in done.stdout

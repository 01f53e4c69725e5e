"""Pages lead where they say, notebooks run, and what they show came from them."""

import importlib
import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client import KernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(ROOT.glob("docs/**/*.md"))
PAGES = [page for page in PAGES if "_build" not in page.parts and "tutorials" not in page.parts]
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
# The tests run every cell, but on a smaller head and with fewer steps than those whose figures are shown.
SMALLER = {
    "01_thick_slices": {"side=56": "side=24"},
    "02_forward_model": {
        "96, 96, 16": "48, 48, 16",
        "96, 96, 96": "48, 48, 48",
        "32, 96, 96": "16, 48, 48",
        "88.0": "44.0",
    },
    "03_classical_baselines": {"side=48": "side=24"},
    "04_plug_and_play": {"side=48": "side=20"},
    "05_unrolled_and_equilibrium": {
        "(24, 24, 24)": "(16, 16, 16)",
        "size=22.0": "size=14.0",
        "range(60)": "range(12)",
        "range(1000, 1008)": "range(1000, 1002)",
    },
    "06_several_stacks": {"side=56": "side=32", "distance < 25": "distance < 14"},
    "07_how_sure": {
        "side=48": "side=24",
        "n_samples=4": "n_samples=2",
        "[39, 9, 34]": "[12, 12, 12]",
        "arange(48)": "arange(24)",
    },
    "08_your_own": {"48, 48, 48": "24, 24, 24", "size=44.0": "size=20.0"},
    "09_several_contrasts": {"side=56": "side=28", "[30, 22, 26]": "[14, 14, 14]"},
    "10_from_kspace": {
        "whole.data[..., 28:112]": "torch.nn.functional.pad(whole.data, [12] * 6)[..., 36:128]",
        "(slab, 2)": "(slab, 4)",
        "n // 2": "n // 4",
        "2 * whole": "4 * whole",
        "(16, 12)": "(12, 12)",
        "(40, 52, 28)": "(24, 30, 16)",
    },
}


def links(text):
    """Targets of Markdown links and pictures that are no web addresses, without anchors."""
    found = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target.split("#")[0] for target in found if "://" not in target and target.split("#")[0]]


def there(page, target):
    """Whether a link's file exists; notebooks are copied beside the pages when the site is built."""
    return (page.parent / target).exists() or (ROOT / "notebooks" / Path(target).name).exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text()
    assert [target for target in links(text) if not there(page, target)] == []


def resolve(name):
    """What a dotted name stands for: a module, or an attribute of one, however deep."""
    words = name.split(".")
    found = importlib.import_module(words[0])
    for n, word in enumerate(words[1:], 2):
        if not hasattr(found, word):
            importlib.import_module(".".join(words[:n]))
        found = getattr(found, word)
    return found


@pytest.mark.parametrize(
    "page",
    [*(page for page in PAGES if page.name != "CHANGELOG.md"), *NOTEBOOKS],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_names_in_the_pages_exist(page):
    text = page.read_text()
    names = re.findall(r"`(invsr(?:\.\w+)+)", text) + re.findall(r"automodule:: (invsr[.\w]*)", text)
    for name in {name for name in names if not name.endswith(".py")}:
        resolve(name)


def test_every_page_is_listed():
    listed = " ".join(page.read_text() for page in PAGES)
    for page in ROOT.glob("docs/**/*.md"):
        if "_build" not in page.parts and "tutorials" not in page.parts and page.name != "index.md":
            assert re.search(rf"\b{re.escape(page.stem)}\b", listed), page


def test_commands_in_the_pages_have_their_options(run):
    """Every `invsr ...` line of the pages uses options that the command has."""
    commands = {}
    for page in PAGES:
        for line in re.findall(r"^ {4,8}(invsr [a-z].*)$", page.read_text(), re.M):
            words = line.split("#")[0].split()
            name = " ".join(words[1:3]) if words[1] == "train" else words[1]
            commands.setdefault(name, set()).update(word for word in words if word.startswith("--"))
    assert {"reconstruct", "register", "simulate", "train denoiser"} <= set(commands)
    for name, options in commands.items():
        code, out, _ = run(*name.split(), "--help")
        assert code == 0, name
        shown = re.sub(r"\x1b\[[0-9;]*m", "", out)
        assert [option for option in options if option not in shown] == [], name


@pytest.fixture(scope="session")
def kernel():
    """A kernel for all notebooks: what takes it longest is to import the packages."""
    # The command line that belongs to this interpreter.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(ROOT / "notebooks"), env={**os.environ, "PATH": path})
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path, kernel):
    book = nbformat.read(path, as_version=4)
    shown = [one for cell in book.cells for one in cell.get("outputs", [])]
    assert any("image/png" in one.get("data", {}) for one in shown), "committed without its figures"
    text = "".join(str(one) for one in shown if one.output_type == "stream")
    assert "Traceback" not in text and str(ROOT) not in text
    words = "".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    assert [target for target in links(words) if not (path.parent / target).exists()] == []
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    for old, new in SMALLER.get(path.stem, {}).items():
        assert any(old in cell.source for cell in code), f"{old!r} is nowhere in the notebook"
        for cell in code:
            cell.source = cell.source.replace(old, new)
    book.cells = [nbformat.v4.new_code_cell("%reset -f"), *book.cells]  # nothing is left of the notebook before
    NotebookClient(book, timeout=300, km=kernel).execute(reset_kc=True)


def test_there_are_ten_notebooks():
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{n:02d}" for n in range(1, 11)]

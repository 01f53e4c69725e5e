"""Sphinx: the site in docs/, the API from docstrings, the notebooks as a gallery."""

import re
from importlib.metadata import version as installed
from pathlib import Path

HERE = Path(__file__).parent
# Sphinx reads below its own folder only: notebooks are copied, links to pages follow.
TUTORIALS = HERE / "tutorials"
TUTORIALS.mkdir(exist_ok=True)
for notebook in sorted((HERE.parent / "notebooks").glob("*.ipynb")):
    text = notebook.read_text(encoding="utf-8").replace("](../docs/", "](../")
    (TUTORIALS / notebook.name).write_text(text, encoding="utf-8")

project, author = "invsr", "The invsr developers"
copyright = "2026, The invsr developers"
version = release = installed("invsr")
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx-mathjax-offline",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
default_role = "code"
nitpicky = False
html_theme = "furo"
html_title = f"invsr {release}"
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
suppress_warnings = [
    "misc.highlighting_failure",  # the shell commands of a notebook are not Python
    "ref.python",  # short names such as `sigma` are attributes of several classes
]
nb_execution_mode = "off"  # the tests run them; what is shown are the committed outputs
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say more: shapes and units
autodoc_default_options = {"members": True, "show-inheritance": True}
autoclass_content = "class"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Shape", "notes_style")]


def escape_shapes(app, what, name, of, options, lines):
    """``(batch, channel, *grid.shape)`` in a docstring is a shape, not the start of an emphasis."""
    for n, line in enumerate(lines):
        lines[n] = re.sub(r"(?<=, )\*(?=[a-z])|(?<=\()\*(?=[a-z_.]+shape)", r"\\*", line)


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", escape_shapes, priority=900)

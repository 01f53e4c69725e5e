"""Sphinx: the site in docs/, the API from docstrings, the notebooks as a gallery."""

import shutil
from importlib.metadata import version as installed
from pathlib import Path

HERE = Path(__file__).parent
# Sphinx reads below its own folder only.
shutil.copytree(HERE.parent / "notebooks", HERE / "tutorials", dirs_exist_ok=True)

project, author = "invsr", "The invsr developers"
copyright = "2026, The invsr developers"
version = release = installed("invsr")
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
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
nb_execution_mode = "off"  # the tests run them; what is shown are the committed outputs
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say more: shapes and units
autodoc_default_options = {"members": True, "show-inheritance": True}
autoclass_content = "class"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

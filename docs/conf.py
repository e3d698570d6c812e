"""Sphinx configuration."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

import qtasks  # noqa: E402

project = "qtasks"
author = "the qtasks authors"
copyright = "the qtasks authors"  # noqa: A001
version = release = qtasks.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "reference"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "qtasks"
templates_path: list[str] = []

default_role = "code"
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# Several schemas have a field of one name; a docstring that names it means its own.
suppress_warnings = ["ref.python"]

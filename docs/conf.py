"""Sphinx's configuration of the site; `make docs` builds it into build/site.

Pages that are made from the package (pages/) are written into docs/generated/ before the others are read.
"""

from __future__ import annotations

import sys
from pathlib import Path

import inceptionnet

sys.path.insert(0, str(Path(__file__).parent))

project = "inceptionnet"
author = "the inceptionnet authors"
version = release = inceptionnet.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "pages"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["pages", "_static"]

# Every reference has to lead somewhere: a warning ends the build. Types in signatures that are not documented are text
# (pages/api.py).
nitpicky = True
smartquotes = False  # -- is the start of an option

myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 4  # links with # as on GitHub
myst_links_external_new_tab = False

default_role = "code"  # docstrings have single backticks around code
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_use_type_comments = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Shapes", "notes_style"), ("Paper", "notes_style"), ("Units", "notes_style")]
python_use_unqualified_type_names = True
add_module_names = False

html_theme = "furo"
html_title = "inceptionnet"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False
html_last_updated_fmt = ""
pygments_style, pygments_dark_style = "friendly", "github-dark"
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}

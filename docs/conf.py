"""How the documentation is built: `sphinx-build -W docs docs/_build`. Nothing is fetched; pages need no network."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import hw1

project = "hw1"
version = release = hw1.__version__
copyright = "the hw1 authors"
extensions = [
    *("myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"),
    *("facts", "house", "plain_docstrings"),
]
exclude_patterns = ["_build", "jupyter_execute"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "force"  # the notebook's outputs are those of this build, never of an earlier one
nb_execution_excludepatterns = os.environ.get("HW1_NOT_EXECUTED", "").split()  # of tests: one of them trains
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
toc_object_entries_show_parents = "hide"
python_use_unqualified_type_names = True
napoleon_use_ivar = True  # a property that the class's docstring names is described once
highlight_language = "text"  # of blocks that say none: commands and folders
default_role = "code"  # our docstrings quote `names`, as Markdown does

html_theme = "pydata_sphinx_theme"
html_title = f"hw1 {version}"
html_static_path = ["_static"]
html_css_files = ["hw1.css"]
html_copy_source = html_show_sourcelink = False
html_sidebars = {page: [] for page in ("index", "tutorial", "genindex", "search")}  # they have no section
html_theme_options = {
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
}

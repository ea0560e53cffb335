"""Settings of the documentation. ``make docs`` builds it; TUMBLE_QUICK=1 runs the tutorials in a short version.

TUMBLE_DOCS_EXECUTE=off renders the tutorials without running them.
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE / "_ext"))

import generated_pages  # noqa: E402
from nbclient import NotebookClient  # noqa: E402

import tumble  # noqa: E402

project = "tumble"
author = "The tumble developers"
copyright = "The tumble developers, BSD-3-Clause"
version = release = tumble.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_nb",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "_generated", "_ext", "_templates", "results/**/*.md", "**/.ipynb_checkpoints"]
templates_path = ["_templates"]
# Only what `{download}` names is copied: the notebooks themselves.
nitpicky = False

# Markdown
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Tutorials: executed once, then taken from the cache until they change. The short version has a cache of its own.
_quick = os.environ.get("TUMBLE_QUICK") == "1"
nb_execution_mode = "off" if os.environ.get("TUMBLE_DOCS_EXECUTE") == "off" else "cache"
nb_execution_cache_path = str(HERE / "_build" / ("jupyter_cache_quick" if _quick else "jupyter_cache"))
nb_execution_timeout = 1800
# Not among the settings of myst_nb: on a busy machine a kernel takes more than a minute to start, and outputs more than
# 4 s after the end of their cell to come; they would be lost.
NotebookClient.__init__ = functools.partialmethod(NotebookClient.__init__, startup_timeout=600, iopub_timeout=120)
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_merge_streams = True
nb_code_prompt_show = "Show the code ({type})"
nb_code_prompt_hide = "Hide the code ({type})"

# Reference
# Named one by one: a page that is new since the last build would otherwise be overlooked.
autosummary_generate = sorted(f"api/{path.name}" for path in (HERE / "api").glob("*.md"))
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"

# Output
html_theme = "pydata_sphinx_theme"
html_title = "tumble"
html_static_path = ["_static"]
html_css_files = ["tumble.css"]
html_show_sourcelink = False
html_copy_source = False
html_context = {"default_mode": "light"}
html_theme_options = {
    "show_nav_level": 1,
    "navigation_depth": 3,
    "show_toc_level": 2,
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 7,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc", "download-notebook"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {"index": [], "install": [], "benchmarks": [], "faq": [], "changelog": [], "command-line": []}
copybutton_exclude = ".linenos, .gp, .go"


def setup(app: Sphinx) -> None:
    """Write the pages that are made of the package and of its results before anything is read."""
    app.connect("builder-inited", lambda _: generated_pages.write(HERE / "_generated", ROOT))
    app.connect("html-page-context", _name_notebook)


def _name_notebook(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    """Tell the template which notebook a page is made of, so that it can offer it."""
    notebook = HERE / f"{pagename}.ipynb"
    if notebook.exists():
        target = Path(app.outdir) / "_notebooks" / notebook.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(notebook.read_bytes())
        context["notebook_name"] = notebook.name

"""How Sphinx builds the site: ``make docs``. Nothing is fetched, neither by the build nor by its pages."""

import os

os.environ.update(KERAS_BACKEND="tensorflow", MPLBACKEND="Agg", TF_CPP_MIN_LOG_LEVEL="3")

import clr

project = "clr"
author = "The clr authors"
project_copyright = author
version = release = clr.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "sphinx_design"]
# The documentation of Python and of the frameworks is elsewhere, and a reader may be without a network.
_GUESTS = "torch|tensorflow|tf|keras|jax|optax|numpy|matplotlib|pandas|lightning|ignite|skorch|transformers"
nitpick_ignore_regex = [
    ("py:.*", rf"(collections|dataclasses|pathlib|{_GUESTS})\..*"),
    # What annotations name for type checkers alone, and readers know as a schedule, an array or a state.
    ("py:class", r"clr\.(arrays|schedules|finder\.curve|jax\.training|torch\.snapshot)\..*"),
    ("py:class", "Axes|DataFrame|Scalar|Table"),
]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

default_role = "py:obj"
autodoc_default_options = {"members": True, "member-order": "bysource", "special-members": "__call__, __mul__"}
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "clr"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_search_summary = False  # it is fetched page by page, which browsers refuse for files
copybutton_exclude = ".linenos, .gp, .go"  # prompts, and what is printed

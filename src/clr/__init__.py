"""Cyclical learning rates (Smith 2017), exact and alike in every training framework.

Importing this package imports no framework, no NumPy and no matplotlib. Every name is loaded when it is first used.
"""

from importlib import import_module

from clr import above
from clr.version import __version__ as __version__

TYPE_CHECKING = False  # as type checkers know it, for `typing` would take most of the time of the import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from clr import comparison as comparison
    from clr import finder as finder
    from clr import jax as jax
    from clr import keras as keras
    from clr import plot as plot
    from clr import tensorflow as tensorflow
    from clr import torch as torch
    from clr.comparison import Comparison, compare
    from clr.finder.advice import Advice, advise
    from clr.finder.curve import Bounds, NoBoundsError
    from clr.finder.result import RangeTest
    from clr.finder.search import find_bounds
    from clr.finder.sweep import range_test
    from clr.finder.trials import Search, Trial
    from clr.saved import from_dict, from_json
    from clr.schedules.base import Schedule
    from clr.schedules.compose import join, momentum
    from clr.schedules.policies import (
        constant,
        cosine,
        cyclic,
        exp_range,
        linear,
        one_cycle,
        one_cycle_fastai,
        phases,
        ramp,
        step_size,
        triangular,
        triangular2,
        warm_restarts,
        warmup,
        wsd,
    )
    from clr.schedules.scaling import register_scale
    from clr.tensorflow import cyclic_learning_rate

# Where each public name is.
_NAMES = {
    "clr.comparison": ("Comparison", "compare"),
    "clr.finder.advice": ("Advice", "advise"),
    "clr.finder.curve": ("Bounds", "NoBoundsError"),
    "clr.finder.result": ("RangeTest",),
    "clr.finder.search": ("find_bounds",),
    "clr.finder.sweep": ("range_test",),
    "clr.finder.trials": ("Search", "Trial"),
    "clr.saved": ("from_dict", "from_json"),
    "clr.schedules.base": ("Schedule",),
    "clr.schedules.compose": ("join", "momentum"),
    "clr.schedules.policies": (
        "constant",
        "cosine",
        "cyclic",
        "exp_range",
        "linear",
        "one_cycle",
        "one_cycle_fastai",
        "phases",
        "ramp",
        "step_size",
        "triangular",
        "triangular2",
        "warm_restarts",
        "warmup",
        "wsd",
    ),
    "clr.schedules.scaling": ("register_scale",),
    "clr.tensorflow": ("cyclic_learning_rate",),
}
_PLACES = {name: module for module, names in _NAMES.items() for name in names}
# The modules with names of their own, each with what it cannot be imported without.
_MODULES = {
    "comparison": None,
    "finder": None,
    "jax": "jax",
    "keras": "keras",
    "plot": "matplotlib",
    "tensorflow": "tensorflow",
    "torch": "torch",
}

__all__ = [
    "Advice",
    "Bounds",
    "Comparison",
    "NoBoundsError",
    "RangeTest",
    "Schedule",
    "Search",
    "Trial",
    "advise",
    "compare",
    "constant",
    "cosine",
    "cyclic",
    "cyclic_learning_rate",
    "exp_range",
    "find_bounds",
    "from_dict",
    "from_json",
    "join",
    "linear",
    "momentum",
    "one_cycle",
    "one_cycle_fastai",
    "phases",
    "ramp",
    "range_test",
    "register_scale",
    "step_size",
    "triangular",
    "triangular2",
    "warm_restarts",
    "warmup",
    "wsd",
]


def __getattr__(name: str) -> "Any":
    if name in _MODULES:
        return import_module(f"clr.{name}")
    if name not in _PLACES:
        raise AttributeError(f"module 'clr' has no attribute {name!r}{_meant_for(name)}")
    value = globals()[name] = getattr(import_module(_PLACES[name]), name)
    return value


def __dir__() -> list[str]:
    """What can be had. ``help(clr)`` and others ask for all of it, and would end at a module that lacks its extra."""
    modules = {name for name, guest in _MODULES.items() if guest is None or _is_there(guest)}
    return sorted({*globals(), *modules, *_PLACES} - {"above", "import_module", "TYPE_CHECKING"})


def _meant_for(name: str) -> str:
    """What to add where an unknown name may be meant for another distribution's module ``clr``."""
    others = {} if name.startswith("_") else {"pythonnet": "pythonnet", "clr": "clr.style_builder"}
    for other, module in others.items():
        if _is_there(module):
            return f". This is cyclic-learning-rate. {other}, which is installed beside it, has a module 'clr' too"
    return ""


def _is_there(guest: str) -> bool:
    from importlib.util import find_spec

    try:
        return find_spec(guest) is not None
    except ValueError:  # None stands for it in `sys.modules`: its import would fail
        return False


def _later(module: str, name: str) -> "Callable[..., Any]":
    """A function that is imported when it is called."""
    return lambda *arguments: getattr(import_module(module), name)(*arguments)


above.plot_schedule = _later("clr.plot", "plot_schedule")
above.plot_range_test = _later("clr.plot", "plot_range_test")
above.plot_search = _later("clr.plot", "plot_search")
above.notebook_page = _later("clr.plot", "notebook_page")
above.comparison_page = _later("clr.comparison.report", "page")
above.plot_comparison = _later("clr.comparison.report", "curves")

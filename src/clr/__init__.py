"""Cyclical learning rates (Smith 2017), exact and alike in every training framework.

Importing this package imports no framework, no NumPy and no matplotlib.
"""

import importlib
from typing import TYPE_CHECKING, Any

from clr.advice import Advice, advise
from clr.compose import join, momentum, warmup
from clr.policies import (
    constant,
    cyclic,
    exp_range,
    one_cycle,
    one_cycle_fastai,
    phases,
    ramp,
    step_size,
    trapezoid,
    triangular,
    triangular2,
    warm_restarts,
)
from clr.scaling import register_scale
from clr.schedule import Schedule
from clr.serialize import from_dict, from_json
from clr.suggest import Bounds, NoBoundsError
from clr.sweep import RangeTest, range_test
from clr.tensorflow import cyclic_learning_rate

if TYPE_CHECKING:
    from clr.comparison import Comparison, compare

__version__ = "0.1.0"

# What is imported when it is asked for: modules that import their framework, and what most programs do without.
_MODULES = ("comparison", "keras", "torch")
_LATE = ("Comparison", "compare")  # of clr.comparison


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"clr.{name}")
    if name in _LATE:
        return getattr(importlib.import_module("clr.comparison"), name)
    raise AttributeError(f"module 'clr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_LATE})


__all__ = [
    "Advice",
    "Bounds",
    "Comparison",
    "NoBoundsError",
    "RangeTest",
    "Schedule",
    "advise",
    "compare",
    "constant",
    "cyclic",
    "cyclic_learning_rate",
    "exp_range",
    "from_dict",
    "from_json",
    "join",
    "momentum",
    "one_cycle",
    "one_cycle_fastai",
    "phases",
    "ramp",
    "range_test",
    "register_scale",
    "step_size",
    "trapezoid",
    "triangular",
    "triangular2",
    "warm_restarts",
    "warmup",
]

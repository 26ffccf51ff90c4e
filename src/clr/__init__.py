"""Cyclical learning rates (Smith 2017), exact and alike in every training framework.

Importing this package imports no framework, no NumPy and no matplotlib.
"""

from clr.policies import cyclic, exp_range, step_size, triangular, triangular2
from clr.schedule import Schedule
from clr.tensorflow import cyclic_learning_rate

__version__ = "0.1.0"

__all__ = [
    "Schedule",
    "cyclic",
    "cyclic_learning_rate",
    "exp_range",
    "step_size",
    "triangular",
    "triangular2",
]

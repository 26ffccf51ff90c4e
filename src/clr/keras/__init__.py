"""Keras 3, on any backend: a schedule for the rate, callbacks that cycle the momentum and log both, finders."""

try:
    import keras as _keras  # noqa: F401
except ImportError as error:
    raise ImportError("clr.keras needs Keras: pip install 'cyclic-learning-rate[keras]'") from error

from clr.keras.find_bounds import find_bounds
from clr.keras.log import LogLearningRate
from clr.keras.momentum import CycleMomentum
from clr.keras.range_test import range_test
from clr.keras.schedule import LearningRateSchedule

__all__ = ["CycleMomentum", "LearningRateSchedule", "LogLearningRate", "find_bounds", "range_test"]

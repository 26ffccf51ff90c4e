"""TensorFlow: the original function, and finders of bounds. TensorFlow is imported when one of them is called."""

from clr.tensorflow.cyclic import cyclic_learning_rate
from clr.tensorflow.find_bounds import find_bounds
from clr.tensorflow.range_test import range_test

__all__ = ["cyclic_learning_rate", "find_bounds", "range_test"]

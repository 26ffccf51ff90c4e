"""TensorFlow: the original function, and the LR range test. TensorFlow is imported when one of them is called."""

from clr.tensorflow.cyclic import cyclic_learning_rate
from clr.tensorflow.range_test import range_test

__all__ = ["cyclic_learning_rate", "range_test"]

"""JAX: finders of bounds for an update function. A schedule needs no adapter: Optax takes it as it is."""

try:
    import jax as _jax  # noqa: F401
except ImportError as error:
    raise ImportError("clr.jax needs JAX: pip install 'cyclic-learning-rate[jax]'") from error

from clr.jax.find_bounds import find_bounds
from clr.jax.range_test import range_test

__all__ = ["find_bounds", "range_test"]

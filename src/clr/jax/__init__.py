"""JAX: an LR range test for an update function. A schedule needs no adapter: Optax takes it as it is."""

try:
    import jax as _jax  # noqa: F401
except ImportError as error:
    raise ImportError("clr.jax needs JAX: pip install 'cyclic-learning-rate[jax]'") from error

from clr.jax.range_test import range_test

__all__ = ["range_test"]

"""JAX: an LR range test for states that are values."""

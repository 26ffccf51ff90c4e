"""Tests of Keras, on one backend: Keras chooses it once per process (``KERAS_BACKEND=jax pytest tests/keras``).

The default is TensorFlow. `test_other_processes` runs the same tests on the others.
"""

import os

import pytest

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
pytest.importorskip("keras")

# They need two CPUs, which must be made before TensorFlow is used, and the only distribution strategy of the process.
if "CLR_REPLICAS" not in os.environ:
    collect_ignore = ["test_replicas.py"]

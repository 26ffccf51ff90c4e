"""Runs keras_transactions.py on each backend, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("keras")


def compiled_once(folder: Path) -> dict[str, str]:
    """Lets JAX keep what it has compiled, for many of the tests train the same model anew."""
    limits = ("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES")
    return {"JAX_COMPILATION_CACHE_DIR": str(folder), **dict.fromkeys(limits, "-1")}


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_the_range_test_on_a_backend(backend: str, tmp_path: Path) -> None:
    program = Path(__file__).with_name("keras_transactions.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(program)]
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"} | compiled_once(tmp_path)
    done = subprocess.run(
        command, env=environment, cwd=program.parent.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-8000:]

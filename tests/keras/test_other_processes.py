"""Runs tests of this folder in processes of their own: all of them on the other backends, and those of replicas."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
OTHERS = sorted({"tensorflow", "jax", "torch"} - {os.environ["KERAS_BACKEND"]})


def passes(environment: dict[str, str], *arguments: str) -> None:
    """Runs pytest, and shows what it has printed if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        env=os.environ | environment,
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@pytest.mark.parametrize("backend", OTHERS)
def test_everything_on_another_backend(backend: str, tmp_path: Path) -> None:
    # JAX keeps what it has compiled, for many of the tests train the same model.
    least = ("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES")
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), **dict.fromkeys(least, "-1")}
    faults = HERE.parent / "faults" / "test_keras.py"
    passes({"KERAS_BACKEND": backend} | cache, "--ignore", __file__, str(HERE), str(faults))


def test_replicas() -> None:
    pytest.importorskip("tensorflow")
    passes({"KERAS_BACKEND": "tensorflow", "CLR_REPLICAS": "1"}, str(HERE / "test_replicas.py"))

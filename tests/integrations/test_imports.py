"""What is not installed is said, and the package itself loads none of the libraries."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("name", "guest"),
    [("ignite", "ignite"), ("lightning", "lightning"), ("skorch", "skorch"), ("transformers", "transformers")],
)
def test_a_missing_library_names_its_extra(name: str, guest: str) -> None:
    lines = f"""
import sys
import clr.integrations

assert not {{"torch", "ignite", "lightning", "skorch", "transformers", "accelerate"}} & set(sys.modules)
sys.modules[{guest!r}] = None
try:
    import clr.integrations.{name}
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    assert f"pip install 'cyclic-learning-rate[{name}]'" in done.stdout

"""How the tests call the command."""

from collections.abc import Callable

import pytest

from tests.command import called


@pytest.fixture
def call() -> Callable[..., tuple[int, str, str]]:
    """Calls the command with arguments, and gives its exit code, its output and its errors."""
    return called

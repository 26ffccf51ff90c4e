"""Functions of higher floors that methods of lower floors hand over to.

`Schedule.plot` draws with `clr.plot`, which knows what a schedule is. So a schedule must not import `clr.plot`, and
calls this function instead. `clr/__init__.py` stands above all floors and sets it.
"""

from collections.abc import Callable
from typing import Any

Function = Callable[..., Any]

plot_schedule: Function
plot_range_test: Function
notebook_page: Function
comparison_page: Function

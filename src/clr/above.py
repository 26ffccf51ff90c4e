"""Functions of higher floors that methods of lower floors hand over to.

`Schedule.plot` draws with `clr.plot`, which knows what a schedule is. So a schedule must not import `clr.plot`, and
calls this function instead. `clr/__init__.py` stands above all floors and sets it.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

plot_schedule: "Callable[..., Any]"
plot_range_test: "Callable[..., Any]"
plot_search: "Callable[..., Any]"
notebook_page: "Callable[..., Any]"
comparison_page: "Callable[..., Any]"
plot_comparison: "Callable[..., Any]"

"""What goes wrong during a range test in PyTorch leaves no trace, whatever is trained, and by whatever optimizer."""

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import nn

import clr
from clr.torch.snapshot import _autocast_depth
from tests.torch.test_range_test import loader, trace, train

# Ctrl-C at each line

OURS = Path(clr.__file__).parent
FILES = {OURS / "finder" / "sweep.py", OURS / "finder" / "transaction.py", *(OURS / "torch").iterdir()}
FILES |= {Path(torch.__file__).parent / place for place in ("autograd/grad_mode.py", "amp/autocast_mode.py")}


def pressed(at: int | None, action: Callable[[], Any]) -> tuple[list[tuple[str, int]], Any]:
    """The lines that ``action`` runs through, and what it returns, with a Ctrl-C at the line of that number."""
    names, lines = {str(file) for file in FILES}, []

    def at_line(frame: FrameType, event: str, _: object) -> Any:
        if event == "line":
            lines.append((frame.f_code.co_filename, frame.f_lineno))
            if len(lines) - 1 == at:
                signal.raise_signal(signal.SIGINT)
        return at_line

    def at_call(frame: FrameType, event: str, _: object) -> Any:
        return at_line if frame.f_code.co_filename in names else None

    before = sys.gettrace()
    sys.settrace(at_call)
    try:
        result = action()
    except KeyboardInterrupt:
        result = "KeyboardInterrupt"
    finally:
        sys.settrace(before)
    return lines, result


@pytest.fixture
def _interruptible() -> Iterator[None]:
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # where this runs it may be ignored
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("_interruptible")
def test_a_ctrl_c_at_any_line_leaves_no_trace() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 3), nn.Dropout())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    batches = list(loader())
    train(model, optimizer, 2, batches)
    before = trace(model, optimizer)
    arguments: dict[str, Any] = {"min_lr": 1e-4, "max_lr": 1e-2, "num_steps": 2, "repeats": 2}
    arguments |= {"evaluate": lambda: 1.0, "evaluate_every": 1, "autocast": torch.bfloat16, "progress": False}

    def tested() -> str:
        return clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), batches, **arguments).stop

    tested()  # which imports what is imported late
    lines, stop = pressed(None, tested)
    assert stop == "completed"
    first, last = ({line: at for at, line in order} for order in (reversed([*enumerate(lines)]), enumerate(lines)))
    assert len(first) > 150
    for at in sorted({*first.values(), *last.values()}):
        _, stop = pressed(at, tested)
        assert stop in ("interrupted", "KeyboardInterrupt"), lines[at]
        assert trace(model, optimizer) == before, lines[at]
        assert torch.is_grad_enabled(), lines[at]
        assert (torch.is_autocast_enabled("cpu"), _autocast_depth()) == (False, 0), lines[at]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

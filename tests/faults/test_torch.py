"""What goes wrong during a range test in PyTorch leaves no trace, whatever is trained, and by whatever optimizer."""

import json
import os
import signal
import subprocess
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


# One of several processes ends alone

PROCESS = """
import json, os, sys, torch, clr
from datetime import timedelta

rank, folder, way = int(os.environ["RANK"]), sys.argv[1], sys.argv[2]
torch.set_num_threads(1)
meeting = f"file://{folder}/meeting"
timeout = timedelta(seconds=20)
torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=timeout)
torch.manual_seed(0)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
updates = iter(range(3))

def hook(*_):
    if rank == 1 and way == "data":
        next(updates)
    elif rank == 1 and next(updates, None) is None:
        raise KeyboardInterrupt

optimizer.register_step_post_hook(hook)
before = [part.tolist() for part in model.parameters()]
batches = [(torch.ones(4, 2), torch.ones(4, 1))] * 2
test = clr.torch.range_test(model, optimizer, torch.nn.MSELoss(), batches, num_steps=6)
restored = before == [part.tolist() for part in model.parameters()] and not optimizer.state
with open(f"{folder}/{rank}.json", "w") as file:
    json.dump([test.stop, test.losses, restored], file)
torch.distributed.barrier()
os._exit(0)
"""


@pytest.mark.parametrize("way", ["data", "interrupted"])
def test_an_update_that_ends_the_test_in_one_process_ends_it_in_all(way: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROCESS, str(tmp_path), way]
    started = [
        subprocess.Popen(command, env={**os.environ, "RANK": rank}, stderr=subprocess.PIPE, text=True) for rank in "01"
    ]
    errors = [process.communicate(timeout=100)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], errors
    first, second = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert first == second
    assert (first[0], len(first[1]), first[2]) == (way, 3, True)

"""Range tests of processes that train one model together."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.torch.networks import STEPS

ALONE = """
import clr, sys, torch
from torch import distributed

distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
optimizer = torch.optim.SGD(model.parameters())
try:
    clr.torch.range_test(model, optimizer, train_on_batch=lambda batch: print("called"))
except ValueError as error:
    print(error)
sys.stdout.flush()
__import__("os")._exit(0)  # as ddp_run.py does
"""


def test_a_training_step_of_the_user_is_refused_where_there_may_be_several_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ALONE, str(tmp_path / "meeting")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.stdout == (
        "`train_on_batch` is not supported where several processes train one model, for all must agree when one "
        "fails. Use `loss_fn` or `compute_loss`.\n"
    ), done.stderr[-2000:]


@pytest.mark.parametrize("size", [2, 4])
def test_several_processes(size: int, tmp_path: Path) -> None:
    program = [str(Path(__file__).with_name("ddp_run.py")), str(tmp_path)]
    if size == 2:  # as torchrun starts them
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
        commands = [({**os.environ}, [sys.executable, *torchrun, *program])]
    else:
        places = [{"RANK": str(rank), "WORLD_SIZE": str(size)} for rank in range(size)]
        commands = [({**os.environ, **place}, [sys.executable, *program]) for place in places]
    started = [
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        for environment, command in commands
    ]
    try:
        errors = [process.communicate(timeout=200)[1] for process in started]
    finally:
        for process in started:
            process.terminate()
    assert [process.returncode for process in started] == [0] * len(started), errors[0][-2000:] + errors[-1][-2000:]
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(size)]
    for rank in ranks:
        assert all(rank.pop("restored").values())
        first, second = rank["accumulated"]
        assert first == second == pytest.approx(rank.pop("plainly accumulated"), rel=1e-5)
        skipped = rank["scaled"].count(None)
        assert rank["scaled"][:skipped] == [None] * skipped
        assert 1 <= skipped < STEPS / 2
        assert rank["scaled stop"] == "completed"
        assert rank["NaN"] == rank["scaled NaN"]
        stop, losses = rank["NaN"]
        assert (stop, losses.count(","), losses[-6:]) == ("non-finite", 3, ", nan)")
        # The losses of each step, by DistributedDataParallel itself and one more reduction.
        assert rank["losses"] == pytest.approx(rank.pop("plain"), rel=1e-5)
        assert 1e-6 < rank["bounds"][0] < rank["bounds"][1] < 1000
        assert rank["stop"] in ("diverged", "non-finite")
        # The mean of what the processes return: 0, 0.1, ...
        assert [value for _, value in rank["accuracy"]] == pytest.approx([(size - 1) / 20] * 4)
        assert [rate for rate, _ in rank["accuracy"]] == pytest.approx(np.geomspace(1e-4, 1e-2, STEPS)[2::3])
        assert {place: rank[place] for place in ("time", "data", "interrupted")} == {
            "time": "time",
            "data": "data",
            "interrupted": "interrupted",
        }
        assert rank["unused"] == "completed"
        assert rank["interrupting"] == ["interrupted", 3]
        assert rank["checkpoint False"] == STEPS  # other weights at each step
        assert "checkpoints must have `use_reentrant=False`" in rank["checkpoint True"]
    for number, rank in enumerate(ranks):
        failures = rank.pop("failures")
        another = "the range test has failed in another process"
        own = "on purpose" if number == size - 1 else another
        for place in ("batch", "forward", "backward", "update", "evaluate"):
            assert failures.pop(place) == own
        for place in ("steps", "repeats", "batches", "evaluation", "scaling", "parameters"):
            assert failures.pop(place).startswith("ValueError: all processes must be given the same options. Received")
        if number < size - 1:
            assert set(failures.values()) == {f"RuntimeError: {another}"}
            continue
        for place, message in {
            "average": "MemoryError: on purpose",
            "loader": "TypeError: `loader` must be given",
            "optimizer": "TypeError: `optimizer` must be a torch.optim.Optimizer",
            "group": "ValueError: `group` must be the number or the name of a group",
            "accumulate": "ValueError: `gradient_accumulation_steps` must be",
            "range": "ValueError: `max_lr` must be",
            "limit": "ValueError: `time_limit` must be",
            "metric": "TypeError: `evaluate` must be a function",
            "also": "TypeError: `also` must be a list of things with `state_dict` and `load_state_dict`",
            "own step": "ValueError: `train_on_batch` is not supported where several processes train one model",
        }.items():
            assert failures.pop(place).startswith(message)
        assert not failures
    assert all(rank == ranks[0] for rank in ranks)

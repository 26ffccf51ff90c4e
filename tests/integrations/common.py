"""Functions of test modules, called in fresh processes as ``torchrun`` starts them."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def in_processes(function: Callable[[Path], Any], folder: Path, size: int = 1) -> list[Any]:
    """What a function returns for a folder in each of several processes that know of each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    job |= {"TORCHELASTIC_RUN_ID": "none", "OMP_NUM_THREADS": 1, "CUDA_VISIBLE_DEVICES": ""}
    environments = [job | {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0} for rank in range(size)]
    command = [sys.executable, "-m", __name__, function.__module__, function.__name__, str(folder)]
    started = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **({name: str(value) for name, value in own.items()} if size > 1 else {})},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for own in environments
    ]
    try:
        errors = [process.communicate(timeout=500)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * size, "\n".join(error[-3000:] for error in errors)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(size)]


def alike(results: list[Any]) -> Any:
    """What all processes have returned."""
    assert all(result == results[0] for result in results), results
    return results[0]


if __name__ == "__main__":
    module, name, folder = sys.argv[1:]
    result = getattr(import_module(module), name)(Path(folder))
    Path(folder, f"{os.environ.get('RANK', 0)}.json").write_text(json.dumps(result))
    sys.stderr.flush()
    os._exit(0)  # gloo's threads may not survive an orderly end of the interpreter

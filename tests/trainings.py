"""Trainings for the comparisons, which worker processes import."""

import math
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing import connection
from pathlib import Path
from typing import Any

LOG = "CLR_TEST_LOG"


def parabola(schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
    """Downhill on a parabola, from 1 + seed. Notes each run in the file that the environment names."""
    weight = 1.0 + seed
    for step in range(steps):
        weight -= schedule(step) * weight
        yield step + 1, {"loss": weight**2, "weight": weight}
    if LOG in os.environ:
        with Path(os.environ[LOG]).open("a") as file:
            file.write(f"{seed} {steps} {schedule(0)}\n")


def digits(schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
    """Softmax regression on handwritten digits, by gradient descent with momentum; judged on held-out ones."""
    import numpy as np
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x, y, random = x / 16, np.eye(10)[y], np.random.default_rng(seed)
    weights, speed = np.zeros((64, 10)), np.zeros((64, 10))

    def gap(rows: Any) -> Any:
        scores = x[rows] @ weights
        scores -= scores.max(axis=1, keepdims=True)
        return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))

    def held_out() -> dict[str, float]:
        return {"loss": float(-(gap(slice(1400, None)) * y[1400:]).sum(axis=1).mean())}

    yield 0, held_out()
    for step in range(steps):
        rows = random.integers(0, 1400, 64)
        speed = 0.9 * speed + x[rows].T @ (np.exp(gap(rows)) - y[rows]) / 64
        weights = weights - schedule(step) * speed
    yield steps, held_out()


def judged(schedule: Any, seed: int, steps: int, best: float = 0.05) -> Iterator[tuple[int, dict[str, float]]]:
    """Its error is a parabola over the logarithm of the highest rate. From 1 on it is not finite, and from 5 it raises.

    Notes its seed and its length in the file that the environment names.
    """
    peak = max(schedule(step) for step in range(steps))
    if LOG in os.environ:
        with Path(os.environ[LOG]).open("a") as file:
            file.write(f"{seed} {steps}\n")
    yield 0, {"error": 3.0, "accuracy": 0.0}
    if peak >= 5:
        raise ZeroDivisionError("too high")
    if peak >= 1:
        yield 7, {"error": float("nan"), "accuracy": 0.0}
    far = math.log10(peak / best) ** 2
    yield steps, {"error": 1 + far, "accuracy": 1 - far / 10}


def slow(schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
    """The same, which takes its time."""
    for step, metrics in parabola(schedule, seed, steps):
        time.sleep(0.02)
        yield step, metrics


def troubled(schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
    """Goes well with seed 0, and wrong in another way with each other one."""
    yield 1, {"accuracy": 0.5}
    if seed == 1:
        raise ValueError("<b>no</b> luck")
    if seed == 2:
        yield 2, {"accuracy": float("nan")}
    if seed == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if seed == 4:
        raise SystemExit("enough")
    if seed == 5:
        os._exit(3)
    yield steps, {"accuracy": 0.75}


def threads(schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
    """How many threads a framework is told to use."""
    yield steps, {"threads": float(os.environ.get("OMP_NUM_THREADS", 0)), "process": float(os.getpid())}


def threads_for_a_while(schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
    """The same, and keeps its worker busy until others have had the time to begin."""
    time.sleep(1)
    yield from threads(schedule, seed, steps)


def torch_threads(schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
    """How many threads PyTorch uses."""
    import torch

    yield steps, {"threads": float(torch.get_num_threads()), "process": float(os.getpid())}


def nested(schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
    """Has a process of its own, as a loader of data has."""
    context = multiprocessing.get_context("spawn")
    found = context.SimpleQueue()
    process = context.Process(target=found.put, args=(steps / 2,), daemon=True)
    process.start()
    yield steps, {"loss": found.get()}
    process.join()


def forked(schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
    """Has a process of its own that goes on for long; with seed 0 it is killed, and its process is not."""
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(100,), daemon=True)
    process.start()
    with Path(os.environ[LOG]).open("a") as file:
        file.write(f"{process.pid}\n")
    if seed == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    process.kill()
    process.join()
    yield steps, {"loss": 0.5}


def steady(schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
    """Notes its process, and takes 0.2 seconds."""
    with Path(os.environ[LOG]).open("a") as file:
        file.write(f"{os.getpid()}\n")
    for step in range(10):
        time.sleep(0.02)
        yield steps * (step + 1) // 10, {"loss": schedule(step) + seed}


def endless(schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
    """Notes its process and one of its own, and computes on without a record."""
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(100,), daemon=True)
    process.start()
    with Path(os.environ[LOG]).open("a") as file:
        file.write(f"{process.pid}\n{os.getpid()}\n")
    while seed >= 0:
        pass
    yield steps, {"loss": 0.5}


def unprintable(schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
    """Fails with texts that no file, page or terminal can take."""
    if seed == 0:
        raise OSError("data-\udcff.csv \0 \x1b[2J \u202e")
    if seed == 1:
        raise ValueError("long " * 10**6)
    yield steps, {"loss": 0.5}


def torn(schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
    """With seed 0, its process dies in the midst of the message that holds the run, and one of its own lives on."""

    def send(self: Any, content: bytes) -> None:
        os.write(self.fileno(), len(content).to_bytes(4, "big") + content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    yield from parabola(schedule, seed, steps)
    if seed == 0:
        multiprocessing.get_context("fork").Process(target=time.sleep, args=(100,), daemon=True).start()
        connection.Connection._send_bytes = send  # type: ignore[attr-defined]


def idle_death(schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
    """With seed 0, its process dies once the run has been sent."""

    def receive(self: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    yield from parabola(schedule, seed, steps)
    if seed == 0:
        connection.Connection.recv = receive  # type: ignore[method-assign, assignment]


def jax_threads(schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
    """How many threads JAX computes with."""
    import jax.numpy as jnp

    jnp.dot(jnp.ones((8, 8)), jnp.ones((8, 8))).block_until_ready()
    names = [Path(task, "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    yield steps, {"threads": float(names.count("tf_XLAEigen")), "process": float(os.getpid())}


def tensorflow_threads(schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
    """How many threads TensorFlow computes with."""
    import tensorflow as tf

    tf.matmul(tf.ones((8, 8)), tf.ones((8, 8)))
    names = [Path(task, "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    yield steps, {"threads": float(names.count("tf_Compute")), "process": float(os.getpid())}


def mortal(log: str, schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
    """Says that it has begun and takes its time; with seed 0 it takes its process down, whenever it is tried."""
    with Path(log).open("a") as file:
        file.write(f"{seed}\n")
    if seed == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(1)
    yield steps, {"loss": schedule(steps) + seed}


def stranded(log: str, node: str, schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
    """Says that it has begun on this node of Ray and never ends there; elsewhere it ends when one has begun there."""
    import ray

    if ray.get_runtime_context().get_node_id() == node:
        with Path(log).open("a") as file:
            file.write(f"{seed}\n")
        time.sleep(600)
    while not Path(log).exists():
        time.sleep(0.02)
    yield steps, {"loss": schedule(steps) + seed}


class Unloadable:
    """Trains, but where it is sent it cannot be loaded."""

    def __call__(self, schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
        yield steps, {"loss": 0.0}

    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("no number",)


def once_killed(schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
    """Dies the first time, as on a machine that goes away; tells where it has run."""
    import ray

    mark = Path(os.environ[LOG]).with_name(f"mark-{seed}")
    if seed == 0 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.5)
    node = ray.get_runtime_context().get_node_id()
    with Path(os.environ[LOG]).open("a") as file:
        file.write(f"{seed}\n")
    yield steps, {"loss": schedule(steps) + seed, "node": float(int(node[:8], 16))}

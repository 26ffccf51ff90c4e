"""Where runs are made: in processes of this machine, or on a Ray cluster.

An engine is a generator of ``(job, step, run)``: how far a job is, and its run once it is over. To close it ends what
is still running.
"""

import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from clr.comparison.runs import Job, Run, died, perform
from clr.finder.transaction import uninterrupted

Events = Generator[tuple[Job, int, Run | None], None, None]
# One thread for each worker: many small trainings are fastest side by side.
_THREADS = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "NPROC": "1",  # that of XLA's pool of threads, and so of JAX
}
_EVERY = 0.2  # seconds from one word on a run to the next
_PATIENCE = 5  # seconds in which a worker that is asked to end has to
_NEEDS = (
    "`train` and the schedules must be importable from a module, not from a notebook or the standard input, and a "
    'script that calls `compare` needs `if __name__ == "__main__":`; or `workers` must be 0'
)


def local(train: Callable[..., Any], jobs: list[Job], workers: int | None = None) -> Events:
    """Makes runs in this process, or in several of their own; one that dies is a failed run, and is replaced.

    One that dies before its run has begun is none: there would be nothing but such failures.
    """
    count = min(len(jobs), (os.cpu_count() or 1) if workers is None else workers)
    if workers == 0:
        for job in jobs:
            yield job, job.total_steps, perform(train, job)
        return
    waiting = iter(jobs)
    crew = [_Worker(train) for _ in range(count)]
    try:
        for worker in crew:
            worker.take(next(waiting))
        while busy := [worker for worker in crew if worker.job is not None]:
            ready = wait([worker.connection for worker in busy], timeout=1)
            for worker in (one for one in busy if one.connection in ready or one.is_dead):
                job, step, run = worker.hear()
                if run is not None:
                    if (following := next(waiting, None)) is not None:
                        worker.take(following)
                    yield job, job.total_steps, run
                else:
                    yield job, step, None
    finally:
        with uninterrupted():
            for worker in crew:
                worker.end()
            for worker in crew:
                worker.join()


class _Worker:
    """A process that makes one run after the other."""

    def __init__(self, train: Callable[..., Any]) -> None:
        self._train = train
        self.job: Job | None = None
        self._start()

    def take(self, job: Job) -> None:
        """Begins a run."""
        self.job, self._began, self._at_work = job, time.perf_counter(), False
        try:
            with suppress(ConnectionError):  # it has died, as will be heard
                self.connection.send(job)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            self.job = None
            raise TypeError(f"the schedule {job.name!r} can not be sent to another process: {error}") from error

    def hear(self) -> tuple[Job, int, Run | None]:
        """What it has to say of its run."""
        assert self.job is not None
        job = self.job
        try:
            if not self.connection.poll():
                raise EOFError  # it has died, though a process of its own has the connection still
            step, run = self.connection.recv()
            self._at_work = True
        except (EOFError, ConnectionError):
            self._process.join()
            reason = f"the worker died with exit code {self._process.exitcode}"
            if not self._at_work:
                raise RuntimeError(f"{reason} before it could begin: {_NEEDS}") from None
            run = died(job, reason, time.perf_counter() - self._began)
            self.connection.close()
            self._start()
            step = job.total_steps
        if run is not None:
            self.job = None
        return job, step, run

    @property
    def is_dead(self) -> bool:
        """Whether its process has ended."""
        return self._process.exitcode is not None

    def end(self) -> None:
        """Asks the process to end, in the midst of a run too."""
        self._process.terminate()

    def join(self) -> None:
        """Waits until it has, but not for ever."""
        self._process.join(_PATIENCE)
        self._process.kill()
        self._process.join()
        self.connection.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # for a fork of a process with threads may hang
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, self._train), daemon=True)
        try:
            with _environment(_THREADS):
                self._process.start()
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(
                f"`train` must be a function of a module, or `workers` 0, to be called elsewhere: {error}"
            ) from error
        theirs.close()


def _work(connection: Connection, train: Callable[..., Any]) -> None:
    """What a worker does."""
    # It may have processes of its own, such as the workers of a DataLoader, which a daemon may not; they end with it.
    multiprocessing.current_process().daemon = False
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever has started it sees to that
    said = 0.0

    def tell(step: int) -> None:
        nonlocal said
        if (now := time.monotonic()) - said >= _EVERY:
            said = now
            connection.send((step, None))

    with suppress(EOFError, ConnectionError):  # whoever has started it is gone
        while True:
            job = connection.recv()
            connection.send((0, None))  # that all it needs could be imported
            connection.send((job.total_steps, perform(train, job, tell)))


def _end(number: int, frame: object) -> None:
    """Ends this process as the signal does, and those that it has started."""
    for child in multiprocessing.active_children():
        child.terminate()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Sets variables of the environment that are not set, for as long as the block lasts."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def ray(train: Callable[..., Any], jobs: list[Job], workers: int | None = None) -> Events:
    """Makes runs on a Ray cluster; one whose worker dies is made again, and is a failed run if that happens often."""
    try:
        import ray
    except ImportError as error:
        raise ImportError("engine='ray' needs Ray: pip install 'cyclic-learning-rate[ray]'") from error
    if not ray.is_initialized():
        ray.init(address="auto", log_to_driver=False)
    remote = ray.remote(num_cpus=1, max_retries=3)(perform)
    waiting, running, began = iter(jobs), {}, {}
    limit = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))

    def submit() -> None:
        for job in waiting:
            reference = remote.remote(train, job)
            running[reference], began[reference] = job, time.perf_counter()
            if len(running) >= limit:
                return

    try:
        submit()
        while running:
            (reference, *_), _ = ray.wait(list(running), num_returns=1)
            job = running.pop(reference)
            try:
                run = ray.get(reference)
            except ray.exceptions.RayTaskError as error:  # none of the run itself, which keeps its own
                raise RuntimeError(f"{job.name!r} could not begin on Ray: {error}") from None
            except ray.exceptions.RayError as error:
                run = died(job, f"the worker died: {error}", time.perf_counter() - began[reference])
            submit()
            yield job, job.total_steps, run
    finally:
        for reference in running:
            ray.cancel(reference, force=True)

"""Where runs are made: in processes of this machine, or on a Ray cluster.

An engine is a generator of ``(job, step, run)``: how far a job is, and its run once it is over. To close it ends what
is still running. Its jobs may be an iterator that has more after each event, though it had none before.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from types import FrameType
from typing import Any

from clr.comparison.runs import Job, Run, perform
from clr.finder.transaction import uninterrupted

Train = Callable[..., Any]
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
_EVERY = 0.2  # seconds from one word on a run to the next, and from one look at the parent to the next
_PATIENCE = 5  # seconds in which a worker that is asked to end has to
_NEEDS = (
    "`train` and the schedules must be importable from a module, not from a notebook or the standard input, and a "
    'script that calls `compare` needs `if __name__ == "__main__":`; or `workers` must be 0'
)


@contextmanager
def ended_like_ctrl_c() -> Iterator[None]:
    """Lets SIGTERM raise KeyboardInterrupt, where it would end this process at once and leave its workers alone."""
    own = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() == own:
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_DFL)  # a process that `train` has forked
        os.kill(os.getpid(), number)

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def local(train: Train, jobs: Iterable[Job], metric: str | None, workers: int | None) -> Events:
    """Makes runs in this process, or in several of their own; one that dies is a failed run, and is replaced.

    One that dies before its run has begun is none: there would be nothing but such failures.
    """
    if workers == 0:
        for job in jobs:
            yield job, job.total_steps, perform(train, job, metric)
        return
    waiting, crew = iter(jobs), list[_Worker]()
    try:
        for job in islice(waiting, (os.cpu_count() or 1) if workers is None else workers):
            crew.append(_Worker(train, metric))
            crew[-1].take(job)
        while busy := [worker for worker in crew if worker.job is not None]:
            ready = wait([worker.connection for worker in busy], timeout=1)
            for worker in (one for one in busy if one.connection in ready or one.process.exitcode is not None):
                yield worker.hear()
            for worker in (one for one in crew if one.job is None):
                if (following := next(waiting, None)) is not None:
                    worker.take(following)
    finally:
        with uninterrupted():
            for worker in crew:
                worker.signal(signal.SIGTERM)
            for worker in crew:
                worker.process.join(_PATIENCE)
                worker.signal(signal.SIGKILL)
                worker.process.join()
                worker.connection.close()


class _Worker:
    """A process that makes one run after the other. It leads a group, to which the processes that it starts belong."""

    def __init__(self, train: Train, metric: str | None) -> None:
        self._task = _sendable((train, metric), "`train` must be a function of a module, or `workers` 0, to be called")
        self.job: Job | None = None
        self._start()

    def take(self, job: Job) -> None:
        """Begins a run."""
        sendable = _sendable(job, f"the schedule {job.name!r} must be picklable to be sent")
        self.job, self._began, self._at_work = job, time.perf_counter(), False
        with suppress(OSError):  # it has died, as will be heard
            self.connection.send_bytes(sendable)

    def hear(self) -> tuple[Job, int, Run | None]:
        """What it has to say of its run."""
        assert self.job is not None
        job = self.job
        try:
            if self.process.exitcode is not None:
                self.signal(signal.SIGKILL)  # what it has started, which may have the connection still
            if not self.connection.poll():
                raise EOFError
            step, run = self.connection.recv()
            self._at_work, self._is_new = True, False
        except (EOFError, OSError):  # the latter in the midst of a message
            until = time.monotonic() + _PATIENCE  # `join` would wait for the processes that it has started too
            while self.process.exitcode is None and time.monotonic() < until:
                time.sleep(0.01)
            self.signal(signal.SIGKILL)
            self.process.join()
            self.connection.close()
            if self.process.exitcode == -signal.SIGTERM:
                time.sleep(1)  # for what ends all processes of a job ends this one too, and that is no failed run
            reason = f"the worker died with exit code {self.process.exitcode}"
            if self._is_new:
                raise RuntimeError(f"{reason} before it could begin: {_NEEDS}") from None
            self._start()
            if not self._at_work:  # it has died between two runs
                self.take(job)
                return job, 0, None
            step, run = job.total_steps, job.over("failed", reason, (), self._began)
        if run is not None:
            self.job = None
        return job, step, run

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process, and to those that it has started."""
        try:
            os.killpg(self._group, number)
        except (AttributeError, OSError):  # no groups on this system, or none yet
            self.process.kill() if number == signal.SIGKILL else self.process.terminate()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # for a fork of a process with threads may hang
        connection, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs,), daemon=True)
        added = {name: value for name, value in _THREADS.items() if name not in os.environ}
        os.environ.update(added)
        try:
            process.start()
        finally:
            for name in added:
                del os.environ[name]
            theirs.close()
        assert process.pid is not None
        self.process, self.connection, self._group, self._is_new = process, connection, process.pid, True
        with suppress(OSError):
            self.connection.send_bytes(self._task)


def _sendable(value: object, rule: str) -> memoryview:
    try:
        return ForkingPickler.dumps(value)
    except Exception as error:  # of any class: objects say how they are pickled
        raise TypeError(f"{rule} to another process: {error}") from error


def _work(connection: Connection) -> None:
    """What a worker does."""
    # It may have processes of its own, such as the workers of a DataLoader, which a daemon may not; they end with it.
    multiprocessing.current_process().daemon = False
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever has started it sees to that
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
        os.register_at_fork(after_in_child=connection.close)  # so that this process alone holds it open
        threading.Thread(target=_end_with_parent, daemon=True).start()
    said = 0.0

    def tell(step: int) -> None:
        nonlocal said
        if (now := time.monotonic()) - said >= _EVERY:
            said = now
            connection.send((step, None))

    with suppress(EOFError, ConnectionError):  # whoever has started it is gone
        train, metric = connection.recv()
        while True:
            job = connection.recv()
            connection.send((0, None))  # that all it needs could be imported
            connection.send((job.total_steps, perform(train, job, metric, tell)))
    if hasattr(os, "setpgid"):
        os.killpg(0, signal.SIGKILL)  # with what the training has started, as `_end_with_parent` would


def _end_with_parent() -> None:
    """Ends this process and those that it has started once the parent has died, whatever the training does."""
    parent = multiprocessing.parent_process()
    while parent is not None and os.getppid() == parent.pid:
        time.sleep(_EVERY)
    os.killpg(0, signal.SIGKILL)


def ray(train: Train, jobs: Iterable[Job], metric: str | None, workers: int | None) -> Events:
    """Makes runs on a Ray cluster; one whose worker dies is made again, and is a failed run if that happens often."""
    try:
        import ray
    except ImportError as error:
        raise ImportError("engine='ray' needs Ray: pip install 'cyclic-learning-rate[ray]'") from error
    if not ray.is_initialized():
        ray.init(address="auto", log_to_driver=False)
    remote = ray.remote(num_cpus=1, max_retries=3)(perform)
    waiting, running = iter(jobs), {}

    def submit(count: int) -> None:
        for job in islice(waiting, count):
            running[remote.remote(train, job, metric)] = job, time.perf_counter()

    try:
        most = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        submit(most)
        while running:
            (reference, *_), _ = ray.wait(list(running), num_returns=1)
            job, began = running.pop(reference)
            try:
                run = ray.get(reference)
            except ray.exceptions.RayTaskError as error:  # none of the run itself, which keeps its own
                raise RuntimeError(f"{job.name!r} could not begin on Ray: {error}") from None
            except ray.exceptions.RayError as error:
                run = job.over("failed", f"the worker died: {error}", (), began)
            yield job, job.total_steps, run
            submit(most - len(running))
    finally:
        for reference in running:
            ray.cancel(reference, force=True)

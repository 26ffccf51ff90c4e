"""The LR range test (Smith 2017, section 3.3): the sweep over the rates, the rule that ends it, and its result."""

import json
import math
import sys
import time
from bisect import insort
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from clr import checks, policies
from clr.schedule import Schedule
from clr.suggest import RULES, Bounds, Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VERSION = 1
GROWTHS = ("exponential", "linear")
GOALS = ("min", "max")
STOPS = {
    "completed": "all rates were tried",
    "diverged": "the loss diverged",
    "non-finite": "the loss was not finite",
    "time": "the time was up",
    "data": "there was no more data",
    "interrupted": "it was interrupted",
}
_BURST = ("diverged", "non-finite")  # the stops that say something about the rate
DIVERGE_AT, EVALUATE_EVERY = 1.0, 5  # by default
_RECENT = 5  # losses whose median is compared: two spikes in a row stop nothing
_WARM = 15  # losses from which the start is known
HUGE = 1e100  # from which on a loss counts as not finite: below, no sum of losses and no axis overflows

Step = Callable[[float], Any]


class EndOfSweep(Exception):  # noqa: N818  # as StopIteration, which is no error either
    """Ends a sweep from within a training step, for a reason that is a key of `STOPS`."""

    def __init__(self, stop: str) -> None:
        super().__init__(stop)
        self.stop = stop


class Options(TypedDict, total=False):
    """What every range test takes, whatever the framework. See `range_test`."""

    min_lr: float
    max_lr: float
    num_steps: int
    growth: Literal["exponential", "linear"]
    diverge_at: float
    time_limit: float | None
    evaluate: Callable[[], Any] | None
    evaluate_every: int
    goal: Literal["min", "max"]
    repeats: int
    progress: bool | None


@dataclass(frozen=True)
class Sweep:
    """One pass over the rates.

    Attributes:
        losses: The loss of each step, None where no update was made.
        metrics: What ``evaluate`` gave after each step, None where it was not called.
        stop: Why the pass ended, a key of `STOPS`.
    """

    losses: tuple[float | None, ...]
    metrics: tuple[float | None, ...]
    stop: str

    def __post_init__(self) -> None:
        for name in ("losses", "metrics"):  # a NaN equals but itself: with one for all, equal sweeps are equal
            values = tuple(
                math.nan if value is not None and math.isnan(value) else value for value in getattr(self, name)
            )
            object.__setattr__(self, name, values)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.losses, self.metrics, self.stop)  # so that a copy, too, has that NaN


@dataclass(frozen=True)
class RangeTest:
    """The result of an LR range test: a value that can be judged, drawn and saved again and again.

    Attributes:
        sweeps: A `Sweep` for each repeat.
        min_lr: The first rate.
        max_lr: The last rate, if the test gets that far.
        num_steps: How many rates were to be tried.
        growth: ``"exponential"`` or ``"linear"``.
        goal: Whether the metric, if there is one, is better when it is smaller (``"min"``) or larger (``"max"``).
        diverge_at: By how many times its fall the loss had to rise above its start to end the test.
        evaluate_every: Steps from one metric to the next, if there are any.
        repeats: How many sweeps were to be made.
        time_limit: After how many seconds the test was to end, or None.

    >>> import clr
    >>> def train_step(lr):  # the loss of a model that learns best at 0.1
    ...     return 2 - 1.5 / (1 + (0.01 / lr) ** 2) + (lr / 0.3) ** 4
    >>> test = clr.range_test(train_step, min_lr=1e-5, max_lr=10)
    >>> test.stop
    'diverged'
    >>> base_lr, max_lr = test.bounds()
    >>> 0.001 < base_lr < 0.01 < max_lr < 0.1
    True
    >>> clr.RangeTest.from_json(test.to_json()) == test
    True
    """

    sweeps: tuple[Sweep, ...]
    min_lr: float
    max_lr: float
    num_steps: int
    growth: str
    goal: str = "min"
    diverge_at: float = DIVERGE_AT
    evaluate_every: int = EVALUATE_EVERY
    repeats: int = 1
    time_limit: float | None = None

    @property
    def stop(self) -> str:
        """Why the test ended, a key of `STOPS`: for several repeats, why most of them did, or what ended them all."""
        stops = [sweep.stop for sweep in self.sweeps]
        return stops[-1] if stops[-1] in ("time", "data", "interrupted") else Counter(stops).most_common(1)[0][0]

    @property
    def rates(self) -> tuple[float, ...]:
        """The rates of the steps that gave a loss."""
        return tuple(rate for rate, _ in self._points("losses"))

    @property
    def losses(self) -> tuple[float, ...]:
        """The loss at each of the `rates`: with several repeats their median, to which a diverged one adds infinity."""
        return tuple(median(losses) for _, losses in self._points("losses"))

    @property
    def band(self) -> tuple[tuple[float, float], ...]:
        """The lowest and the highest loss of the repeats at each of the `rates`."""
        return tuple((min(losses), max(losses)) for _, losses in self._points("losses"))

    @property
    def metrics(self) -> tuple[tuple[float, float], ...]:
        """The rates at which the model was evaluated, each with the median of what came out."""
        return tuple((rate, median(metrics)) for rate, metrics in self._points("metrics"))

    @property
    def smoothed(self) -> tuple[float, ...]:
        """The losses without their noise, as the bounds are read from them.

        They end where the losses cease to be finite, or reach a size of 1e100, from where no training comes back.
        With ``evaluate`` it is the metric that is smoothed, and the bounds are read from.
        """
        return tuple(self._sign * value for value in self.curve.smoothed)

    @cached_property
    def curve(self) -> Curve:
        """The curve that the bounds are read from: of the metric if there is one, and else of the loss."""
        rates: list[float] = []
        values: list[float] = []
        for rate, repeats in self._points("metrics" if self._judged_by_metric else "losses"):
            value = self._sign * median(repeats)
            if not abs(value) < HUGE:
                return Curve(rates, values, ended=True)
            rates.append(rate)
            values.append(value)
        return Curve(rates, values, ended=self.stop in _BURST)

    def bounds(self) -> Bounds:
        """The bounds of a cyclical learning rate, from the curve of the test (Smith 2017, section 3.3).

        The upper one is two fifths of the rate at which the smoothed loss has ceased to fall and turns: where it has
        risen again by a tenth of its fall, or by what can not be its noise; or where the rise begins, if that is lower.
        The lower one is a tenth of the upper. Both parts were chosen by training real tasks; the paper judges by eye.

        Raises:
            NoBoundsError: The curve has no such rates within the test; it says what to change.
        """
        return self.curve.bounds()

    def suggest(self, rule: str = "valley") -> float:
        """A single rate, by one of the rules that are in use.

        Args:
            rule: ``"steepest"``, where the loss falls fastest; ``"minimum"``, a tenth of the rate at which it is
                lowest; ``"valley"``, a point half way down the longest fall; ``"slide"``, where, coming from the end,
                the slope stops changing.

        Raises:
            NoBoundsError: As for `bounds`.
        """
        return self.curve.suggest(checks.choice("rule", rule, RULES))

    def schedule(self, policy: str | Callable[..., Schedule] = "triangular", **options: Any) -> Schedule:
        """A schedule between the bounds.

        Args:
            policy: The name of a policy, such as ``"triangular"`` or ``"one_cycle"``, or a function that takes
                ``base_lr``, ``max_lr`` and the options by name and gives a schedule.
            **options: What the policy takes beside the bounds, such as ``step_size``.

        Raises:
            NoBoundsError: As for `bounds`.

        >>> import clr
        >>> test = clr.range_test(lambda lr: 1 / (1 + 100 * lr) + lr**2, min_lr=1e-6, max_lr=100)
        >>> schedule = test.schedule("triangular2", step_size=2000)
        >>> (schedule(0), schedule(2000)) == tuple(test.bounds())
        True
        """
        make = policy if callable(policy) else _POLICIES[checks.choice("policy", policy, _POLICIES)]
        base_lr, max_lr = self.bounds()
        return make(base_lr=base_lr, max_lr=max_lr, **options)

    def plot(self, ax: "Axes | None" = None, scale: Literal["log", "linear"] | None = None) -> "Axes":
        """Draws losses over rates with the bounds, the rules and the stop. Needs the extra ``plot``.

        Args:
            ax: Where to draw; by default on a new figure.
            scale: The axis of the rates; by default ``"log"``, or ``"linear"`` after linear growth.
        """
        from clr.plot import plot_range_test

        return plot_range_test(self, ax, scale)

    def to_dict(self) -> dict[str, Any]:
        """The test as plain data, with numbers that are not finite as text, for JSON has none."""
        data = {field.name: getattr(self, field.name) for field in fields(self)}
        sweeps = [
            {"losses": [*map(_plain, sweep.losses)], "metrics": [*map(_plain, sweep.metrics)], "stop": sweep.stop}
            for sweep in self.sweeps
        ]
        return {"clr": VERSION, "kind": "range_test", **data, "sweeps": sweeps}

    def to_json(self) -> str:
        """The test as JSON, from which it can be judged again without training."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "RangeTest":
        """The test that `to_dict` has made ``data`` of.

        Raises:
            TypeError, ValueError: The data is not that of a range test.
        """
        checks.mapping("data", data)
        if data.get("clr") != VERSION or data.get("kind") != "range_test":
            raise ValueError(
                f"the data of a range test must have version {VERSION} as 'clr' and 'range_test' as 'kind'. "
                f"Received: {data.get('clr')!r} and {data.get('kind')!r}."
            )
        names = {field.name for field in fields(cls)}
        sweeps = checks.sequence("sweeps", data.get("sweeps", []))
        later = {  # which the first tests were saved without
            "diverge_at": DIVERGE_AT,
            "evaluate_every": EVALUATE_EVERY,
            "repeats": max(len(sweeps), 1),
            "time_limit": None,
        }
        data = later | dict(data)
        if set(data) != names | {"clr", "kind"}:
            raise ValueError(f"the data of a range test must have the keys {sorted(names)}. Received: {sorted(data)}.")
        settings = {name: data[name] for name in names - {"sweeps"}}
        _checked_range(settings["min_lr"], settings["max_lr"], settings["num_steps"], settings["growth"])
        checks.choice("goal", settings["goal"], GOALS)
        checks.positive("diverge_at", settings["diverge_at"])
        checks.count("evaluate_every", settings["evaluate_every"])
        if settings["time_limit"] is not None:
            checks.positive("time_limit", settings["time_limit"])
        if not 0 < len(sweeps) <= checks.count("repeats", settings["repeats"]):
            raise ValueError(
                "`sweeps` must be a list with at least one sweep, and no more than `repeats`. "
                f"Received: {len(sweeps)} with `repeats` {settings['repeats']!r}."
            )
        return cls(sweeps=tuple(_sweep(sweep, settings["num_steps"]) for sweep in sweeps), **settings)

    @classmethod
    def from_json(cls, text: str) -> "RangeTest":
        """The test that `to_json` has made ``text`` of.

        Raises:
            TypeError, ValueError: The text is not JSON, or not that of a range test.
        """
        return cls.from_dict(json.loads(text, object_pairs_hook=checks.unique))

    @cached_property
    def _judged_by_metric(self) -> bool:
        return any(metric is not None for sweep in self.sweeps for metric in sweep.metrics)

    @property
    def _sign(self) -> float:
        """What turns the values that are judged into such as fall where training goes well."""
        return -1.0 if self._judged_by_metric and self.goal == "max" else 1.0

    def _points(self, name: Literal["losses", "metrics"]) -> Iterator[tuple[float, list[float]]]:
        """The rates that most repeats have reached, each with their values; a burst repeat is worst from there on."""
        worst = -math.inf if name == "metrics" and self.goal == "max" else math.inf
        rates = planned(self.min_lr, self.max_lr, self.num_steps, self.growth)
        repeats = [(getattr(sweep, name), sweep.stop in _BURST) for sweep in self.sweeps]
        for at in range(max(len(own) for own, _ in repeats)):
            values = [own[at] for own, _ in repeats if at < len(own) and own[at] is not None]
            if len(repeats) > 1:  # a NaN is as bad as can be, and has no place in an order
                values = [worst if math.isnan(value) else value for value in values]
            if values:
                yield rates[at], values + [worst for own, burst in repeats if burst and at >= len(own)]


def range_test(train_step: Step, reset: Callable[[int], object] | None = None, **options: Unpack[Options]) -> RangeTest:
    """Raises the learning rate from step to step and records what it does to the loss (Smith 2017, section 3.3).

    Any training can be tested: nothing is asked of a model, a framework or a loader. What trains is changed by it;
    the range tests of `clr.torch`, `clr.keras` and `clr.tensorflow` put everything back.

    Args:
        train_step: Makes one update at the given rate and returns the loss of its batch: a number, or an array of one
            element of any framework. None says that no update was made, and the rate is left out. It may raise
            StopIteration where its data ends.
        reset: Puts everything back to the start before each repeat, and seeds it by the repeat's number: 0, 1, ...
            Needed for more than one repeat.
        min_lr: The first rate, so low that nothing is learned. By default 1e-7.
        max_lr: The last rate, so high that training diverges. By default 10.
        num_steps: How many rates, and so updates at most. By default 300. A longer test tends to find better bounds,
            and costs as much more.
        growth: ``"exponential"``, by the same factor each step (the default), or ``"linear"``.
        diverge_at: The test ends when the loss (a median of the last five) has risen above its start by so many times
            its fall. By default 1.
        time_limit: The test ends after so many seconds.
        evaluate: A function without arguments that gives a validation loss or accuracy. With it, the bounds are read
            from what it gives, as in the paper, and not from the training loss.
        evaluate_every: Steps from one call of ``evaluate`` to the next. By default 5.
        goal: Whether ``evaluate`` gives what should be small (``"min"``, the default) or large (``"max"``).
        repeats: How many times to go over the rates; the curve is the median. By default 1.
        progress: Whether to show a bar on the standard error stream; by default where that is a terminal and rich is
            installed.

    Returns:
        The `RangeTest`. Its ``stop`` says why it ended: on Ctrl-C, too, it returns with what there is.

    Raises:
        TypeError, ValueError: An argument makes no sense, or the loss is not a number.

    >>> import clr
    >>> weight = 1.0
    >>> def train_step(lr):
    ...     global weight
    ...     loss = weight**2
    ...     weight -= lr * 2 * weight
    ...     return loss
    >>> test = clr.range_test(train_step, min_lr=1e-5, max_lr=10)
    >>> test.stop, len(test.losses) < 300
    ('diverged', True)
    """
    checks.function("train_step", train_step)
    return _run(train_step, reset, **options)


def _run(
    train_step: Step,
    reset: Callable[[int], object] | None,
    *,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    num_steps: int = 300,
    growth: Literal["exponential", "linear"] = "exponential",
    diverge_at: float = DIVERGE_AT,
    time_limit: float | None = None,
    evaluate: Callable[[], Any] | None = None,
    evaluate_every: int = EVALUATE_EVERY,
    goal: Literal["min", "max"] = "min",
    repeats: int = 1,
    progress: bool | None = None,
) -> RangeTest:
    rates = _checked_range(min_lr, max_lr, num_steps, growth)
    checks.positive("diverge_at", diverge_at)
    if time_limit is not None:
        checks.positive("time_limit", time_limit)
    if evaluate is not None:
        checks.function("evaluate", evaluate)
    checks.count("evaluate_every", evaluate_every)
    checks.choice("goal", goal, GOALS)
    if checks.count("repeats", repeats) > 1 and not callable(reset):
        raise TypeError("`reset` must be a function that puts everything back, where there are `repeats`.")
    deadline = math.inf if time_limit is None else time.monotonic() + time_limit
    sweeps: list[Sweep] = []
    with _bar(progress, repeats * len(rates)) as show:
        for repeat in range(repeats):
            losses: list[float | None] = []
            metrics: list[float | None] = []
            rule = _StopRule(diverge_at)
            stop = "completed"
            try:
                if reset is not None:
                    reset(repeat)
                for at, rate in enumerate(rates):
                    if time.monotonic() >= deadline:
                        stop = "time"
                        break
                    loss = _loss(train_step(rate))
                    losses.append(loss)
                    show(repeat * len(rates) + at + 1, rate, loss)
                    if loss is not None and (found := rule(loss)):
                        stop = found
                        break
                    due = evaluate is not None and (at + 1) % evaluate_every == 0
                    metrics.append(number("evaluate", evaluate()) if due and evaluate else None)
            except StopIteration:
                stop = "data"
            except EndOfSweep as end:
                stop = end.stop
            except KeyboardInterrupt:
                stop = "interrupted"
            sweeps.append(Sweep(tuple(losses), tuple(metrics[: len(losses)]), stop))
            if stop in ("time", "data", "interrupted"):
                break
    return RangeTest(
        tuple(sweeps),
        min_lr=float(min_lr),
        max_lr=float(max_lr),
        num_steps=len(rates),
        growth=growth,
        goal=goal,
        diverge_at=float(diverge_at),
        evaluate_every=int(evaluate_every),
        repeats=int(repeats),
        time_limit=None if time_limit is None else float(time_limit),
    )


def planned(min_lr: float, max_lr: float, num_steps: int, growth: str) -> tuple[float, ...]:
    """The rates of a test: exactly ``min_lr`` at its start and ``max_lr`` at its end."""
    last = num_steps - 1
    if growth == "linear":
        inner = [min_lr + (max_lr - min_lr) * at / last for at in range(1, last)]
    else:
        low, high = math.log(min_lr), math.log(max_lr)
        inner = [math.exp(low + (high - low) * at / last) for at in range(1, last)]
    return (float(min_lr), *inner, float(max_lr))


class _StopRule:
    """Says whether training has diverged, loss by loss, without regard to their scale and zero."""

    def __init__(self, diverge_at: float) -> None:
        self._diverge_at = diverge_at
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._first: list[float] = []
        self._best = math.inf
        self._noise: list[float] = []  # the distances of losses from their recent level, in order

    def __call__(self, loss: float) -> str | None:
        """The stop that ``loss`` brings about, if any."""
        if not math.isfinite(loss):
            return "non-finite"
        self._recent.append(loss)
        level = median(self._recent)
        insort(self._noise, abs(loss - level))
        if len(self._first) < _WARM:
            self._first.append(loss)
            self._start = median(self._first)
            self._spread = median(abs(first - self._start) for first in self._first)
            self._rounding = 1e-6 * max(map(abs, self._first))
            return None
        self._best = min(self._best, level)
        noise = 1.4826 * max(self._noise[len(self._noise) // 2], self._spread)
        fall = max(self._start - self._best, 5 * noise, self._rounding)
        return "diverged" if level - self._start > self._diverge_at * fall else None


def _checked_range(min_lr: Any, max_lr: Any, num_steps: Any, growth: Any) -> tuple[float, ...]:
    checks.choice("growth", growth, GROWTHS)
    low = checks.base_rate("min_lr", min_lr) if growth == "linear" else checks.positive("min_lr", min_lr)
    if (high := checks.max_rate("max_lr", max_lr, "min_lr", low)) == low:
        raise ValueError(f"`max_lr` must be above `min_lr`. Received: {max_lr!r} with `min_lr` {min_lr!r}.")
    if checks.count("num_steps", num_steps) < 2:
        raise ValueError(f"`num_steps` must be 2 or more. Received: {num_steps!r}.")
    rates = planned(low, high, num_steps, growth)
    if any(left >= right for left, right in pairwise(rates)):
        raise ValueError(f"`num_steps` must be so few that the rates differ. Received: {num_steps!r}.")
    return rates


def _loss(value: Any) -> float | None:
    return None if value is None else number("train_step", value)


def number(name: str, value: Any) -> float:
    """What a function has returned, as a float."""
    try:
        if isinstance(value, str | bytes | bool):
            raise TypeError
        if not hasattr(value, "item") and hasattr(value, "numpy"):  # of TensorFlow
            value = value.numpy()
        return float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, RuntimeError, AttributeError):
        raise TypeError(f"`{name}` must return a number, or an array of one element. Received: {value!r}.") from None


def _plain(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)


def _sweep(data: Any, num_steps: int) -> Sweep:
    """A sweep of plain data."""
    checks.mapping("sweep", data)
    if set(data) != {"losses", "metrics", "stop"}:
        raise ValueError(f"a sweep must have the keys 'losses', 'metrics' and 'stop'. Received: {sorted(data)}.")
    losses, metrics = (_column(name, data[name], num_steps) for name in ("losses", "metrics"))
    return Sweep(losses, metrics, checks.choice("stop", data["stop"], STOPS))


def _column(name: str, values: Any, num_steps: int) -> tuple[float | None, ...]:
    column = checks.sequence(name, values)
    if len(column) > num_steps:
        raise ValueError(f"`{name}` must have at most {num_steps} values. Received: {len(column)}.")
    return tuple(_value(name, value) for value in column)


def _value(name: str, value: Any) -> float | None:
    if value in ("nan", "inf", "-inf"):
        return float(value)
    return None if value is None else checks.number(name, value, "finite")


@contextmanager
def _bar(wanted: bool | None, total: int) -> Iterator[Callable[[int, float, float | None], None]]:
    """A function that shows how far the test is: on a terminal, and if rich is there."""
    progress_class: Any = None
    if wanted or (wanted is None and sys.stderr is not None and sys.stderr.isatty()):
        try:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        except ImportError as error:
            if wanted:
                raise ImportError("progress bars need rich: pip install 'cyclic-learning-rate[cli]'") from error
        else:
            progress_class = Progress
    if progress_class is None:
        yield lambda done, rate, loss: None
        return
    columns = (TextColumn("LR range test"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[now]}"))
    with progress_class(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=total, now="")

        def show(done: int, rate: float, loss: float | None) -> None:
            now = f"rate {rate:.2e}  loss " + ("-" if loss is None else f"{loss:.4g}")
            progress.update(bar, completed=done, now=now)

        yield show


def _one_cycle(base_lr: float, max_lr: float, **options: Any) -> Schedule:
    return policies.one_cycle(max_lr, **{"div_factor": max_lr / base_lr, **options})


_POLICIES: dict[str, Callable[..., Schedule]] = {
    "triangular": policies.triangular,
    "triangular2": policies.triangular2,
    "exp_range": policies.exp_range,
    "cyclic": policies.cyclic,
    "one_cycle": _one_cycle,
    "trapezoid": policies.trapezoid,
    "warm_restarts": policies.warm_restarts,
}

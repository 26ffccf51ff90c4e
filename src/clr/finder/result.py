"""The result of an LR range test: a value that gives bounds and schedules, and can be drawn and saved."""

import json
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from clr import above, checks
from clr.finder.curve import RULES, UNSURE, Bounds, Curve, Divergence, NoBoundsError
from clr.schedules import policies
from clr.schedules.base import Schedule, parameters

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VERSION = 1
GOALS = ("min", "max")
STOPS = {
    "completed": "all rates were tried",
    "diverged": "the loss diverged",
    "non-finite": "the loss was not finite",
    "time": "the time was up",
    "data": "there was no more data",
    "interrupted": "it was interrupted",
}
LAST = ("time", "data", "interrupted")  # the stops after which no repeat follows
BURST = ("diverged", "non-finite")  # the stops that say something about the rate
MOST_STEPS, MOST_REPEATS = 10_000, 1000  # of a test: so what it keeps can be saved and drawn
HUGE = 1e100  # from which on a loss counts as not finite: below, no sum of losses and no axis overflows
POLICIES: dict[str, Callable[..., Schedule]] = {
    function.__name__: function
    for function in (
        policies.triangular,
        policies.triangular2,
        policies.exp_range,
        policies.cyclic,
        policies.one_cycle,
        policies.one_cycle_fastai,
        policies.warm_restarts,
        policies.cosine,
        policies.linear,
        policies.wsd,
    )
}


@dataclass(frozen=True, repr=False)
class Sweep:
    """One pass over the rates.

    Attributes:
        losses: The loss of each step, None where no update was made.
        metrics: What ``evaluate`` returned after each step, None where it was not called.
        stop: Why the pass ended: ``"completed"``, ``"diverged"``, ``"non-finite"``, ``"time"``, ``"data"`` or
            ``"interrupted"``.
    """

    losses: tuple[float | None, ...]
    metrics: tuple[float | None, ...]
    stop: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", checks.choice("stop", self.stop, STOPS))
        for name in ("losses", "metrics"):
            object.__setattr__(self, name, recorded(name, getattr(self, name)))

    def __reduce__(self) -> tuple[type["Sweep"], tuple[object, ...]]:
        return type(self), (self.losses, self.metrics, self.stop)  # so that a copy has the same NaN

    def __repr__(self) -> str:
        return f"<Sweep: {len(self.losses)} steps, {self.stop}>"


@dataclass(frozen=True, repr=False)
class RangeTest:
    """The result of an LR range test: a value that gives bounds and schedules, and can be drawn and saved.

    `clr.range_test` and its kin make it, and `from_losses` makes it of a curve that was recorded elsewhere.

    Attributes:
        sweeps: A `clr.finder.result.Sweep` for each repeat.
        planned_rates: The rates that were to be tried, in order.
        goal: Whether the metric, if there is one, is better when it is smaller (``"min"``) or larger (``"max"``).
        diverge_at: The loss had to rise above its start by this many times its fall to end the test.
        evaluate_every: Steps from one metric to the next, if there are any.
        repeats: How many sweeps were to be made.
        time_limit: The test was to end after so many seconds; None for no limit.

    >>> import clr
    >>> def train_step(lr):  # the loss of a model that learns best at 0.1
    ...     return 2 - 1.5 / (1 + (0.01 / lr) ** 2) + (lr / 0.3) ** 4
    >>> test = clr.range_test(train_step, min_lr=1e-5, max_lr=10)
    >>> test
    <RangeTest: 233 of 300 steps from 1e-05 to 10, diverged>
    >>> base_lr, max_lr = test.bounds()
    >>> 0.001 < base_lr < 0.01 < max_lr < 0.1
    True
    >>> clr.RangeTest.from_json(test.to_json()) == test
    True
    """

    sweeps: tuple[Sweep, ...]
    planned_rates: tuple[float, ...]
    goal: str = "min"
    diverge_at: float = 1.0
    evaluate_every: int = 5
    repeats: int = 1
    time_limit: float | None = None

    def __post_init__(self) -> None:
        limit = self.time_limit
        checked = {
            "sweeps": tuple(checks.few("sweeps", self.sweeps, MOST_REPEATS)),
            "planned_rates": growing("planned_rates", self.planned_rates),
            "goal": checks.choice("goal", self.goal, GOALS),
            "diverge_at": checks.positive("diverge_at", self.diverge_at),
            "evaluate_every": checks.count("evaluate_every", self.evaluate_every),
            "repeats": checks.count("repeats", self.repeats),
            "time_limit": None if limit is None else checks.positive("time_limit", limit),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if not 0 < len(self.sweeps) <= self.repeats:
            raise ValueError(
                "`sweeps` must be a list with at least one sweep, and no more than `repeats`. "
                f"Received: {len(self.sweeps)} with `repeats` {self.repeats!r}."
            )
        for sweep in self.sweeps:
            if not isinstance(sweep, Sweep):
                checks.fail(TypeError, "sweeps", "a list of sweeps", sweep)
            for name, values in (("losses", sweep.losses), ("metrics", sweep.metrics)):
                if len(values) > self.num_steps:
                    raise ValueError(f"`{name}` must have at most {self.num_steps} values. Received: {len(values)}.")
            if len(sweep.metrics) > len(sweep.losses):
                received = f"{len(sweep.metrics)} with {len(sweep.losses)} `losses`"
                raise ValueError(f"`metrics` must not be more than `losses`. Received: {received}.")

    @classmethod
    def from_losses(
        cls, rates: Iterable[object], losses: Iterable[object], *, goal: Literal["min", "max"] = "min"
    ) -> "RangeTest":
        """A test of a curve that was recorded elsewhere, such as by ``jax.lax.scan`` or in a log.

        It ends where `clr.range_test` would have ended: at the first loss that is not finite, or where the loss has
        diverged. What comes after that is left out.

        Args:
            rates: The learning rate of each step: growing numbers, 0 or more; evenly spaced or not.
            losses: The loss of each step, as many; NaN and infinity are taken. Both may be lists, arrays or tensors.
            goal: ``"min"`` (the default) for losses, ``"max"`` for accuracies and others where larger is better.

        Raises:
            TypeError, ValueError: An argument makes no sense, or the two are not equally long.

        >>> import clr
        >>> rates = [10 ** (at / 10 - 6) for at in range(60)]
        >>> losses = [2 - 1.5 / (1 + (0.001 / lr) ** 2) + (lr / 0.3) ** 4 for lr in rates]
        >>> test = clr.RangeTest.from_losses(rates, losses)
        >>> 0.01 < test.bounds().max_lr < 0.1
        True
        """
        checks.choice("goal", goal, GOALS)
        planned = growing("rates", [_entry("rates", rate) for rate in _iterated("rates", rates)])
        values = [_entry("losses", loss) for loss in _iterated("losses", losses)]
        if len(values) != len(planned):
            raise ValueError(f"`losses` must be as many as `rates`. Received: {len(values)} and {len(planned)}.")
        ends, stop, kept = Divergence(1.0), None, 0
        while stop is None and kept < len(values):
            stop = ends(values[kept] if goal == "min" else -values[kept])
            kept += 1
        recorded, nothing = tuple(values[:kept]), (None,) * kept
        losses_of, metrics_of = (recorded, nothing) if goal == "min" else (nothing, recorded)
        return cls((Sweep(losses_of, metrics_of, stop or "completed"),), planned, goal)

    @property
    def min_lr(self) -> float:
        """The first of the planned rates."""
        return self.planned_rates[0]

    @property
    def max_lr(self) -> float:
        """The last of the planned rates."""
        return self.planned_rates[-1]

    @property
    def num_steps(self) -> int:
        """How many rates were to be tried."""
        return len(self.planned_rates)

    @property
    def updates(self) -> int:
        """How many updates the test made, in all its repeats."""
        return sum(len(sweep.losses) for sweep in self.sweeps)

    @property
    def stop(self) -> str:
        """Why the test ended.

        It is ``"completed"``, ``"diverged"``, ``"non-finite"``, ``"time"``, ``"data"`` or ``"interrupted"``. For
        several repeats it is why most of them did, or what ended them all.
        """
        stops = [sweep.stop for sweep in self.sweeps]
        return stops[-1] if stops[-1] in LAST else Counter(stops).most_common(1)[0][0]

    @property
    def rates(self) -> tuple[float, ...]:
        """The rates of the steps that gave a loss."""
        return tuple(rate for rate, _ in self._points("losses"))

    @property
    def losses(self) -> tuple[float, ...]:
        """The loss at each of the `rates`. With several repeats, their median; a diverged one counts as infinity."""
        return tuple(median(losses) for _, losses in self._points("losses"))

    @property
    def band(self) -> tuple[tuple[float, float], ...]:
        """The lowest and the highest loss of the repeats at each of the `rates`."""
        return tuple((min(losses), max(losses)) for _, losses in self._points("losses"))

    @property
    def metrics(self) -> tuple[tuple[float, float], ...]:
        """The rates at which the model was evaluated, each with the metric, or the median metric of several repeats."""
        return tuple((rate, median(metrics)) for rate, metrics in self._points("metrics"))

    @property
    def smoothed(self) -> tuple[float, ...]:
        """The smoothed losses, from which the bounds are read.

        They end at the first loss that is not finite, or 1e100 or larger in size. With ``evaluate``, these are the
        smoothed metrics.
        """
        return tuple(self._sign * value for value in self.curve.smoothed)

    @cached_property
    def curve(self) -> Curve:
        """The curve from which the bounds are read, of the metric if there is one, else of the loss."""
        rates: list[float] = []
        values: list[float] = []
        for rate, repeats in self._points("metrics" if self._judged_by_metric else "losses"):
            value = self._sign * median(repeats)
            if not abs(value) < HUGE:
                return Curve(rates, values, ended=True)
            rates.append(rate)
            values.append(value)
        return Curve(rates, values, ended=self.stop in BURST)

    def bounds(self) -> Bounds:
        """The bounds of a cyclical learning rate, from the curve of the test (Smith 2017, section 3.3).

        The upper bound is two fifths of the rate at which the smoothed loss turns: there it has risen from its lowest
        by a tenth of its fall, or by more than its noise. It is the rate at which the rise begins, if that is lower.
        The lower bound is a tenth of the upper. Both parts were chosen by training real tasks; the paper judges by eye.

        Raises:
            NoBoundsError: The curve has no such rates within the test. The error says what to change, and a single
                rate if the loss falls at all (see `suggest`).
        """
        try:
            return self.curve.bounds()
        except NoBoundsError as refusal:
            with suppress(NoBoundsError):
                rate = self.curve.suggest("valley")
                single = f'Less sure than bounds is a single rate, `suggest("valley")`: {rate:.3g}.'
                refusal = NoBoundsError(refusal.kind, refusal.finding, f"{refusal.advice} {single}")
            raise refusal from None

    def suggest(self, rule: str = "valley") -> float:
        """A single rate, by one of the rules that other libraries use.

        It also answers where the bounds are refused, if the loss falls at all. Such a rate is less sure: a warning says
        so, and why.

        Args:
            rule: ``"steepest"``, where the loss falls fastest; ``"minimum"``, a tenth of the rate at which it is
                lowest; ``"valley"``, a point half way down the longest fall; ``"slide"``, where, coming from the end,
                the gradient stops changing.

        Raises:
            NoBoundsError: The loss does not fall by more than its noise, or the rule finds no rate within the test.

        >>> import clr, warnings
        >>> test = clr.range_test(lambda lr: 1 / (1 + lr), max_lr=1000)  # never diverges
        >>> with warnings.catch_warnings(action="ignore"):
        ...     0.1 < test.suggest("steepest") < 10
        True
        """
        rate = self.curve.suggest(checks.choice("rule", rule, RULES))
        try:
            self.curve.bounds()
        except NoBoundsError as refusal:
            warnings.warn(f"The range test has no bounds, and {rate:.3g} is less sure: {refusal.finding}", stacklevel=2)
        return rate

    def schedule(self, policy: str | Callable[..., Schedule] = "triangular", **options: object) -> Schedule:
        """A schedule between the bounds.

        Args:
            policy: The name of a policy, such as ``"triangular"`` or ``"one_cycle"``. ``"cosine"``, ``"linear"`` and
                ``"wsd"`` take only the upper bound. Or a function that takes ``base_lr``, ``max_lr`` and the options
                by name and returns a schedule.
            **options: What the policy takes beside the bounds, such as ``step_size``.

        Raises:
            NoBoundsError: As for `bounds`.
            TypeError, ValueError: There is no such policy, or an option makes no sense.

        >>> import clr
        >>> test = clr.range_test(lambda lr: 1 / (1 + 100 * lr) + lr**2, min_lr=1e-6, max_lr=100)
        >>> schedule = test.schedule("triangular2", step_size=2000)
        >>> (schedule(0), schedule(2000)) == tuple(test.bounds())
        True
        """
        return schedule_between(self.bounds(), policy, options)

    def describe(self) -> str:
        """The test in words: how it ended, and its bounds, or why there are none and what to change.

        >>> import clr
        >>> print(clr.range_test(lambda lr: 1.0).describe())
        LR range test from 1e-07 to 10. It ended after 300 of 300 steps: all rates were tried.
        No bounds: The loss does not fall by more than its noise.
        Make `max_lr` larger; if it stays flat, the training step does not train.
        """
        span = f"LR range test from {self.min_lr:.3g} to {self.max_lr:.3g}."
        reached = f", at {self.planned_rates[self._steps - 1]:.3g}" if 0 < self._steps < self.num_steps else ""
        lines = [f"{span} It ended after {self._steps} of {self.num_steps} steps{reached}: {STOPS[self.stop]}."]
        if self.repeats > 1:
            lines.append(f"It made {len(self.sweeps)} of {self.repeats} repeats; the curve is their median.")
        if self.time_limit is not None:
            lines.append(f"Its time limit was {self.time_limit:g} seconds.")
        try:
            bounds = self.bounds()
        except NoBoundsError as refusal:
            return "\n".join([*lines, f"No bounds: {refusal.finding}", refusal.advice])
        lines.append(f"base_lr {bounds.base_lr:.4g}, max_lr {bounds.max_lr:.4g}, confidence {bounds.confidence:.2f}.")
        lines.append(bounds.reason)
        if bounds.confidence < UNSURE:
            lines.append(
                "The confidence is low: use `find_bounds`, which judges by held-out data; or take larger batches, more "
                "steps or several repeats."
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        passes = f", {len(self.sweeps)} of {self.repeats} repeats" if self.repeats > 1 else ""
        span = f"{self.num_steps} steps from {self.min_lr:.3g} to {self.max_lr:.3g}"
        return f"<RangeTest: {self._steps} of {span}{passes}, {self.stop}>"

    def _repr_html_(self) -> str:
        return above.notebook_page(self)  # type: ignore[no-any-return]

    def plot(self, ax: "Axes | None" = None, scale: Literal["log", "linear"] | None = None) -> "Axes":
        """Draws losses over rates with the bounds, the rules and the stop. Needs the extra ``plot``.

        Args:
            ax: Where to draw; by default on a new figure.
            scale: The axis of the rates; by default ``"linear"`` if they are evenly spaced, else ``"log"``.
        """
        return above.plot_range_test(self, ax, scale)  # type: ignore[no-any-return]

    def to_dict(self) -> dict[str, Any]:
        """The test as plain data. NaN and infinity are texts, for JSON has no such numbers."""
        data = {field.name: getattr(self, field.name) for field in fields(self)}
        sweeps = [
            {"losses": json_values(sweep.losses), "metrics": json_values(sweep.metrics), "stop": sweep.stop}
            for sweep in self.sweeps
        ]
        changed = {"sweeps": sweeps, "planned_rates": list(self.planned_rates)}
        return {"clr": VERSION, "kind": "range_test", **data, **changed}

    def to_json(self) -> str:
        """The test as JSON, from which `from_json` makes an equal one."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "RangeTest":
        """The test that `to_dict` has made ``data`` of.

        Raises:
            TypeError, ValueError: The data is not that of a range test.
        """
        checks.version(checks.mapping("data", data), VERSION, "a range test")
        checks.choice("kind", data.get("kind"), ("range_test",))
        names = {field.name for field in fields(cls)}
        checks.keys(data, sorted(names | {"clr", "kind"}), "the data of a range test")
        sweeps = tuple(_saved_sweep(sweep) for sweep in checks.few("sweeps", data["sweeps"], MOST_REPEATS))
        return cls(sweeps, **{name: data[name] for name in names - {"sweeps"}})

    @classmethod
    def from_json(cls, text: str) -> "RangeTest":
        """The test that `to_json` has made ``text`` of.

        Raises:
            TypeError, ValueError: The text is not JSON, or not that of a range test.
        """
        return cls.from_dict(checks.parsed(text))

    @property
    def _steps(self) -> int:
        """How many of the rates were tried, in the longest of the sweeps."""
        return max(len(sweep.losses) for sweep in self.sweeps)

    @cached_property
    def _judged_by_metric(self) -> bool:
        return any(metric is not None for sweep in self.sweeps for metric in sweep.metrics)

    @property
    def _sign(self) -> float:
        """The factor that makes the judged values fall where training goes well."""
        return -1.0 if self._judged_by_metric and self.goal == "max" else 1.0

    def _points(self, name: Literal["losses", "metrics"]) -> Iterator[tuple[float, list[float]]]:
        """The rates, each with the values of the repeats that reached it. A diverged repeat has the worst value."""
        worst = -math.inf if name == "metrics" and self.goal == "max" else math.inf
        repeats = [(getattr(sweep, name), sweep.stop in BURST) for sweep in self.sweeps]
        for at in range(max(len(own) for own, _ in repeats)):
            values = [own[at] for own, _ in repeats if at < len(own) and own[at] is not None]
            if len(repeats) > 1:  # a NaN is as bad as can be, and has no place in an order
                values = [worst if math.isnan(value) else value for value in values]
            if values:
                yield self.planned_rates[at], values + [worst for own, burst in repeats if burst and at >= len(own)]


def schedule_between(
    bounds: Bounds, policy: str | Callable[..., Schedule], options: Mapping[str, object], **known: object
) -> Schedule:
    """The schedule of a policy between bounds. It takes of ``known`` what it has a parameter for and was not given."""
    base_lr, max_lr = bounds
    given = {"base_lr": base_lr, "max_lr": max_lr}
    if callable(policy):
        return policy(**given, **options)
    function = POLICIES[checks.choice("policy", policy, POLICIES)]
    known |= given | {"div_factor": max_lr / base_lr, "div": max_lr / base_lr}
    return function(**{name: known[name] for name in parameters(function) if name in known} | dict(options))


def growing(name: str, values: Sequence[object]) -> tuple[float, ...]:
    """Rates of a test: two or more, each above the one before."""
    rates = tuple(checks.base_rate(name, value) for value in checks.few(name, values, MOST_STEPS))
    if len(rates) < 2 or any(left >= right for left, right in pairwise(rates)):
        checks.fail(ValueError, name, "two or more growing rates", list(rates))
    return rates


def scalar(value: Any) -> float:
    """A number, or an array of one element of any framework, as a float. Anything else is a TypeError."""
    try:
        if not hasattr(value, "item") and hasattr(value, "numpy"):  # of TensorFlow
            value = value.numpy()
        number = value.item() if hasattr(value, "item") else value
        if isinstance(number, str | bytes | bool) or getattr(getattr(value, "dtype", None), "kind", "") == "m":
            raise TypeError
        return float(number)
    except OverflowError:  # an integer or fraction beyond all floats
        return math.inf if number > 0 else -math.inf
    except (TypeError, ValueError, RuntimeError, AttributeError):
        raise TypeError(f"not a number, nor an array of one element: {checks.shown(value)}") from None


def _iterated(name: str, values: object) -> list[object]:
    try:
        if isinstance(values, Iterable) and not isinstance(values, str | bytes):
            return list(values)
    except TypeError:  # of an array of no dimensions
        pass
    return checks.fail(TypeError, name, "numbers in order", values)


def _entry(name: str, value: object) -> float:
    try:
        return scalar(value)
    except TypeError:
        raise TypeError(f"`{name}` must be numbers in order. Received: {checks.shown(value)} among them.") from None


def recorded(name: str, values: object) -> tuple[float | None, ...]:
    """Numbers as they are kept, None where there is none.

    A NaN equals only itself: with one for all, equal results are equal.
    """
    numbers = (None if value is None else _entry(name, value) for value in _iterated(name, values))
    return tuple(math.nan if number is not None and math.isnan(number) else number for number in numbers)


def json_values(values: Iterable[float | None]) -> list[float | str | None]:
    """Values as JSON has them: NaN and infinity are texts."""
    return [value if value is None or math.isfinite(value) else str(value) for value in values]


def _saved_sweep(data: Any) -> Sweep:
    checks.keys(checks.mapping("sweep", data), ("losses", "metrics", "stop"), "a sweep")
    losses, metrics = (
        tuple(saved_value(name, value) for value in checks.sequence(name, data[name])) for name in ("losses", "metrics")
    )
    return Sweep(losses, metrics, data["stop"])


def saved_value(name: str, value: object) -> float | None:
    """A value that `json_values` has made."""
    if isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return float(value)
    return None if value is None else checks.number(name, value, "finite")

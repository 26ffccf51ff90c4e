"""The result of an LR range test: a value that can be judged, drawn and saved again and again."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from clr import above, checks
from clr.finder.curve import RULES, Bounds, Curve
from clr.schedules import policies
from clr.schedules.base import Schedule

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
HUGE = 1e100  # from which on a loss counts as not finite: below, no sum of losses and no axis overflows


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
        return above.plot_range_test(self, ax, scale)  # type: ignore[no-any-return]

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
        checked_range(settings["min_lr"], settings["max_lr"], settings["num_steps"], settings["growth"])
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


def planned(min_lr: float, max_lr: float, num_steps: int, growth: str) -> tuple[float, ...]:
    """The rates of a test: exactly ``min_lr`` at its start and ``max_lr`` at its end."""
    last = num_steps - 1
    if growth == "linear":
        inner = [min_lr + (max_lr - min_lr) * at / last for at in range(1, last)]
    else:
        low, high = math.log(min_lr), math.log(max_lr)
        inner = [math.exp(low + (high - low) * at / last) for at in range(1, last)]
    return (float(min_lr), *inner, float(max_lr))


def checked_range(min_lr: Any, max_lr: Any, num_steps: Any, growth: Any) -> tuple[float, ...]:
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


def _one_cycle(base_lr: float, max_lr: float, **options: Any) -> Schedule:
    return policies.one_cycle(max_lr, **{"div_factor": max_lr / base_lr, **options})


_POLICIES: dict[str, Callable[..., Schedule]] = {
    "triangular": policies.triangular,
    "triangular2": policies.triangular2,
    "exp_range": policies.exp_range,
    "cyclic": policies.cyclic,
    "one_cycle": _one_cycle,
    "wsd": policies.wsd,
    "warm_restarts": policies.warm_restarts,
}

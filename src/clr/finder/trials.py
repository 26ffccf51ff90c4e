"""The result of a search: its trials, and the bounds that follow from them."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from statistics import stdev
from typing import TYPE_CHECKING, Any, Literal

from clr import above, checks
from clr.finder.curve import RATIO, UNSURE, Bounds, NoBoundsError
from clr.finder.result import GOALS, HUGE, LAST, STOPS, RangeTest, json_values, recorded, saved_value, schedule_between
from clr.schedules.base import Schedule
from clr.schedules.policies import step_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VERSION = 1
FACTOR = math.sqrt(10)  # from one rate of a rung to the next
# The best rate falls with the length of a training, by this power. Chosen on tuning tasks, see docs/bounds.md.
HORIZON = 0.2
GAP, STEEPER = 0.05, 10.0  # from which gap on overfitting adds to the power, and by how much
OVERFITTED = 1.0  # the largest power: where rate times updates, which is how much is learned, must stay the same
SAME_UNITS = 1.5  # how many times the training loss the held-out one may be before any training, to be its like
BEGINNING = 20  # steps of a range test whose rates are too low to change anything
NOISE = 0.25  # of their standard deviation: a smaller fall of the held-out loss is none
LIKELY, STEEP, CLIFF = 0.93, 0.5, 0.5  # confidence on a plateau; how a slope lowers it; the slope of a cliff
FARTHEST = 1.5  # decades that both may lower the rate
MOST = 1000  # trials
SEARCH_STOPS = STOPS | {"completed": "it tried all that it wanted to try", "budget": "its updates were used up"}


@dataclass(frozen=True)
class Trial:
    """A short training at one candidate.

    Attributes:
        rung: The round of trials, from 1.
        max_lr: The peak of its cycle.
        num_steps: The length that it was to have, in updates.
        losses: The training loss of each update, None where no update was made or the loss is not known.
        score: The held-out loss or metric at its end; None if it did not get there.
        stop: ``"completed"``, ``"diverged"``, ``"non-finite"``, or ``"failed"`` by an error.
    """

    rung: int
    max_lr: float
    num_steps: int
    losses: tuple[float | None, ...]
    score: float | None
    stop: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "rung", checks.count("rung", self.rung))
        object.__setattr__(self, "num_steps", checks.count("num_steps", self.num_steps))
        checks.choice("stop", self.stop, ("completed", "diverged", "non-finite", "failed"))
        object.__setattr__(self, "max_lr", checks.positive("max_lr", self.max_lr))
        if not 1e-300 < self.max_lr < HUGE:
            checks.fail(ValueError, "max_lr", f"a rate between 1e-300 and {HUGE:g}", self.max_lr)
        if (self.score is None) == (self.stop == "completed"):
            checks.fail(ValueError, "score", "a number for a trial that completed, and None for others", self.score)
        if self.score is not None:
            object.__setattr__(self, "score", checks.number("score", self.score, "finite"))
            if not abs(self.score) < HUGE:
                checks.fail(ValueError, "score", f"a number below {HUGE:g} in size", self.score)
        object.__setattr__(self, "losses", recorded("losses", self.losses))
        if len(self.losses) > self.num_steps:
            checks.fail(ValueError, "losses", f"at most {self.num_steps} numbers", len(self.losses))

    def __reduce__(self) -> tuple[type["Trial"], tuple[object, ...]]:
        return type(self), tuple(getattr(self, field.name) for field in fields(self))  # so that a copy has the same NaN


@dataclass(frozen=True, repr=False)
class Search:
    """The result of a search: a value that gives bounds and schedules, and can be drawn and saved.

    `clr.find_bounds` and its kin make it.

    Attributes:
        range_test: The test that said where to look; None if it had not ended.
        trials: Each `Trial`, in the order in which they were made.
        start: The held-out loss or metric before any training; None if it was not known.
        total_steps: The length of the training that the bounds are for.
        budget: How many updates the search was allowed to make.
        goal: Whether a smaller (``"min"``) or a larger (``"max"``) score is better.
        stop: Why the search ended: ``"completed"``, ``"budget"``, or what ends a `clr.RangeTest`.
    """

    range_test: RangeTest | None
    trials: tuple[Trial, ...]
    start: float | None
    total_steps: int
    budget: int
    goal: Literal["min", "max"] = "min"
    stop: str = "completed"

    def __post_init__(self) -> None:
        checked = {
            "trials": tuple(checks.few("trials", self.trials, MOST)),
            "total_steps": checks.count("total_steps", self.total_steps),
            "budget": checks.count("budget", self.budget),
            "goal": checks.choice("goal", self.goal, GOALS),
            "stop": checks.choice("stop", self.stop, SEARCH_STOPS),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.start is not None:
            object.__setattr__(self, "start", checks.number("start", self.start, "finite"))
        if not isinstance(self.range_test, RangeTest | None):
            checks.fail(TypeError, "range_test", "a range test or None", self.range_test)
        for trial in self.trials:
            if not isinstance(trial, Trial):
                checks.fail(TypeError, "trials", "a list of trials", trial)

    @property
    def updates(self) -> int:
        """How many updates the range test and the trials made, without a trial that was interrupted."""
        tested = 0 if self.range_test is None else self.range_test.updates
        return tested + sum(len(trial.losses) for trial in self.trials)

    @property
    def winner(self) -> Trial | None:
        """The best trial of the last rung that has one; None if no trial has a score."""
        last = max((trial.rung for trial in self.trials if trial.score is not None), default=0)
        return self.best(last)

    def rung(self, number: int) -> list[Trial]:
        """The trials of a rung, in the order of their rates."""
        return sorted((trial for trial in self.trials if trial.rung == number), key=lambda trial: trial.max_lr)

    def best(self, rung: int) -> Trial | None:
        """The best trial of a rung; of equals the one with the highest rate. None if no trial of it has a score."""
        scored = [trial for trial in self.rung(rung) if trial.score is not None]
        return min(scored, key=lambda trial: (self._cost(trial), -trial.max_lr), default=None)

    def bounds(self, total_steps: int | None = None) -> Bounds:
        """The bounds of a cyclical learning rate for a training.

        The trials of the last rung give the best rate: the lowest point of the parabola through the winner and its
        neighbours, or the middle of equal ones. A longer training wants a lower one. So the rate is divided by a power
        of how many times as long as a trial the training is. The power is 0.2, and more where the training overfits:
        ten times what the `gap` is above 0.05 is added, up to a power of 1. In all, the rate is lowered by at most 1.5
        decades. That is the upper bound; the lower one is a tenth of it.

        Args:
            total_steps: The length of the training, in updates; by default that of the search.

        Raises:
            NoBoundsError: No trial was better than no training at all. The error says what to change.
            TypeError, ValueError: The length is not an integer of at least 1.
        """
        total = self.total_steps if total_steps is None else checks.count("total_steps", total_steps)
        winner = self.winner
        if winner is None:
            if self.stop in LAST:
                ended = f"The search ended before any trial did: {STOPS[self.stop]}."
                again = "Search again" + (", with data that does not end." if self.stop == "data" else ".")
                raise NoBoundsError("few", ended, again)
            if any(_is_unjudged(trial) for trial in self.trials):
                raise NoBoundsError(
                    "rising",
                    "No trial has a held-out value that is finite.",
                    "Look for held-out rows that make it infinite or NaN.",
                )
            larger = "a larger `budget`, or " if self.stop == "budget" else ""
            raise NoBoundsError(
                "rising",
                "No trial has come to its end.",
                f"Give {larger}a smaller `min_lr`. If all diverge, the training step does not train, or rows of the "
                "data make the loss infinite.",
            )
        if self.start is not None and not self._cost(winner) < self._signed(self.start):
            raise NoBoundsError(
                "flat",
                f"No trial has made the held-out value better than it was before any training, {self.start:.4g}.",
                "Give a larger `budget`; if it stays so, the training step does not train, or `goal` is wrong.",
            )
        later = [trial for trial in self.trials if trial.rung > winner.rung and trial.max_lr <= winner.max_lr]
        if later:
            raise NoBoundsError(
                "rising",
                f"Longer trials, of {later[0].num_steps} updates, diverge at {later[0].max_lr:.3g}, where shorter ones "
                "do best, and none of them has come to its end.",
                "Look for rows of the data that make the loss infinite; or give a larger `budget`.",
            )
        best, longer = self._best_rate(winner.rung), total / winner.num_steps
        lowered = min(self._power * math.log10(max(1.0, longer)), FARTHEST)
        max_lr = best / 10**lowered
        side = self.edge
        edge = f" It is the {side} rate that was tried, so a {side[:-2]}r one may be better." if side else ""
        share = (
            f"max_lr is {10**-lowered:.2g} of that, for the training is {longer:.3g} times as long"
            if longer > 1
            else "max_lr is that, for the training is no longer than a trial"
        )
        reason = (
            f"Of {sum(trial.rung == winner.rung for trial in self.trials)} trials of {winner.num_steps} updates, "
            f"{winner.max_lr:.3g} ends best, with {winner.score:.4g}; between them the best is {best:.3g}. "
            f"{share}, and base_lr is {1 / RATIO:g} of max_lr.{edge}"
        )
        return Bounds(max_lr / RATIO, max_lr, self._confidence(winner), reason)

    @property
    def edge(self) -> Literal["lowest", "highest"] | None:
        """``"lowest"`` or ``"highest"`` where the winner has no worse trial on that side, else None."""
        winner = self.winner
        if winner is None:
            return None
        rates = [trial.max_lr for trial in self.trials]
        if winner.max_lr == min(rates):
            return "lowest"
        return "highest" if winner.max_lr == max(rates) else None

    def schedule(self, policy: str | Callable[..., Schedule] = "one_cycle", **options: object) -> Schedule:
        """A schedule over a training, between the bounds for its length.

        Args:
            policy: The name of a policy, such as ``"one_cycle"`` (the default), ``"triangular"`` or ``"linear"``; or a
                function that takes ``base_lr``, ``max_lr`` and the options by name and returns a schedule.
            **options: What the policy takes beside the bounds. By default ``total_steps`` is that of the search,
                ``step_size`` gives four cycles, ``first_cycle`` is the whole training, ``warmup_steps`` a tenth of it
                and ``decay_steps`` a fifth.

        Raises:
            NoBoundsError: As for `bounds`.
            TypeError, ValueError: There is no such policy, or an option makes no sense.
        """
        total = checks.count("total_steps", options.get("total_steps", self.total_steps))
        return schedule_between(
            self.bounds(total),
            policy,
            options,
            total_steps=total,
            step_size=step_size(total_steps=total),
            first_cycle=total,
            warmup_steps=total // 10,
            decay_steps=max(1, total // 5),
        )

    def describe(self) -> str:
        """The search in words: what it tried, what it found, how sure it is, or why there are no bounds."""
        lines = [
            f"Search for a training of {self.total_steps} updates. It made {self.updates} of at most {self.budget} "
            f"updates: {SEARCH_STOPS[self.stop]}."
        ]
        for rung in sorted({trial.rung for trial in self.trials}):
            own = self.rung(rung)
            tried = ", ".join(f"{trial.max_lr:.3g} ({_judged(trial)})" for trial in own)
            lines.append(f"Rung {rung}, {own[0].num_steps} updates each: {tried}.")
        try:
            bounds = self.bounds()
        except NoBoundsError as refusal:
            finding = str(refusal).removesuffix(f" {refusal.advice}")
            return "\n".join([*lines, f"No bounds: {finding}", refusal.advice])
        lines.append(f"base_lr {bounds.base_lr:.4g}, max_lr {bounds.max_lr:.4g}, confidence {bounds.confidence:.2f}.")
        lines.append(bounds.reason)
        if self.overfits:
            told = (
                "The training may overfit: at the next higher rate it learns its rows better, but others worse. "
                if self.gap is None
                else "The training overfits: it learns the rows that it trains on more than what is true of others. "
            )
            lines.append(f"{told}The longer it is, the lower the rate must be.")
            if self.winner is not None and self.total_steps > self.winner.num_steps:
                lines[-1] += " So the bounds go down, at most by 1.5 decades."
        if bounds.confidence < UNSURE:
            lines.append("The confidence is low: give a larger `budget`.")
        return "\n".join(lines)

    @property
    def gap(self) -> float | None:
        """The generalization gap of the winner, its held-out loss less its training loss, as a part of its whole fall.

        None where a metric judges, or a loss in other units than the training loss.
        """
        winner, before = self.winner, self._beginning
        if winner is None or winner.score is None or self.start is None or self.goal != "min" or not before:
            return None
        level, fall, late = math.fsum(before) / len(before), self.start - winner.score, _late(winner)
        if not (level / SAME_UNITS <= self.start <= level * SAME_UNITS and fall > 0 and math.isfinite(late)):
            return None
        return max(0.0, winner.score - late) / fall

    @property
    def overfits(self) -> bool:
        """Whether overfitting lowers the bounds, since the generalization gap is large.

        Where there is no `gap`, it is told by the trial at the next higher rate of the last rung: it ends with a lower
        training loss than the winner, and with a worse held-out value.
        """
        if self.gap is not None:
            return self.gap >= 2 * GAP
        winner = self.winner
        higher = [] if winner is None else [t for t in self.rung(winner.rung) if t.max_lr > winner.max_lr]
        if winner is None or not higher or higher[0].score is None or higher[0].score == winner.score:
            return False
        return _late(higher[0]) < _late(winner)

    def __repr__(self) -> str:
        return f"<Search: {len(self.trials)} trials, {self.updates} of {self.budget} updates, {self.stop}>"

    def _repr_html_(self) -> str:
        return above.notebook_page(self)  # type: ignore[no-any-return]

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draws the score of each trial over its rate, a line for each rung, with the bounds. Needs the extra ``plot``.

        Args:
            ax: Where to draw; by default on a new figure.
        """
        return above.plot_search(self, ax)  # type: ignore[no-any-return]

    def to_dict(self) -> dict[str, Any]:
        """The search as plain data. NaN and infinity are texts, for JSON has no such numbers."""
        data = {field.name: getattr(self, field.name) for field in fields(self)}
        trials = [
            {field.name: getattr(trial, field.name) for field in fields(trial)} | {"losses": json_values(trial.losses)}
            for trial in self.trials
        ]
        test = None if self.range_test is None else self.range_test.to_dict()
        return {"clr": VERSION, "kind": "search", **data, "trials": trials, "range_test": test}

    def to_json(self) -> str:
        """The search as JSON, from which `from_json` makes an equal one."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Search":
        """The search that `to_dict` has made ``data`` of.

        Raises:
            TypeError, ValueError: The data is not that of a search.
        """
        checks.version(checks.mapping("data", data), VERSION, "a search")
        checks.choice("kind", data.get("kind"), ("search",))
        names = {field.name for field in fields(cls)}
        checks.keys(data, sorted(names | {"clr", "kind"}), "the data of a search")
        trials = tuple(_saved_trial(trial) for trial in checks.few("trials", data["trials"], MOST))
        test = None if data["range_test"] is None else RangeTest.from_dict(data["range_test"])
        rest = {name: data[name] for name in names - {"trials", "range_test"}}
        return cls(range_test=test, trials=trials, **rest)

    @classmethod
    def from_json(cls, text: str) -> "Search":
        """The search that `to_json` has made ``text`` of.

        Raises:
            TypeError, ValueError: The text is not JSON, or not that of a search.
        """
        return cls.from_dict(checks.parsed(text))

    def _signed(self, score: float) -> float:
        return score if self.goal == "min" else -score

    def _cost(self, trial: Trial) -> float:
        """The score of a trial, smaller where it is better; infinity if it has none.

        That of a trial whose loss fell or rose by less than the noise is what it was at the start. So where no trial
        has learned yet, as on a plateau, the highest rate that does no harm is the best.
        """
        if trial.score is None:
            return math.inf
        if self.start is not None and self.goal == "min" and abs(trial.score - self.start) < self._noise:
            return self.start
        return self._signed(trial.score)

    @property
    def _power(self) -> float:
        """The power of the length by which the best rate falls."""
        gap = self.gap
        if gap is None:
            return OVERFITTED if self.overfits else HORIZON
        return min(OVERFITTED, HORIZON + STEEPER * max(0.0, gap - GAP))

    @property
    def _beginning(self) -> list[float]:
        """The first losses of the range test, before anything has changed."""
        losses = [] if self.range_test is None else list(self.range_test.losses[:BEGINNING])
        return [loss for loss in losses if abs(loss) < HUGE]

    @cached_property
    def _noise(self) -> float:
        """By how much a loss may change by chance."""
        return NOISE * stdev(self._beginning) if len(self._beginning) > 1 else 0.0

    def _best_rate(self, number: int) -> float:
        """The lowest point of the parabola through the best trial of a rung and its neighbours, over log rate."""
        own = self.rung(number)
        costs = [self._cost(trial) for trial in own]
        tied = [trial.max_lr for trial, cost in zip(own, costs, strict=True) if cost == min(costs)]
        if len(tied) > 1:  # as where an accuracy is 1: the middle of them
            return math.sqrt(tied[0]) * math.sqrt(tied[-1])
        at = costs.index(min(costs))
        if not 0 < at < len(own) - 1 or not math.isfinite(costs[at - 1] + costs[at + 1]):
            return own[at].max_lr
        below, above = (math.log(own[side].max_lr / own[at].max_lr) for side in (at - 1, at + 1))
        left, right = costs[at - 1] - costs[at], costs[at + 1] - costs[at]
        bend = left * above - right * below
        offset = (left * above**2 - right * below**2) / bend / 2 if bend > 0 else 0.0
        return own[at].max_lr * math.exp(offset)

    def _confidence(self, winner: Trial) -> float:
        """How likely the bounds are near the best ones, as it was on tuning tasks: see docs/bounds.md.

        Where the held-out value depends much on the rate, bounds that are a little off cost more.
        """
        own = self.rung(winner.rung)
        at = own.index(winner)
        fall = math.nan if self.start is None else self._signed(self.start) - self._cost(winner)
        rises = [
            (self._cost(own[side]) - self._cost(winner)) / fall for side in (at - 1, at + 1) if 0 <= side < len(own)
        ]
        if len(rises) < 2:  # nobody knows what is beyond
            return LIKELY / 2
        steepest = max(rises)
        return LIKELY / (1 + STEEP * (steepest if math.isfinite(steepest) else CLIFF))


def _late(trial: Trial) -> float:
    """The training loss at the end of a trial: the mean of its last tenth."""
    losses = [loss for loss in trial.losses if loss is not None and abs(loss) < HUGE]
    last = losses[-max(1, len(losses) // 10) :]
    return math.fsum(last) / len(last) if last else math.inf


def _is_unjudged(trial: Trial) -> bool:
    """Whether a trial made all its updates, with finite losses, and only its held-out value is not finite."""
    whole = len(trial.losses) == trial.num_steps
    return trial.stop == "non-finite" and whole and all(loss is None or abs(loss) < HUGE for loss in trial.losses)


def _judged(trial: Trial) -> str:
    return trial.stop if trial.score is None else f"{trial.score:.4g}"


def _saved_trial(data: Any) -> Trial:
    checks.mapping("trial", data)
    checks.keys(data, sorted(field.name for field in fields(Trial)), "a trial")
    losses = tuple(saved_value("losses", loss) for loss in checks.sequence("losses", data["losses"]))
    return Trial(**{**data, "losses": losses})

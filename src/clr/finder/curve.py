"""Reads the curve of an LR range test, losses over rates, and finds the bounds of a schedule.

Every threshold is a part of the curve's own fall or noise. So a factor on the losses, or a constant added to them,
changes nothing.
"""

import math
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from statistics import fmean, median

FEWEST = 20  # points that a curve needs
LATE = 0.1  # of the fall: this far below its start, the loss has begun to fall
RAGGED = 0.1  # of the fall: this far above its lowest, the loss has turned
MARGIN = 2.5  # the rate of the turn divided by the upper bound: a cycle returns to its upper bound, a test does not
RATIO = 10.0  # the upper bound divided by the lower one
RISE = 0.3  # of the fall: this far above its lowest, the loss diverges
CLEAR = 6.0  # standard errors of the smoothed loss: a smaller fall may be chance
RECENT = 5  # losses whose median is compared to see divergence: two spikes in a row stop nothing
WARM = 15  # losses after which the level of the start is known
UNSURE = 0.5  # of confidence, below which bounds need a second look
NOISE = 0.12  # of the fall: noise of this size halves the confidence
FALLING = ("noisy", "narrow", "endless")  # the refusals of a loss that falls, where single rates can still be read


class NoBoundsError(ValueError):
    """The curve of an LR range test has no bounds, or no rate by a rule.

    Attributes:
        kind: ``"few"`` (points), ``"flat"``, ``"noisy"``, ``"rising"``, ``"narrow"`` (the range of rates starts too
            late) or ``"endless"`` (it ends too early).
        finding: What was found.
        advice: What to change.
    """

    def __init__(self, kind: str, finding: str, advice: str) -> None:
        super().__init__(f"{finding} {advice}")
        self.kind = kind
        self.finding = finding
        self.advice = advice

    def __reduce__(self) -> tuple[type["NoBoundsError"], tuple[str, str, str]]:
        return type(self), (self.kind, self.finding, self.advice)


@dataclass(frozen=True)
class Bounds:
    """The bounds of a cyclical learning rate. They unpack to the pair: ``base_lr, max_lr = bounds``.

    Attributes:
        base_lr: A tenth of the upper bound.
        max_lr: Two fifths of the rate at which the loss turns, or the rate at which its rise begins, if that is lower.
        confidence: From 0 to 1. It is higher where the noise up to the upper bound is small beside the fall, and
            where more of the single-rate rules agree.
        reason: How they were found, in words.
    """

    base_lr: float
    max_lr: float
    confidence: float
    reason: str

    def __iter__(self) -> Iterator[float]:
        return iter((self.base_lr, self.max_lr))


def smooth(values: Sequence[float]) -> list[float]:
    """Removes single spikes and most of the noise from finite values: a running median of 5, then local straight lines.

    Each line is fitted with weights that fall off to both sides, as in LOWESS. In the middle of the curve this is a
    weighted mean. At its ends, a mean would lag behind a trend; a line does not.
    """
    if not values:
        return []
    calmed, reach = calm(values), _reach(len(values))
    return _lines(calmed, reach)


def calm(values: Sequence[float]) -> list[float]:
    """Removes single spikes from finite values: a running median of 5."""
    # Values are cut off where they are as far above the start as the lowest is below it: an explosion at the end
    # must not lift the points before it.
    start = _start(values)
    cap = start + (start - min(values))
    return _medians([min(value, cap) for value in values])


def _medians(values: Sequence[float]) -> list[float]:
    """A running median of 5."""
    return [median(values[max(at - 2, 0) : at + 3]) for at in range(len(values))]


def _lines(values: Sequence[float], reach: int) -> list[float]:
    """At each point the value of the straight line that fits best around it, with weights that fall off to both sides.

    A weight is a line too, so the sums over a window follow from running sums of the values times 1, ``at`` and
    ``at**2``. Their differences would lose all digits of floats, so the values are whole numbers of a common unit.
    """
    ratios = [value.as_integer_ratio() for value in map(float, values)]
    unit = max(under for _, under in ratios)  # all are powers of 2
    whole = [over * (unit // under) for over, under in ratios]
    # Of the values before each point, and of the weights of so many points on one side.
    sums = [[0, *accumulate(value * at**power for at, value in enumerate(whole))] for power in range(3)]
    top = reach + 1  # the weight of the point itself
    sides = [[0, *accumulate((top - off) * off**power for off in range(1, top))] for power in range(3)]
    lines = []
    for at, value in enumerate(values):
        left, right = min(reach, at), min(reach, len(values) - 1 - at)
        (s0, s1, s2), (t0, t1, t2) = (
            [own[end] - own[begin] for own in sums] for begin, end in ((at - left, at), (at, at + right + 1))
        )
        # The weights are (top - at + place) on the left, and (top + at - place) on the right.
        level = (top - at) * s0 + s1 + (top + at) * t0 - t1
        trend = s2 + (top - 2 * at) * s1 - at * (top - at) * s0 - t2 + (top + 2 * at) * t1 - at * (top + at) * t0
        total, first = top + sides[0][left] + sides[0][right], sides[1][right] - sides[1][left]
        second = sides[2][left] + sides[2][right]
        spread = total * second - first * first
        lines.append((second * level - first * trend) / (spread * unit) if spread else value)
    return lines


class Divergence:
    """Says whether training has diverged, loss by loss. A factor on the losses or an added constant changes nothing.

    Args:
        diverge_at: The loss has diverged when it is above its start by this many times its fall.
    """

    def __init__(self, diverge_at: float) -> None:
        self._diverge_at = diverge_at
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._first: list[float] = []
        self._best = math.inf
        self._noise: list[float] = []  # the distances of losses from their recent level, in order

    def __call__(self, loss: float) -> str | None:
        """The stop that ``loss`` causes, if any: ``"diverged"`` or ``"non-finite"``."""
        if not math.isfinite(loss):
            return "non-finite"
        self._recent.append(loss)
        level = median(self._recent)
        insort(self._noise, abs(loss - level))
        if len(self._first) < WARM:
            self._first.append(loss)
            self._start = median(self._first)
            self._spread = median(abs(first - self._start) for first in self._first)
            self._rounding = 1e-6 * max(map(abs, self._first))
            return None
        self._best = min(self._best, level)
        noise = 1.4826 * max(self._noise[len(self._noise) // 2], self._spread)
        fall = max(self._start - self._best, 5 * noise, self._rounding)
        return "diverged" if level - self._start > self._diverge_at * fall else None


class Curve:
    """A curve and what can be read from it.

    Args:
        rates: Growing rates.
        values: The loss at each rate, or a metric that falls where training goes well; finite, below 1e100 in size.
        ended: Whether the test ended because training had diverged.
    """

    def __init__(self, rates: Sequence[float], values: Sequence[float], ended: bool) -> None:
        self.rates, self.values, self.ended = rates, values, ended
        self.smoothed = smooth(values)
        self.reach = _reach(len(values))

    @cached_property
    def start(self) -> float:
        """The level at which the curve starts."""
        return _start(self.values)

    @cached_property
    def lowest(self) -> int:
        """Where the curve is lowest before its first large rise. Rises in the first half of the fall do not count."""
        smoothed = self.smoothed
        fall = self.start - min(smoothed)
        best = 0
        for at, value in enumerate(smoothed):
            if value < smoothed[best]:
                best = at
            elif self.start - smoothed[best] > fall / 2 and value - smoothed[best] > RISE * fall:
                break
        return best

    @cached_property
    def fall(self) -> float:
        """How far the curve falls."""
        return self.start - self.smoothed[self.lowest]

    @cached_property
    def diverges(self) -> bool:
        """Whether the curve rises again, or the test ended because training had diverged."""
        rise = max(self.smoothed[self.lowest :]) - self.smoothed[self.lowest]
        return self.ended or rise > max(RISE * self.fall, CLEAR * self.error)

    @cached_property
    def noise(self) -> float:
        """The typical distance of a loss from the smoothed curve, as a standard deviation, up to the lowest point."""
        return 1.4826 * median(self._distances[: max(self.lowest + 1, FEWEST)])

    @cached_property
    def _distances(self) -> list[float]:
        """The distance of each loss from the smoothed curve."""
        return [abs(value - level) for value, level in zip(self.values, self.smoothed, strict=True)]

    @cached_property
    def error(self) -> float:
        """The standard error of the smoothed curve."""
        return self.noise * math.sqrt(1 / self.reach)

    def below(self, part: float) -> int:
        """The first point after which the curve stays a part of its fall below its start, until its lowest."""
        level = self.start - max(part * self.fall, min(2 * self.error, self.fall / 2))
        at = self.lowest
        while at > 0 and self.smoothed[at - 1] < level:
            at -= 1
        return at

    def check(self) -> None:
        """Raises a NoBoundsError if the curve does not fall and rise again, as the curve of a range test must."""
        values, smoothed = self.values, self.smoothed
        if len(values) < FEWEST:
            raise NoBoundsError(
                "few",
                f"The test has {len(values)} finite values, and at least {FEWEST} are needed.",
                "Make `num_steps` larger"
                + (", or `min_lr` smaller." if self.ended else ".")
                + " If `evaluate` was given, make `evaluate_every` smaller.",
            )
        tiny = 1e-9 * max(map(abs, smoothed))  # rounding errors
        # Near its ends, the smoothed curve rests on half as many losses. (A low at the end of a test that has diverged
        # is not chance.)
        inside = self.reach <= self.lowest and (self.ended or self.lowest < len(values) - self.reach)
        chance = max(CLEAR * self.error * (1 if inside else 2), tiny)
        if self.fall <= chance:
            if self.ended or smoothed[-1] - self.start > 2 * CLEAR * self.error + tiny:
                raise NoBoundsError(
                    "rising",
                    "The loss rises, and does not fall by more than its noise before.",
                    "Make `min_lr` smaller, or take larger batches or several repeats; "
                    "if it still rises, the training step increases the loss.",
                )
            if self.fall > chance / 2:
                raise NoBoundsError(
                    "noisy",
                    "The loss falls by little more than its noise.",
                    "Take larger batches, more steps or several repeats.",
                )
            raise NoBoundsError(
                "flat",
                "The loss does not fall by more than its noise.",
                "Make `max_lr` larger; if it stays flat, the training step does not train.",
            )
        if not self.diverges:
            raise NoBoundsError(
                "endless",
                f"Training never diverges: at {self.rates[-1]:.3g}, where the test ends, the loss has not risen again.",
                "Make `max_lr` larger. If it still does not rise, the model has learned all before: make `num_steps` "
                "smaller.",
            )
        # The level of the start is known only if the loss stays there for a while.
        early = smoothed[0] - self.start > max(LATE / 2 * self.fall, 2 * CLEAR * self.error)
        if early or 2 * self.below(LATE) < 3 * _early(len(values)):
            raise NoBoundsError(
                "narrow",
                f"The loss falls from {self.rates[0]:.3g} on, where the test starts.",
                "Make `min_lr` smaller.",
            )

    @cached_property
    def turn(self) -> int:
        """The last point at which the curve is near its lowest value, before it rises for good or ends."""
        bottom = self.smoothed[self.lowest]
        near = bottom + max(RAGGED * self.fall, 3 * self.error)
        high = bottom + max(RISE * self.fall, CLEAR * self.error)
        later = range(self.lowest, len(self.smoothed))
        at = next((at for at in later if self.smoothed[at] > high), later[-1])
        while self.smoothed[at] > near:
            at -= 1
        return at

    @cached_property
    def foot(self) -> int:
        """Where an unbroken rise of the losses up to the turn begins. With noise, that is just before the turn."""
        at = self.turn
        while at > 0 and self.values[at - 1] < self.values[at]:
            at -= 1
        return at

    def bounds(self) -> Bounds:
        """The bounds. Raises a NoBoundsError where there are none."""
        self.check()
        starts, turns = self.rates[self.below(LATE)], self.rates[self.turn]
        # A loss that is almost zero may rise long before it turns.
        max_lr = min(turns / MARGIN, self.rates[self.foot])
        base_lr = max_lr / RATIO
        if max_lr <= starts:
            finding = f"The loss turns at {turns:.3g}, as soon as it falls."
            raise NoBoundsError("narrow", finding, "Make `num_steps` larger.")
        if base_lr <= self.rates[0]:
            raise NoBoundsError(
                "narrow",
                f"The lower bound, a tenth of {max_lr:.3g}, is not within the test, which starts at "
                f"{self.rates[0]:.3g}.",
                "Make `min_lr` smaller.",
            )
        agreed = [name for name in RULES if starts <= self._rate(name) <= max_lr]
        # A mean also sees noise on only a part of the way, which a median misses. The medians leave out single spikes.
        noise = 1.4826 * fmean(_medians(self._distances[: bisect_right(self.rates, max_lr)])) / self.fall
        confidence = 1 / (1 + noise / NOISE) * (3 + len(agreed) / len(RULES)) / 4
        return Bounds(
            base_lr,
            max_lr,
            confidence,
            f"The loss starts to fall at {starts:.3g}, is lowest at {self.rates[self.lowest]:.3g} and turns at "
            f"{turns:.3g}: max_lr is "
            + (f"{1 / MARGIN:g} of that" if max_lr == turns / MARGIN else "where it begins to rise")
            + f", and base_lr is {1 / RATIO:g} of max_lr. The noise up to there is {noise:.1%} of the fall; "
            + (f"{', '.join(agreed)} agree." if agreed else "none of the single-rate rules agrees."),
        )

    def suggest(self, rule: str) -> float:
        """The rate by a rule. Raises a NoBoundsError where the loss does not fall, or the rule finds none."""
        try:
            self.check()
        except NoBoundsError as refusal:
            if refusal.kind not in FALLING:
                raise
        rate = self._rate(rule)
        if math.isnan(rate):
            raise NoBoundsError(
                "narrow",
                f"The rule {rule!r} finds no rate within the test.",
                "Make `min_lr` smaller or `max_lr` larger.",
            )
        return rate

    def _rate(self, rule: str) -> float:
        rate = RULES[rule](self)
        return rate if self.rates[0] < rate < self.rates[-1] else math.nan


def steepest(curve: Curve) -> float:
    """Where the loss falls fastest."""
    if curve.lowest == 0:
        return math.nan
    # Over as many steps as the smoothing reaches, for between neighbours there is only noise.
    falls = [left - right for left, right in zip(curve.smoothed, curve.smoothed[curve.reach :], strict=False)]
    return curve.rates[falls.index(max(falls[: curve.lowest])) + curve.reach // 2]


def minimum(curve: Curve) -> float:
    """A tenth of the rate at which the loss is lowest."""
    return curve.rates[curve.lowest] / 10


def valley(curve: Curve) -> float:
    """Half way down the longest falling subsequence, as if its points were neighbours (fastai's rule)."""
    tails: list[float] = []  # for each length 1, 2, ...: the negated loss that ends a subsequence of that length
    end = 0
    for at, value in enumerate(curve.smoothed):
        length = bisect_left(tails, -value)
        if length == len(tails):
            end = at
        tails[length : length + 1] = [-value]
    third = int(len(tails) / 3)
    return curve.rates[end - len(tails) + third + third // 2]


def slide(curve: Curve) -> float:
    """Coming from the end, where the gradient first is steady over a twentieth of the curve (fastai's rule)."""
    smoothed = curve.smoothed
    gradients = [(right - left) / 2 for left, right in zip(smoothed, smoothed[2:], strict=False)]
    width = max(2, len(smoothed) // 20)
    threshold = 0.1 * max(map(abs, gradients))
    end = gradients.index(max(gradients[curve.lowest - 1 :], default=gradients[-1]))  # the steepest rise
    for at in range(end, width - 1, -1):
        if abs(gradients[at] - gradients[at - width]) <= threshold:
            return curve.rates[at - width + 1]
    return math.nan


RULES: dict[str, Callable[[Curve], float]] = {
    "steepest": steepest,
    "minimum": minimum,
    "valley": valley,
    "slide": slide,
}


def _reach(count: int) -> int:
    """How far the smoothing window reaches to each side."""
    return max(2, count // 25)


def _start(values: Sequence[float]) -> float:
    """The level at which values start."""
    return median(values[: _early(len(values))])


def _early(count: int) -> int:
    """How many points count as the start of the curve."""
    return max(5, count // 10)

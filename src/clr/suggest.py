"""From the curve of an LR range test, losses over rates, to the bounds of a schedule. Plain numbers in and out.

Every threshold is a part of the curve's own fall or noise. So neither a factor on the losses nor a constant added to
them changes what is found.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

FEWEST = 20  # points, below which a curve says nothing
LATE = 0.1  # of the fall: so deep, the loss is said to have begun to fall
DEEP = 0.9  # of the fall: so deep, it is said to have stopped
RISE = 0.3  # of the fall: so far above its lowest, the loss is said to diverge
CLEAR = 6.0  # standard errors of the smoothed loss: a fall below that may be chance
NOISE = 0.15  # of the fall: so large a noise halves the confidence


class NoBoundsError(ValueError):
    """The curve of an LR range test gives no bounds, or no rate by a rule.

    Attributes:
        kind: ``"few"`` (points), ``"flat"``, ``"noisy"``, ``"rising"``, ``"narrow"`` (the range of rates starts too
            late) or ``"endless"`` (it ends too early).
        advice: What to change.
    """

    def __init__(self, kind: str, finding: str, advice: str) -> None:
        super().__init__(f"{finding} {advice}")
        self.kind = kind
        self.advice = advice

    def __reduce__(self) -> tuple[type["NoBoundsError"], tuple[str, str, str]]:
        return type(self), (self.kind, str(self).removesuffix(f" {self.advice}"), self.advice)


@dataclass(frozen=True)
class Bounds:
    """The bounds of a cyclical learning rate. They unpack to the pair: ``base_lr, max_lr = bounds``.

    Attributes:
        base_lr: The rate at which the loss starts to fall.
        max_lr: The rate at which it stops falling or turns ragged.
        confidence: From 0 to 1: how small the noise is beside the fall, and how many of the single-rate rules agree.
        reason: How they were found, in words.
    """

    base_lr: float
    max_lr: float
    confidence: float
    reason: str

    def __iter__(self) -> Iterator[float]:
        return iter((self.base_lr, self.max_lr))


def smooth(values: Sequence[float]) -> list[float]:
    """Finite values, without single spikes and with little noise: a running median of 5, then a triangular window.

    Both are centred, and the window shrinks towards the ends, so a slope is neither delayed nor bent there.
    """
    if not values:
        return []
    last = len(values) - 1
    # What is as far above the start as the lowest is below it is out of the picture; it must not weigh on the rest.
    start = median(values[: max(5, len(values) // 10)])
    cap = start + (start - min(values))
    capped = [min(value, max(cap, start)) for value in values]
    calm = [median(capped[at - reach : at + reach + 1]) for at in range(last + 1) for reach in [min(2, at, last - at)]]
    result = []
    for at in range(last + 1):
        reach = min(_reach(last + 1), at, last - at)
        weights = [reach + 1 - abs(offset) for offset in range(-reach, reach + 1)]
        near = calm[at - reach : at + reach + 1]
        result.append(math.fsum(map(_product, weights, near)) / (reach + 1) ** 2)
    return result


class Curve:
    """A curve and what is found on it.

    Args:
        rates: Growing rates.
        values: The loss of each, or what else falls where training goes well; all finite.
        ended: Whether the test ended because training had diverged.
    """

    def __init__(self, rates: Sequence[float], values: Sequence[float], ended: bool) -> None:
        self.rates, self.values, self.ended = rates, values, ended
        self.smoothed = smooth(values)

    @cached_property
    def start(self) -> float:
        """The level that the curve starts from."""
        return median(self.values[: max(5, len(self.values) // 10)])

    @cached_property
    def lowest(self) -> int:
        """Where the curve is lowest before it diverges: before its first large rise, once it has come half way down."""
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
        return self.ended or max(self.smoothed[self.lowest :]) - self.smoothed[self.lowest] > RISE * self.fall

    @cached_property
    def noise(self) -> float:
        """The typical distance of a loss from the smoothed curve, as a standard deviation, up to the lowest point."""
        until = max(self.lowest + 1, FEWEST)
        return 1.4826 * median(
            abs(value - level) for value, level in zip(self.values[:until], self.smoothed, strict=False)
        )

    @cached_property
    def error(self) -> float:
        """The standard error of the smoothed curve."""
        return self.noise * math.sqrt(1 / _reach(len(self.values)))

    def below(self, part: float) -> int:
        """The first point from which on the curve stays, until its lowest, below its start by a part of its fall."""
        level = self.start - max(part * self.fall, min(2 * self.error, self.fall / 2))
        at = self.lowest
        while at > 0 and self.smoothed[at - 1] < level:
            at -= 1
        return at

    def check(self) -> None:
        """Raises a NoBoundsError if the curve does not fall and rise as that of a range test must."""
        values = self.values
        if len(values) < FEWEST:
            raise NoBoundsError(
                "few",
                f"The test has {len(values)} finite losses, and at least {FEWEST} are needed.",
                "Make `num_steps` larger" + (", or `min_lr` smaller." if self.ended else "."),
            )
        tiny = 1e-9 * max(map(abs, values))
        if self.fall <= max(CLEAR / 2 * self.error, tiny):
            if self.ended or self.smoothed[-1] - self.start > max(CLEAR * self.error, tiny):
                raise NoBoundsError(
                    "rising",
                    "The loss rises and never falls.",
                    "Make `min_lr` smaller; if it still rises, the training step goes uphill.",
                )
            raise NoBoundsError(
                "flat",
                "The loss does not fall by more than its noise.",
                "Make `max_lr` larger; if it stays flat, the training step does not train.",
            )
        if self.fall <= CLEAR * self.error:
            raise NoBoundsError(
                "noisy",
                "The loss falls by little more than its noise.",
                "Take larger batches, more steps or several repeats.",
            )
        if not self.diverges:
            raise NoBoundsError(
                "endless",
                f"Training never diverges: at {self.rates[-1]:.3g}, where the test ends, the loss has not risen again.",
                "Make `max_lr` larger.",
            )
        if self.below(LATE) < 3:
            raise NoBoundsError(
                "narrow",
                f"The loss falls from {self.rates[0]:.3g} on, where the test starts.",
                "Make `min_lr` smaller.",
            )

    def bounds(self) -> Bounds:
        """The bounds, or a NoBoundsError."""
        self.check()
        first, last = self.below(LATE), self.below(DEEP)
        if last <= first:
            raise NoBoundsError(
                "narrow", "The loss falls within a single step of the rate.", "Take more steps, or a smaller range."
            )
        base_lr, max_lr = self.rates[first], self.rates[last]
        agreed = [name for name in RULES if base_lr <= self._rate(name) <= max_lr]
        calm = 1 / (1 + self.noise / self.fall / NOISE)
        confidence = calm * (1 + len(agreed) / len(RULES)) / 2
        return Bounds(
            base_lr,
            max_lr,
            confidence,
            f"The loss starts to fall at {base_lr:.3g} and has all but stopped at {max_lr:.3g}. "
            f"Its noise is {self.noise / self.fall:.1%} of the fall; "
            + (f"{', '.join(agreed)} agree." if agreed else "none of the single-rate rules agrees."),
        )

    def suggest(self, rule: str) -> float:
        """The rate by a rule, or a NoBoundsError."""
        self.check()
        rate = self._rate(rule)
        if math.isnan(rate):
            raise NoBoundsError("narrow", f"The rule {rule!r} finds no rate within the test.", "Widen the range.")
        return rate

    def _rate(self, rule: str) -> float:
        rate = RULES[rule](self)
        return rate if self.rates[0] < rate < self.rates[-1] else math.nan


def steepest(curve: Curve) -> float:
    """Where the loss falls fastest."""
    smoothed = curve.smoothed
    falls = [smoothed[at - 1] - smoothed[at + 1] for at in range(1, curve.lowest)]
    return curve.rates[1 + falls.index(max(falls))]


def minimum(curve: Curve) -> float:
    """A tenth of the rate at which the loss is lowest."""
    return curve.rates[curve.lowest] / 10


def valley(curve: Curve) -> float:
    """Half way down the longest fall: the longest falling subsequence of the losses, halfway into its middle third."""
    # The longest falling subsequence that ends at each point, by its length and where it starts.
    tails: list[int] = []  # of the lengths 1, 2, ...: the point with the highest loss that ends one of that length
    before: list[int | None] = []
    smoothed = curve.smoothed
    for at, value in enumerate(smoothed):
        low, high = 0, len(tails)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if smoothed[tails[middle]] > value else (low, middle)
        before.append(tails[low - 1] if low else None)
        tails[low : low + 1] = [at]
    end = at = tails[-1]
    while (earlier := before[at]) is not None:
        at = earlier
    third = int((end - at) / 3)
    return curve.rates[at + third + third // 2]


def slide(curve: Curve) -> float:
    """Coming from the end of the curve, where its slope stops changing: a stretch of a twentieth has one slope."""
    smoothed = curve.smoothed
    slopes = [(right - left) / 2 for left, right in zip(smoothed, smoothed[2:], strict=False)]
    width = max(2, len(smoothed) // 20)
    threshold = 0.1 * max(map(abs, slopes))
    end = slopes.index(max(slopes[curve.lowest - 1 :], default=slopes[-1]))  # the steepest rise
    for at in range(end, width - 1, -1):
        if abs(slopes[at] - slopes[at - width]) <= threshold:
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


def _product(left: float, right: float) -> float:
    return left * right

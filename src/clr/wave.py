"""Where a step lies on the wave, and the rate there: the only formula.

The place is found first, with ``//``, ``%`` and comparisons on the framework's own integers, so step 2**31 is as exact
as step 5; only the small distance from the foot of a slope becomes a float. There are two kinds of wave: a `Wave`
repeats a cycle of one length, a `Track` runs through slopes that it has in a table. Both tell alike how far up which
slope a step is, and `rate` serves both, in every framework.
"""

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

from clr import rounding
from clr.namespaces import Namespace
from clr.scaling import Scaling
from clr.shapes import SHAPES, Shape, Slope, merged

_FINEST_TICK = 1000  # parts of a step
_FARTHEST = 1 << 63  # steps; what starts later is reached by no integer array
_FINEST = 1 << 200  # starts in a table are exact, or rounded to this part of a step


def length(steps: float) -> Fraction:
    """A length in steps, exactly: 20.3 stands for 203/10, not for the float nearest to it."""
    return Fraction(steps).limit_denominator(_FINEST_TICK)


def plain(steps: Fraction) -> float:
    """A length in steps, an int if it is whole."""
    return int(steps) if steps.denominator == 1 else float(steps)


# Where a step lies: in which cycle, counted from 0, and how many ticks from the foot of which slope.
Place = tuple[Any, Any, Any, Slope, Any]  # cycle, low, high, slope, ticks


class Wave(NamedTuple):
    """A cycle that repeats: a slope up, and one down. Lengths are in ticks; a whole step has ``ticks`` of them.

    The numbers are Python's, or tensors where an adapter is given tensors.
    """

    low: Any
    high: Any
    ticks: int
    up: Any
    period: Any
    rising: Slope | None  # none if a cycle starts at its peak
    falling: Slope  # the same object if both are equally long
    shape: Shape

    def within(self, xp: Namespace) -> "Wave":
        """The wave as a namespace can compute it: its slopes merged, if that rounds at every operation.

        Raises a ValueError if its integers end before a cycle does.
        """
        largest = xp.largest if self.ticks == 1 else xp.largest >> 2  # fractions need room for a product in `_locate`
        if self.period > largest:
            raise ValueError(
                f"a cycle of {self.period} ticks of 1/{self.ticks} step cannot be counted in integers up to "
                f"{largest}: use a shorter or a whole step size, or 64-bit integers (in JAX, jax_enable_x64)"
            )
        if xp.exact:
            return self
        falling = merged(self.falling)
        rising = falling if self.falling is self.rising else self.rising and merged(self.rising)
        return self._replace(rising=rising, falling=falling)

    def at(self, xp: Namespace, step: Any) -> Place:
        """Where ``step`` lies."""
        low, high, ticks, up, period, rising, falling, _ = self
        cycle, offset = xp.divmod(step, period) if ticks == 1 else self._locate(xp, step)
        foot = period - offset
        if rising is falling:
            return cycle, low, high, rising, xp.minimum(offset, foot)
        if rising is None:
            return cycle, low, high, falling, foot
        is_rising = offset <= up
        slope, ticks = xp.where(is_rising, (rising, offset), (falling, foot))
        return cycle, low, high, slope, ticks

    def _locate(self, xp: Namespace, step: Any) -> tuple[Any, Any]:
        """The cycle that ``step`` lies in, counted from 0, and the ticks from its start."""
        cycle, offset = xp.divmod(step, self.period)
        # step * ticks = (cycle * ticks) * period + offset * ticks. The last product may pass the largest integer, so
        # it is taken digit by digit, in a base small enough that nothing does.
        base = xp.largest // (2 * self.period)
        inner = rest = 0
        for digit in _digits(self.ticks, base):
            carry, rest = xp.divmod(rest * base + offset * digit, self.period)
            inner = inner * base + carry
        return cycle * self.ticks + inner, rest

    def is_cycle_end(self, xp: Namespace, step: Any) -> Any:
        """Whether ``step`` is the last of its cycle."""
        offset = (xp.divmod(step, self.period) if self.ticks == 1 else self._locate(xp, step))[1]
        return offset >= self.period - self.ticks


def wave(low: float, high: float, up: Fraction, down: Fraction, shape: str) -> Wave:
    """The wave that rises in ``up`` steps, which may be 0, and falls in ``down``: 20.3 steps are 203 ticks of 1/10."""
    ticks = math.lcm(up.denominator, down.denominator)
    rise, kind = Fraction(high) - Fraction(low), SHAPES[shape]
    falling = kind.slope(rise, down * ticks)
    if up:
        rising = falling if up == down else kind.slope(rise, up * ticks)
        return Wave(low, high, ticks, int(up * ticks), int((up + down) * ticks), rising, falling, kind)
    return Wave(low, high, ticks, 0, int(down * ticks), None, falling, kind)


def _digits(number: int, base: int) -> Iterator[int]:
    """The digits of ``number``, most significant first."""
    higher, digit = divmod(number, base)
    if higher:
        yield from _digits(higher, base)
    yield digit


class Track(NamedTuple):
    """Slopes one after the other, at the end of which the rate stays as it is.

    ``first`` has the first step on each slope. A row has what `at` needs of a slope: its low end, as a whole step and
    the rest of one; the rates there and at its high end; and the constants of its shape.
    """

    first: tuple[int, ...]
    rows: tuple[tuple[Any, ...], ...]
    slopes_per_cycle: int
    ends: tuple[int, ...]  # the last step of each cycle, after a -1 that is there to be found
    shape: Shape

    def within(self, xp: Namespace) -> "Track":
        """The track as far as the integers of a namespace go, its slopes merged as in `Wave.within`."""
        if xp.exact and xp.largest > _FARTHEST:
            return self
        first = tuple([start for start in self.first if start <= xp.largest])
        rows = []
        for foot, rest, low, high, *slope in self.rows[: len(first)]:
            beyond = max(foot - xp.largest, 0)  # the foot may lie farther than the last step that can be counted
            rows.append((foot - beyond, rest + beyond, low, high, *(slope if xp.exact else merged(tuple(slope)))))
        ends = tuple([end for end in self.ends if end <= xp.largest])
        return self._replace(first=first, rows=tuple(rows), ends=ends)

    def at(self, xp: Namespace, step: Any) -> Place:
        """Where ``step`` lies."""
        index = xp.search(self.first, step)
        foot, rest, low, high, *slope = xp.take(self.rows, index)
        return index // self.slopes_per_cycle, low, high, slope, xp.real(xp.distance(step, foot)) + rest

    def is_cycle_end(self, xp: Namespace, step: Any) -> Any:
        """Whether ``step`` is the last of its cycle."""
        rows = [(end,) for end in self.ends]
        return xp.take(rows, xp.search(self.ends, step))[0] == step


class Leg(NamedTuple):
    """A part of a track: from a step and a rate to a later step and another rate."""

    start: Fraction
    end: Fraction
    before: float
    after: float


def track(legs: Iterable[Leg], slopes_per_cycle: int, shape: str) -> Track:
    """The track of some legs, at least one. Where legs share a step, it is the later one's."""
    kind = SHAPES[shape]
    first, rows, ends = [], [], [-1]
    for number, (start, end, before, after) in enumerate(legs):
        foot, sign = (start, 1) if before <= after else (end, -1)
        whole = sign * math.ceil(sign * foot)  # the nearest whole step on the slope
        low, high = sorted((before, after))
        slope = kind.slope(Fraction(high) - Fraction(low), end - start or 1)
        first.append(math.ceil(start))
        rows.append((whole, float(abs(whole - foot)), low, high, *slope))
        if number and number % slopes_per_cycle == 0:
            ends.append(first[-1] - 1)
    first.append(math.ceil(end))
    rows.append((first[-1], 0.0, after, after, *kind.slope(Fraction(0), 1)))
    return Track(tuple(first), tuple(rows), slopes_per_cycle, (*ends, first[-1] - 1), kind)


def growing(low: float, high: float, up: Fraction, down: Fraction, factor: Fraction, shape: str) -> Track:
    """The track of cycles each ``factor`` times as long as the one before, until they are shorter than a step."""
    return track(_cycles(low, high, up, down, factor), 2 if up else 1, shape)


def _cycles(low: float, high: float, up: Fraction, down: Fraction, factor: Fraction) -> Iterator[Leg]:
    start = Fraction(0)
    while start < _FARTHEST and (factor > 1 or up + down >= 1 or not start):
        top, end = start + up, start + up + down
        if up:
            yield Leg(start, top, low, high)
        yield Leg(top, end, high, low)
        start, up, down = _rounded(end), _rounded(up * factor), _rounded(down * factor)


def _rounded(value: Fraction) -> Fraction:
    """``value`` if its denominator is bearable, as it is while it can be whole, else the nearest one that is."""
    return value if value.denominator <= _FINEST else Fraction(round(value * _FINEST), _FINEST)


def evaluate(xp: Namespace, wave: Wave | Track, scaling: Scaling | None, bound: Any, step: Any) -> Any:
    """The rate at ``step``: locate, scale, rate."""
    cycle, low, high, slope, ticks = wave.at(xp, step)
    return rate(xp, wave.shape, low, high, slope, ticks, scaling and scaling(bound, xp, step, cycle))


def rate(xp: Namespace, shape: Shape, low: Any, high: Any, slope: Slope, ticks: Any, scale: Any) -> Any:
    """The rate, low + (high - low) * height * scale, where height is 0 at the foot, 1 at the top (Smith 2017, 3.1)."""
    rise, lost = shape.climb(xp, slope, ticks)
    scaled = rise if scale is None else rise * scale
    result = low + scaled
    if xp.exact:  # give back what these lines rounded away, so that the result is rounded only once
        if scale is not None:
            lost = lost * scale + rounding.product_error(xp, rise, scale, scaled)
        result = result + (lost + rounding.sum_error(low, scaled, result))
    return xp.minimum(result, high)

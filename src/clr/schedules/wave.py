"""Where a step lies on the wave, and the rate there: the only formula.

The place is found first, with ``//``, ``%`` and comparisons on the framework's own integers, so step 2**31 is as exact
as step 5. Only the small distance from the foot of a slope becomes a float. `Wave.formula` serves every schedule, in
every framework.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from clr import checks
from clr.arrays.base import A, Arrays
from clr.schedules import rounding
from clr.schedules.scaling import Scaling
from clr.schedules.shapes import SHAPES

_FINEST_TICK = 1000  # parts of a step
_FARTHEST = 1 << 63  # steps; what starts later is reached by no integer array
_FINEST = 1 << 200  # starts in a table are exact, or rounded to this part of a step
_AT_FIRST = 512  # slopes that are made with a schedule; where there are more, they are made when one is asked for


def length(steps: float) -> Fraction:
    """A length in steps, exactly: 20.3 stands for 203/10, not for the float nearest to it."""
    return Fraction(steps).limit_denominator(_FINEST_TICK)


def whole(steps: Fraction) -> float:
    """A length in steps, an int if it is whole."""
    return int(steps) if steps.denominator == 1 else float(steps)


class Row(NamedTuple):
    """What the formula needs of a slope. Its foot is its low end, from which it climbs forwards or backwards."""

    cycle: int  # counted from 0
    foot: Any  # the nearest whole tick on the slope
    rest: float  # from the foot itself to that tick
    low: Any  # the rate at the foot, and at the top
    high: Any
    gain: Any  # the constants of the shape
    lost: float
    turn: float
    top: Any = 0  # for a shape that asks for it: the nearest whole tick on the slope to its top
    above: float = 0.0  # from the top itself to that tick


@dataclass(frozen=True, slots=True, eq=False)
class Wave:
    """Slopes one after the other: those of a cycle that repeats, or of a whole training.

    Attributes:
        starts: Where each slope but the first begins, in ticks (within the cycle, if it repeats).
        rows: A `Row` for each slope. Its numbers may be tensors where an adapter is given tensors.
        shape: How a rate climbs a slope, a key of `SHAPES`.
        period: The length of a cycle that repeats, in ticks; None for slopes that do not.
        ticks: How many ticks a step has.
        even: Whether the slope down of a cycle is the slope up, backwards.
        scaling: What happens to the height over the cycles, None for nothing.
        bound: What the scaling is bound to.
        make_whole: Makes the wave with all slopes, where this one has only the first.
    """

    starts: tuple[Any, ...]
    rows: tuple[Row, ...]
    shape: str
    period: Any = None
    ticks: int = 1
    even: bool = False
    scaling: Scaling | None = None
    bound: Any = None
    make_whole: Callable[[], "Wave"] | None = None
    _prepared: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def whole(self) -> "Wave":
        """The wave with all of its slopes."""
        if self.make_whole is None:
            return self
        if "whole" not in self._prepared:
            self._prepared["whole"] = replace(self.make_whole(), scaling=self.scaling, bound=self.bound)
        return self._prepared["whole"]  # type: ignore[no-any-return]

    def formula(self, xp: Arrays[A]) -> Callable[[A], A]:
        """The formula for a framework, as a function of the step that is prepared once for all steps."""
        if not xp.keeps:
            return self._formula(xp)
        if xp not in self._prepared:
            self._prepared[xp] = self._formula(xp)
        return self._prepared[xp]  # type: ignore[no-any-return]

    def _formula(self, xp: Arrays[A]) -> Callable[[A], A]:
        """Locate, height, scale, rate: low + (high - low) * height * scale (Smith 2017, section 3.1)."""
        wave: Any = self._within(xp)
        table, tops = xp.table([row[:-2] for row in wave.rows]), xp.table([row[-2:] for row in wave.rows])
        is_cosine, is_root, is_whole = wave.shape == "cosine", wave.shape == "1-sqrt", wave.ticks == 1
        # Names for what the host asks for at every step. Few, since each call of a closure copies them all.
        starts, period, scaling, exact, scalar = wave.starts, wave.period, wave.scaling, xp.exact, xp.scalar
        folds = wave.even and not scalar
        signed = exact and not folds
        search: Callable[..., Any] = xp.search
        sin: Callable[[Any], Any] = xp.sin

        def rate(step: Any) -> Any:
            # Locate: how far it is to the foot of which slope of which cycle.
            if period is None:
                place = step
                try:
                    cycle, foot, rest, low, high, gain, lost, turn = table[search(starts, place)]
                except IndexError:
                    return self._beyond(step).formula(xp)(step)
            else:
                located = None if is_whole else wave._locate(xp, step)
                place = xp.modulo(step, period) if located is None else located[1]
                cycle, foot, rest, low, high, gain, lost, turn = table[search(starts, place)]
            if signed:
                try:
                    height = place - foot + rest
                except OverflowError:  # so far behind the end, it is the same rate
                    height = 0.0
            else:
                height = xp.nearer(place, period) if folds else xp.distance(place, foot, rest)
            # Height.
            if is_cosine:
                height = sin(height * turn)
                height = height * height
            elif is_root:
                # The way that is left is located too: nothing of 1.0 - height / turn is exact near the top.
                top, above = tops[search(starts, place)]
                try:
                    left = abs((place - top + above if exact else xp.distance(place, top, above)) / turn)
                except OverflowError:
                    left = 0.0
                height = height / turn / (xp.sqrt(left) + 1.0)
            rise = height * gain
            # Scale.
            if scaling is not None:
                if period is not None:
                    cycle = (located or xp.divmod(step, period))[0]
                elif not scalar:
                    cycle = step * 0 + cycle  # it may be one and the same for all steps
                scale = scaling(wave.bound, xp, step, cycle)
                unscaled, rise = rise, rise * scale
                if exact:
                    lost = lost * height * scale + rounding.product_error(xp, unscaled, scale, rise)
            elif exact:
                lost = lost * height
            # Rate. On the host, what these lines have rounded away is given back, so that it is rounded only once.
            result = low + rise
            if not exact:
                return xp.minimum(result, high)
            part = result - low  # this and the next line find what the sum has rounded away, exactly (Knuth 1969)
            result = result + (lost + ((low - (result - part)) + (rise - part)))
            if scalar:
                return result if result < high else high
            return xp.minimum(result, high)

        return rate

    def cycle(self, xp: Arrays[A], step: A) -> A:
        """The cycle that ``step`` lies in, counted from 0."""
        wave = self._within(xp)
        if wave.period is not None:
            return (xp.divmod(step, wave.period) if wave.ticks == 1 else wave._locate(xp, step))[0]
        cycles = xp.table([(row.cycle,) for row in wave.rows])
        try:
            return step * 0 + cycles[xp.search(wave.starts, step)][0]  # type: ignore[no-any-return]
        except IndexError:
            return self._beyond(step).cycle(xp, step)

    def _beyond(self, step: object) -> "Wave":
        """The wave for a step that lies after its last slope, on the host. Arrays have all slopes at once."""
        if self.make_whole is None:  # integers of no framework could reach it
            checks.fail(ValueError, "step", "far_step", step)
        return self.whole()

    def _within(self, xp: Arrays[A]) -> "Wave":
        """The wave as far as the integers of a framework go.

        Where a framework rounds at every operation, a slope needs no correction: it is added to the gain.

        Raises a ValueError if the integers end before a cycle does.
        """
        largest = xp.largest if self.ticks == 1 else xp.largest >> 2  # fractions need room for a product in `_locate`
        if isinstance(self.period, int) and self.period > largest:
            raise ValueError(
                f"a cycle of {self.period} ticks of 1/{self.ticks} step cannot be counted in integers up to "
                f"{largest}: use a shorter or a whole step size, or 64-bit integers (in JAX, jax_enable_x64)"
            )
        whole = self if xp.scalar else self.whole()
        starts, rows = whole.starts, whole.rows
        if self.period is None and xp.largest <= _FARTHEST:
            starts = tuple([start for start in starts if start <= xp.largest])
            rows = tuple([_before(row, xp.largest) for row in rows[: len(starts) + 1]])
        if not xp.exact:
            rows = tuple([_rounded_row(row) for row in rows])
        if self.even and not xp.scalar:  # of two arrays, a choice costs more than a minimum
            starts, rows = (), rows[:1]
        return replace(self, starts=starts, rows=rows)

    def _locate(self, xp: Arrays[A], step: A) -> tuple[A, A]:
        """The cycle that ``step`` lies in, counted from 0, and the ticks from its start."""
        cycle, offset = xp.divmod(step, self.period)
        if self.period < self.ticks and not xp.scalar:  # there may be more cycles than the integers can count
            if xp.exact and (step > (far := xp.largest * self.period // self.ticks)).any():
                checks.fail(ValueError, "step", f"at most {far} in an array, for its cycle to be counted", step)
            cycle = xp.minimum(cycle, xp.largest // self.ticks - 1)
        # step * ticks = (cycle * ticks) * period + offset * ticks. The last product may pass the largest integer, so
        # it is taken digit by digit, in a base small enough that nothing does.
        base = xp.largest // (2 * self.period)
        inner: Any = 0
        rest: Any = 0
        for digit in _digits(self.ticks, base):
            carry, rest = xp.divmod(rest * base + offset * digit, self.period)
            inner = inner * base + carry
        return cycle * self.ticks + inner, rest


def _before(row: Row, largest: int) -> Row:
    """A row whose foot and top are no farther than the last step that can be counted."""
    beyond, over = max(row.foot - largest, 0), max(row.top - largest, 0)
    return row._replace(foot=row.foot - beyond, rest=row.rest - beyond, top=row.top - over, above=row.above - over)


def _rounded_row(row: Row) -> Row:
    """A row for frameworks that round at every operation: no correction, and distances without their sign."""
    sign = -1 if row.turn < 0 or (isinstance(row.gain, float) and row.gain < 0) else 1
    gain = row.gain + row.lost if row.lost else row.gain
    gain = gain if row.turn else sign * gain
    return row._replace(rest=abs(row.rest), gain=gain, turn=abs(row.turn), above=abs(row.above))


def _digits(number: int, base: int) -> Iterator[int]:
    """The digits of ``number``, most significant first."""
    higher, digit = divmod(number, base)
    if higher:
        yield from _digits(higher, base)
    yield digit


def repeating(low: float, high: float, up: Fraction, down: Fraction, shape: str) -> Wave:
    """The wave that rises in ``up`` steps, which may be 0, and falls in ``down``: 20.3 steps are 203 ticks of 1/10."""
    ticks = math.lcm(up.denominator, down.denominator)
    rise, kind = Fraction(high) - Fraction(low), SHAPES[shape]
    period = int((up + down) * ticks)
    top = int(up * ticks) if shape == "1-sqrt" else 0
    falling = Row(0, period, 0.0, low, high, *kind(rise, down * ticks, -1), top)
    if not up:
        return Wave((), (falling,), shape, period, ticks)
    rising = Row(0, 0, 0.0, low, high, *kind(rise, up * ticks, 1), top)
    return Wave((int(up * ticks) + 1,), (rising, falling), shape, period, ticks, up == down)


class Leg(NamedTuple):
    """A part of a wave: from a place and a rate to a later place and another rate. Places are in parts of a step."""

    start: int
    end: int
    parts: int  # that a step has
    before: float
    after: float


def path(legs: Iterable[Leg], slopes_per_cycle: int, shape: str, ends: bool = True) -> Wave:
    """The wave of some legs, at least one. Where legs share a step, it is the later's.

    At its end the rate stays, or if it has no end (``ends``), what comes then is too far.
    """
    kind = SHAPES[shape]
    starts, rows, rises = [], [], dict[tuple[float, float], Fraction]()
    for number, (start, end, parts, before, after) in enumerate(legs):
        foot, sign = (start, 1) if before <= after else (end, -1)
        near = _inner(foot, parts, sign)
        low, high = bounds = (before, after) if sign > 0 else (after, before)
        if bounds not in rises:
            rises[bounds] = Fraction(high) - Fraction(low)
        starts.append(_inner(start, parts, 1))
        cycle, rest = number // slopes_per_cycle, (near * parts - foot) / parts
        if shape == "linear" and end - start < parts:  # one step lies on it, at most: so what rises until there, for
            way = Fraction(abs(near * parts - foot), end - start or 1)  # a slope may be steeper than a float can say
            slope, rest = kind(rises[bounds] * min(way, Fraction(1)), Fraction(1), 1), 1.0
        else:
            slope = kind(rises[bounds], Fraction(end - start or parts, parts), sign)
        row = Row(cycle, near, rest, low, high, *slope)
        if shape == "1-sqrt":
            top = end if sign > 0 else start
            tick = _inner(top, parts, -sign)
            row = row._replace(top=tick, above=(tick * parts - top) / parts)
        rows.append(row)
    starts.append(_inner(end, parts, 1))
    if ends:
        still = 0.0, 0.0, 0.0 if shape == "linear" else 1.0
        rows.append(Row(len(rows) // slopes_per_cycle, starts[-1], 0.0, after, after, *still))
    return Wave(tuple(starts[1:]), tuple(rows), shape)


def _inner(place: int, parts: int, sign: int) -> int:
    """The nearest whole step to a place, upwards or downwards."""
    return -(-place // parts) if sign > 0 else place // parts


def growing(low: float, high: float, up: Fraction, down: Fraction, factor: Fraction, shape: str) -> Wave:
    """The wave of cycles each ``factor`` times as long as the one before, until they are shorter than a step."""
    make = partial(path, slopes_per_cycle=2 if up else 1, shape=shape)
    first = list(islice(_cycles(low, high, up, down, factor), _AT_FIRST))
    if len(first) < _AT_FIRST:
        return make(first, ends=factor < 1)
    return replace(
        make(first, ends=False), make_whole=lambda: make(_cycles(low, high, up, down, factor), ends=factor < 1)
    )


def _cycles(low: float, high: float, up: Fraction, down: Fraction, factor: Fraction) -> Iterator[Leg]:
    """The legs of all cycles that integers reach. There may be many, so their places are integers, not fractions."""
    over, under = factor.as_integer_ratio()
    parts = math.lcm(up.denominator, down.denominator)
    start, rise, fall = 0, int(up * parts), int(down * parts)
    while start < _FARTHEST * parts and (factor > 1 or rise + fall >= parts or not start):
        top, end = start + rise, start + rise + fall
        if rise:
            yield Leg(start, top, parts, low, high)
        yield Leg(top, end, parts, high, low)
        start, rise, fall = end, rise * over, fall * over
        if parts < _FINEST:  # exact, as long as a place can be whole
            start, parts = start * under, parts * under
            if parts > _FINEST:
                start, rise, fall = (_nearest(place * _FINEST, parts) for place in (start, rise, fall))
                parts = _FINEST
        else:
            rise, fall = _nearest(rise, under), _nearest(fall, under)


def _nearest(number: int, divisor: int) -> int:
    return (2 * number + divisor) // (2 * divisor)

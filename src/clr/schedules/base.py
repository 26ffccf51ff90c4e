"""What a schedule is: a frozen value that maps a step to a rate, alike in every framework.

The kinds of schedules are in the files beside this one, and this file knows none of them. The functions that make
schedules, such as `clr.one_cycle`, register themselves here by `policy`. So a schedule can be saved as the call that
made it, and its methods find the functions that they hand over to.
"""

from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from numbers import Integral, Real
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    ParamSpec,
    TypeVar,
    dataclass_transform,
    overload,
)

from clr import above, arrays, checks
from clr.arrays.base import A, Array, Arrays, Python, unconverted
from clr.schedules.scaling import registered_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VERSION = 1  # of saved schedules
MOST_NESTED = 50  # schedules within each other
_SMALL = 65504.0  # the largest rate that every dtype can hold

K = TypeVar("K")

AfterEndRule = Literal["hold", "repeat", "error"]


class Call(NamedTuple):
    """The call that made a schedule: the name of a policy and its arguments, as plain values."""

    name: str
    arguments: dict[str, Any]


class _Kind(ABCMeta):
    """The class of schedule classes: it leaves a name out of what completion shows."""

    def __dir__(cls) -> list[str]:
        return [name for name in super().__dir__() if name != "autograph_info__"]


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(kind: type[K]) -> type[K]:
    """Makes a frozen dataclass, but none that says so: OmegaConf and `dataclasses.asdict` would take it apart."""
    made: Any = dataclass(frozen=True, repr=False, slots=True)(kind)
    del made.__dataclass_fields__
    return made  # type: ignore[no-any-return]


class Schedule(metaclass=_Kind):
    """A value that gives the rate of any step, alike in every framework.

    Schedules are immutable and hashable. Two are equal if they give equal rates by the same means. They can be pickled
    if their scaling function can. Functions such as `clr.triangular2` and `clr.one_cycle` make them. `clr.join`,
    `clr.warmup`, `clr.momentum`, a factor (``schedule * 0.1``), `clip` and `after_end` make new ones of them, up to 50
    within each other.

    >>> import clr
    >>> schedule = clr.triangular(base_lr=0.125, max_lr=1.125, step_size=4)
    >>> [schedule(step) for step in range(9)]
    [0.125, 0.375, 0.625, 0.875, 1.125, 0.875, 0.625, 0.375, 0.125]
    """

    __slots__ = ("__dict__", "__weakref__", "_made")  # PyTorch's LambdaLR asks for the first
    _made: Call  # what `policy` remembers
    autograph_info__: ClassVar[None] = None  # what `arrays.unconverted` sets, for calls of a schedule

    # What each kind of schedule says of itself. A step comes as the integers of a framework, and the rate leaves in
    # that framework's working precision.

    @abstractmethod
    def _rate(self, xp: Arrays[A], step: A, /) -> A:
        """The rate at ``step``."""

    def _at(self, step: int, /) -> float:
        """The rate at ``step`` on the host."""
        rate: float = self._rate(Python, step)
        return rate

    @abstractmethod
    def _cycle(self, xp: Arrays[A], step: A, /) -> A:
        """The number of the cycle at ``step``, counted from 0. What comes after its end is a cycle of its own."""

    @property
    @abstractmethod
    def limits(self) -> tuple[float, float]:
        """The lowest and the highest rate. No rate is outside of them."""

    @property
    @abstractmethod
    def total_steps(self) -> int | None:
        """The number of steps until it has come to its end, after which the rate stays; None if it has no end."""

    @property
    @abstractmethod
    def _preview(self) -> int:
        """The number of steps that show what it is like."""

    @property
    def _training_steps(self) -> int | None:
        """The length of the training that it is made for; None if it may be followed for as long as one likes."""
        return None

    @property
    def _parts(self) -> tuple["Schedule", ...]:
        """The schedules that it is made of."""
        return ()

    @abstractmethod
    def describe(self) -> str:
        """The schedule in words: its lengths in steps, its limits, and what happens over the cycles.

        >>> import clr
        >>> print(clr.triangular2(base_lr=0.001, max_lr=0.006, step_size=2000).describe())
        The learning rate rises from 0.001 to 0.006 in 2000 steps and falls back in 2000: a cycle of 4000 steps.
        Each cycle is half as high as the one before.
        """

    @overload
    def __call__(self, step: int) -> float: ...
    @overload
    def __call__(self, step: Array, *, dtype: Any = None) -> Any: ...
    def __call__(self, step: Any = None, *_more: object, dtype: Any = None) -> Any:
        """The learning rate of update number ``step``, counted from 0.

        Args:
            step: A Python or NumPy integer, or an integer array or tensor of any shape from NumPy, TensorFlow,
                PyTorch or JAX, traced or not. Floats that hold whole numbers are taken too.
            dtype: The dtype of the rates, for arrays and tensors. By default float64 from NumPy, and elsewhere what
                the framework makes of a Python float.

        Returns:
            A float for a single step, else an array or tensor of the step's framework and shape.

        Raises:
            TypeError: The step is not a number, such as a bool or a list.
            ValueError: The step is negative or fractional, or the highest rate is infinite in the dtype. A traced step
                raises no error, nor does a tensor of PyTorch or JAX, which may be traced: a negative one counts as 0.
        """
        if type(step) is int and step >= 0 and dtype is None and not _more:  # the way of training loops, at half cost
            return self._at(step)
        one_step(step, _more)
        xp, steps = arrays.enter(step)
        if dtype is not None:
            _check_dtype(xp, dtype)
        if xp is not Python:
            _check_range(xp, self.limits[1], dtype)
        return xp.rates(self._rate(xp, steps), dtype)

    @unconverted
    def cycle(self, step: Array) -> Any:
        """The number of the cycle that ``step`` lies in, counted from 1 as in the paper.

        Takes whatever the schedule takes, and gives an int, or integers in the step's framework and shape. The steps
        after the end of a schedule are a cycle of their own.

        >>> import clr
        >>> clr.triangular(0.001, 0.006, step_size=10).cycle(20)
        2
        """
        xp, steps = arrays.enter(step)
        return xp.plain(self._cycle(xp, steps) + 1)

    @unconverted
    def is_cycle_end(self, step: Array) -> Any:
        """Whether ``step`` is the last of its cycle: the next step is in another one. The time for a snapshot.

        Takes whatever the schedule takes, and gives a bool, or truth values in the step's framework and shape.

        >>> import clr
        >>> schedule = clr.triangular(0.001, 0.006, step_size=10)
        >>> [step for step in range(60) if schedule.is_cycle_end(step)]
        [19, 39, 59]
        """
        xp, steps = arrays.enter(step)
        following = steps + 1 if xp.scalar else xp.minimum(steps, xp.largest - 1) + 1
        return xp.plain(self._cycle(xp, following) > self._cycle(xp, steps))  # in a graph, != compares objects

    def __mul__(self, factor: Any) -> "Schedule":
        """The schedule with every rate times ``factor``, a finite number, 0 or more: say, for a group of parameters.

        >>> import clr
        >>> (clr.triangular(0.0, 1.0, step_size=4) * 0.5)(2)
        0.25
        """
        return POLICIES["multiple"](self, factor) if isinstance(factor, Real) else NotImplemented

    __rmul__ = __mul__

    def clip(self, low: float = 0.0, high: float | None = None) -> "Schedule":
        """The schedule with no rate below ``low`` nor above ``high``.

        >>> import clr
        >>> schedule = clr.triangular(0.0, 1.0, step_size=4).clip(0.5, 0.75)
        >>> [schedule(step) for step in range(5)]
        [0.5, 0.5, 0.5, 0.75, 0.75]
        """
        return POLICIES["clip"](self, low, high)

    def after_end(self, rule: AfterEndRule) -> "Schedule":
        """The schedule with another rule for steps from `total_steps` on.

        ``"hold"`` keeps the last rate, as every schedule does at its end. ``"repeat"`` starts again. ``"error"`` raises
        a ValueError; a traced step cannot raise one, so it keeps the last rate.

        >>> import clr
        >>> schedule = clr.one_cycle(max_lr=1.0, total_steps=100)
        >>> schedule.after_end("repeat")(100) == schedule(0)
        True
        """
        return POLICIES["after_end"](self, rule)

    def to_dict(self) -> dict[str, Any]:
        """The schedule as plain data, from which `clr.from_dict` makes an equal one: the call that made it.

        Raises a ValueError if it has a scaling function that `clr.register_scale` has not given a name.

        >>> import clr
        >>> clr.triangular2(0.25, 0.75, 4).clip(high=0.5).to_dict()["kind"]
        'clip'
        """
        return {"clr": VERSION, **_encoded(self)}

    def to_json(self) -> str:
        """The same as JSON text, for `clr.from_json`."""
        import json

        return json.dumps(self.to_dict())

    def plot(self, steps: int | None = None, ax: "Axes | None" = None) -> "Axes":
        """Draws the rate of every step below ``steps``, on ``ax`` or a new figure.

        By default ``steps`` is the whole schedule, or four cycles where it has no end.

        Returns the Axes. Raises an ImportError without the extra ``plot``, and a TypeError or ValueError if ``steps``
        is not a positive whole number.
        """
        return above.plot_schedule(self, steps, ax)  # type: ignore[no-any-return]

    def _repr_html_(self) -> str:
        return above.notebook_page(self)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        name, arguments = self._made
        defaults = _defaults(POLICIES[name])
        shown = {key: value for key, value in arguments.items() if key not in defaults or value != defaults[key]}
        if name == "multiple":
            return f"{arguments['schedule']!r} * {arguments['factor']!r}"
        owner = "clr"
        if name in _METHODS:
            schedule = shown.pop("schedule")
            owner = f"({schedule!r})" if schedule._made.name == "multiple" else repr(schedule)
        written = (f"{key}={list(value) if isinstance(value, tuple) else value!r}" for key, value in shown.items())
        return f"{owner}.{name}({', '.join(written)})"

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name != "autograph_info__"]

    def __reduce__(self) -> tuple[Any, ...]:
        return made, tuple(self._made)

    def _set(self, **values: object) -> None:
        """Sets attributes of the frozen dataclass while it is made."""
        for name, value in values.items():
            object.__setattr__(self, name, value)


def one_step(step: object, more: tuple[object, ...]) -> None:
    """Refuses what Keras hands to a plain function: an optimizer nothing, a callback the epoch and the rate."""
    if more:
        raise ValueError(  # of a TypeError, Keras would take the epoch alone
            f"a schedule takes one argument, the step. Received: {checks.shown((step, *more))}. "
            "If these are the epoch and the rate from keras.callbacks.LearningRateScheduler: give the optimizer "
            "clr.keras.LearningRateSchedule(schedule) instead. To count epochs, write lambda epoch: schedule(epoch)."
        )
    if step is None:
        raise TypeError(
            f"`step` must be {checks.RULES['step']}. Received: None. A Keras optimizer gives no step to a function: "
            "give it clr.keras.LearningRateSchedule(schedule)."
        )


def _check_dtype(xp: Arrays[Any], dtype: object) -> None:
    """Refuses a dtype that rates cannot have."""
    if xp is Python:
        raise TypeError(
            f"`dtype` is for arrays and tensors, a single step gives a float. Received: {checks.shown(dtype)}."
        )
    try:
        is_floating = xp.is_floating(dtype)
    except Exception:  # it is no dtype at all
        is_floating = False
    checks.floating(is_floating, dtype)


def _check_range(xp: Arrays[Any], highest: float, dtype: object) -> None:
    """Refuses rates that would be infinite in their dtype."""
    if highest > _SMALL and not xp.holds(highest, dtype):
        raise ValueError(
            f"the highest rate, {highest!r}, is infinite in the dtype of the rates: "
            f"give a wider `dtype`. Received: {checks.shown(dtype)}."
        )


def ended(xp: Arrays[A], step: A, total_steps: int) -> A:
    """1 where ``step`` lies after the end of a schedule, else 0: the cycle of one that has a single cycle."""
    cycle: Any = step * 0
    return cycle if total_steps > xp.largest else xp.where(xp.search((total_steps,), step), cycle + 1, cycle)


POLICIES: dict[str, Callable[..., Schedule]] = {}  # every function that makes schedules, by its name
_METHODS = ("clip", "after_end")  # those that users know as a method of a schedule

P = ParamSpec("P")
S = TypeVar("S", bound=Schedule)


def policy(function: Callable[P, S]) -> Callable[P, S]:
    """Registers a function that makes schedules. What it makes remembers the call, for its repr and its data."""
    names, defaults = parameters(function), _defaults(function)

    @wraps(function)
    def remembered(*positional: P.args, **named: P.kwargs) -> S:
        schedule = function(*positional, **named)
        given: dict[str, object] = {**dict(zip(names, positional, strict=False)), **named}
        schedule._set(_made=Call(function.__name__, {name: _plain((defaults | given)[name], name) for name in names}))
        return schedule

    POLICIES[function.__name__] = remembered
    return remembered


def made(name: str, arguments: Mapping[str, Any]) -> Schedule:
    """The schedule that a call makes."""
    return POLICIES[name](**arguments)


def parameters(function: Callable[..., object]) -> tuple[str, ...]:
    """The names of a policy's parameters. `inspect` would tell too, but takes longer to import than all of this."""
    code = getattr(function, "__wrapped__", function).__code__
    names: tuple[str, ...] = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return names


def _defaults(function: Callable[..., object]) -> dict[str, object]:
    own: Any = getattr(function, "__wrapped__", function)
    positional = own.__code__.co_varnames[: own.__code__.co_argcount]
    values = own.__defaults__ or ()
    return dict(zip(positional[len(positional) - len(values) :], values, strict=True)) | (own.__kwdefaults__ or {})


# The arguments that are integers where they are whole, however they were written. Other numbers are saved as floats.
_IN_STEPS = {"step_size", "step_size_down", "first_cycle", "cycle_mult", "lengths", "steps", "total_steps"}
_IN_STEPS |= {"warmup_steps", "decay_steps", "boundaries"}


def _plain(value: Any, name: str) -> Any:
    """An argument as a plain value: texts and numbers of NumPy and others are Python's, lists are tuples."""
    if isinstance(value, str):
        return "cosine" if value == "cos" else str.__str__(value)
    if isinstance(value, bool | Schedule | None) or callable(value):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        plain = float(value)
        return int(plain) if name in _IN_STEPS and plain.is_integer() else plain
    return tuple([_plain(item, name) for item in value]) if isinstance(value, Sequence) else value


def _encoded(value: Any, name: str = "") -> Any:
    """An argument as it is saved: a rate is a float, for it is the same number."""
    if isinstance(value, Schedule):
        return {"kind": value._made.name, **{key: _encoded(own, key) for key, own in value._made.arguments.items()}}
    if isinstance(value, tuple):
        return [_encoded(item, name) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool) and name not in _IN_STEPS:
        return float(value) + 0.0  # which is not -0.0
    return registered_name(value) if callable(value) else value

"""PyTorch tensors of steps, which may be traced, computed in float64."""

from collections.abc import Sequence
from typing import Any

import torch

from clr import checks
from clr.arrays.base import Arrays, Columns, Enter, Row, ScaleFn


class Torch:
    """Tensors on any device."""

    exact = scalar = False
    keeps = True
    largest = torch.iinfo(torch.int64).max

    @staticmethod
    def steps(value: torch.Tensor, name: str) -> torch.Tensor:
        if value.dtype == torch.bool or value.is_complex():
            checks.fail(TypeError, name, "step", value)
        return value.to(torch.int64).clamp(min=0)

    @staticmethod
    def divmod(a: torch.Tensor, b: int) -> tuple[torch.Tensor, torch.Tensor]:
        return a // b, a % b

    @staticmethod
    def modulo(a: torch.Tensor, b: int) -> torch.Tensor:
        return a % b

    @staticmethod
    def where(condition: torch.Tensor, yes: torch.Tensor | float, no: torch.Tensor | float) -> torch.Tensor:
        def real(value: torch.Tensor | float) -> torch.Tensor:
            if isinstance(value, torch.Tensor):
                return value
            return torch.tensor(value, dtype=torch.float64, device=condition.device)

        return torch.where(condition, real(yes), real(no))

    @staticmethod
    def minimum(a: torch.Tensor, b: torch.Tensor | float) -> torch.Tensor:
        return torch.minimum(a, b) if isinstance(b, torch.Tensor) else a.clamp(max=b)

    @staticmethod
    def maximum(a: torch.Tensor, b: torch.Tensor | float) -> torch.Tensor:
        return torch.maximum(a, b) if isinstance(b, torch.Tensor) else a.clamp(min=b)

    @staticmethod
    def distance(a: torch.Tensor, b: torch.Tensor | int, rest: torch.Tensor | float) -> torch.Tensor:
        whole = Torch.real((a - b).abs())
        return whole if isinstance(rest, float) and not rest else whole + rest

    @staticmethod
    def nearer(place: torch.Tensor, period: int) -> torch.Tensor:
        return Torch.real(torch.minimum(place, period - place))

    @staticmethod
    def sin(values: torch.Tensor) -> torch.Tensor:
        return torch.sin(values)

    @staticmethod
    def sqrt(values: torch.Tensor) -> torch.Tensor:
        return torch.sqrt(values)

    @staticmethod
    def search(starts: Sequence[int], step: torch.Tensor) -> torch.Tensor:
        if len(starts) < 2:
            return step >= starts[0] if starts else step
        return torch.searchsorted(torch.tensor(starts, dtype=torch.int64, device=step.device), step, right=True)

    @staticmethod
    def table(rows: Sequence[Row]) -> Columns:
        return Columns(rows, Torch._picked)

    @staticmethod
    def _picked(column: Sequence[Any], index: torch.Tensor) -> torch.Tensor:
        kind = torch.int64 if isinstance(column[0], int) else torch.float64
        if index.dtype == torch.bool:
            no, yes = column
            if kind == torch.int64:
                return torch.where(index, yes, no)
            # Of two floats it would make a float32.
            yes, no = (torch.tensor(value, dtype=kind, device=index.device) for value in (yes, no))
            return torch.where(index, yes, no)
        return torch.tensor(column, dtype=kind).to(index.device)[index]

    @staticmethod
    def real(integers: torch.Tensor) -> torch.Tensor:
        return integers.to(torch.float64)

    @staticmethod
    def power(base: float, exponents: torch.Tensor) -> torch.Tensor:
        return torch.pow(base, Torch.real(exponents))

    @staticmethod
    def scaled(scale_fn: ScaleFn, integers: torch.Tensor) -> torch.Tensor:
        real = Torch.real(integers)
        return torch.as_tensor(scale_fn(real), dtype=real.dtype, device=real.device).clamp(0.0, 1.0)

    @staticmethod
    def is_floating(dtype: torch.dtype) -> bool:
        return bool(dtype.is_floating_point)

    @staticmethod
    def holds(rate: float, dtype: torch.dtype | None) -> bool:
        own = torch.finfo(dtype or torch.get_default_dtype())
        return rate < own.max * (1 + own.eps / 4)  # half a unit above the largest number, infinity is nearer

    @staticmethod
    def rates(values: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
        return values.to(dtype or torch.get_default_dtype())

    @staticmethod
    def plain(values: torch.Tensor) -> torch.Tensor:
        return values


class Compiled(Torch):
    """Inside of `torch.compile`, which would compile anew when it finds that something was kept."""

    keeps = False


def enter_of(kind: type) -> Enter:
    """What lets in steps of a type."""
    return _enter


def _enter(step: torch.Tensor, name: str) -> tuple[Arrays[torch.Tensor], torch.Tensor]:
    return Compiled if torch.compiler.is_compiling() else Torch, Torch.steps(step, name)

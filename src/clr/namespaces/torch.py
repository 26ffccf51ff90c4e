"""PyTorch's namespace: tensors of steps, which may be traced, computed in float64."""

from collections.abc import Sequence
from typing import Any

import torch

from clr import checks
from clr.namespaces import Enter, Namespace, ScaleFn, by_parts


class Torch:
    """Tensors on any device."""

    exact = False
    largest = torch.iinfo(torch.int64).max

    @staticmethod
    def steps(value: Any, name: str) -> Any:
        if value.dtype == torch.bool or value.is_complex():
            checks.fail(TypeError, name, "step", value)
        return value.to(torch.int64).clamp(min=0)

    @staticmethod
    def divmod(a: Any, b: Any) -> Any:
        return a // b, a % b

    @staticmethod
    @by_parts
    def where(condition: Any, yes: Any, no: Any) -> Any:
        return torch.where(
            condition,
            *(
                x if isinstance(x, torch.Tensor) else torch.tensor(x, dtype=torch.float64, device=condition.device)
                for x in (yes, no)
            ),
        )

    @staticmethod
    def minimum(a: Any, b: Any) -> Any:
        return torch.minimum(a, b) if isinstance(b, torch.Tensor) else a.clamp(max=b)

    @staticmethod
    def maximum(a: Any, b: Any) -> Any:
        return torch.maximum(a, b) if isinstance(b, torch.Tensor) else a.clamp(min=b)

    @staticmethod
    def distance(a: Any, b: Any) -> Any:
        return (a - b).abs()

    @staticmethod
    def sin(values: Any) -> Any:
        return torch.sin(values)

    @staticmethod
    def search(starts: Sequence[int], step: Any) -> Any:
        return torch.searchsorted(torch.tensor(starts, device=step.device), step, right=True) - 1

    @staticmethod
    def take(rows: Sequence[Any], index: Any) -> Any:
        columns = [
            torch.tensor(column, dtype=torch.int64 if isinstance(column[0], int) else torch.float64)
            for column in zip(*rows, strict=True)
        ]
        return [column.to(index.device)[index] for column in columns]

    @staticmethod
    def real(integers: Any) -> Any:
        return integers.to(torch.float64)

    @staticmethod
    def power(base: float, exponents: Any) -> Any:
        return torch.pow(base, Torch.real(exponents))

    @staticmethod
    def scaled(scale_fn: ScaleFn, integers: Any) -> Any:
        real = Torch.real(integers)
        return torch.as_tensor(scale_fn(real), dtype=real.dtype, device=real.device).clamp(0.0, 1.0)

    @staticmethod
    def is_floating(dtype: Any) -> bool:
        return bool(dtype.is_floating_point)

    @staticmethod
    def rates(values: Any, dtype: Any) -> Any:
        return values.to(dtype or torch.get_default_dtype())

    @staticmethod
    def plain(values: Any) -> Any:
        return values


def enter_of(kind: type) -> Enter:
    """What lets in steps of a type."""
    return _enter


def _enter(step: Any, name: str) -> tuple[Namespace, Any]:
    return Torch, Torch.steps(step, name)

"""PyTorch's namespace: tensors of steps, which may be traced, computed in float64."""

from typing import Any

import torch

from clr import checks
from clr.namespaces import Enter, Namespace, ScaleFn


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

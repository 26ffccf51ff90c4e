"""PyTorch: a scheduler for loops that call ``step()``, one that follows the optimizer's own updates, a range test."""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("clr.torch needs PyTorch: pip install 'cyclic-learning-rate[torch]'") from error

from clr.torch.follower import Follower
from clr.torch.groups import keep_ratios
from clr.torch.range_test import range_test
from clr.torch.scheduler import LRScheduler

__all__ = ["Follower", "LRScheduler", "keep_ratios", "range_test"]

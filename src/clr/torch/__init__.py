"""PyTorch: schedulers that call ``step()`` or follow the optimizer, and finders."""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("clr.torch needs PyTorch: pip install 'cyclic-learning-rate[torch]'") from error

from clr.torch.find_bounds import find_bounds
from clr.torch.follower import Follower
from clr.torch.groups import keep_ratios
from clr.torch.range_test import range_test
from clr.torch.scheduler import LRScheduler

__all__ = ["Follower", "LRScheduler", "find_bounds", "keep_ratios", "range_test"]

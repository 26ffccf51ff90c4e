"""skorch: a callback that drives rate and momentum, and finders that use a net's own step and validation split."""

try:
    from skorch import NeuralNet
    from skorch.callbacks import Callback
    from skorch.dataset import get_len
    from skorch.history import History
except ImportError as error:
    raise ImportError("clr.integrations.skorch needs skorch: pip install 'cyclic-learning-rate[skorch]'") from error

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from operator import mul
from typing import Any, Literal

from sklearn.base import clone

from clr import checks
from clr import torch as clr_torch
from clr.finder.result import RangeTest
from clr.finder.transaction import put_back, random_state
from clr.finder.trials import Search
from clr.integrations.updates import Feed, Kept, OwnStep, arguments_of
from clr.torch.follower import COUNT
from clr.torch.groups import Schedules
from clr.torch.snapshot import generators


class Follower(Callback):  # type: ignore[misc]
    """A callback that drives a net's optimizer along schedules by the optimizer's own updates.

    It begins when the training begins, and goes on in every ``partial_fit``; ``fit`` without a warm start begins anew.
    The count of updates is in the optimizer's state, so a net that is loaded by ``LoadInitState``, ``load_params`` or
    from a pickle goes on where it was. The order of the callbacks does not matter for it.

    It records ``learning_rate`` and ``momentum`` of the last update in the history, for each batch and each epoch. Put
    it before callbacks that log the history. Where groups have rates of their own, it records those of the first.

    Args:
        schedule: As in `clr.torch.Follower`.
        momentum: As in `clr.torch.Follower`.

    Attributes:
        follower_: The `clr.torch.Follower`, once the training has begun.

    Raises:
        TypeError, ValueError: When the training begins: an argument makes no sense for the optimizer.

    >>> import clr, numpy as np, torch
    >>> from clr.integrations.skorch import Follower
    >>> from skorch import NeuralNetRegressor
    >>> x, y = np.zeros((6, 2), np.float32), np.zeros((6, 1), np.float32)
    >>> follower = Follower(clr.triangular(0.25, 1.25, step_size=4))
    >>> options = {"max_epochs": 1, "batch_size": 2, "train_split": None, "callbacks": [follower], "verbose": 0}
    >>> net = NeuralNetRegressor(torch.nn.Linear(2, 1), **options).fit(x, y)
    >>> net.history[-1, "batches", :, "learning_rate"]
    [0.25, 0.5, 0.75]
    """

    def __init__(self, schedule: Schedules, momentum: Schedules | None = None) -> None:
        self.schedule = schedule
        self.momentum = momentum

    def initialize(self) -> "Follower":
        """Begins anew with the net."""
        self.__dict__.pop("follower_", None)
        return self

    def on_train_begin(self, net: NeuralNet, X: object = None, y: object = None, **kwargs: object) -> None:  # noqa: N803
        """Follows the net's optimizer, unless it does already."""
        before = getattr(self, "follower_", None)
        if before is not None and before._optimizer() is net.optimizer_:
            return
        if before is not None:  # ``set_params`` has made another optimizer, and the training goes on
            net.optimizer_.param_groups[0].setdefault(COUNT, before.updates)
        self.follower_ = clr_torch.Follower(net.optimizer_, self.schedule, self.momentum)

    def on_batch_end(self, net: NeuralNet, batch: object = None, training: bool = True, **kwargs: object) -> None:
        """Records the rate and the momentum of a batch that was trained with."""
        if training:
            for name, value in self._applied().items():
                net.history.record_batch(name, value)

    def on_epoch_end(self, net: NeuralNet, dataset_train: object = None, **kwargs: object) -> None:
        """Records the rate and the momentum of the epoch's last update."""
        for name, value in self._applied().items():
            net.history.record(name, value)

    def _applied(self) -> dict[str, float]:
        momentum = self.follower_.get_last_momentum()[0]
        own = {} if momentum is None else {"momentum": momentum}
        return {"learning_rate": self.follower_.get_last_lr()[0]} | own

    def __getstate__(self) -> dict[str, object]:
        """What is saved: the follower belongs to its optimizer, and is made anew."""
        return {name: value for name, value in vars(self).items() if name != "follower_"}


def range_test(
    net: NeuralNet,
    X: object,  # noqa: N803
    y: object = None,
    *,
    fit_params: Mapping[str, Any] | None = None,
    group: int | str | None = None,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    num_steps: int = 300,
    repeats: int = 1,
    progress: bool | None = None,
) -> RangeTest:
    """An LR range test with a net's own training step, as `clr.torch.range_test` makes it.

    It trains on the training part of the net's split. Of the callbacks, only ``on_grad_computed`` is called, which the
    step itself does. If the step accumulates gradients, a rate is that of an update. A net that is not initialized
    stays so: the test takes a clone of it. One that is gets everything back, its history too.

    Args:
        net: The net.
        X: The data, as ``fit`` takes it.
        y: The targets, as ``fit`` takes them.
        fit_params: What else ``fit`` gets by name.
        group: The number or ``"name"`` of one group of the optimizer. Then the test changes only its rate.
        min_lr: The first rate. This and what follows is as in `clr.torch.range_test`.
        max_lr: The last rate.
        num_steps: How many rates to try.
        repeats: How many times to go over the rates.
        progress: Whether to show a progress bar.

    Raises:
        TypeError, ValueError: An argument makes no sense.
        RuntimeError: The training step makes no update of the optimizer.

    >>> import numpy as np, torch
    >>> from clr.integrations import skorch
    >>> from skorch import NeuralNetRegressor
    >>> _ = torch.manual_seed(0)
    >>> x = np.random.default_rng(0).normal(size=(256, 8)).astype(np.float32)
    >>> y = (x**2).sum(axis=1, keepdims=True)
    >>> module = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
    >>> net = NeuralNetRegressor(module, batch_size=32, optimizer__momentum=0.9, iterator_train__shuffle=True)
    >>> test = skorch.range_test(net, x, y)
    >>> base_lr, max_lr = test.bounds()
    >>> 1e-5 < base_lr < max_lr < 0.1
    True
    """
    with _training(net, X, y, fit_params) as (own, _):
        return clr_torch.range_test(
            **own,
            group=group,
            min_lr=min_lr,
            max_lr=max_lr,
            num_steps=num_steps,
            repeats=repeats,
            progress=progress,
        )


def find_bounds(
    net: NeuralNet,
    X: object,  # noqa: N803
    y: object = None,
    *,
    total_steps: int,
    budget: int | None = None,
    keep: Literal["start", "winner"] = "start",
    fit_params: Mapping[str, Any] | None = None,
    group: int | str | None = None,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    progress: bool | None = None,
) -> Search:
    """Searches the bounds of the learning rate with a net's own training step, judged on its own validation split.

    It searches as `clr.torch.find_bounds` does. It judges by the mean of the net's validation loss over the samples,
    which skorch logs as ``valid_loss``. It treats net and callbacks as `range_test` does.

    Args:
        net: The net. It must have a ``train_split``.
        X: The data, as ``fit`` takes it.
        y: The targets, as ``fit`` takes them.
        total_steps: The length of the training that the bounds are for, in updates.
        budget: How many updates the search may make, as in `clr.find_bounds`.
        keep: What the net is at the end, as at the ``"start"`` or as after the trial that won (``"winner"``). The
            latter is for a net that is initialized.
        fit_params: What else ``fit`` gets by name.
        group: The number or ``"name"`` of one group of the optimizer. Then the search changes only its rate.
        min_lr: The first rate of the range test.
        max_lr: The last rate of the range test.
        progress: Whether to show a progress bar.

    Raises:
        TypeError, ValueError: An argument makes no sense, or the net has no validation split.
        RuntimeError: The training step makes no update of the optimizer.

    >>> import numpy as np, torch
    >>> from clr.integrations import skorch
    >>> from skorch import NeuralNetRegressor
    >>> _ = torch.manual_seed(0)
    >>> x = np.random.default_rng(0).normal(size=(256, 8)).astype(np.float32)
    >>> y = (x**2).sum(axis=1, keepdims=True)
    >>> module = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
    >>> net = NeuralNetRegressor(module, batch_size=32, optimizer__momentum=0.9, iterator_train__shuffle=True)
    >>> found = skorch.find_bounds(net, x, y, total_steps=1000)
    >>> 1e-3 < found.bounds().max_lr < 0.1
    True
    """
    if keep == "winner" and not getattr(net, "initialized_", False):
        raise ValueError('`keep` can be "winner" only for a net that is initialized. Call `net.initialize()` first.')
    with _training(net, X, y, fit_params) as (own, evaluate):
        if evaluate is None:
            raise ValueError("`net` must have a `train_split`, for the search judges by held-out data.")
        return clr_torch.find_bounds(
            **own,
            evaluate=evaluate,
            total_steps=total_steps,
            budget=budget,
            keep=keep,
            group=group,
            min_lr=min_lr,
            max_lr=max_lr,
            progress=progress,
        )


@contextmanager
def _training(
    net: NeuralNet,
    X: object,  # noqa: N803
    y: object,
    fit_params: Mapping[str, Any] | None,
) -> Iterator[tuple[dict[str, Any], Callable[[], float] | None]]:
    """The training of a net, or of a clone where it is not initialized, as the finders take it; and its validation."""
    if not isinstance(net, NeuralNet):
        checks.fail(TypeError, "net", "a skorch.NeuralNet", net)
    random = [random_state(), *generators(None)]
    if not getattr(net, "initialized_", False):
        net = clone(net).initialize()
    given = dict(fit_params or {})
    net.check_data(X, y)
    training, validation = net.get_split_datasets(X, y, **given)
    feed = Feed(net.get_iterator(training, training=True))
    held_out = None if validation is None else net.get_iterator(validation, training=False)
    kept = Kept([net], feed.leave)

    def train(batch: Any) -> float:
        if feed.taken == 1:  # in its history, a step that accumulates gradients counts its batches
            net.history_ = History()
            net.history.new_epoch()
        net.history.new_batch()
        return float(net.train_step(batch, **given)["loss"].item())

    names = [f"{name}_" for name in (*net._modules, *net._criteria, *net._optimizers)]
    others = [getattr(net, name) for name in names if name not in ("module_", "optimizer_")]
    others = [own for own in others if hasattr(own, "state_dict")]
    step = OwnStep(net.optimizer_, train)
    try:
        evaluate = None if held_out is None else lambda: _mean_loss(net, held_out, given)
        yield arguments_of(net.module_, net.optimizer_, feed, step, [*others, kept]), evaluate
    finally:
        step.leave()
        put_back(*random)


def _mean_loss(net: NeuralNet, batches: Iterable[Any], given: Mapping[str, Any]) -> float:
    """The mean of the validation loss over the samples, as skorch logs it."""
    losses, sizes = [], []
    for batch in batches:
        losses.append(float(net.validation_step(batch, **given)["loss"].item()))
        sizes.append(int(get_len(batch[0] if isinstance(batch, tuple | list) else batch)))
    return math.fsum(map(mul, losses, sizes)) / sum(sizes)

"""PyTorch-Ignite: a handler that drives rate and momentum, and finders that use a trainer's own step."""

try:
    from ignite.engine import Engine, Events
    from ignite.metrics import Metric
except ImportError as error:
    raise ImportError("clr.integrations.ignite needs ignite: pip install 'cyclic-learning-rate[ignite]'") from error

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from clr import checks
from clr import torch as clr_torch
from clr.finder.result import RangeTest
from clr.finder.sweep import returned_float
from clr.finder.trials import Search
from clr.integrations.updates import Feed, Kept, OwnStep, arguments_of


class Follower(clr_torch.Follower):
    """A handler that drives an optimizer along schedules by the optimizer's own updates.

    The rate follows real updates, however many batches or events they take: accumulated gradients and updates that a
    ``GradScaler`` skips do not drive it too fast. It needs no event. What `attach` adds is for loggers:
    ``trainer.state.learning_rate`` and ``trainer.state.momentum``, those of the last update.

    The count of updates is in the optimizer's state and in this handler's. So put one of them, or both, into the
    ``to_save`` of ignite's ``Checkpoint``.

    Args:
        optimizer: What to drive.
        schedule: As in `clr.torch.Follower`.
        momentum: As in `clr.torch.Follower`.

    Raises:
        TypeError, ValueError: An argument makes no sense.

    >>> import clr, torch
    >>> from clr.integrations.ignite import Follower
    >>> from ignite.engine import create_supervised_trainer
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    >>> trainer = create_supervised_trainer(
    ...     model, optimizer, torch.nn.functional.mse_loss, gradient_accumulation_steps=2
    ... )
    >>> follower = Follower(optimizer, clr.triangular(0.25, 1.25, step_size=4))
    >>> follower.attach(trainer)
    >>> _ = trainer.run([(torch.zeros(3, 2), torch.zeros(3, 1))] * 6)
    >>> follower.updates, trainer.state.learning_rate, optimizer.param_groups[0]["lr"]
    (3, 0.75, 1.0)
    """

    def attach(self, engine: Engine) -> None:
        """Lets a trainer note the applied rate and momentum after each of its batches.

        ``learning_rate`` and ``momentum`` of its state are numbers, or dicts by the number of the group where the
        optimizer has several, as ``state_attributes`` of ignite's loggers take them.
        """
        if not isinstance(engine, Engine):
            checks.fail(TypeError, "engine", "an ignite.engine.Engine", engine)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._note)

    def state_dict(self) -> dict[str, Any]:
        """The count of updates, and the schedules as plain data."""
        return {"updates": self.updates, **self._plan.plain()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes on from the count of a saved state. If its schedules are others, a warning says so."""
        if "updates" not in checks.mapping("state_dict", state_dict):
            rule = "the state of a follower, with its `updates`"
            checks.fail(ValueError, "state_dict", rule, list(state_dict))
        self._updates = checks.step("updates", state_dict["updates"])
        self._apply(self._driven())
        self._plan.compare(state_dict)

    def _note(self, engine: Engine) -> None:
        engine.state.learning_rate = _one_or_more(self.get_last_lr())
        engine.state.momentum = _one_or_more(self.get_last_momentum())


def _one_or_more(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else {str(number): value for number, value in enumerate(values)}


def range_test(
    trainer: Engine,
    loader: Iterable[Any],
    to_save: Mapping[str, Any],
    *,
    output_transform: Callable[[Any], object] = lambda output: output,
    group: int | str | None = None,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    num_steps: int = 300,
    repeats: int = 1,
    progress: bool | None = None,
) -> RangeTest:
    """An LR range test with a trainer's own training step, as `clr.torch.range_test` makes it.

    The trainer's handlers are not called, so nothing is logged, saved or counted. What the training step itself fires
    is. If it accumulates gradients, a rate is that of an update. After the test, the trainer's state and all in
    ``to_save`` is put back.

    Args:
        trainer: The trainer, such as ``create_supervised_trainer`` gives it.
        loader: The batches to train on.
        to_save: What the training changes, as ignite's ``Checkpoint`` and ``FastaiLRFinder`` take it: ``"model"``,
            ``"optimizer"``, whose rate is tried, and other things that have a ``state_dict``.
        output_transform: Gets the loss from what the training step returns. By default that is the loss.
        group: The number or ``"name"`` of one group. Then the test changes only its rate.
        min_lr: The first rate. This and what follows is as in `clr.torch.range_test`.
        max_lr: The last rate.
        num_steps: How many rates to try.
        repeats: How many times to go over the rates.
        progress: Whether to show a progress bar.

    A model in ``DistributedDataParallel`` is refused: use `clr.torch.range_test` with a ``loss_fn`` for it.

    Raises:
        TypeError, ValueError: An argument makes no sense.
        RuntimeError: The training step makes no update of the optimizer.

    >>> import torch
    >>> from clr.integrations import ignite
    >>> from ignite.engine import create_supervised_trainer
    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(256, 8)
    >>> y = (x**2).sum(1, keepdim=True)
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
    >>> optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
    >>> trainer = create_supervised_trainer(model, optimizer, torch.nn.MSELoss())
    >>> loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=32, shuffle=True)
    >>> test = ignite.range_test(trainer, loader, {"model": model, "optimizer": optimizer})
    >>> base_lr, max_lr = test.bounds()
    >>> 1e-5 < base_lr < max_lr < 0.1
    True
    """
    with _training(trainer, loader, to_save, output_transform) as own:
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
    trainer: Engine,
    loader: Iterable[Any],
    to_save: Mapping[str, Any],
    *,
    evaluator: Engine,
    validation: Iterable[Any],
    metric: str,
    goal: Literal["min", "max"] = "min",
    total_steps: int,
    budget: int | None = None,
    keep: Literal["start", "winner"] = "start",
    output_transform: Callable[[Any], object] = lambda output: output,
    group: int | str | None = None,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    progress: bool | None = None,
) -> Search:
    """Searches the bounds of the learning rate with a trainer's own training step, judged by an evaluator's metric.

    It searches as `clr.torch.find_bounds` does. The handlers of trainer and evaluator are not called, except that the
    evaluator's metrics are computed. At the end both have the state that they had, and so has all in ``to_save``.

    Args:
        trainer: The trainer, as in `range_test`.
        loader: The batches to train on. They must be such as can be read again from their start.
        to_save: What the training changes, as in `range_test`.
        evaluator: The evaluator, such as ``create_supervised_evaluator`` gives it, with its metrics.
        validation: The held-out batches that it evaluates.
        metric: The name of the metric to judge by, such as that of an ``ignite.metrics.Loss``.
        goal: Whether a smaller (``"min"``) or a larger (``"max"``) value is better.
        total_steps: The length of the training that the bounds are for, in updates.
        budget: How many updates the search may make, as in `clr.find_bounds`.
        keep: What is there at the end, the ``"start"`` or the ``"winner"``, as in `clr.torch.find_bounds`.
        output_transform: Gets the loss from what the training step returns, as in `range_test`.
        group: The number or ``"name"`` of one group. Then the search changes only its rate.
        min_lr: The first rate of the range test.
        max_lr: The last rate of the range test.
        progress: Whether to show a progress bar.

    Raises:
        TypeError, ValueError: An argument makes no sense.
        RuntimeError: The training step makes no update of the optimizer.

    >>> import torch
    >>> from clr.integrations import ignite
    >>> from ignite.engine import create_supervised_evaluator, create_supervised_trainer
    >>> from ignite.metrics import Loss
    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(256, 8)
    >>> y = (x**2).sum(1, keepdim=True)
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
    >>> optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
    >>> loss_fn = torch.nn.MSELoss()
    >>> trainer = create_supervised_trainer(model, optimizer, loss_fn)
    >>> evaluator = create_supervised_evaluator(model, {"loss": Loss(loss_fn)})
    >>> loader, validation = list(zip(x[:192].split(32), y[:192].split(32))), [(x[192:], y[192:])]
    >>> to_save = {"model": model, "optimizer": optimizer}
    >>> found = ignite.find_bounds(
    ...     trainer, loader, to_save, evaluator=evaluator, validation=validation, metric="loss", total_steps=1000
    ... )
    >>> 1e-3 < found.bounds().max_lr < 0.1
    True
    """
    for name, own in (("loader", loader), ("validation", validation)):
        if isinstance(own, Iterator):  # trials would see different batches
            checks.fail(TypeError, name, "batches that can be read again from their start, not an iterator", own)
    judge, metrics = _judge(evaluator, metric)
    with _training(trainer, loader, to_save, output_transform, *metrics) as own:
        return clr_torch.find_bounds(
            **own,
            evaluate=lambda: judge.run(validation).metrics[metric],
            goal=goal,
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
    trainer: Engine,
    loader: Iterable[Any],
    to_save: Mapping[str, Any],
    output_transform: Callable[[Any], object],
    *changed: object,
) -> Iterator[dict[str, Any]]:
    """The training of a trainer as the finders of `clr.torch` take it, which counts its batches from 0.

    ``changed`` are objects to put back with it.
    """
    if not isinstance(trainer, Engine):
        checks.fail(TypeError, "trainer", "an ignite.engine.Engine", trainer)
    checks.function("output_transform", output_transform)
    if not (isinstance(to_save, Mapping) and {"model", "optimizer"} <= set(to_save)):  # type: ignore[redundant-expr]
        checks.fail(TypeError, "to_save", 'a dict with a "model" and an "optimizer"', to_save)
    feed, state = Feed(loader), trainer.state
    others = [own for name, own in to_save.items() if name not in ("model", "optimizer") and own is not trainer]
    kept = Kept([state, *changed], feed.leave)

    def train(batch: Any) -> float:
        state.iteration = feed.taken  # by which the steps that accumulate gradients know when to make an update
        state.batch = batch
        state.output = trainer._process_function(trainer, batch)
        return returned_float("output_transform", output_transform(state.output))

    step = OwnStep(to_save["optimizer"], train)
    try:
        yield arguments_of(to_save["model"], to_save["optimizer"], feed, step, [*others, kept])
    finally:
        step.leave()


def _judge(evaluator: Engine, metric: str) -> tuple[Engine, list[Metric]]:
    """An engine that evaluates as another does and has its metrics, but none of its handlers; and these metrics."""
    if not isinstance(evaluator, Engine):
        checks.fail(TypeError, "evaluator", "an ignite.engine.Engine", evaluator)
    judge = Engine(evaluator._process_function)
    metrics: dict[int, Metric] = {}
    names = set()
    for event, handlers in evaluator._event_handlers.items():
        for handler, arguments, options in handlers:
            own = getattr(handler, "__self__", None)
            if isinstance(own, Metric):
                metrics[id(own)] = own
                given = arguments[1:]  # without the evaluator
                names |= set(given)
                judge.add_event_handler(event, handler, *given, **options)
    if metric not in names:
        checks.fail(ValueError, "metric", "the name of a metric of `evaluator`", metric)
    return judge, list(metrics.values())

"""PyTorch-Ignite, with its own trainers, checkpoints and loggers, on real digits."""

from pathlib import Path
from typing import Any

import pytest

import clr
from tests.integrations.common import alike, in_processes
from tests.integrations.digits import (
    LOSS,
    MOMENTUM,
    SCHEDULE,
    copied,
    digits,
    loader,
    network,
    planned,
    sgd,
    torch,
    watched,
)

engines = pytest.importorskip("ignite.engine")
handlers = pytest.importorskip("ignite.handlers")
metrics = pytest.importorskip("ignite.metrics")
ours = pytest.importorskip("clr.integrations.ignite")
Events = engines.Events


def parts(accumulation: int = 1) -> tuple[Any, Any, Any]:
    model = network()
    optimizer = sgd(model)
    trainer = engines.create_supervised_trainer(model, optimizer, LOSS, gradient_accumulation_steps=accumulation)
    return model, optimizer, trainer


def follower(optimizer: Any) -> Any:
    return ours.Follower(optimizer, SCHEDULE, MOMENTUM)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_rate_and_momentum_of_every_update(accumulation: int) -> None:
    _, optimizer, trainer = parts(accumulation)
    handler = follower(optimizer)
    handler.attach(trainer)
    seen, noted = watched(optimizer), []

    @trainer.on(Events.ITERATION_COMPLETED)
    def note(engine: Any) -> None:
        noted.append((engine.state.learning_rate, engine.state.momentum))

    trainer.run(loader(rows=720, size=32), max_epochs=2)
    updates = 46 // accumulation
    assert seen == planned(0, updates)
    assert handler.updates == updates
    after = [seen[max((at + 1) // accumulation - 1, 0)] for at in range(46)]  # the last update so far, or the first
    assert noted == after


def test_updates_that_a_scaler_skips_do_not_count() -> None:
    model, optimizer, _ = parts()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)

    def train(engine: Any, batch: Any) -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = LOSS(model(batch[0]), batch[1])
        if engine.state.iteration % 3 == 0:
            loss = loss * float("inf")
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return float(loss.item())

    trainer = engines.Engine(train)
    follower(optimizer).attach(trainer)
    seen = watched(optimizer)
    trainer.run(loader(rows=384))
    assert seen == planned(0, 8)  # of 12 batches


def run(folder: Path, stop: int) -> Any:
    """Trains until a batch, from what is saved in a folder, if it is, and saves there."""
    model, optimizer, trainer = parts(accumulation=2)
    handler = follower(optimizer)
    handler.attach(trainer)
    everything = {"model": model, "optimizer": optimizer, "trainer": trainer, "follower": handler}
    for file in folder.glob("*.pt"):
        handlers.Checkpoint.load_objects(everything, torch.load(file, weights_only=True))
    saver = handlers.DiskSaver(str(folder), require_empty=False)
    seen, batches = watched(optimizer), list(loader(rows=320, shuffle=False))
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=stop), handlers.Checkpoint(everything, saver))
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=stop), lambda engine: engine.terminate())
    trainer.run(batches, max_epochs=4)
    return [list(map(list, seen)), model[0].weight.tolist()]


def going_on(folder: Path) -> Any:
    return run(folder, 40)


def test_a_run_that_resumes_in_a_fresh_process_ends_as_one_that_never_stopped(tmp_path: Path) -> None:
    whole, weights = run(tmp_path / "whole", 40)
    before, _ = run(tmp_path / "some", 20)
    ((after, resumed),) = in_processes(going_on, tmp_path / "some")
    assert list(map(tuple, whole)) == planned(0, 20)
    assert before + after == whole
    assert resumed == weights


def test_the_handler_alone_carries_the_count() -> None:
    _, optimizer, trainer = parts()
    handler = follower(optimizer)
    trainer.run(loader(rows=224))
    _, fresh, trainer = parts()
    other = follower(fresh)
    other.load_state_dict(handler.state_dict())
    seen = watched(fresh)
    trainer.run(loader(rows=96))
    assert seen == planned(7, 10)


def test_a_state_of_another_schedule_is_told_and_one_without_a_count_refused() -> None:
    _, optimizer, _ = parts()
    handler = ours.Follower(optimizer, clr.constant(0.5))
    state = follower(parts()[1]).state_dict()
    with pytest.warns(UserWarning, match="the state was saved with another (schedule|momentum)"):
        handler.load_state_dict(state)
    with pytest.raises(ValueError, match=r"`state_dict` must be the state of a follower, with its `updates`"):
        handler.load_state_dict({"last_epoch": 3})
    with pytest.raises(TypeError, match=r"`engine` must be an ignite\.engine\.Engine"):
        handler.attach(optimizer)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ignites_own_logger_has_the_applied_rate_and_momentum(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, optimizer, trainer = parts()
    follower(optimizer).attach(trainer)
    with handlers.TensorboardLogger(log_dir=str(tmp_path)) as logger:
        names = ["learning_rate", "momentum"]
        logger.attach_output_handler(trainer, Events.ITERATION_COMPLETED, "training", state_attributes=names)
        trainer.run(loader(rows=192))
    events = EventAccumulator(str(tmp_path)).Reload()
    logged = [[event.value for event in events.Scalars(f"training/{name}")] for name in names]
    assert list(zip(*logged, strict=True)) == [pytest.approx(pair, rel=1e-6) for pair in planned(0, 6)]


def evaluator_of(model: Any) -> Any:
    return engines.create_supervised_evaluator(model, {"loss": metrics.Loss(LOSS), "accuracy": metrics.Accuracy()})


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_range_test_is_that_of_the_same_training_by_hand(accumulation: int) -> None:
    model, optimizer, trainer = parts(accumulation)
    to_save = {"model": model, "optimizer": optimizer}
    found = ours.range_test(trainer, loader(), to_save, num_steps=60, repeats=2)
    model = network()
    expected = clr.torch.range_test(
        model, sgd(model), LOSS, loader(), num_steps=60, repeats=2, gradient_accumulation_steps=accumulation
    )
    assert found.losses == pytest.approx(expected.losses, rel=1e-5)
    assert tuple(found.bounds()) == pytest.approx(tuple(expected.bounds()), rel=1e-3)


def test_a_search_is_that_of_the_same_training_by_hand() -> None:
    model, optimizer, trainer = parts()
    to_save, held_out = {"model": model, "optimizer": optimizer}, [tuple(part[1500:] for part in digits())]
    options: dict[str, Any] = {"total_steps": 300, "budget": 400}
    batches = loader(rows=1500)
    found = ours.find_bounds(
        trainer, batches, to_save, evaluator=evaluator_of(model), validation=held_out, metric="loss", **options
    )
    model = network()
    expected = clr.torch.find_bounds(model, sgd(model), LOSS, loader(rows=1500), validation=held_out, **options)
    assert [trial.max_lr for trial in found.trials] == pytest.approx([trial.max_lr for trial in expected.trials])
    assert [trial.score for trial in found.trials] == pytest.approx([trial.score for trial in expected.trials])
    assert found.stop == "completed"
    assert tuple(found.bounds()) == pytest.approx(tuple(expected.bounds()), rel=1e-4)


@pytest.mark.parametrize("kind", ["range test", "search"])
def test_a_finder_leaves_no_trace_and_calls_no_handler(kind: str) -> None:
    model, optimizer, trainer = parts(accumulation=2)
    average = torch.optim.swa_utils.AveragedModel(model)
    handler = follower(optimizer)
    handler.attach(trainer)
    batches, evaluator, called = loader(rows=640), evaluator_of(model), []
    held_out = [digits(64)]
    trainer.run(batches, max_epochs=1)
    trainer.state.alpha = {"kept": 1}
    evaluator.run(held_out)
    for engine in (trainer, evaluator):
        for event in (Events.STARTED, Events.ITERATION_COMPLETED, Events.EPOCH_COMPLETED, Events.COMPLETED):
            engine.add_event_handler(event, lambda own: called.append(own))
    to_save = {"model": model, "optimizer": optimizer, "trainer": trainer, "average": average, "follower": handler}

    def state() -> Any:
        kept = copied(model, optimizer, average, trainer)
        notes = [{**vars(own.state), "metrics": dict(own.state.metrics), "batch": None} for own in (trainer, evaluator)]
        metric = [vars(own) for own in metric_of(evaluator)]
        return [kept, notes, str(metric), torch.get_rng_state().tolist(), batches.generator.get_state().tolist()]

    before = state()
    if kind == "range test":
        ours.range_test(trainer, batches, to_save, num_steps=30)
    else:
        judge: dict[str, Any] = {"evaluator": evaluator, "validation": held_out, "metric": "accuracy", "goal": "max"}
        found = ours.find_bounds(trainer, batches, to_save, total_steps=100, budget=200, **judge)
        assert found.start == pytest.approx(evaluator.state.metrics["accuracy"])
    assert state() == before
    assert called == []
    seen = watched(optimizer)
    trainer.run(batches, max_epochs=2)
    assert seen == planned(10, 20)


def metric_of(evaluator: Any) -> list[Any]:
    found = [getattr(own[0], "__self__", None) for event in evaluator._event_handlers.values() for own in event]
    return [own for own in found if isinstance(own, metrics.Metric)]


def test_what_is_used_wrongly_is_said() -> None:
    model, optimizer, trainer = parts()
    to_save = {"model": model, "optimizer": optimizer}
    judge: dict[str, Any] = {"evaluator": evaluator_of(model), "validation": [digits(64)], "total_steps": 100}
    with pytest.raises(TypeError, match=r"`trainer` must be an ignite\.engine\.Engine"):
        ours.range_test(model, loader(), to_save)
    with pytest.raises(TypeError, match='`to_save` must be a dict with a "model" and an "optimizer"'):
        ours.range_test(trainer, loader(), {"model": model})
    with pytest.raises(ValueError, match=r"`metric` must be the name of a metric of `evaluator`\. Received: 'nll'"):
        ours.find_bounds(trainer, loader(), to_save, metric="nll", **judge)
    with pytest.raises(TypeError, match="`loader` must be batches that can be read again"):
        ours.find_bounds(trainer, iter(loader()), to_save, metric="loss", **judge)
    with pytest.raises(TypeError, match="`output_transform` must return a number"):
        ours.range_test(trainer, loader(), to_save, output_transform=lambda output: {"loss": output})
    idle = engines.Engine(lambda engine, batch: 1.0)
    with pytest.raises(RuntimeError, match="the training step has made no update of `optimizer` in 10,000 batches"):
        ours.range_test(idle, loader(rows=32), to_save)


def replicas(folder: Path) -> Any:
    """The updates of a replica, and what the finders say of it."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    model = torch.nn.parallel.DistributedDataParallel(network())
    optimizer = sgd(model)
    trainer = engines.create_supervised_trainer(model, optimizer, LOSS, gradient_accumulation_steps=2)
    follower(optimizer).attach(trainer)
    seen = watched(optimizer)
    trainer.run(list(loader(rows=640, shuffle=False))[rank::2])
    with pytest.raises(ValueError, match="not supported") as refused:
        ours.range_test(trainer, loader(), {"model": model, "optimizer": optimizer})
    torch.distributed.destroy_process_group()
    return [seen, model.module[0].weight.tolist(), str(refused.value)]


def test_two_processes(tmp_path: Path) -> None:
    seen, _, refused = alike(in_processes(replicas, tmp_path, size=2))
    assert list(map(tuple, seen)) == planned(0, 5)
    assert "`train_on_batch` is not supported" in refused


def test_a_wrapped_loss_is_found_by_the_transform() -> None:
    model, optimizer, _ = parts()
    output = {"output_transform": lambda x, y, y_pred, loss: {"loss": loss.item()}}
    trainer = engines.create_supervised_trainer(model, optimizer, LOSS, **output)
    found = ours.range_test(
        trainer,
        loader(),
        {"model": model, "optimizer": optimizer},
        num_steps=20,
        output_transform=lambda output: output["loss"],
    )
    assert len(found.losses) == 20

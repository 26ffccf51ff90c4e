"""``clr range-test``: what it says of a saved test."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import clr
from tests import curves
from tests.curves import measured

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "test.json"
    path.write_text(measured(curves.valley, noise=0.05).to_json())
    return path


def test_show_says_what_was_found(call: Call, file: Path) -> None:
    test = clr.RangeTest.from_json(file.read_text())
    bounds = test.bounds()
    code, out, err = call("range-test", "show", file)
    assert (code, err) == (0, "")
    assert out.startswith(f"{test.describe()}\n")
    rules = dict(line.split() for line in out.splitlines()[-4:])
    assert list(rules) == ["steepest", "minimum", "valley", "slide"]
    assert {rule: float(rate) for rule, rate in rules.items()} == pytest.approx(
        {rule: test.suggest(rule) for rule in rules}, rel=0.01
    )
    found = json.loads(call("range-test", "show", file, "--json")[1])
    assert (found["base_lr"], found["max_lr"], found["stop"]) == (bounds.base_lr, bounds.max_lr, "diverged")
    assert (found["repeats"], found["time_limit"]) == (1, None)
    assert set(found["rules"]) == set(rules)


def test_show_says_why_there_are_no_bounds(call: Call, file: Path) -> None:
    file.write_text(measured(curves.endless).to_json())
    code, out, err = call("range-test", "show", file)
    assert (code, err) == (1, "")
    assert "Training never diverges" in out
    assert "Make `max_lr` larger." in out
    assert "Less sure than bounds is a single rate" in out
    found = json.loads(call("range-test", "show", file, "--json")[1])
    assert (found["base_lr"], found["confidence"]) == (None, 0.0)
    assert 1e-3 < found["rules"]["valley"] < 10  # where the loss falls
    file.write_text(measured(curves.flat).to_json())
    assert "valley -" in call("range-test", "show", file)[1]
    assert json.loads(call("range-test", "show", file, "--json")[1])["rules"]["valley"] is None


def test_show_says_how_often_and_how_long_it_was_to_train(call: Call, file: Path) -> None:
    steps: list[float] = []

    def step(lr: float) -> float:
        steps.append(lr)
        if len(steps) == 50:
            raise KeyboardInterrupt
        return 1 / (1 + lr)

    test = clr.range_test(step, lambda repeat: None, num_steps=40, repeats=3, time_limit=600)
    file.write_text(test.to_json())
    out = call("range-test", "show", file)[1]
    assert "40 of 40 steps: it was interrupted." in out
    assert "2 of 3 repeats" in out
    assert "600 seconds" in out
    found = json.loads(call("range-test", "show", file, "--json")[1])
    assert (found["repeats"], found["time_limit"]) == (3, 600.0)


@pytest.mark.parametrize("scale", ["log", "linear"])
def test_plot_draws(call: Call, file: Path, scale: str) -> None:
    out = file.with_name("picture.png")
    assert call("range-test", "plot", file, "--scale", scale, "--out", out) == (0, f"{out}\n", "")
    assert out.read_bytes().startswith(b"\x89PNG")

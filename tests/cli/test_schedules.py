"""``clr values`` and ``clr plot``."""

import csv
import io
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from tests.reference import rate, ulps

Call = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
def test_values_as_csv_are_exact(call: Call, mode: str) -> None:
    code, out, _ = call(
        "values", mode, "--base-lr", "0.001", "--max-lr", "0.006", "--step-size", "20.5", "--step-size-down", "30",
        "--gamma", "0.99", "--start", "90", "--steps", "60", "--every", "7",
    )  # fmt: skip
    rows = list(csv.reader(io.StringIO(out)))
    assert code == 0
    assert rows[0] == ["step", "learning_rate"]
    assert [int(step) for step, _ in rows[1:]] == list(range(90, 150, 7))
    for step, printed in rows[1:]:
        exact = rate(int(step), 0.001, 0.006, Fraction("20.5"), 30, mode, 0.99)
        assert ulps(float(printed), exact) <= 1


def test_values_as_json_of_one_cycle_by_default(call: Call, tmp_path: Path) -> None:
    code, out, _ = call("values", "--step-size", "2", "--format", "json", "--out", tmp_path / "rates.json")
    assert (code, out) == (0, "")
    rows = json.loads((tmp_path / "rates.json").read_text())
    assert rows == [{"step": step, "learning_rate": value} for step, value in enumerate([0.01, 0.055, 0.1, 0.055])]


def test_plot_writes_a_picture_and_describes(call: Call, tmp_path: Path) -> None:
    picture = tmp_path / "rates.png"
    code, out, _ = call("plot", "triangular2", "--step-size", "50", "--out", picture)
    assert code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "from 0.01 to 0.1 in 50 steps" in out
    assert str(picture) in out

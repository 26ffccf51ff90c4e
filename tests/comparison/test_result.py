"""What a comparison finds: numbers, intervals, tables and words."""

import csv
import io
import json
import math
import re
from pathlib import Path

import pytest

import clr
from clr.comparison.result import interval
from clr.comparison.runs import Run
from tests.comparison.common import compare, printed, run


def final(rates: list[float], seed: int) -> float:
    """The loss after a training with these rates."""
    return ((1.0 + seed) * math.prod(1 - rate for rate in rates)) ** 2


def test_the_numbers_are_those_of_the_runs(tmp_path: Path) -> None:
    result = compare(tmp_path)
    rows = {row["schedule"]: row for row in result.rows()}
    assert list(rows) == ["fixed", "low", "cyclic"]
    for name, rate in (("fixed", 0.25), ("low", 0.125)):
        assert rows[name]["final"] == pytest.approx(sum(final([rate] * 20, seed) for seed in range(3)) / 3)
    cycle = [0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.65, 0.55, 0.45, 0.35] * 2
    assert rows["cyclic"]["final"] == pytest.approx(sum(final(cycle, seed) for seed in range(3)) / 3)
    # The target is what the best constant rate comes to.
    assert result.reference == ("fixed", rows["fixed"]["final"])
    assert result.target == pytest.approx(rows["fixed"]["final"])
    assert (result.metric, result.goal) == ("loss", "min")
    reached = []
    for seed in range(3):
        steps = [step for step in range(1, 21) if final(cycle[:step], seed) <= rows["fixed"]["final"]]
        reached.append(min(steps))
    assert rows["cyclic"]["iterations"] == sorted(reached)[1]
    assert rows["cyclic"]["ratio"] == sorted(reached)[1] / 20
    assert (rows["low"]["iterations"], rows["low"]["reached"]) == (math.inf, 0.0)
    assert rows["low"]["iterations_interval"] is None
    assert rows["fixed"]["reached"] == pytest.approx(2 / 3)  # the third starts too far away
    assert rows["fixed"]["best"] == rows["fixed"]["final"]


def test_iterations_before_the_training_count(tmp_path: Path) -> None:
    without = {row["schedule"]: row["iterations"] for row in compare(tmp_path).rows()}
    within = {row["schedule"]: row["iterations"] for row in compare(tmp_path, before={"cyclic": 7}).rows()}
    assert within["cyclic"] == without["cyclic"] + 7
    assert within["fixed"] == without["fixed"]


def test_differences_are_seed_by_seed(tmp_path: Path) -> None:
    result = compare(tmp_path)
    rows = {(row["schedule"], row["against"]): row for row in result.differences()}
    assert set(rows) == {("low", "fixed"), ("cyclic", "fixed"), ("cyclic", "low")}
    values = [final([0.125] * 20, seed) - final([0.25] * 20, seed) for seed in range(3)]
    row = rows["low", "fixed"]
    assert row["difference"] == pytest.approx(sum(values) / 3)
    low, high = row["interval"]
    assert min(values) - 1e-12 <= low < row["difference"] < high <= max(values) + 1e-12
    assert {row["schedule"] for row in result.differences("low")} == {"fixed", "cyclic"}
    with pytest.raises(ValueError, match="`against` must be one of"):
        result.differences("other")


def test_differences_are_of_the_seeds_that_both_have_finished() -> None:
    runs = [run("a", seed, (40, value)) for seed, value in enumerate((0.5, 0.6, 0.7, 0.8))]
    runs += [run("b", seed, (40, value)) for seed, value in ((1, 0.7), (2, 0.75), (5, 0.0))]
    runs.append(run("b", 3, (40, 0.1), state="failed"))
    result = clr.Comparison.of(runs, {})
    (row,) = result.differences()
    assert (row["schedule"], row["against"], row["total_steps"], row["seeds"]) == ("b", "a", 40, 2)
    assert row["difference"] == pytest.approx(0.075)  # 0.1 with seed 1, and 0.05 with seed 2
    assert row["interval"] == pytest.approx((0.05, 0.1))
    frame = result.to_frame("differences")
    assert frame["difference"].tolist() == pytest.approx([0.075])
    (read,) = csv.DictReader(io.StringIO(result.to_csv("differences")))
    assert list(read) == ["schedule", "against", "total_steps", "seeds", "difference", "low", "high"]
    assert float(read["low"]) == pytest.approx(0.05)
    assert float(read["high"]) == pytest.approx(0.1)
    lines = [re.split(r"\s{2,}", line.strip()) for line in printed(result.table("differences")).splitlines()]
    assert lines[0] == ["schedules", "steps", "seeds", "difference", "95% interval"]
    assert lines[2] == ["b - a", "40", "2", "+0.075", "+0.05 to +0.1"]
    for show in (result.table, result.to_frame, result.to_csv):
        with pytest.raises(ValueError, match="`part` must be one of"):
            show("all")  # type: ignore[arg-type]
    # A run alone has no interval, and one that was lost no difference.
    alone = run("a", 0, (40, 0.5))
    (row,) = clr.Comparison.of([alone, run("b", 0, (40, 0.75))], {}).differences()
    assert (row["difference"], row["interval"]) == (0.25, None)
    assert clr.Comparison.of([alone, run("b", 0, (40, 0.75), state="failed")], {}).differences() == []
    (row,) = clr.Comparison.of([alone], {}).rows()
    assert (row["final_interval"], row["best_interval"]) == (None, None)


def described(values: dict[str, list[float]], *more: Run) -> list[str]:
    """The words on runs that end at these accuracies, but for the first line."""
    runs = [run(name, seed, (40, value)) for name, finals in values.items() for seed, value in enumerate(finals)]
    return clr.Comparison.of([*runs, *more], {}).describe().splitlines()[1:]


def test_the_words_give_the_difference_from_the_best_seed_by_seed() -> None:
    # Each interval of two values reaches from the lower to the higher one.
    assert described({"a": [0.2, 0.6], "b": [0.4, 0.8]}) == [
        "After 40 updates b is best:",
        "  b: 0.6 (0.4, 0.8)",
        "  a: 0.4 (0.2, 0.6), difference -0.2 (-0.2 to -0.2)",
    ]
    assert described({"a": [0.2, 0.6], "b": [0.3, 0.5], "c": [0.1, 0.2]}) == [
        "After 40 updates a and b are tied for best:",  # a is 0.1 above with one seed, and below with the other
        "  a: 0.4 (0.2, 0.6)",
        "  b: 0.4 (0.3, 0.5), difference +0 (-0.1 to +0.1)",
        "  c: 0.15 (0.1, 0.2), difference -0.25 (-0.4 to -0.1)",
    ]
    assert described({"a": [0.5], "b": [0.5], "c": [0.25]}) == [
        "After 40 updates a and b are tied for best:",
        "  a: 0.5",
        "  b: 0.5, difference +0",
        "  c: 0.25, difference -0.25",
    ]
    assert described({"a": [0.5]}, run("b", 7, (40, 0.25)), run("c", 0, state="failed")) == [
        "After 40 updates a is best:",
        "  a: 0.5",
        "  b: 0.25",  # no seed is that of a
        "1 runs diverged or failed: c.",
    ]
    assert described({}, run("c", 0, state="failed")) == ["1 runs diverged or failed: c."]
    assert clr.Comparison.of([], {}).describe() == "No runs."


def test_an_interval_is_that_of_the_mean() -> None:
    values = [float(value) for value in range(100)]
    found = interval(values)
    assert found is not None
    # 1.96 standard errors of 0..99, whose standard deviation is 28.87.
    assert found == pytest.approx((49.5 - 1.96 * 2.887, 49.5 + 1.96 * 2.887), abs=0.3)
    assert interval([1.0]) is None
    assert interval([2.0, 2.0, 2.0]) == (2.0, 2.0)


def test_what_it_found_in_other_forms(tmp_path: Path) -> None:
    result = compare(tmp_path, before={"cyclic": 2})
    data = json.loads(result.to_json())
    assert [row["schedule"] for row in data["rows"]] == ["fixed", "low", "cyclic"]
    assert data["rows"][1]["iterations"] is None  # infinite
    assert data["rows"][0]["final"] == result.rows()[0]["final"]
    assert data["before"] == {"cyclic": 2}
    assert len(data["differences"]) == 3
    rows = list(csv.DictReader(io.StringIO(result.to_csv())))
    assert [row["schedule"] for row in rows] == ["fixed", "low", "cyclic"]
    assert float(rows[0]["final"]) == result.rows()[0]["final"]
    assert float(rows[0]["final_low"]) < float(rows[0]["final"]) < float(rows[0]["final_high"])
    assert rows[1]["iterations"] == "inf"
    frame = result.to_frame()
    assert frame["final"].tolist() == [row["final"] for row in result.rows()]
    text = " ".join(printed(result.table(), 160).split())
    final = f"{result.rows()[0]['final']:.4g}"
    assert all(word in text for word in ("fixed", "low", "cyclic", "loss: smaller is better", final, "mean of fixed"))


def test_no_name_is_a_formula_in_a_spreadsheet() -> None:
    names = ["=1+1", "'=1+1", "''-a", "+a", "-a", "@a", "\uff1d1+1", "'a", "a;=1+1", 'a","=1+1', "1"]
    shown = ["'=1+1", "''=1+1", "'''-a", "'+a", "'-a", "'@a", "'\uff1d1+1", "'a", "a;=1+1", 'a","=1+1', "1"]
    result = clr.Comparison.of([run(name, 0, (40, -0.5)) for name in names], {})
    text = result.to_csv()
    read = list(csv.DictReader(io.StringIO(text)))
    assert [row["schedule"] for row in read] == shown
    assert [re.sub("^'('*[=+@\uff1d-])", r"\1", name) for name in shown] == names
    assert all(line.startswith('"') for line in text.splitlines())  # so that no other separator cuts a name
    assert {row["final"] for row in read} == {"-0.5"}
    (row,) = csv.DictReader(io.StringIO(clr.Comparison.of(result.runs[:2], {}).to_csv("differences")))
    assert (row["schedule"], row["against"]) == ("''=1+1", "'=1+1")


def test_every_number_has_its_interval(tmp_path: Path) -> None:
    curves = [((10, 0.5), (50, 0.8), (100, 0.7)), ((10, 0.3), (20, 0.5), (100, 0.9))]
    name = "fixed, two drops"
    runs = [run(name, seed, *curve, steps=100) for seed, curve in enumerate(curves)]
    runs += [run("b", 0, (100, 0.4), steps=100), run("b", 1, (1, math.nan), state="diverged", steps=100)]
    runs += [run("b", seed, state="failed", steps=100) for seed in (2, 3)]
    result = clr.Comparison.of(runs, {}, target=0.5)
    # A quarter of all samples of two values has the first one twice, and a quarter the other.
    row, lost = result.rows()
    assert (row["final_interval"], row["best_interval"]) == (pytest.approx((0.7, 0.9)), pytest.approx((0.8, 0.9)))
    assert (row["iterations"], row["iterations_interval"]) == (15, (10, 20))
    assert (row["ratio"], row["ratio_interval"]) == (pytest.approx(0.15), pytest.approx((0.1, 0.2)))
    assert (lost["ratio_interval"], lost["diverged"], lost["failed"]) == (None, 0.25, 0.5)
    assert json.loads(result.to_json())["rows"][0]["ratio_interval"] == pytest.approx([0.1, 0.2])
    first, second = csv.DictReader(io.StringIO(result.to_csv()))
    assert (float(first["ratio_low"]), float(first["ratio_high"])) == pytest.approx((0.1, 0.2))
    assert (second["ratio_low"], second["diverged"], second["failed"]) == ("", "0.25", "0.5")
    assert result.to_frame()["ratio_interval"][0] == pytest.approx((0.1, 0.2))
    headings = ["schedule", "steps", "seeds", "final", "best", "iterations", "ratio", "diverged", "failed"]
    cells = [
        [name, "100", "2", "0.8 (0.7, 0.9)", "0.85 (0.8, 0.9)", "15 (10, 20)", "0.15 (0.10, 0.20)", "-", "-"],
        ["b", "100", "4", "0.4", "0.4", "-", "-", "25%", "50%"],
    ]
    lines = [re.split(r"\s{2,}", line.strip()) for line in printed(result.table()).splitlines()]
    assert lines[0] == headings
    assert lines[2:4] == cells
    text = printed(clr.Comparison.of(runs[:2], {}, target=0.5).table(), 80)
    assert "diverged" not in text
    assert all(word in text for word in (name, "iterations", "(0.10,", "0.20)"))
    result.report(tmp_path / "page.html")
    (table, _) = re.findall("<table>.*?</table>", (tmp_path / "page.html").read_text(encoding="utf-8"))
    assert re.findall("<th>(.*?)</th>", table) == headings
    assert re.findall("<td>(.*?)</td>", table) == cells[0] + cells[1]


def test_another_metric_of_the_same_runs(tmp_path: Path) -> None:
    compare(tmp_path)
    other = clr.Comparison.load(tmp_path / "runs.sqlite", metric="weight", goal="min", target=0.5)
    assert (other.metric, other.target) == ("weight", 0.5)
    assert other.rows()[0]["final"] == pytest.approx(2 * 0.75**20)
    assert other.rows()[0]["iterations"] == 5  # 2 * 0.75**5 is the first below a half
    with pytest.raises(ValueError, match="`metric` must be one of"):
        clr.Comparison.load(tmp_path / "runs.sqlite", metric="other")


def test_a_target_that_is_reached_by_a_large_metric() -> None:
    runs = [run("a", 0, (10, 0.5), (20, 0.9), (40, 0.7))]
    (row,) = clr.Comparison.of(runs, {}, target=0.6).rows()
    assert (row["final"], row["best"], row["iterations"]) == (0.7, 0.9, 20)

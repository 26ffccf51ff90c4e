"""The page of a comparison, and its pictures."""

import html
import importlib.metadata
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import clr
from clr.comparison.report import _curves, _rates
from tests import trainings
from tests.comparison.common import compare, run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optax", SimpleNamespace(__version__="0.0.7"))  # as if it had been loaded
    names = {"<script>alert(1)</script>": clr.constant(0.25), "a $b$ & _c": clr.triangular(0.25, 0.75, 5)}
    test = clr.range_test(lambda lr: 1 / (1 + 100 * lr) + lr**2, min_lr=1e-6, max_lr=100)
    compare(tmp_path, schedules=names, range_test=test, total_steps=[10, 20])
    page = tmp_path / "page.html"
    clr.Comparison.load(tmp_path / "runs.sqlite").report(page)
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "http" not in text.replace("http://www.w3.org/", "")  # but for the names of SVG's own words
    assert text.count("<svg") == 5  # two of curves, two of rates, one range test
    assert 'name="viewport"' in text
    assert "Curves are medians over the runs that have finished, and their bands reach from the lowest" in text
    settings = html.unescape(text.split("<h2>Settings</h2>")[1])
    assert 'train: "tests.trainings:parabola"\nseeds: [0, 1, 2]\nengine: "local"\nmetric: "loss"\n' in settings
    versions = json.loads(settings.split("versions at the last run: ")[1].splitlines()[0])
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert (versions["clr"], versions["numpy"]) == (importlib.metadata.version("cyclic-learning-rate"), np.__version__)
    assert versions["optax"] == "0.0.7"
    broken = compare(tmp_path, trainings.troubled, {"one": clr.constant(0.1)}, seeds=3, file=tmp_path / "b.sqlite")
    broken.report(page)
    text = page.read_text(encoding="utf-8")
    assert "ValueError: &lt;b&gt;no&lt;/b&gt; luck" in text
    assert "accuracy was nan at step 2" in text


def drawn(ax: Any, number: int = 0) -> tuple[list[list[float]], set[tuple[float, float]]]:
    """The points of a line, and those of the band around it."""
    band = ax.collections[number].get_paths()[0].vertices
    return ax.lines[number].get_xydata().tolist(), {(float(x), float(y)) for x, y in band}


def test_curves_are_medians_with_a_band_over_the_seeds() -> None:
    runs = [
        run("a", 0, (10, 0.1), (20, 0.2), (30, 0.3), (40, 0.4)),
        run("a", 1, (10, 0.2), (20, 0.6), (30, 0.6), (40, 0.9)),
        run("a", 2, (10, 0.9), (20, 0.5), (30, 0.5), (40, 0.5)),
    ]
    ax = _curves(clr.Comparison.of(runs, {}, target=0.45), 40)
    line, band = drawn(ax)
    assert line == [[10, 0.2], [20, 0.5], [30, 0.5], [40, 0.5]]
    assert band == {(10, 0.1), (20, 0.2), (30, 0.3), (40, 0.4), (10, 0.9), (20, 0.6), (30, 0.6), (40, 0.9)}
    assert ax.lines[1].get_ydata() == [0.45, 0.45]
    assert (ax.lines[0].get_label(), ax.get_ylabel(), ax.get_xlabel()) == ("a", "acc", "update")


def test_curves_with_records_at_other_steps_are_taken_together() -> None:
    runs = [run("a", 0, (10, 0.0), (30, 0.0)), run("a", 1, (20, 1.0), (40, 1.0))]
    line, band = drawn(_curves(clr.Comparison.of(runs, {}), 40))
    assert line == [[20, 0.5], [30, 0.5], [40, 0.5]]
    assert band == {(step, value) for step in (20, 30, 40) for value in (0.0, 1.0)}


def test_curves_leave_out_what_was_lost_and_say_so() -> None:
    runs = [
        run("a", 0, (20, 0.1), (40, 0.2)),
        run("a", 1, (20, 0.9), state="failed"),
        run("a", 2, (20, 0.8), (40, math.nan), state="diverged"),
        run("b", 0, (10, 0.5), (20, 0.5), (30, math.inf), state="diverged"),
        run("b", 1, (10, 0.25), state="failed"),
        run("c", 0, state="failed"),
    ]
    ax = _curves(clr.Comparison.of(runs, {}), 40)
    assert [line.get_label() for line in ax.lines] == ["a (1 of 3 runs)", "b (0 of 2 runs)"]
    assert drawn(ax, 0)[0] == [[20, 0.1], [40, 0.2]]
    assert drawn(ax, 1)[0] == [[10, 0.375]]


def test_the_rates_that_are_drawn_are_those_of_the_schedules(tmp_path: Path) -> None:
    result = compare(tmp_path, schedules={"a": clr.triangular(0.25, 0.75, 4)}, seeds=1)
    ax: Any = _rates(result, 20)
    (line,) = ax.lines
    assert line.get_xdata().tolist() == list(range(20))
    up, down = [0.25, 0.375, 0.5, 0.625], [0.75, 0.625, 0.5, 0.375]
    assert line.get_ydata().tolist() == pytest.approx((up + down) * 2 + up)
    assert (line.get_label(), ax.get_ylabel(), ax.get_xlabel()) == ("a", "learning rate", "update")


def test_a_range_test_without_a_loss_is_told_in_words(tmp_path: Path) -> None:
    def interrupted(lr: float) -> float:
        raise KeyboardInterrupt

    test = clr.range_test(interrupted)
    assert test.stop == "interrupted"
    compare(tmp_path, range_test=test).report(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert re.search("<h2>The LR range test</h2>\n<p>[^<]*, before there was a loss.</p>", text)


def test_no_text_of_the_user_is_markup(tmp_path: Path) -> None:
    evil = '<b id=evil>$x$ & "y"</b>'

    class Own:
        def __repr__(self) -> str:
            return evil

        def __call__(self, step: int) -> float:
            return 0.25

    class Train:
        name = evil

        def __call__(self, schedule: Any, seed: int, steps: int) -> Any:
            yield steps, {evil: 0.5}

    own = Own()
    compare(tmp_path, Train(), {"a": lambda steps: own}, seeds=1, metric=evil, name="own").report(
        tmp_path / "page.html"
    )
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<b id=evil>" not in text
    words = html.unescape(re.sub("<[^>]*>", "", text))
    assert words.count(evil) >= 4  # the metric, the schedule and the training


def test_many_schedules_leave_room_for_their_curves(tmp_path: Path) -> None:
    result = compare(tmp_path, schedules={f"number {number}": clr.constant(0.01) for number in range(30)}, seeds=1)
    page = tmp_path / "page.html"
    result.report(page)
    drawings = re.findall("<svg.*?</svg>", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(drawings) == 2  # the curves and the schedules
    for drawing in drawings:
        frame = re.search(r'id="patch_2">\s*<path d="([^"]*)"', drawing)  # that of the axes
        assert frame
        heights = [float(height) for height in re.findall(r"[ML] \S+ (\S+)", frame[1])]
        assert max(heights) - min(heights) > 108  # points, an inch and a half


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_in_a_browser(tmp_path: Path, width: int) -> None:
    names = {f"schedule_with_a_long_name_{number}": clr.constant(0.02 * (number + 1)) for number in range(12)}
    test = clr.range_test(lambda lr: 1 / (1 + 100 * lr) + lr**2, min_lr=1e-6, max_lr=100)
    compare(tmp_path, schedules=names, range_test=test).report(tmp_path / "page.html")
    # The page in a frame, for a window of Chromium is no less than 500 wide; and what a script sees of it.
    (tmp_path / "frame.html").write_text(f"""<!doctype html><title></title>
<iframe src="page.html" style="width: {width}px; height: 800px; border: 0"></iframe><script>
onload = () => {{
  const page = document.querySelector("iframe").contentWindow, all = what => [...page.document.querySelectorAll(what)];
  const wide = all("body > *").filter(e => e.getBoundingClientRect().right > page.innerWidth + 1);
  document.title = JSON.stringify({{
    width: page.innerWidth, over: page.document.documentElement.scrollWidth - page.innerWidth, wide: wide.length,
    drawings: all("svg").map(e => e.getBoundingClientRect().width), rows: all("tbody tr").length,
    letters: Math.min(...all("p, td, th, pre").map(e => parseFloat(page.getComputedStyle(e).fontSize))),
    fetched: page.performance.getEntriesByType("resource").length}});
}};
</script>""")
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    options = [f"--user-data-dir={tmp_path / 'browser'}", "--window-size=1300,900", "--dump-dom"]
    command += [*options, (tmp_path / "frame.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found = json.loads(html.unescape(str(re.findall("<title>(.*?)</title>", done.stdout)[0])))
    assert abs(found["width"] - width) <= 20  # but for a scroll bar
    assert found["over"] <= 0
    assert found["wide"] == 0
    assert found["fetched"] == 0
    assert found["rows"] == 12 + 11  # results, and differences from the best constant
    assert found["letters"] >= 12
    assert len(found["drawings"]) == 3
    assert all(min(0.8 * width, 600) < drawing <= width for drawing in found["drawings"])

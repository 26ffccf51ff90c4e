"""Names of text through the table, the progress bar, the page, the words and the file of a comparison."""

import html
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import clr
from clr.comparison.runs import Run
from clr.progress import bar

# Names that all show as they are.
SHOWN = [
    "cos", "cos [a]", "cos [b]", "a [/x]", "[bold]a[/bold]", "[red]", "[/]", "a\\[b]", ":smile:", "[link=http://x]y[/]",
    "<script>alert(1)</script>", '"><b id=evil>', "a & b", "&amp;", "&lt;", "<!-- a -->", "]]>", "a'b\"c", "</pre>",
    "$x$", "$\\frac{1}$", "_hidden", "__init__", "^2", "%s %d %%", "{0} {name}", "{", "a\\nb", "\\", "a,b;c", "=1+1",
    "'; DROP TABLE runs; --", "NULL", "nan", "0", "-", "a - b", "Ünïcödé", "学習率", "שלום", "مرحبا", "🚀", "x" * 100,
    "a b c " * 16 + "d", "e\u0301", "ﷺ",
]  # fmt: skip
# Names that look like others, or like nothing, or that no file, page or terminal can take.
REFUSED = [
    "", " ", " a", "a ", "a  b", "a\nb", "a\tb", "a\rb", "a\0b", "\x1b[2J", "\x7f", "a\u200bb", "\u202eabc", "a\u00a0b",
    "\ufeffa", "a\u2028b", "\udcff", "data-\ud800.csv", "x" * 101, "x" * 10**5, "\u3164", "\u115f", "\u2800", "\ufe0f",
    "\u2800 \u2800",
]  # fmt: skip


def train(schedule: Any, seed: int, total_steps: int) -> Iterator[tuple[int, dict[str, float]]]:
    yield total_steps, {"loss": schedule(0) + seed}


def words_of(page: str) -> str:
    """What a reader sees of a page, but for its pictures."""
    page = re.sub("<(svg|style|title).*?</\\1>", "", page, flags=re.DOTALL)
    return html.unescape(re.sub("<[a-z/!][^>]*>", " ", page))


def test_46_names_show_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(SHOWN) == len(set(SHOWN)) == 46
    schedules = {name: clr.constant(0.001 * (at + 1)) for at, name in enumerate(SHOWN)}
    monkeypatch.setenv("COLUMNS", "400")
    options: dict[str, Any] = {"seeds": 1, "total_steps": 5, "file": tmp_path / "runs.sqlite", "workers": 0}
    result = clr.compare(train, schedules, progress=True, **options)
    assert clr.Comparison.load(tmp_path / "runs.sqlite").runs == result.runs
    assert clr.compare(train, schedules, **options).runs == result.runs
    assert result.schedules == tuple(SHOWN)
    assert f"{SHOWN[-1]}, seed 0: step 5 of 5" in capsys.readouterr().err

    console = Console(width=400, file=io.StringIO(), record=True)
    console.print(result.table())
    console.print(result.table("differences"))
    text = console.export_text()
    starts = [line.split("  ")[0].strip() for line in text.splitlines()]
    described = result.describe().splitlines()
    result.report(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    first, _ = re.findall("<tbody>(.*?)</tbody>", page, flags=re.DOTALL)
    cells = [html.unescape(row) for row in re.findall("<tr><td>(.*?)</td>", first)]
    assert cells == SHOWN
    for name in SHOWN:
        assert name in starts
        assert any(line.startswith(f"  {name}: 0.0") for line in described)
        assert f"{name}, 5 updates: " in words_of(page)
    assert "<script" not in page
    assert "<b id" not in page
    assert len(page) < 3 * 10**6


@pytest.mark.parametrize("name", SHOWN)
def test_a_name_in_the_bar_is_no_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    with bar(True, 3, f"<{name}>") as show:
        show(1, now=f"at {name}, seed 0")
    said = capsys.readouterr().err
    assert f"<{name}>" in said
    assert f"at {name}, seed 0" in said


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
def test_a_name_that_cannot_be_told_from_others_is_refused(tmp_path: Path, name: str) -> None:
    def misnamed(schedule: Any, seed: int, total_steps: int) -> Iterator[tuple[int, dict[str, float]]]:
        yield total_steps, {name: 0.5}

    options: dict[str, Any] = {"seeds": 1, "total_steps": 5, "workers": 0}
    with pytest.raises(
        ValueError, match="`schedules` must be a dict of one or more schedules, each under a name"
    ) as found:
        clr.compare(train, {name: clr.constant(0.1)}, **options)
    assert len(str(found.value)) < 1000
    with pytest.raises(ValueError, match="`metric` must be a name of 1 to 100"):
        clr.compare(train, {"a": clr.constant(0.1)}, metric=name, **options)
    with pytest.raises(ValueError, match="`name` must be a name of 1 to 100"):
        clr.compare(train, {"a": clr.constant(0.1)}, name=name, file=tmp_path / "runs.sqlite", **options)
    (run,) = clr.compare(misnamed, {"a": clr.constant(0.1)}, **options).runs
    assert run.state == "failed"
    assert "`metric` must be a name of 1 to 100" in str(run.error)


@pytest.mark.parametrize("alike", ["cos\u3164", "\u115fcos", "c\u2800os", "cos\ufe0f", "\uff43os"], ids=ascii)
def test_names_that_look_alike_are_refused(alike: str) -> None:
    with pytest.raises(ValueError, match="names that look different") as found:
        clr.compare(train, dict.fromkeys(("cos", alike), clr.constant(0.1)), seeds=1, total_steps=5, workers=0)
    assert ascii(alike) in str(found.value)


def test_any_text_in_runs_of_other_origin_is_shown_with_escapes(tmp_path: Path) -> None:
    names = [name for name in REFUSED if len(name) < 101]
    records = ((5, {"loss\udcff": 0.5}),)
    runs = [Run(name, 5, seed, "finished", None, records, 1.0) for name in names for seed in (0, 1)]
    runs.append(Run("a", 5, 0, "failed", "no \udcff \x1b[2J luck", (), 1.0))
    result = clr.Comparison.of(runs, {("a", 5): "\ud800 as it \u202eis"})
    result.report(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    console = Console(width=200, file=io.TextIOWrapper(io.BytesIO(), "utf-8"), record=True)
    console.print(result.table())
    for text in (page, console.export_text(), result.describe()):
        assert r"\udcff" in text
        assert all(sign.isprintable() or sign in "\n\t" for sign in text)
        assert all(sign in text for sign in (r"\u200b", r"\u202e", r"\x1b[2J", r"a\nb"))


def test_words_of_the_train_function_itself_are_shown_with_escapes(tmp_path: Path) -> None:
    class Odd:
        def __repr__(self) -> str:
            return "Odd(\udcff\x1b[2J)"

        def __call__(self, step: int) -> float:
            return 0.5

    file, odd = tmp_path / "runs.sqlite", Odd()
    options: dict[str, Any] = {"seeds": 1, "total_steps": 5, "file": file, "workers": 0}
    first = clr.compare(train, {"odd": lambda steps: odd}, **options)
    assert clr.compare(train, {"odd": lambda steps: odd}, **options).runs == first.runs
    assert clr.Comparison.load(file).descriptions == {("odd", 5): r"Odd(\udcff\x1b[2J)"}


def test_without_a_standard_error_stream_nothing_is_printed_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"seeds": 1, "total_steps": 5, "file": tmp_path / "runs.sqlite", "workers": 0}
    clr.compare(train, {"a": clr.constant(0.5)}, **options)
    monkeypatch.setattr(sys, "stderr", None)
    assert len(clr.compare(train, {"a": clr.constant(0.5)}, **options).runs) == 1
    assert capsys.readouterr().out == ""

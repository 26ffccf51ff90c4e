"""The progress bar, by itself and as a range test shows it."""

import os
import re
import subprocess
import sys

import pytest

from clr import progress


@pytest.mark.parametrize(
    ("made", "left"),
    [
        ([], "-:--:--"),
        ([(10, 20)], "-:--:--"),  # nothing but what was done before
        ([(10, 40)], "0:00:30"),  # 20 in 10 seconds, so 60 in 30
        ([(1, 60), (100, 60)], "0:01:40"),  # by the mean speed since the start, not the last
        ([(3600, 60)], "1:00:00"),
        ([(7, 100)], "0:00:00"),
    ],
)
def test_the_line_says_how_much_is_done_and_how_long_it_takes(
    made: list[tuple[float, int]], left: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    seconds, done = [0.0], 20
    with progress.bar(True, 100, "Trainings", done=20, clock=lambda: seconds[0]) as show:
        for seconds[0], done in made:
            show(done, now=f"the run at {done}")
    out, line = capsys.readouterr()
    assert out == ""
    elapsed = {0: "0:00:00", 7: "0:00:07", 10: "0:00:10", 100: "0:01:40", 3600: "1:00:00"}[int(seconds[0])]
    assert re.search(rf"Trainings \S+ +{done}/100 {elapsed} left: {left}", line)
    assert (f"the run at {done}" in line) == bool(made)


def test_the_text_can_change(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar(True, 2, "first") as show:
        show(1)
        show(2, text="second")
    line = capsys.readouterr().err
    assert "second" in line
    assert "first" not in line


def test_without_a_terminal_nothing_shows(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for wanted in (None, False):
        with progress.bar(wanted, 2, "text") as show:
            show(1, now="now", text="other")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys, "stderr", None)  # as under pythonw
    with progress.bar(None, 2, "text") as show:
        show(1)


PROGRAM = "import clr, random; r = random.Random(0); clr.range_test(lambda lr: r.random(), num_steps=50{options})"


def test_a_log_file_stays_silent() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(options="")], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_a_bar_shows_rate_and_loss() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(options=", progress=True")],
        capture_output=True,
        text=True,
        check=True,
        env={"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "120"},
    )
    assert done.stdout == ""
    assert "LR range test" in done.stderr
    assert "50/50" in done.stderr
    assert "rate 1.00e+01  loss 0." in done.stderr


def test_on_a_terminal_a_bar_shows_by_itself_and_goes_when_it_is_done() -> None:
    pty = pytest.importorskip("pty")  # not on Windows
    terminal, end = pty.openpty()
    # Slow enough that the bar is drawn on the way, which rich does ten times a second.
    slow = PROGRAM.format(options="").replace("r.random()", "(time.sleep(0.02), r.random())[1]")
    with subprocess.Popen(
        [sys.executable, "-c", f"import time; {slow}"],
        stdout=end,
        stderr=end,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
    ) as process:
        os.close(end)
        shown = b""
        while True:
            try:
                more = os.read(terminal, 4096)
            except OSError:  # Linux says so at the end
                break
            if not more:
                break
            shown += more
        assert process.wait() == 0
    os.close(terminal)
    text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown.decode())
    rates = [float(rate) for rate in re.findall(r"LR range test .*?rate (\S+)  loss 0\.\d+", text)]
    assert len(set(rates)) > 2
    assert rates == sorted(rates)
    assert shown.endswith(b"\x1b[2K")  # the line is erased


def test_a_bar_that_is_asked_for_needs_rich() -> None:
    program = "import sys; sys.modules['rich.progress'] = None; " + PROGRAM.format(options=", progress=True")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "ImportError: progress bars need rich: pip install 'cyclic-learning-rate[cli]'" in done.stderr

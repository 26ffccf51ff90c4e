"""The command with odd arguments, files and streams: an error is one line, and never a traceback."""

import io
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

import pytest

import clr
from tests import curves
from tests.command import called
from tests.curves import measured
from tests.faults.campaign import Part, campaign

COMMAND = str(Path(sys.executable).with_name("clr"))
GIVEN = ("--schedules", "schedules.json", "--total-steps", "5", "--seeds", "1", "--workers", "0")
MODULES = {
    "trained": "def train(schedule, seed, total_steps):\n    yield total_steps, {'loss': schedule(0) + seed}",
    "broken": "def train(:",
    "raising": "def missing(): raise KeyError('a [/x]\\n')\nmissing()",
    "silent": "class Silent(Exception):\n    def __str__(self): return 1 / 0\nraise Silent",
    "leaving": "import sys\nsys.exit(3)",
    "deep": "def train(*given): return train(*given)\ntrain()",
}
NAMES = ["a [/x]", "cos [a]", "cos [b]", ":smile:", "$\\frac{$", "$x$", "日本", "_x", "a\\nb"]


def make_files() -> None:
    """Fills the working directory with files that are right, and with files that are wrong."""
    for name, text in MODULES.items():
        Path(f"{name}.py").write_text(f"{text}\n")
    test = measured(curves.valley, noise=0.05).to_json()
    parts = ['{"kind": "multiple", "schedule": ', '{"kind": "constant", "lr": 1.0}', ', "factor": 0.5}']
    nested = parts[0] * 400 + parts[1] + parts[2] * 400
    named = json.dumps({name: clr.constant(0.1 + at / 10).to_dict() for at, name in enumerate(NAMES)})
    texts = {
        "test.json": test,
        "unbounded.json": measured(curves.endless).to_json(),
        "schedules.json": named,
        "escape.json": json.dumps({"\x1b[31m": clr.constant(0.1).to_dict()}),
        "empty.json": "",
        "deep.json": "[" * 100_000,
        "nested.json": '{"a": {"clr": 1, ' + nested[1:] + "}",
        "folded.json": '{"a":' * 900 + "1" + "}" * 900,
        "cut.json": test[: len(test) // 2],
        "list.json": "[1, 2]",
        "digits.json": "9" * 5000,
        "twice.json": '{"a": 1, "a": 2}',
        "surrogate.json": '{"\\udcff": 1}',
    }
    for name, text in texts.items():
        Path(name).write_text(text)
    Path("binary.json").write_bytes(bytes(range(256)))
    Path("folder").mkdir()
    os.mkfifo("pipe")


def forget_modules() -> None:
    """Lets the next command import the modules of its own folder."""
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    make_files()
    forget_modules()


# What is wrong, and what the one line has to say of it.
REFUSED = {
    "compare .m:train {given}": "must be named as MODULE:FUNCTION. Received: .m:train",
    "compare ..:train {given}": "must be named as MODULE:FUNCTION. Received: ..:train",
    "compare trained: {given}": "must be named as MODULE:FUNCTION. Received: trained:",
    "compare trained {given}": "must be named as MODULE:FUNCTION. Received: trained",
    "compare trained:none {given}": "cannot find trained:none: AttributeError",
    "compare trained.none:train {given}": "cannot find trained.none:train: ModuleNotFoundError",
    "compare broken:train {given}": r"cannot find broken:train: SyntaxError: .*broken.py, line 1",
    "compare raising:train {given}": r"cannot find raising:train: KeyError: 'a \[/x\]\\n' \(in raising.py, line 1\)",
    "compare silent:train {given}": r"silent.Silent: <exception str\(\) failed> \(in silent.py, line 3\)",
    "compare leaving:train {given}": r"cannot find leaving:train: SystemExit: 3 \(in leaving.py, line 2\)",
    "compare deep:train {given}": r"cannot find deep:train: RecursionError: .* \(in deep.py, line 1\)",
    "compare nothing:train {given}": "cannot find nothing:train: ModuleNotFoundError",
    "compare [/x]:train {given}": r"cannot find \[/x\]:train: ",
    "compare trained:MODULES.x {given}": "cannot find trained:MODULES.x: AttributeError",
    "compare os:path {given}": "`train` must be a function",
    "compare trained:train {given} --seeds 99999999999": "'--seeds'",
    "compare trained:train {given} --total-steps 99999999999999999999": "'--total-steps'",
    "compare trained:train {given} --range-test deep.json": "deep.json is not a range test: .*nested so deep",
    "compare trained:train {given} --schedules escape.json": r"printable characters.* Received: '\\x1b\[31m'",
    "compare trained:train {given} --runs folder": "folder is not a file",
    "compare trained:train {given} --runs missing/x.sqlite": "cannot write missing: No such folder",
    "compare trained:train {given} --out missing/x.html": "cannot write missing/x.html: No such file",
    "compare trained:train {given} --range-test none.json": "cannot read none.json: No such file",
    "compare trained:train {given} --range-test schedules.json": "schedules.json is not a range test: ",
    "compare trained:train --total-steps 5 --schedules none.json": "cannot read none.json: No such file",
    "compare trained:train --total-steps 5 --schedules test.json": "is not a file of schedules: 'clr': `data`",
    "compare trained:train --total-steps 5 --schedules surrogate.json": r"not a file of schedules: '\\udcff': `data`",
    "compare trained:train --total-steps 5 --schedules folded.json": "folded.json is not a file of schedules",
    "compare trained:train --total-steps 5 --schedules nested.json": "nested.json is not a file of schedules: 'a'",
    "compare trained:train --total-steps 5 --schedules list.json": "list.json is not a file of schedules",
    "compare trained:train --total-steps 5 --schedules pipe": "pipe is not a file of schedules",
    "compare trained:train --total-steps 5 --schedules folder": "cannot read folder: Is a directory",
    "compare report folder": "folder is not a file",
    "compare report binary.json": "binary.json is not the file of a comparison",
    "compare report pipe": "pipe is not a file",
    "compare report /dev/zero": "/dev/zero is not a file",
    **{
        f"range-test {what} {name}": f"{name} is not a range test: "
        for what in ("show", "plot")
        for name in ("empty.json", "deep.json", "cut.json", "list.json", "digits.json", "twice.json", "binary.json")
    },
    "range-test show /dev/zero": "/dev/zero is not a range test: it has more than 100,000,000 bytes",
    "range-test show /dev/null": "/dev/null is not a range test",
    "range-test show pipe": "pipe is not a range test",
    "range-test show folder": "cannot read folder: Is a directory",
    "range-test show a\0b": r"no argument may have a NUL character. Received: 'a\\x00b'",
    "range-test show \x1b[2Ja\udcff": r"cannot read \\x1b\[2Ja\\udcff: No such file",
    "range-test plot test.json --out {long}": "cannot write nnn",
    "range-test plot test.json --out [/x].nonsense": r"cannot write \[/x\].nonsense: Format 'nonsense'",
    "plot --out folder": "cannot write folder: Is a directory",
    "plot --out /dev/full": "cannot write /dev/full: No space left",
    "plot --out /proc/x.png": "cannot write /proc/x.png",
    "plot --steps 99999999999999999999": "`steps` must be .*below 2",
    "plot --steps {digits}": "'--steps'",
    "plot --max-lr 1e308": "a rate above 1e.300 has no picture",
    "plot --max-lr 1e999": "`max_lr` must be a finite number",
    "values --out /dev/full": "cannot write /dev/full: No space left",
    "values --steps 99999999999999999999": "at most 1,000,000 steps",
    "values --step-size 9e15": "at most 1,000,000 steps",
    "values --start {digits}": "'--start'",
    "values --step-size 1e300": "`step_size` must be a number of steps from 0.001",
    "values --out pipe": "cannot write pipe: No such device",
    "plot --out pipe": "cannot write pipe: No such device",
    "demo --out /dev/null/x": "cannot write /dev/null/x",
    "demo --seeds 99999999999": "'--seeds'",
    "demo --total-steps 99999999999": "'--total-steps'",
    "{digits}": "No such command '999",
}  # fmt: skip


@pytest.mark.parametrize("line", REFUSED, ids=lambda line: repr(line)[1:-1])
def test_what_cannot_be_done_is_said_in_a_line(line: str) -> None:
    given = {"given": " ".join(GIVEN), "digits": "9" * 5000, "long": f"{'n' * 300}.png"}
    arguments = [argument.format(**given) for word in line.split(" ") for argument in word.format(**given).split(" ")]
    code, out, err = called(*arguments)
    assert (code, out) == (2, "")
    assert re.fullmatch(f"clr: [^\n]*{REFUSED[line]}[^\n]*\n", err), err


RIGHT = {
    "--version": ("--version",),
    "--help": ("--help",),
    "values": ("values",),
    "plot": ("plot",),
    "show": ("range-test", "show", "test.json"),
    "show as JSON": ("range-test", "show", "test.json", "--json"),
    "draw": ("range-test", "plot", "test.json"),
    "compare": ("compare", "trained:train", *GIVEN),
    "compare as JSON": ("compare", "trained:train", *GIVEN, "--format", "json"),
    "report": ("compare", "report", "runs.sqlite", "--format", "csv"),
    "demo": ("demo", "--framework", "torch", "--total-steps", "20", "--seeds", "1", "--policy", "triangular"),
}
each_command = pytest.mark.parametrize("arguments", RIGHT.values(), ids=list(RIGHT))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demonstration does not train, and there is a file of runs."""
    training = pytest.importorskip("clr.demo.torch")
    trials = (clr.Trial(1, 0.1, 100, (2.0,) * 100, 1.0, "completed"),)
    search = clr.Search(measured(curves.valley), trials, 2.0, 20, 600)
    run = clr.demo.training.Run("torch", "fixed", 0, [1.0] * 20, [0.1] * 20, [0.5] * 2)
    monkeypatch.setattr(training, "search", lambda total_steps: search)
    monkeypatch.setattr(training, "train", lambda *given: iter([run]))
    assert called("compare", "trained:train", *GIVEN, "--runs", "runs.sqlite")[0] == 0


@contextmanager
def reader_gone() -> Iterator[TextIO]:
    """An output whose reader has ended."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as out:
        yield out


@each_command
def test_an_output_that_cannot_be_written(quick: None, arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as out:
        code, _, err = called(*arguments, out=out)
    assert (code, err.splitlines()[-1]) == (2, "clr: cannot write the output: No space left on device")
    with reader_gone() as out:  # such as `head`
        code, _, err = called(*arguments, out=out)
    assert (code, "clr: " in err) == (0, False), err
    closed = "clr: the standard output is closed. To print nothing, send it to /dev/null.\n"
    assert called(*arguments, out=None) == (2, "", closed)


@each_command
def test_an_output_that_cannot_hold_a_sign(quick: None, arguments: tuple[str, ...]) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    code, _, err = called(*arguments, out=out)
    assert (code, "clr: " in err) == (0, False), err
    assert out.tell() > 0


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("clr values >&-", (2, "", "clr: the standard output is closed. To print nothing, send it to /dev/null.\n")),
        ("clr values >&- 2>&-", (2, "", "")),
        ("clr values --every 30 <&- 2>&-", (0, "step,learning_rate\n0,0.01\n30,0.055\n", "")),
        ("clr values --step-size 0 2>&-", (2, "", "")),
        ("clr values --step-size 0 > /dev/full 2>&1", (2, "", "")),
        ("set -o pipefail; clr values --steps 9999 | head -1", (0, "step,learning_rate\n", "")),
        ("set -o pipefail; clr --help | true", (0, "", "")),
        ("ulimit -f 1; clr values --steps 9999 --out x.csv", (2, "", "clr: cannot write x.csv: File too large\n")),
        ("ulimit -f 1; clr plot --out x.svg 2>&1 | tail -1", (0, "clr: cannot write x.svg: File too large\n", "")),
    ],
)
def test_the_streams_of_a_process(line: str, expected: tuple[int, str, str]) -> None:
    path = f"{Path(COMMAND).parent}:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=os.environ | {"PATH": path})
    assert (done.returncode, done.stdout, done.stderr) == expected


def test_names_are_printed_as_they_are() -> None:
    Path("[").mkdir()
    code, out, err = called("compare", "trained:train", *GIVEN, "--out", "[/x] :x:.html")
    assert code == 0, err
    for name in ("a [/x]", "cos [a]", "cos [b]", ":smile:", "$\\frac{$", "$x$", "日本", "_x"):
        assert f"\n{name} " in out
    assert out.endswith("\n[/x] :x:.html\n")
    page = Path("[/x] :x:.html").read_text()
    assert all(f"<td>{name}</td>" in page for name in ("a [/x]", "cos [b]", "$x$"))
    out = called("compare", "report", "clr-compare.sqlite", "--differences")[1]
    assert all(f"\n{name} - a [/x] " in out for name in ("cos [a]", "cos [b]", ":smile:"))


WORDS = [
    "0", "1", "2", "7.5", "-1", "nan", "inf", "-inf", "1e308", "1e400", "1e-320", "0x10", "1_0", "١٢", "", " ",
    "x", "9" * 30, "9" * 5000, "0.1", "0.01", "20", "[/x]", "$x$", ":x:", "--", "-", "--help", "é", "\udcff",
    "\x1b[2J", "a\nb",
]  # fmt: skip
FILES = [
    "test.json", "unbounded.json", "schedules.json", "mutated.json", "empty.json", "deep.json", "folded.json",
    "cut.json", "list.json", "digits.json", "twice.json", "surrogate.json", "binary.json", "folder", "pipe",
    "/dev/null", "/dev/full", "missing/x", "runs.sqlite", "n" * 300,
]  # fmt: skip
OUTPUTS = [
    "x", "x.png", "x.pdf", "[/x].png", "\udcff.svg", "x.nonsense", "folder", "pipe", "/dev/null", "/dev/full",
    "missing/x", "n" * 300, "",
]  # fmt: skip
RUNS = [
    "runs.sqlite",
    "other.sqlite",
    "[x].sqlite",
    "\udcff.sqlite",
    ":memory:",
    *OUTPUTS[6:],
    "empty.json",
    "binary.json",
]
FUNCTIONS = ["trained:train", *(f"{name}:train" for name in MODULES), ".x:y", ":", "x:", "os:path", "trained:x", "é:f"]
POLICIES = ["triangular", "triangular2", "exp_range", "Triangular", "[/x]"]
NUMBERS = {"--base-lr": WORDS, "--max-lr": WORDS, "--step-size": WORDS, "--step-size-down": WORDS, "--gamma": WORDS}
# Of each command: what it is given in order, and its options.
GRAMMAR: dict[tuple[str, ...], tuple[list[list[str]], dict[str, list[str] | None]]] = {
    ("values",): (
        [POLICIES],
        {**NUMBERS, "--start": WORDS, "--steps": WORDS, "--every": WORDS, "--format": ["csv", "json", "x"],
         "--out": OUTPUTS},
    ),
    ("plot",): ([POLICIES], {**NUMBERS, "--steps": WORDS, "--out": OUTPUTS}),
    ("range-test", "show"): ([FILES], {"--json": None}),
    ("range-test", "plot"): ([FILES], {"--scale": ["log", "linear", "x"], "--out": OUTPUTS}),
    ("compare", "report"): (
        [FILES],
        {"--metric": WORDS, "--goal": ["min", "max", "x"], "--target": WORDS, "--format": ["table", "csv", "json"],
         "--differences": None, "--out": OUTPUTS},
    ),
    ("compare",): (
        [FUNCTIONS],
        {"--schedules": FILES, "--total-steps": WORDS[:19], "--seeds": ["0", "1", "2", "x"], "--metric": WORDS,
         "--goal": ["min", "max"], "--target": WORDS, "--range-test": FILES, "--runs": RUNS, "--name": WORDS,
         "--fresh": None, "--reuse": None, "--out": OUTPUTS, "--format": ["table", "csv", "json"],
         "--differences": None},
    ),
    ("demo",): ([], {"--framework": ["x", ""], "--total-steps": ["0", "9" * 30], "--out": ["/dev/null/x"]}),
}  # fmt: skip


def command_line(generator: random.Random) -> list[str]:
    """A command with arguments from the grammar, of which a few are left out."""
    words = generator.choice(list(GRAMMAR))
    places, options = GRAMMAR[words]
    line = [*words, *(generator.choice(place) for place in places if generator.random() < 0.9)]
    if words == ("compare",) and generator.random() < 0.8:
        line += GIVEN
    wanted = generator.sample(list(options), generator.randint(words == ("demo",), min(3, len(options))))
    for option in wanted:
        values = options[option]
        line += [option] if values is None else [option, generator.choice(values)]
    return [*line, "--workers", "0"] if words == ("compare",) else line


def mutated(data: bytes, generator: random.Random) -> bytes:
    """Data of which a few bytes are changed, left out or repeated."""
    result = bytearray(data)
    for _ in range(generator.randint(1, 4)):
        at = generator.randrange(len(result))
        kind = generator.randrange(4)
        if kind == 0:
            result[at] = generator.randrange(256)
        elif kind == 1:
            result[at : at + generator.randint(1, 20)] = b""
        elif kind == 2:
            result[at:at] = generator.choice([b"9" * 400, b"-", b"1e999", b"null", b"[", b'"', b"NaN", b"\xff"])
        else:
            result[at:at] = result[at : at + 30]
    return bytes(result)


def fuzz(count: int, seed: int) -> list[str]:
    """Calls the command with ``count`` command lines from the grammar, and gives what went wrong."""
    generator, found = random.Random(seed), []
    with TemporaryDirectory() as folder, chdir(folder):
        make_files()
        for number in range(count):
            forget_modules()
            source = generator.choice(["test.json", "schedules.json"])
            Path("mutated.json").write_bytes(mutated(Path(source).read_bytes(), generator))
            line = command_line(generator)
            try:
                code, out, err = called(*line)
            except BaseException as error:
                found.append(f"seed {seed}, number {number}: clr {line}: {type(error).__name__}: {error}")
                continue
            said = err.splitlines()
            refused = [text for text in said if text.startswith("clr: ")]
            right = {0: not refused, 1: not refused and "show" in line, 2: len(refused) == 1 and said[-1:] == refused}
            if not right.get(code) or "Traceback" in out + err or (code == 2 and out):
                found.append(
                    f"seed {seed}, number {number}: clr {line}: exit code {code}, {out[-200:]!r}, {err[-500:]!r}"
                )
    return found


def test_command_lines_of_a_grammar() -> None:
    assert fuzz(120, seed=19) == []


def finds_one(count: int, seed: int) -> list[str]:
    return [f"seed {seed}"] if seed == 70_001 else []


def raises(count: int, seed: int) -> list[str]:
    raise ZeroDivisionError(f"seed {seed}")


def test_the_long_form_tells_what_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    parts = [Part(name, __name__, name, 20, 10) for name in ("finds_one", "raises")]
    assert campaign(parts, 7) == 3
    out = capsys.readouterr().out
    assert re.findall("([0-9]+) ([a-z_]+): ([0-9]) found", out) == [("20", "finds_one", "1"), ("20", "raises", "2")]
    assert "'seed 70001'" in out
    assert "'piece 1: ZeroDivisionError: seed 70001'" in out


def test_the_grammar_finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clr.cli.schedules.clr.cyclic", lambda *given, **named: 1 / 0)
    assert any("ZeroDivisionError" in text for text in fuzz(20, seed=19))

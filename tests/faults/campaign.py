"""The long form of these tests: ``make fuzz``, or ``make fuzz SEED=7`` for other cases. Ends with 1 if it finds faults.

Each part is a function of a number of cases and a seed that gives what it has found, as texts. The parts are cut into
pieces for the cores of this machine. The same seed tries the same cases on any machine.
"""

import multiprocessing
import os
import random
import shutil
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import clr

LIMIT = 600  # seconds for all
MOST_SHOWN = 20  # of the faults of a part


class Part(NamedTuple):
    """What is tried, by which function of which module, how often, and how often in one piece."""

    what: str
    module: str
    function: str
    cases: int
    piece: int


PARTS = (
    Part("odd arguments", "tests.faults.test_arguments", "fuzz", 100_000, 2000),
    Part("damaged JSON texts", "tests.faults.test_arguments", "fuzz_json", 10_000, 1000),
    Part("damaged files of comparisons", "tests.faults.campaign", "fuzz_files", 2000, 200),
    Part("command lines", "tests.faults.test_command", "fuzz", 900, 100),
    Part("rounds of kills", "tests.faults.campaign", "fuzz_kills", 6, 1),
)


def fuzz_files(count: int, seed: int) -> list[str]:
    """Damages the file of a comparison in ``count`` ways: it says all that it said, or is refused by its name."""
    from tests.faults.test_store import compare, everything

    generator, found = random.Random(seed), []
    with TemporaryDirectory() as folder:
        file = Path(folder) / "runs.sqlite"
        compare(file, before={"cyclic": 7})
        content, whole = file.read_bytes(), everything(file)
        for number in range(count):
            data = bytearray(content)
            at = generator.randrange(len(data))
            way = generator.choice(("flip", "cut", "zero", "repeat", "drop"))
            if way == "flip":
                for _ in range(generator.choice((1, 1, 2, 50))):
                    data[generator.randrange(len(data))] ^= generator.randrange(1, 256)
            elif way == "cut":
                del data[at:]
            elif way == "zero":
                data[at : at + 512] = bytes(len(data[at : at + 512]))
            elif way == "repeat":
                data[at:at] = data[at : at + generator.choice((1, 512, 4096))]
            else:
                del data[at : at + generator.choice((1, 512, 4096))]
            file.write_bytes(data)
            for end in ("-journal", "-wal", "-shm"):
                file.with_name(file.name + end).unlink(missing_ok=True)
            case = f"seed {seed}, number {number}: {way} at {at} of {len(content)}"
            try:
                if everything(file) != whole:
                    found.append(f"{case}: says something else")
            except ValueError as error:
                if file.name not in str(error):
                    found.append(f"{case}: {error}")
            except Exception as error:
                found.append(f"{case}: {type(error).__name__}: {error}")
    return found


def fuzz_kills(count: int, seed: int) -> list[str]:
    """Kills a comparison again and again: no run is lost, and none is made twice."""
    from tests.faults.test_store import test_kills_at_any_moment_lose_nothing as kills

    found = []
    for number in range(count):
        with TemporaryDirectory() as folder:
            try:
                kills(Path(folder), workers=(seed + number) % 3, number=seed + number)
            except AssertionError as error:
                kept = shutil.copytree(folder, f"{folder}-kept")
                found.append(f"seed {seed + number}, files in {kept}: {error}")
    return found


def made(part: Part, count: int, seed: int) -> list[str]:
    """A piece of a part."""
    function: Callable[[int, int], list[str]] = getattr(import_module(part.module), part.function)
    return function(count, seed)


def campaign(parts: Sequence[Part], seed: int, limit: float = LIMIT) -> int:
    """Tries the parts, prints what was tried and found, and gives how many faults there are."""
    began, faults = time.monotonic(), 0
    processes = os.cpu_count() or 1
    print(f"clr {clr.__version__}, seed {seed}, {processes} processes", flush=True)
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pieces = {
            part: [
                pool.apply_async(made, (part, min(part.piece, part.cases - start), 10_000 * seed + start // part.piece))
                for start in range(0, part.cases, part.piece)
            ]
            for part in parts
        }
        for part, results in pieces.items():
            found: list[str] = []
            for at, result in enumerate(results):
                try:
                    found += result.get(max(0.0, began + limit - time.monotonic()))
                except multiprocessing.TimeoutError:
                    found.append(f"piece {at} has not ended after {limit:g} seconds in all")
                except Exception as error:
                    found.append(f"piece {at}: {type(error).__name__}: {error}")
            print(
                f"{part.cases:7,} {part.what}: {len(found)} found, after {time.monotonic() - began:.0f} s", flush=True
            )
            for text in found[:MOST_SHOWN]:
                print(f"        {text[:1000]!r}", flush=True)
            faults += len(found)
    return faults


def main() -> None:
    """Tries all parts with the seed of the command line."""
    parser = ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--seed", type=int, default=1, help="another one tries other cases")
    sys.exit(campaign(PARTS, parser.parse_args().seed) > 0)

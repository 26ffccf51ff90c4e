"""Counts what the design limits: bare `Any` in arguments, and the length of functions. ``census.py [ROOT]``.

It prints the figures and ends with status 1 if a limit is broken.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

LONGEST = 80  # lines of a function, without its docstring
MOST_ANY = 0.15  # of all arguments that are annotated

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> Iterator[Function]:
    """All functions and methods of a module."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def length(function: Function) -> int:
    """The lines of a function without its docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    text = function.body[0]
    return lines if ast.get_docstring(function) is None else lines - ((text.end_lineno or 0) - text.lineno + 1)


def annotations(function: Function) -> list[str | None]:
    """The annotations of a function's arguments as text, without those of ``self`` and ``cls``."""
    own = function.args
    arguments = [*own.posonlyargs, *own.args, *own.kwonlyargs]
    arguments += [argument for argument in (own.vararg, own.kwarg) if argument is not None]
    if arguments and arguments[0].arg in ("self", "cls"):
        arguments = arguments[1:]
    return [None if argument.annotation is None else ast.unparse(argument.annotation) for argument in arguments]


def modules(root: Path) -> dict[Path, ast.Module]:
    """The modules below a folder."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(root.rglob("*.py"))}


def lines(root: Path) -> int:
    """The lines of all modules below a folder."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in root.rglob("*.py"))


def census(root: Path) -> list[str]:
    """Prints the figures of a checkout, and gives the limits that it breaks."""
    found = modules(root / "src" / "clr")
    every = [(path, function) for path, tree in found.items() for function in functions(tree)]
    lengths = sorted((length(function), f"{path}:{function.name}") for path, function in every)
    arguments = [text for _, function in every for text in annotations(function)]
    annotated = [text for text in arguments if text is not None]
    share = annotated.count("Any") / len(annotated)
    sizes = {name: lines(root / name) for name in ("src", "tests", "benchmarks")}
    print(f"files {len(found)}, functions {len(every)}")
    print(f"lines of a function: median {median(own for own, _ in lengths):.0f}, most {lengths[-1][0]}")
    print(f"arguments annotated {len(annotated) / len(arguments):.0%}, of these bare Any {share:.1%}")
    print("lines: " + ", ".join(f"{name} {size}" for name, size in sizes.items()) + f", all {sum(sizes.values())}")
    broken = [f"{name} has {own} lines, more than {LONGEST}" for own, name in lengths if own > LONGEST]
    if share >= MOST_ANY:
        broken.append(f"bare Any in {share:.1%} of the arguments, not below {MOST_ANY:.0%}")
    return broken


if __name__ == "__main__":
    broken = census(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
    print("\n".join(broken), end="\n" if broken else "")
    sys.exit(bool(broken))

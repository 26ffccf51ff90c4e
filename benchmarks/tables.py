"""Tables, on a terminal or for a page."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table


def markdown_row(cells: Iterable[str]) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def show(headings: Sequence[str], rows: Iterable[Sequence[str]], title: str, markdown: bool, width: int) -> None:
    """Prints a table: so wide on a terminal, or without its title in Markdown."""
    if markdown:
        print("\n".join(map(markdown_row, (headings, ["---"] * len(headings), *rows))))
        return
    table = Table(*headings, title=title)
    for row in rows:
        table.add_row(*row)
    Console(width=width).print(table)

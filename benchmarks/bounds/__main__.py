"""``python -m benchmarks.bounds run`` trains, and can be stopped and resumed; ``report`` tells what came out."""

from benchmarks.bounds.study import app

app()

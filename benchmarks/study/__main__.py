"""``python -m benchmarks.study run`` trains, and can be stopped and resumed; ``report`` tells what came out."""

from benchmarks.study.study import app

app()

"""Prints the tables of accuracy and of cost."""

import os
import platform
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import optax
import tensorflow as tf
import torch
from rich.console import Console

import clr
from benchmarks import accuracy, cost, once

console = Console(width=None if sys.stdout.isatty() else 150)
versions = f"clr {clr.__version__}, TensorFlow {tf.__version__}, PyTorch {torch.__version__}, "
versions += f"JAX {jax.__version__}, Optax {optax.__version__}"
console.print(f"{versions}, Python {platform.python_version()}, {os.cpu_count()} cores")
console.print(accuracy.table())
console.print(cost.table())
console.print(once.table())

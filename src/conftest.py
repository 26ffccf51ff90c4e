"""The examples of modules whose framework is not installed are left out."""

from importlib.util import find_spec

collect_ignore = [f"clr/arrays/{name}.py" for name in ("mlx", "paddle") if find_spec(name) is None]

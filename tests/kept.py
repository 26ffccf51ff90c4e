"""The results that are kept beside the benchmarks, for tests."""

import shutil
from pathlib import Path

from benchmarks import packed


def unpacked(results: Path, folder: Path) -> Path:
    """Results as they were packed, in a folder of the test's own."""
    archive = results.with_name(f"{results.name}.tar.xz")
    shutil.copy(archive, folder / archive.name)
    packed.unpack(folder / results.name)
    return folder / results.name

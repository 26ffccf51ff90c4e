"""Keeps results that took hours as one small file beside the code. A run continues from it."""

import lzma
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "pb": 0}]  # smallest for digits


def pack(results: Path) -> Path:
    """Packs a file or a folder beside it, and returns the path of the archive."""
    archive = _archive(results)
    with lzma.open(archive, "wb", filters=FILTERS) as packed, tarfile.open(fileobj=packed, mode="w") as file:
        file.add(results, results.name, filter=_bare)
    return archive


def unpack(results: Path) -> None:
    """Unpacks the archive of results that do not exist yet."""
    archive = _archive(results)
    if archive.exists() and not results.exists():
        with TemporaryDirectory(dir=results.parent) as folder, tarfile.open(archive) as file:
            file.extractall(folder, filter="data")
            (Path(folder) / results.name).rename(results)  # complete, or not at all


def _archive(results: Path) -> Path:
    return results.with_name(f"{results.name}.tar.xz")


def _bare(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leaves out locks, pages, which `report` writes again, and the owner."""
    if "-lock" in member.name or member.name.endswith(".html"):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member

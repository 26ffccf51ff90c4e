"""Results that took hours, kept as one small file beside the code, from which a run goes on."""

import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory


def pack(results: Path) -> Path:
    """Packs a file or a folder, and returns where to."""
    archive = _archive(results)
    with tarfile.open(archive, "w:xz") as file:
        file.add(results, results.name, filter=_bare)
    return archive


def unpack(results: Path) -> None:
    """Brings back what was packed, where there is nothing yet."""
    archive = _archive(results)
    if archive.exists() and not results.exists():
        with TemporaryDirectory(dir=results.parent) as folder, tarfile.open(archive) as file:
            file.extractall(folder, filter="data")
            (Path(folder) / results.name).rename(results)  # whole, or not at all


def _archive(results: Path) -> Path:
    return results.with_name(f"{results.name}.tar.xz")


def _bare(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Without locks and pages, which are made anew, and without the owner."""
    if "-lock" in member.name or member.name.endswith(".html"):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member

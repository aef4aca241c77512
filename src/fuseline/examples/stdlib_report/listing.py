"""Finds the files and deals them out."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict

ENOUGH_FILES = 1000
"""Distributions leave out the library's tests. With fewer files than this, what is installed beside it is read too."""

_NOT_OURS = {"__pycache__", "site-packages", "dist-packages"}


Share: TypeAlias = dict[str, list[str]]
"""Files to read: paths by the root that they are relative to."""


class SourceFile(NamedTuple):
    """`path` is relative to `root`, with slashes."""

    root: str
    path: str
    size_bytes: int


class Listing(BaseModel):
    """All files, dealt out."""

    model_config = ConfigDict(frozen=True)

    roots: list[str]
    shares: list[Share]


def package_of(path: str) -> str:
    """The top-level package, or the module's own name."""
    return path.partition("/")[0].removesuffix(".py")


def default_roots() -> list[str]:
    """The standard library of this interpreter and, where that is a small one, the installed packages."""
    library = sysconfig.get_path("stdlib")
    if len(list_files([library])) >= ENOUGH_FILES:
        return [library]
    return [library, sysconfig.get_path("purelib")]


def list_files(roots: list[str]) -> list[SourceFile]:
    """All Python files below the roots, in the order of their paths. Raises `FileNotFoundError` for a root that is none."""
    found: list[SourceFile] = []
    for root in roots:
        folder = Path(root)
        if not folder.is_dir():
            raise FileNotFoundError(f"{root!r} is not a folder")
        for file in folder.rglob("*.py"):
            parts = file.relative_to(folder).parts
            if _NOT_OURS.isdisjoint(parts) and file.is_file():
                found.append(SourceFile(root, "/".join(parts), file.stat().st_size))
    return sorted(found)


def deal(files: list[SourceFile], shards: int) -> list[Share]:
    """As many shares of about the same size in bytes: the largest file first, each to the smallest share."""
    shares: list[Share] = [{} for _ in range(shards)]
    sizes = [0] * shards
    for file in sorted(files, key=lambda one: (-one.size_bytes, one.root, one.path)):
        smallest = sizes.index(min(sizes))
        shares[smallest].setdefault(file.root, []).append(file.path)
        sizes[smallest] += file.size_bytes
    return shares

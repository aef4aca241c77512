"""What travels between the steps: counts that can be added up in any order, so that the report never depends on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

KEPT_FUNCTIONS = 25
"""How many of the hardest functions are kept at each stage: what is not among a part's is not among the whole's."""


class Function(BaseModel):
    """One function or method; `name` is the dotted path of the definitions that it is in."""

    model_config = ConfigDict(frozen=True)

    name: str
    path: str
    line: int
    lines: int
    complexity: int


class BrokenFile(BaseModel):
    """A file that Python cannot parse; `kind` is "python 2", "encoding", "syntax" or "other"."""

    model_config = ConfigDict(frozen=True)

    path: str
    line: int
    error: str
    kind: str


class PackageFacts(BaseModel):
    """One top-level package or module. `imports` counts the files that import each top-level module."""

    model_config = ConfigDict(frozen=True)

    name: str
    files: int = 0
    lines: int = 0
    blank: int = 0
    comments: int = 0
    docstrings: int = 0
    functions: int = 0
    classes: int = 0
    complexity: int = 0
    documentable: int = 0
    documented: int = 0
    imports: dict[str, int] = Field(default_factory=dict)

    @property
    def code(self) -> int:
        """Lines that are neither blank nor comment nor docstring."""
        return max(0, self.lines - self.blank - self.comments - self.docstrings)

    @property
    def documented_percent(self) -> float:
        """Share of modules and public definitions that have a docstring."""
        return 100 * self.documented / self.documentable if self.documentable else 0.0

    @property
    def mean_complexity(self) -> float:
        """Of its functions."""
        return self.complexity / self.functions if self.functions else 0.0


class Facts(BaseModel):
    """What is known about some of the files."""

    model_config = ConfigDict(frozen=True)

    packages: dict[str, PackageFacts] = Field(default_factory=dict)
    hardest: list[Function] = Field(default_factory=list)
    broken: list[BrokenFile] = Field(default_factory=list)

    @property
    def files(self) -> int:
        """Files that were parsed."""
        return sum(package.files for package in self.packages.values())

    def total(self) -> PackageFacts:
        """All packages together, under the name "total"."""
        return add_packages("total", self.packages.values())


def add_packages(name: str, parts: Iterable[PackageFacts]) -> PackageFacts:
    """The sums, under one name."""
    counts: Counter[str] = Counter()
    imports: Counter[str] = Counter()
    for part in parts:
        counts.update(part.model_dump(exclude={"name", "imports"}))
        imports.update(part.imports)
    return PackageFacts(name=name, imports=dict(sorted(imports.items())), **counts)


def add(parts: Iterable[Facts]) -> Facts:
    """The facts of all parts together; whatever their order and grouping, the same."""
    parts = list(parts)
    by_name: dict[str, list[PackageFacts]] = {}
    for part in parts:
        for name, package in part.packages.items():
            by_name.setdefault(name, []).append(package)
    functions = sorted((one for part in parts for one in part.hardest), key=_hardest_first)
    return Facts(
        packages={name: add_packages(name, by_name[name]) for name in sorted(by_name)},
        hardest=functions[:KEPT_FUNCTIONS],
        broken=sorted((one for part in parts for one in part.broken), key=lambda one: one.path),
    )


def _hardest_first(function: Function) -> tuple[int, str, int, str]:
    return -function.complexity, function.path, function.line, function.name

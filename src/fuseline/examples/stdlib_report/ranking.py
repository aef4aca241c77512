"""The first of each discipline. Ties go by name, so that the same files give the same ranking."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pydantic import BaseModel, ConfigDict

from fuseline.examples.stdlib_report.facts import Facts, Function, PackageFacts

SHOWN = 20
ENOUGH_FUNCTIONS = 30
ENOUGH_DEFINITIONS = 30


class ImportCount(BaseModel):
    """How many files import a module."""

    model_config = ConfigDict(frozen=True)

    name: str
    files: int


class Ranking(BaseModel):
    """What the report shows."""

    model_config = ConfigDict(frozen=True)

    total: PackageFacts
    packages: int
    largest: list[PackageFacts]
    most_complex: list[PackageFacts]
    best_documented: list[PackageFacts]
    most_imported: list[ImportCount]
    hardest: list[Function]


def rank(facts: Facts) -> Ranking:
    """Best first. Means and shares are ranked only for packages with enough to take them of."""
    packages = facts.packages.values()
    total = facts.total()
    with_functions = [one for one in packages if one.functions >= ENOUGH_FUNCTIONS]
    with_definitions = [one for one in packages if one.documentable >= ENOUGH_DEFINITIONS]
    imported = sorted(total.imports.items(), key=lambda item: (-item[1], item[0]))
    return Ranking(
        total=total,
        packages=len(facts.packages),
        largest=_first(packages, lambda one: one.code),
        most_complex=_first(with_functions, lambda one: one.mean_complexity),
        best_documented=_first(with_definitions, lambda one: one.documented_percent),
        most_imported=[ImportCount(name=name, files=files) for name, files in imported[:SHOWN]],
        hardest=facts.hardest[:SHOWN],
    )


def _first(packages: Iterable[PackageFacts], value: Callable[[PackageFacts], float]) -> list[PackageFacts]:
    return sorted(packages, key=lambda one: (-value(one), one.name))[:SHOWN]

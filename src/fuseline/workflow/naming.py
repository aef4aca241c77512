"""Names of steps: snake_case, unique within a workflow, and the same wherever a step stands in the graph."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fuseline.errors import InvalidSchemaError
from fuseline.model.schema import check_id

_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NO_WORD = re.compile(r"\W+")


class Origin(NamedTuple):
    """Where a step was defined. `number` counts definitions, for those that share all the rest (made by one factory)."""

    module: str
    qualname: str
    line: int
    number: int


class Naming(NamedTuple):
    """What a step's name is made of. `explicit` is the one that somebody gave it."""

    explicit: str | None
    base: str
    origin: Origin


def real_module(name: str) -> str:
    """What a module is called by those who import it, also where it runs as a script: it may be imported elsewhere.

    `__main__` is the script; `__mp_main__` is the same in a process that multiprocessing started.
    """
    if name not in ("__main__", "__mp_main__"):
        return name
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    if spec is not None:  # python -m
        return str(spec.name)
    path = getattr(module, "__file__", None)
    return Path(path).stem if path else "__main__"


def snake_case(name: str) -> str:
    """`ParseHTMLPage` -> `parse_html_page`. Never empty."""
    return _NO_WORD.sub("_", _BOUNDARY.sub("_", name)).strip("_").lower() or "step"


def check_step_name(name: str) -> None:
    """Raise `InvalidSchemaError` unless a step can be given this name."""
    check_id("step name", name)
    if "[" in name or "]" in name:
        raise InvalidSchemaError(f"step name {name!r} has a bracket: those are kept for indexed steps")


def unique_names(namings: Sequence[Naming]) -> list[str]:
    """A name for each, in their order; which name depends on where a step is defined, never on its place here.

    Explicit names are kept. Of several steps with one name of their own, the first by module, place and definition keeps
    it; another one is named after its module or surroundings too (`users_load`), and numbered only if that does not tell
    them apart. Raises `InvalidSchemaError` when two steps were given the same name.
    """
    taken: dict[str, Origin] = {}
    names: dict[int, str] = {}
    for index, naming in enumerate(namings):
        if naming.explicit is not None:
            if naming.explicit in taken:
                raise InvalidSchemaError(f"two steps are named {naming.explicit!r}: give one another name=")
            taken[naming.explicit] = naming.origin
            names[index] = naming.explicit
    rest = [index for index, naming in enumerate(namings) if naming.explicit is None]
    for index in sorted(rest, key=lambda index: namings[index].origin):
        naming = namings[index]
        name = next(name for name in _candidates(naming, taken) if name not in taken)
        taken[name] = naming.origin
        names[index] = name
    return [names[index] for index in range(len(namings))]


def _candidates(naming: Naming, taken: dict[str, Origin]) -> Iterator[str]:
    base, mine = naming.base, naming.origin
    yield base
    first = taken[base]
    if mine.module != first.module:
        yield f"{snake_case(mine.module.rpartition('.')[2])}_{base}"
        yield f"{snake_case(mine.module)}_{base}"
    elif mine.qualname != first.qualname:
        yield "_".join(snake_case(part) for part in mine.qualname.split(".") if part != "<locals>")
    number = 2
    while True:
        yield f"{base}_{number}"
        number += 1

"""`python -m tests.bench.scale`: what a step costs as things grow, and what a system costs that rests; `make scale`.

Costs are CPU time, which what else the machine does changes little; each table is a ratio to its own smallest point,
measured in the same run. Takes half an hour on a machine that is free, `--quick` some minutes. `--only` measures some
sections anew, and leaves the others as they were in `scaling.json`; `--pages` measures nothing and writes the pages from it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from fuseline.bench.places import places
from tests.bench.scale import axes, marks, page, sizing
from tests.bench.scale.axes import Stage
from tests.bench.scale.found import Found, Point
from tests.bench.scale.plan import QUICK, WHOLE, Section
from tests.bench.scale.rest import rest
from tests.bench.scale.start import started
from tests.bench.scale.works import prices

_AXES: Final[dict[Section, Callable[[Stage], Iterator[Point]]]] = {
    Section.WIDTH: axes.widths,
    Section.LENGTH: axes.lengths,
    Section.REGISTERED: axes.registered,
    Section.USED: axes.used,
    Section.FLOOR: axes.floors,
    Section.REPEATED: axes.repeated,
    Section.COORDINATORS: axes.coordinators,
    Section.REST: rest,
}


def measure(section: Section, stage: Stage, found: Found) -> Iterator[str]:
    """Put what a section finds into `found`, and say so."""
    if section is Section.START:
        found.start = started(stage)
        yield str(found.start)
    elif section is Section.WORKS:
        for price in prices(stage):
            found.prices.append(price)
            yield f"{price.work}: {sum(price.cpu_ms.values()):.3f} ms"
    else:
        points = axes.recorded(stage, found) if section is Section.RECORDED else _AXES[section](stage)
        for point in points:
            found.points.append(point)
            yield f"{point.size:,}: {point.total:.3f} ms, {point.memory.peak:.0f} MB"


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale", description=__doc__)
    names = [one.short for one in Section]
    parser.add_argument("--quick", action="store_true", help="a few small points")
    parser.add_argument("--only", action="append", choices=names, help="this section; may be repeated")
    parser.add_argument(
        "--pages", action="store_true", help="measure nothing, write pages from what there is"
    )
    parser.add_argument("--folder", type=Path, default=Path("build/scale"))
    parser.add_argument("--page", type=Path, help="a Markdown page for how it scales")
    parser.add_argument("--sizing", type=Path, help="a Markdown page for what an installation needs")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    file = given.folder / "scaling.json"
    wanted = [] if given.pages else [one for one in Section if not given.only or one.short in given.only]
    found = Found.load(file) if given.pages or given.only else Found()
    found.forget(wanted)
    if wanted:
        with places(None, None) as where:
            stage = Stage(QUICK if given.quick else WHOLE, where, given.folder)
            for section in wanted:
                for told in measure(section, stage, found):
                    print(f"{section}: {told}", file=sys.stderr, flush=True)
                    found.save(file)
    for path, name, text in (
        (given.page, "scale", page.shown),
        (given.sizing, "sizing", sizing.shown),
    ):
        if path is not None:
            marks.write(path, name, text(found))
    print(page.shown(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())

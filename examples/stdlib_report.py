"""The workflow of `make demo`, in one process and without any broker.

    python examples/stdlib_report.py [folder for the report [folder with code, instead of the standard library ...]]

Its source is `src/fuseline/examples/stdlib_report`; `fuseline worker fuseline.examples.stdlib_report:stdlib_report`
executes it anywhere.
"""

from __future__ import annotations

import sys

from fuseline.examples.stdlib_report import stdlib_report

if __name__ == "__main__":
    folder, *roots = sys.argv[1:] or ["build/stdlib-report"]
    written = stdlib_report.run({"folder": folder, "roots": roots} if roots else {"folder": folder})
    print(f"{written.files} files, {written.broken} of which do not parse: {written.html}")

"""`python -m fuseline`."""

from __future__ import annotations

from fuseline.cli.main import main

if __name__ == "__main__":
    main()

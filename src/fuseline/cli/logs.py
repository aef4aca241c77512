"""Where log records go: to stderr, one line each, so that stdout stays for what a command answers."""

from __future__ import annotations

import logging
import sys

_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def configure_logging(level: str) -> None:
    """Log `level` ("debug", "info", ...) and worse; of libraries that talk much only what is news."""
    logging.basicConfig(level=level.upper(), format=_FORMAT, stream=sys.stderr, force=True)
    if level == "debug":
        return
    for name in ("aio_pika", "httpx", "alembic", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # They report each refusal and each lost connection as an error, also those that were expected and dealt with. What
    # matters of it our own records and errors say.
    for name in ("pika", "aiormq"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

"""The HTTP service over any broker. Needs the extra `web`."""

from fuseline.web.app import create_app

__all__ = ["create_app"]

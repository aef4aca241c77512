"""Options that many commands share, defined once, and the settings that come of them.

    @app.command()
    @command("amqp_url", "prefix")
    def show(settings: Settings, name: str) -> None: ...

gives `show` the options `--amqp-url`, `--prefix`, `--log-level` and `--debug` besides its own, and calls it with the
settings: an option wins over the environment (`FUSELINE_...`), which wins over the defaults.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeAlias

import typer

from fuseline.cli.failing import failing
from fuseline.cli.logs import configure_logging
from fuseline.settings import Settings

_PANEL: Final = "Common options"

Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Answer as JSON, for programs.")]
"""`--json`, for everything that lists or shows."""

Embedded: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--embedded", help="Without RabbitMQ and coordinator: look into the database of an embedded broker."
    ),
]
"""`--embedded`, for what can be answered by an embedded broker's database alone."""

BROKER: Final = ("amqp_url", "http_url", "database_url", "prefix", "call_seconds")
"""Settings of commands that talk to a broker; which one is `wiring.open_broker`'s choice."""


def _option(
    field: str, metavar: str, text: str, *, kind: Any = str, name: str | None = None
) -> tuple[str, Any]:
    shown = f"{text} [dim]\\[env: FUSELINE_{field.upper()}][/dim]"
    name = name or f"--{field.replace('_', '-')}"
    return field, Annotated[
        kind | None,
        typer.Option(name, help=shown, metavar=metavar, rich_help_panel=_PANEL, show_default=False),
    ]


_OPTIONS: Final = dict(
    [
        _option("amqp_url", "URL", "RabbitMQ: amqp://user:password@host/vhost, several with commas between."),
        _option("database_url", "URL", "sqlite:///file or postgresql://user@host/database."),
        _option("http_url", "URL", "A Fuseline HTTP service, in RabbitMQ's place."),
        _option("prefix", "NAME", "What the names of all exchanges and queues begin with."),
        _option("queue_type", "TYPE", "quorum or classic, for good."),
        _option("host", "HOST", "Where to listen."),
        _option("port", "PORT", "Where to listen.", kind=int),
        _option("call_seconds", "SECONDS", "Deadline of one call.", kind=float),
        _option("log_level", "LEVEL", "debug, info, warning or error."),
    ]
)
_DEBUG: Final = Annotated[
    bool, typer.Option("--debug", help="Show where an error comes from.", rich_help_panel=_PANEL)
]


def command(*fields: str, log_level: str = "warning") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command function options for `fields` of `Settings`, and its errors their line and exit code.

    The function's parameter `settings` receives them. `log_level` holds where neither option nor environment say more.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        wanted = [*fields, "log_level"]

        @functools.wraps(function)
        def run(*, debug: bool = False, **arguments: Any) -> None:
            given = {field: arguments.pop(field) for field in wanted}
            with failing(debug=debug):
                settings = Settings(**{name: value for name, value in given.items() if value is not None})
                said = "log_level" in settings.model_fields_set
                configure_logging(settings.log_level if said else log_level)
                function(settings=settings, **arguments)

        # Typer reads the signature, so the shared options are written into it.
        signature = inspect.signature(function, eval_str=True)
        own = [one for name, one in signature.parameters.items() if name != "settings"]
        shared = {field: (_OPTIONS[field], None) for field in wanted} | {"debug": (_DEBUG, False)}
        parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own] + [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
            for name, (kind, default) in shared.items()
        ]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # typeshed lacks it
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return decorate

"""A command module whose import needs an extra, for test_main."""

import fastapi
import typer

app = typer.Typer(add_completion=False)


@app.command()
def serve() -> None:
    """Never gets here in the test."""
    typer.echo(fastapi.__version__)

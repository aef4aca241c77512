"""A workflow to try the installation with; put your own beside it, or build an image that has them."""

from fuseline import Depends, Workflow, step


@step
def greet(name: str) -> str:
    """Say hello."""
    return f"Hello, {name}"


@step
def shout(greeting: str = Depends(greet)) -> str:
    """Say it loudly."""
    return greeting.upper()


hello = Workflow(outputs=[shout], workflow_id="hello", version="1")

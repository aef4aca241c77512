"""A chain: each step gets the result of the one before.

python examples/hello.py
fuseline worker examples/hello.py:hello
fuseline dispatch examples/hello.py:hello name=Ada --wait
"""

from __future__ import annotations

from fuseline import Depends, Workflow, step


@step
def greet(name: str = "world") -> str:
    """`name` is an input of the run."""
    return f"hello {name}"


@step
def shout(greeting: str = Depends(greet)) -> str:
    return greeting.upper()


@step
def sign(loud: str = Depends(shout)) -> str:
    return f"{loud}!"


hello = Workflow(outputs=[sign], workflow_id="hello", version="1")

if __name__ == "__main__":
    print(hello.run({"name": "Ada"}))

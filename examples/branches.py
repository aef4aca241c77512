"""A branch that joins again: an order is paid by card or by invoice, and shipped when either is done.

python examples/branches.py
"""

from __future__ import annotations

from dataclasses import dataclass

from fuseline import Branch, Depends, Workflow, step


@dataclass
class Order:
    """What the steps hand on: JSON on the way, this again where a parameter is annotated with it."""

    number: int
    amount: float


@step
def check(number: int, amount: float) -> Branch:
    """Chooses an edge out by its name; its successors get the value."""
    order = Order(number, amount)
    return Branch("invoice" if amount > 1000 else "card", order)


@step
def charge_card(order: Order = Depends(check)) -> str:
    return f"order {order.number}: {order.amount:.2f} charged"


@step
def send_invoice(order: Order = Depends(check)) -> str:
    return f"order {order.number}: invoice over {order.amount:.2f} sent"


@step
def ship(paid: str = Depends(charge_card, send_invoice)) -> str:
    """Waits for whichever comes; the branch that was not taken is SKIPPED and holds up nothing."""
    return f"{paid}; shipped"


(check - "card") >> charge_card
(check - "invoice") >> send_invoice

orders = Workflow(outputs=[ship], workflow_id="orders", version="1")

if __name__ == "__main__":
    print(orders.run({"number": 1, "amount": 20}))
    print(orders.run({"number": 2, "amount": 5000}))

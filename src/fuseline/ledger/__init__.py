"""One transaction for a batch of events: load what they touch, decide on each, save all, commit once.

The memory broker and the coordinator both work through a `Ledger`; what comes out of it is what the outside must do
then. Nothing goes out before the commit (P2, P4).
"""

from fuseline.ledger.book import Begun, Ledger
from fuseline.ledger.items import Dispatch, Occurrence, Outcome
from fuseline.ledger.letters import DeadLetters
from fuseline.ledger.runs import LedgerRun, PrivateRun, RunBook

__all__ = [
    "Begun",
    "DeadLetters",
    "Dispatch",
    "Ledger",
    "LedgerRun",
    "Occurrence",
    "Outcome",
    "PrivateRun",
    "RunBook",
]

"""The real system on simulated machines: `python -m fuseline.testing.simulation --seeds 1000`.

The engine, the ledger, the coordinator, the worker's leases and attempts, and the link to RabbitMQ are the ones that run
in production. Simulated are RabbitMQ's end of the sockets, the database's failures, the clock and the bodies of steps.
One seed decides everything, so that a failing one can be replayed.
"""

from fuseline.testing.simulation.plants import PLANTS
from fuseline.testing.simulation.run import Result, Summary, first_failure, run_seeds, simulate

__all__ = ["PLANTS", "Result", "Summary", "first_failure", "run_seeds", "simulate"]

"""The floor: the least code that does the works and keeps P1 to P4, to hold Fuseline's figures against.

A coordinator (which dispatches as well) and workers, over quorum queues (one of assignments for each workflow of a work, one
of reports), with persistent messages and confirms. A
worker acknowledges an assignment when its report is confirmed. The coordinator commits the reports that it has to
PostgreSQL, publishes what follows, and acknowledges the reports when that is confirmed. There are no leases, deadlines,
schemas, retries after a pause, views or events: what a product does besides is the distance from these figures.
"""

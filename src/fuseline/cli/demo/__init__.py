"""`fuseline demo`: the example workflow, embedded or with everything that a real installation has."""

"""The command line. `main` names the commands, `wiring` alone picks a storage and a broker for them."""

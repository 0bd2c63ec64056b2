"""The machine that the launcher runs on: processes, waiting, the terminal, what is kept for the user."""

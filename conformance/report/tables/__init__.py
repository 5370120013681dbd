"""The tables that commands print and pages show: changes, own checkpoints, releases."""

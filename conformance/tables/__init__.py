"""The cases, one table a stage."""

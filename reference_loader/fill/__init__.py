"""Carry out the plan: read, cast, place, tie, offload."""

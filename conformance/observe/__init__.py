"""Run a loader and note the facts, without judging them."""

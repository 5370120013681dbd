"""Run a loader and note the facts: no verdict is made here."""

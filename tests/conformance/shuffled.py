"""A pytest plugin for tests/conformance/test_stability.py: items in the order of a seed."""

from __future__ import annotations

import os
import random

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every worker of pytest-xdist shuffles alike, as it demands."""
    random.Random(os.environ["SHUFFLED_BY"]).shuffle(items)

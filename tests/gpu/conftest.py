"""What the tests on a GPU share: a session, a model of some size, and what the GPU holds."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from conformance.judge.session import Session, open_session
from conformance.world.gpus import described
from conformance_fixtures.llama2_7b import written
from conformance_fixtures.llama2_7b_geometry import Geometry

# 84 MB in float16: large enough that a copy too many would show.
MEDIUM = Geometry(layers=2, hidden=1024, intermediate=2816, heads=8, vocabulary=8192)


@pytest.fixture(scope="session")
def on_the_gpu(record_testsuite_property: Callable[[str, object], None]) -> Session:
    """Stock, warmed up; the GPU's libraries told to give the same bits every time."""
    record_testsuite_property("device", described("cuda"))
    return open_session("stock", "cuda")


@pytest.fixture(scope="session")
def medium(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of `MEDIUM`, as safetensors and pickled."""
    return written(tmp_path_factory.mktemp("medium") / "checkpoint", MEDIUM, pickled=True)


@pytest.fixture
def held() -> Callable[[], int]:
    """`held()`: bytes of tensors on the first GPU once what nobody refers to is gone.

    What was asked for: a block of the allocator may be larger than the tensor in it.
    """

    def count() -> int:
        gc.collect()
        torch.cuda.synchronize()
        return int(torch.cuda.memory_stats(0)["requested_bytes.all.current"])

    return count

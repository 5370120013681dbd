"""What surrounds a load: set as asked, and gone afterwards."""

from __future__ import annotations

import signal
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from conformance.cases.case import Case
from conformance.cases.catalogue import CASES
from conformance.observe.loaders import reference
from conformance.observe.observe import observe
from conformance.world.process import SURROUNDINGS, process_state, surrounded
from conformance.world.snapshot import Snapshot

# What each makes of a tensor that is made under it.
MADE = {
    "default-dtype-bfloat16": lambda made: made.dtype == torch.bfloat16,
    "default-dtype-float64": lambda made: made.dtype == torch.float64,
    "no-grad": lambda made: not (made + nn.Parameter(torch.ones(1))).requires_grad,
    "inference-mode": lambda made: made.is_inference(),
    "default-device-meta": lambda made: made.is_meta,
    "device-meta": lambda made: made.is_meta,
}


def test_every_surrounding_is_looked_at() -> None:
    # On the CPU is where tensors are anyway; the others have tests of their own.
    assert set(SURROUNDINGS) - set(MADE) <= {
        *("device-cpu", "disk-full", "unprivileged", "own-module-cache")
    }


@pytest.mark.parametrize("name", MADE)
def test_a_surrounding_is_in_force_and_gone_afterwards(name: str) -> None:
    library = Snapshot()
    before = process_state(library)

    with surrounded((name,)):
        assert MADE[name](torch.ones(1))
    assert not MADE[name](torch.ones(1))

    assert process_state(library) == before


def test_a_surrounding_is_gone_after_an_error_too() -> None:
    before = process_state(Snapshot())

    for name in SURROUNDINGS:
        with pytest.raises(KeyError), surrounded((name,)):
            raise KeyError

    assert process_state(Snapshot()) == before


def test_code_of_a_checkpoint_is_copied_to_a_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "code_of_test.py").write_text("class Coded: pass\n")
    path = list(sys.path)

    with surrounded(("own-module-cache",)):
        found = get_class_from_dynamic_module("code_of_test.Coded", tmp_path)
        held = Path(sys.modules[found.__module__].__file__ or "")

    assert not held.exists() and sys.path == path
    assert found.__module__ not in sys.modules


def test_several_surround_at_once() -> None:
    with surrounded(("default-dtype-float64", "device-meta")):
        made = torch.ones(1)

    assert (made.dtype, made.is_meta) == (torch.float64, True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_case_names_surroundings_that_there_are(case: Case) -> None:
    assert set(case.under) <= set(SURROUNDINGS)
    assert case.threads >= 1


def test_a_replaced_function_is_named_and_put_back() -> None:
    library = Snapshot()
    originals = nn.Module.register_buffer, torch.linspace

    nn.Module.register_buffer = lambda *given: None  # type: ignore[method-assign, assignment]
    torch.linspace = torch.arange
    assert library.replaced() == [
        "torch.linspace",
        "torch.nn.modules.module.Module.register_buffer",
    ]

    library.put_back()
    assert (nn.Module.register_buffer, torch.linspace) == originals
    assert library.replaced() == []


def test_a_changed_variable_is_named_and_its_value_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TO_BE_GONE", "1")
    library = Snapshot()

    monkeypatch.delenv("TO_BE_GONE")
    monkeypatch.setenv("A_SECRET", "hunter2")

    assert library.variables() == ["A_SECRET", "TO_BE_GONE"]
    assert process_state(library)["environment"] == ["A_SECRET", "TO_BE_GONE"]
    assert Snapshot().variables() == []


def test_the_default_dtype_is_no_replaced_function() -> None:
    library = Snapshot()

    with surrounded(("default-dtype-bfloat16",)):
        assert library.replaced() == []


def test_code_of_a_checkpoint_is_not_looked_for_where_other_code_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = types.ModuleType("transformers_modules")
    monkeypatch.setitem(sys.modules, "transformers_modules", elsewhere)
    with surrounded(("own-module-cache",)):
        assert "transformers_modules" not in sys.modules
    assert sys.modules["transformers_modules"] is elsewhere


def test_code_of_a_checkpoint_is_not_looked_for_on_the_path_of_an_earlier_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "transformers_modules").mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    with surrounded(("own-module-cache",)):
        assert str(tmp_path) not in sys.path
    assert str(tmp_path) in sys.path


def test_a_case_of_an_interrupt_is_one_in_a_background_job_too(case: Callable[[str], Case]) -> None:
    """A shell starts a background job with interrupts ignored, and Python leaves them so."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        seen = observe(case("sta/interrupted"), reference).observation
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)

    assert seen.exception is not None
    assert seen.exception["types"][0] == "KeyboardInterrupt"

"""Loads in several threads: what is torn is seen every time, what is whole never objected to."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from conformance.cases.case import Case
from conformance.judge.checks import objections
from conformance.observe.loaders import reference
from conformance.observe.observe import observe
from conformance.world.threads import how_it_differs, load_in_threads, meet

COUNT = 4
SWITCH = {"on": False}
CONSTRUCT = nn.Module.__init__


@pytest.fixture(autouse=True)
def _switched_off() -> Iterator[None]:
    SWITCH["on"] = False
    yield
    SWITCH["on"] = False


def torn() -> dict[str, bool]:
    """Saves, sets and puts back what all threads share."""
    before, SWITCH["on"] = SWITCH["on"], True
    meet()
    result = {"on": SWITCH["on"]}
    SWITCH["on"] = before
    return result


def whole() -> dict[str, bool]:
    """Holds what it needs itself."""
    meet()
    return {"on": True}


def together(load: Callable[[], Any]) -> tuple[Any, dict[int, str]]:
    """The result, and the threads whose loads differ from the load alone, and how."""
    result, threads = load_in_threads(COUNT, load, lambda result: result)
    assert [(each["thread"], each["of"]) for each in threads] == [(n, COUNT) for n in (1, 2, 3, 4)]
    told = {each["thread"]: how_it_differs(each) for each in threads}
    return result, {thread: text for thread, text in told.items() if text}


@pytest.mark.parametrize("_again", range(20))
def test_a_torn_switch_is_seen_every_time_and_by_the_same_thread(_again: int) -> None:
    result, differing = together(torn)

    assert result == {"on": False}
    assert min(differing) == 2
    assert differing[2] == "1 of 1 tensors differ, the first on"
    assert SWITCH["on"], "the last to leave puts back what the one before it had set"


@pytest.mark.parametrize("_again", range(20))
def test_the_loads_of_any_model_class_meet_in_its_constructor(_again: int) -> None:
    """Without a schedule the loads of a user's own model met by chance: the verdict was a race."""

    def building() -> dict[str, bool]:
        before, SWITCH["on"] = SWITCH["on"], True
        nn.Linear(1, 1)
        result = {"on": SWITCH["on"]}
        SWITCH["on"] = before
        return result

    result, differing = together(building)

    assert (result, min(differing)) == ({"on": False}, 2)
    assert nn.Module.__init__ is CONSTRUCT


@pytest.mark.parametrize("_again", range(5))
def test_a_load_that_shares_nothing_is_not_objected_to(_again: int) -> None:
    assert together(whole) == ({"on": True}, {})


@pytest.mark.parametrize("held_for", ["the build", "two builds"])
def test_a_loader_that_builds_one_model_at_a_time_is_not_held_up(held_for: str) -> None:
    lock = threading.RLock()

    def serial() -> dict[str, bool]:
        for _ in range(1 + (held_for == "two builds")):
            with lock:
                result = torn()
        return result

    assert together(serial) == ({"on": True}, {})
    assert not SWITCH["on"]


def test_a_load_that_never_comes_to_the_meeting_is_not_waited_for() -> None:
    calls = iter(range(100))

    def some() -> dict[str, bool]:
        return whole() if next(calls) % 2 else {"on": True}

    assert together(some) == ({"on": True}, {})


def test_the_numbers_drawn_alone_are_drawn_again() -> None:
    torch.manual_seed(1)
    expected = torch.get_rng_state()
    seen: list[torch.Tensor] = []

    def drawing() -> dict[str, bool]:
        seen.append(torch.get_rng_state())
        torch.rand(1)
        return {}

    together(drawing)

    assert torch.equal(seen[0], expected)
    assert any(torch.equal(state, expected) for state in seen[1:])


def test_what_one_thread_raises_is_noted_and_returned() -> None:
    def failing() -> dict[str, bool]:
        if torn() == {"on": False}:
            raise KeyError("lm_head.weight")
        return {"on": True}

    result, differing = together(failing)

    assert isinstance(result, KeyError)
    assert min(differing) == 2
    assert differing[2] == "KeyError: 'lm_head.weight'"


def test_a_case_of_one_thread_is_a_plain_load(case: Callable[[str], Case]) -> None:
    threads: list[int] = []

    def load(*args: Any, **options: Any) -> Any:
        threads.append(threading.get_ident())
        return reference(*args, **options)

    seen = observe(case("res/single"), load).observation

    assert threads == [threading.get_ident()]
    assert seen.threads == ()


# --- a case ---


@pytest.fixture
def threads_case(case: Callable[[str], Case]) -> Case:
    return case("sta/threads")


def test_the_reference_is_whole(threads_case: Case) -> None:
    found = observe(threads_case, reference).observation

    assert [how_it_differs(each) for each in found.threads] == [""] * 8
    assert objections(threads_case, found) == ()
    assert found.state["before"] == found.state["after"]


def test_a_loader_that_lends_a_function_of_torch_is_found_out(threads_case: Case) -> None:
    """As 4.51 to 4.57 build a model: a replaced function sends its parameters to meta."""
    right = reference(threads_case.model_class(), str(threads_case.source()))

    def lending(model_class: Any, source: str, **options: Any) -> nn.Module:
        model = copy.deepcopy(right)
        before = nn.Module.register_parameter

        def to_meta(self: nn.Module, name: str, parameter: Any) -> None:
            before(
                self,
                name,
                None if parameter is None else nn.Parameter(parameter.detach().to("meta")),
            )

        nn.Module.register_parameter = to_meta  # type: ignore[method-assign, assignment]
        meet()
        nn.Module.register_parameter = before  # type: ignore[method-assign]
        model.lm_head = nn.Linear(32, 128, bias=False)  # a module that is made afterwards
        nn.init.ones_(model.lm_head.weight)
        return model

    found = observe(threads_case, lending).observation

    assert found.state["after"]["library"] == ["torch.nn.modules.module.Module.register_parameter"]
    broken = [d for d in objections(threads_case, found) if d.clause == "STA-3"]
    assert [(d.kind, d.where) for d in broken] == [("values", "thread 2 of 8")]
    assert found.tensors["lm_head.weight"]["device"] == "meta"
    assert nn.Linear(1, 1).weight.device.type == "cpu", "it is put back"

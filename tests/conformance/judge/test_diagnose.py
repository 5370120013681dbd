"""The numbers that explain a divergence, checked by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from conformance.cases.case import Case
from conformance.judge.diagnose import difference, explain, first_difference
from conformance.judge.session import Session, judge
from conformance.mutants import MUTANTS
from conformance.observe.observe import observe
from conformance.results.records import Divergence

NAN, INF = torch.nan, torch.inf


def test_how_many_how_far_and_where() -> None:
    expected = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 8.0]])
    actual = torch.tensor([[1.0, 2.5, 3.0], [4.0, 5.0, 7.0]])

    assert difference(expected, actual) == (
        "2 of 6 elements; at most 1 absolute, at [1, 2]: 8 became 7; 0.25 relative"
    )


def test_the_sign_of_the_gap_does_not_matter() -> None:
    text = difference(torch.tensor([-4.0, 1.0]), torch.tensor([-1.0, 2.0]))

    assert text == "2 of 2 elements; at most 3 absolute, at [0]: -4 became -1; 1 relative"


def test_one_ulp_is_told() -> None:
    one = torch.tensor([1.0, 1.0])
    other = one.clone()
    other[1] = torch.nextafter(one[1], torch.tensor(INF))

    text = difference(one, other)

    assert text.startswith("1 of 2 elements; at most 1.19e-07 absolute, at [1]: 1 became 1.0000001")


def test_sixteen_bit_numbers_are_compared_without_rounding() -> None:
    expected = torch.tensor([256.0, 1.0], dtype=torch.bfloat16)
    actual = torch.tensor([258.0, 1.0], dtype=torch.bfloat16)

    assert difference(expected, actual).startswith("1 of 2 elements; at most 2 absolute, at [0]")


def test_a_number_in_place_of_nan_is_the_worst_there_is() -> None:
    text = difference(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([9.0, NAN, 3.0]))

    assert text.startswith("2 of 3 elements")
    assert "at [1]: 2 became nan" in text


def test_nan_in_both_is_no_difference_in_value() -> None:
    pair = torch.tensor([NAN, 1.0]), torch.tensor([NAN, 2.0])

    assert difference(*pair).startswith("1 of 2 elements; at most 1 absolute, at [1]")
    assert difference(pair[0], pair[0].clone()) == "equal in value, not in bits"


def test_zeros_of_both_signs_are_equal_in_value() -> None:
    pair = torch.tensor([0.0]), torch.tensor([-0.0])

    assert difference(*pair) == "equal in value, not in bits"


def test_scalars_empty_tensors_and_integers_have_numbers_too() -> None:
    assert "at []: 1 became 2" in difference(torch.tensor(1.0), torch.tensor(2.0))
    assert difference(torch.zeros(0, 2), torch.zeros(0, 2)) == "equal in value, not in bits"
    assert "at [1]: 2 became 5" in difference(torch.tensor([1, 2]), torch.tensor([1, 5]))


def test_the_elements_of_a_transposed_tensor_keep_their_places() -> None:
    expected = torch.arange(1.0, 7.0).reshape(2, 3).t()
    actual = expected.contiguous()
    actual[2, 0] += 1

    assert "at [2, 0]: 3 became 4" in difference(expected, actual)


def test_a_relative_difference_from_zero_is_told_as_such() -> None:
    text = difference(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 1.0]))

    assert "inf relative" in text or "relative" not in text


@pytest.mark.parametrize(
    "pair",
    [
        (torch.zeros(2), torch.zeros(3)),
        (torch.zeros(2), torch.zeros(2, device="meta")),
        (torch.zeros(2, device="meta"), torch.zeros(2)),
    ],
)
def test_what_cannot_be_held_against_each_other_has_no_numbers(pair: Any) -> None:
    assert difference(*pair) == ""


class Net(nn.Module):
    """Runs its modules in another order than it names them."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(2, 2)
        self.middle = nn.Linear(2, 2)
        self.first = nn.Linear(2, 2)
        for number, module in enumerate((self.first, self.middle, self.last), start=1):
            nn.init.constant_(module.weight, 0.1 * number)
            nn.init.constant_(module.bias, 0.0)

    def forward(self, x: torch.Tensor, **wanted: Any) -> dict[str, torch.Tensor]:
        return {"y": self.last(self.middle(self.first(x)))}


INPUTS = {"x": torch.tensor([[1.0, 2.0]])}


@pytest.mark.parametrize(
    ("spoiled", "wanted"),
    [
        ((), "none"),
        (("first",), "first"),
        (("last", "middle"), "middle"),
        (("last",), "last"),
        (("last", "first", "middle"), "first"),
    ],
)
def test_the_first_module_is_the_first_that_runs(spoiled: tuple[str, ...], wanted: str) -> None:
    right, wrong = Net(), Net()
    for name in spoiled:
        nn.init.constant_(getattr(wrong, name).bias, 1.0)

    assert first_difference(right, wrong, INPUTS) == wanted


def test_a_model_that_fails_halfway_or_runs_on_is_told() -> None:
    right, wrong = Net(), Net()
    wrong.middle = nn.Linear(3, 3)

    assert first_difference(right, wrong, INPUTS) == "one model runs more modules"


def test_tracing_leaves_no_hook() -> None:
    right, wrong = Net(), Net()
    first_difference(right, wrong, INPUTS)

    assert not any(module._forward_hooks for model in (right, wrong) for module in model.modules())


def test_a_divergence_of_a_case_gets_its_numbers(
    session: Session, judging: Callable[..., Session], case: Callable[[str], Case]
) -> None:
    result = judge(case("res/single"), judging(MUTANTS["one_ulp_off"].loader))

    details = {divergence.where: divergence.detail for divergence in result.divergences}
    assert details["model.norm.weight"].startswith("1 of 32 elements; at most ")
    assert "at [0]:" in details["model.norm.weight"]
    assert "the first module whose output differs: model.norm" in details["logits"]
    assert "absolute" in details["logits"]


def test_other_kinds_need_no_numbers_and_no_second_load(
    monkeypatch: pytest.MonkeyPatch, case: Callable[[str], Case]
) -> None:
    from conformance.judge import diagnose

    def never(*args: Any) -> None:
        raise AssertionError("loaded once more")

    monkeypatch.setattr(diagnose, "observe", never)
    found = [Divergence("training", "model", False, True)]

    assert explain(case("res/single"), found, Net()) == tuple(found)
    assert explain(case("res/single"), [Divergence("values", "a", 1, 2)], None)[0].detail == ""


def test_greedy_tokens_that_differ_are_explained_by_the_first_module(
    judging: Callable[..., Session], case: Callable[[str], Case]
) -> None:
    def flipped(model_class: Any, source: str, **options: Any) -> Any:
        from conformance.observe.loaders import reference

        model, info = reference(model_class, source, **options)
        model.lm_head.weight.data.neg_()
        return model, info

    chosen = case("out/f32-3")
    actual = observe(chosen, flipped).model

    (told,) = explain(chosen, [Divergence("output", "tokens", [1], [2])], actual)

    assert told.detail == "the first module whose output differs: lm_head"

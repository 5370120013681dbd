"""The absolute checks: each is silent on a right model and objects to a spoiled one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from conformance.cases.case import ACCEPTABLE, INVALID, VALID, Case, OnHub
from conformance.judge import session as run
from conformance.judge.checks import CHECKS
from conformance.judge.checks import objections as check
from conformance.judge.session import judge
from conformance.observe.loaders import reference
from conformance.observe.observe import observe
from conformance.observe.usage import EXPERIMENTS, SAVING
from conformance.results.records import Divergence, Observation
from conformance.spec import clauses
from reference_loader.errors import BadIndex

EMBEDDING = "model.embed_tokens.weight"
Spoil = Callable[[Any, Any], Any]
MIXTRAL = {"model": "transformers:MixtralForCausalLM"}


@dataclass(frozen=True)
class Trial:
    """One way to break what a check holds: the case, the damage, and what must be said of it."""

    clause: str
    spoil: Spoil
    kind: str
    where: str
    recipe: str = "llama-f32"
    options: dict[str, Any] = field(default_factory=dict)

    def case(self) -> Case:
        return Case("tests/trial", (self.clause,), self.recipe, **self.options)


def one_ulp(model: Any, info: Any) -> None:
    weight = model.model.norm.weight.data
    weight[3] = torch.nextafter(weight[3], torch.tensor(torch.inf))


def halves_swapped(model: Any, info: Any) -> None:
    weight = model.model.layers[1].mlp.gate_up_proj.weight.data
    weight.copy_(torch.cat(weight.chunk(2)[::-1]))


def rounded(model: Any, info: Any) -> None:
    model.model.norm.weight.data = model.model.norm.weight.data.bfloat16().float()


def untied(model: Any, info: Any) -> None:
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())


def tied(model: Any, info: Any) -> None:
    model.lm_head.weight = model.model.embed_tokens.weight


def wide_rotary(model: Any, info: Any) -> None:
    model.model.rotary_emb.inv_freq = model.model.rotary_emb.inv_freq.double()


def wrong_rotary(model: Any, info: Any) -> None:
    model.model.rotary_emb.inv_freq[1] *= 1 + 1e-5


def without_rotary(model: Any, info: Any) -> None:
    model.model.rotary_emb.inv_freq = None


def half_rotary(model: Any, info: Any) -> None:
    model.model.rotary_emb.inv_freq = model.model.rotary_emb.inv_freq.half()


def without_scale(model: Any, info: Any) -> None:
    model.scale = None


def reshaped(model: Any, info: Any) -> None:
    model.model.norm.weight.data = model.model.norm.weight.data.reshape(1, 32)


def in_a_matrix(model: Any, info: Any) -> None:
    weight = model.model.norm.weight
    weight.data = weight.data.repeat(2, 1)[0]


def for_inference(model: Any, info: Any) -> None:
    with torch.inference_mode():
        model.model.norm.weight = nn.Parameter(model.model.norm.weight.clone())


def uniform_head(model: Any, info: Any) -> None:
    bound = 3**0.5 * model.config.initializer_range
    model.lm_head.weight.data.uniform_(-bound, bound)


def headless(model: Any, info: Any) -> None:
    del model.lm_head


def other_scale(model: Any, info: Any) -> None:
    model.scale[5] += 1


def thawed(model: Any, info: Any) -> None:
    model.model.embed_tokens.weight.requires_grad = True


def unwritten(model: Any, info: Any) -> None:
    model.model.norm.weight.data[0] = torch.nan


def unwritten_buffer(model: Any, info: Any) -> None:
    model.model.rotary_emb.inv_freq[0] = torch.nan


def on_meta(model: Any, info: Any) -> None:
    model.model.norm.weight = nn.Parameter(torch.empty(32, device="meta"))


def zero_head(model: Any, info: Any) -> None:
    model.lm_head.weight.data.zero_()


def wide_head(model: Any, info: Any) -> None:
    model.lm_head.weight.data *= 1.5


def shifted_head(model: Any, info: Any) -> None:
    model.lm_head.weight.data += 0.01


def negated_head(model: Any, info: Any) -> None:
    model.lm_head.weight.data *= -1


def untwinned(model: Any, info: Any) -> None:
    model.twin.weight = nn.Parameter(model.twin.weight.detach().clone())


def expert_shifted(model: Any, info: Any) -> None:
    merged = model.model.layers[0].mlp.experts.down_proj
    merged.data = merged.data.roll(1, dims=0)


def splits(model: Any, info: Any) -> None:
    model.hf_device_map = {**model.hf_device_map, "model.layers.0.mlp": "cpu"}


def widens(model: Any, info: Any) -> None:
    model.model.embed_tokens.double()
    model.model.layers[0].double()


def zero_norms(model: Any, info: Any) -> None:
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data.zero_()


def draws(model: Any, info: Any) -> None:
    torch.rand(1)


def lists(model: Any, info: Any) -> None:
    info.update({name: list(found) for name, found in info.items()})


def complains(model: Any, info: Any) -> None:
    info["error_msgs"].append("size mismatch")


def stretched(model: Any, info: Any) -> None:
    model.model.norm.weight.data *= 1.001


def copied(model: Any, info: Any) -> None:
    model.model.norm.weight.data = model.model.norm.weight.data.clone()


def keeps_a_mapping(model: Any, info: Any) -> None:
    weights = Path(model.config.name_or_path) / "model.safetensors"
    model.kept = torch.UntypedStorage.from_file(str(weights), False, weights.stat().st_size)


def trains(model: Any, info: Any) -> None:
    model.model.layers[1].training = True


HEAD = "lm_head.weight"
NORM = "model.norm.weight"
FREQUENCIES = "model.rotary_emb.inv_freq"
MISSING_HEAD = {"faults": ("missing-head",)}
WITH_BUFFER = {"model": "conformance.world.user_models:WithBuffer"}
T5 = "transformers:T5ForConditionalGeneration"
WITH_TWIN = "conformance.world.user_models:WithTwin"
SHORT_HEAD = {"faults": ("short-head",), "options": {"ignore_mismatched_sizes": True}}
BUDGETED = {"options": {"device_map": "auto", "max_memory": {"cpu": 100_000}}}
MODEL_ON_DISK = {"options": {"device_map": {"model": "disk", "lm_head": "cpu"}}}
TRIALS = [
    *(
        Trial(f"OFF-{number}", shifted_head, "output", "logits", options=MODEL_ON_DISK)
        for number in (1, 2, 3, 4, 5, 8)
    ),
    Trial(
        "CNV-1",
        expert_shifted,
        "values",
        "model.layers.0.mlp.experts.down_proj",
        "mixtral",
        options=MIXTRAL,
    ),
    Trial(
        "CNV-5",
        expert_shifted,
        "values",
        "model.layers.0.mlp.experts.down_proj",
        "mixtral",
        options=MIXTRAL | {"faults": ("experts-merged",)},
    ),
    Trial(
        "CNV-6",
        expert_shifted,
        "values",
        "model.layers.0.mlp.experts.down_proj",
        "mixtral",
        options=MIXTRAL
        | {
            "faults": ("experts-by-other-names",),
            "options": {"key_mapping": {r"\.gate_proj\.": ".w1."}},
        },
    ),
    Trial(
        "CNV-7",
        halves_swapped,
        "values",
        "model.layers.1.mlp.gate_up_proj.weight",
        options={
            "model": "conformance.world.user_shapes:WithFusedMlp",
            "faults": ("unknown-type",),
        },
    ),
    Trial("CNV-8", headless, "output", "(check)", "mixtral", options=MIXTRAL),
    Trial("PLC-6", splits, "device-map", "model.layers.0.mlp", options=BUDGETED),
    Trial("PLC-8", widens, "device", "cpu", options=BUDGETED),
    Trial("MAP-1", one_ulp, "values", NORM),
    Trial("MAP-1", one_ulp, "values", NORM, "llama-f32-3"),
    Trial("MAP-1", reshaped, "shape", NORM),
    Trial("DTY-8", half_rotary, "dtype", FREQUENCIES),
    Trial("FMT-13", in_a_matrix, "tie", NORM),
    Trial("STA-4", for_inference, "requires_grad", NORM),
    Trial("TIE-4", headless, "tie", "(check)", "llama-tied-separate"),
    Trial("OUT-2", headless, "output", "(check)"),
    Trial("DTY-7", rounded, "values", NORM),
    Trial("INI-1", wide_rotary, "dtype", FREQUENCIES),
    Trial("INI-1", wrong_rotary, "values", FREQUENCIES, "llama-old-config"),
    Trial("INI-1", without_rotary, "values", "inv_freq"),
    Trial("INI-2", other_scale, "values", "scale", options=WITH_BUFFER),
    Trial("INI-2", without_scale, "values", "scale", options=WITH_BUFFER),
    Trial(
        "INI-3",
        thawed,
        "requires_grad",
        EMBEDDING,
        options={"model": "conformance.world.user_models:WithFrozenEmbedding"},
    ),
    Trial(
        "INI-8",
        other_scale,
        "values",
        "scale",
        options={"model": "conformance.world.user_models:WithPersistentBuffer"},
    ),
    Trial("INI-4", unwritten, "values", NORM),
    Trial("INI-4", unwritten, "values", NORM, options={"faults": ("extreme-values",)}),
    Trial("INI-4", unwritten_buffer, "values", FREQUENCIES),
    Trial("INI-4", on_meta, "device", NORM),
    Trial("MIS-1", zero_head, "values", HEAD, options=MISSING_HEAD),
    Trial("MIS-1", wide_head, "values", HEAD, options=MISSING_HEAD),
    Trial("MIS-1", shifted_head, "values", HEAD, options=MISSING_HEAD),
    Trial("MIS-1", uniform_head, "values", HEAD, options=MISSING_HEAD),
    Trial("MIS-1", zero_norms, "values", "", options={"faults": ("missing-norm",)}),
    Trial("MIS-2", negated_head, "values", HEAD, options=MISSING_HEAD),
    Trial("MIS-6", one_ulp, "values", NORM),
    Trial("MIS-3", draws, "state", "rng"),
    *(
        Trial(clause, untied, "tie", HEAD, f"llama-tied-{stored}")
        for clause, stored in (
            ("TIE-1", "embedding"),
            ("TIE-2", "head"),
            ("TIE-3", "equal"),
            ("TIE-7", "neither"),
        )
    ),
    Trial("TIE-8", untied, "tie", HEAD, "t5-tied-head", options={"model": T5}),
    Trial("TIE-9", untied, "tie", HEAD, "llama-tied-equal", options=SHORT_HEAD),
    Trial("TIE-10", untwinned, "tie", "twin.weight", options={"model": WITH_TWIN}),
    Trial(
        "TIE-11",
        untied,
        "tie",
        HEAD,
        "t5-tied-embedding",
        options={"model": T5, "faults": ("without-tie-flag",)},
    ),
    Trial("TIE-4", tied, "tie", HEAD, "llama-tied-separate"),
    Trial("TIE-5", tied, "tie", HEAD, "llama-untied-equal"),
    Trial("TIE-6", tied, "tie", HEAD, "llama-untied-embedding"),
    *(
        Trial(f"RES-{number}", one_ulp, "values", NORM, options={"hub": OnHub()})
        for number in (14, 15, 16, 18)
    ),
    Trial("INF-1", complains, "config", "error_msgs"),
    Trial("INF-1", lists, "config", "loading info"),
    Trial("OUT-2", stretched, "output", "logits"),
    Trial("MEM-1", copied, "state", NORM),
    Trial(
        "MEM-2",
        keeps_a_mapping,
        "state",
        "files of the source",
        options={"options": {"torch_dtype": torch.bfloat16}},
    ),
    Trial("OUT-4", trains, "training", "model.layers.1"),
]


# What a fact of the process breaks, and no damage to a model.
OF_THE_PROCESS = {"STA-3", "MEM-3", "INF-7", "INF-8"}


def test_every_check_belongs_to_a_clause_and_is_tried() -> None:
    assert set(CHECKS) <= set(clauses())
    tried = {*(trial.clause for trial in TRIALS), *EXPERIMENTS, *SAVING, "USE-2"}
    assert tried == set(CHECKS) - OF_THE_PROCESS


def test_a_check_stands_in_the_file_of_its_stage_and_says_its_promise() -> None:
    for clause, each in CHECKS.items():
        stages = {cited.partition("-")[0].lower() for cited in each.clauses}
        files = [import_module(f"conformance.judge.checks.{stage}") for stage in sorted(stages)]
        assert any(each in vars(file).values() for file in files), clause
        assert each.objections.__doc__, clause


@pytest.mark.parametrize("clause", [*EXPERIMENTS, *sorted(SAVING)])
def test_what_an_experiment_noted_is_objected_to_where_it_is_not_what_it_must_be(
    clause: str,
) -> None:
    case = Case("tests/used", (clause,))
    noted = {"a.weight": ("released", "released"), "b.weight": ("released", "held")}

    (found,) = check(case, Observation(usage={clause: noted}))

    assert (found.clause, found.where) == (clause, "b.weight")
    assert (found.kind, found.actual) == (clauses()[clause].kinds[0], "held")


@pytest.mark.parametrize(
    ("facts", "actual"),
    [
        ({"error": 1e-8}, None),
        ({"error": 1e-2}, "1.0e-02 off"),
        ({"error": float("nan")}, "nan off"),
        ({}, "none"),
    ],
)
def test_a_gradient_that_is_off_or_not_there_is_objected_to(
    facts: dict[str, Any], actual: str | None
) -> None:
    case = Case("tests/used", ("USE-2",))
    tensors = {NORM: {"kind": "parameter", "dtype": "torch.float32", "device": "cpu"}}
    gradients = {NORM: {"fingerprint": "none"} | facts}

    found = check(case, Observation(tensors=tensors, gradients=gradients))

    assert [(d.clause, d.kind, d.actual) for d in found] == (
        [("USE-2", "gradient", actual)] if actual else []
    )


THREAD = {"thread": 2, "of": 8, "tensors": 30, "raised": "", "differing": []}


@pytest.mark.parametrize(
    ("fact", "wanted"),
    [
        ({"threads": [THREAD]}, []),
        ({"threads": [THREAD | {"differing": ["a", "b"]}]}, [("values", "thread 2 of 8")]),
        ({"threads": [THREAD | {"raised": "KeyError: 'a'"}] * 2}, [("rejected", "thread 2 of 8")]),
    ],
)
def test_the_first_thread_that_differs_is_objected_to(
    fact: dict[str, Any], wanted: list[tuple[str, str]]
) -> None:
    case = Case("tests/threads", ("STA-3",))
    for failed in (None, {"types": ["KeyError"], "message": "'a'"}):
        found = check(case, Observation(exception=failed, **fact))
        assert [(d.kind, d.where) for d in found] == wanted
        assert all(d.clause == "STA-3" for d in found)


@pytest.mark.parametrize(("share", "clauses_broken"), [(0.49, []), (0.51, ["MEM-3"])])
def test_more_than_half_resident_is_objected_to(share: float, clauses_broken: list[str]) -> None:
    case = Case("tests/pages", ("MEM-3",))
    size = sum(path.stat().st_size for path in case.source().iterdir())
    found = check(case, Observation(resident_bytes=int(share * size)))
    assert [d.clause for d in found] == clauses_broken


def test_a_plain_load_that_is_not_there_is_an_objection() -> None:
    """A check that lacks what it judges by must not pass."""
    (found,) = check(Case("tests/offload", ("OFF-1",)), Observation())
    assert (found.clause, found.where) == ("OFF-1", "(check)")
    assert "was not observed" in found.actual


def findings(case: Case, spoil: Spoil | None) -> list[Divergence]:
    def loader(*args: Any, **options: Any) -> Any:
        model, info = reference(*args, **options)
        if spoil is not None:
            with torch.no_grad():
                spoil(model, info)
        return model, info

    observation = observe(case, loader).observation
    assert observation.exception is None
    return list(check(case, observation, run.baseline_of(case)))


def name_of(trial: Trial) -> str:
    faults = trial.options.get("faults", ())
    return "-".join((trial.clause, trial.spoil.__name__, trial.recipe, *faults))


@pytest.mark.parametrize("trial", TRIALS, ids=name_of)
def test_a_check_objects_to_what_it_is_there_for_and_to_nothing_else(
    trial: Trial, session: Any
) -> None:
    assert findings(trial.case(), None) == []

    found = findings(trial.case(), trial.spoil)

    assert {(d.clause, d.kind) for d in found} == {(trial.clause, trial.kind)}
    assert {d.where for d in found} == {trial.where} or not trial.where
    assert all(d.expected != d.actual for d in found)


def test_a_check_runs_only_where_its_clause_is_cited() -> None:
    case = Case("tests/other", ("OUT-1",))

    assert findings(case, one_ulp) == []
    assert [d.clause for d in findings(case, unwritten)] == ["INI-4"], "which is for every case"


ON_META = {"a": {"device": "meta", "kind": "parameter"}}


@pytest.mark.parametrize("input_class", [ACCEPTABLE, INVALID])
def test_only_valid_input_is_held_against_formulas(input_class: str) -> None:
    case = Case("tests/odd", ("MAP-1",), input_class=input_class)

    assert check(case, Observation()) == ()
    assert check(replace(case, input_class=VALID), Observation(tensors=ON_META)) != ()


def test_a_reference_that_breaks_a_check_is_an_error_and_no_verdict(
    monkeypatch: pytest.MonkeyPatch, judging: Any
) -> None:
    def spoiled(*args: Any, **options: Any) -> Any:
        model, info = reference(*args, **options)
        with torch.no_grad():
            one_ulp(model, info)
        return model, info

    monkeypatch.setattr(run, "reference", spoiled)
    case = Case("tests/reference", ("MAP-1",))

    result = judge(case, replace(judging(reference), loader_name="reference"))

    assert result.status == "error"
    assert "the reference breaks MAP-1" in result.reason


def _raising(error: Exception) -> Any:
    def loader(*args: Any, **options: Any) -> Any:
        raise error

    return loader


@pytest.mark.parametrize(
    ("input_class", "served_by", "complaint"),
    [
        (INVALID, reference, "given invalid input: no error"),
        (INVALID, _raising(ValueError("a.weight")), "does not name"),  # no LoadError
        (INVALID, _raising(BadIndex("something")), "does not name ['a.weight']"),
        (VALID, _raising(BadIndex("a.weight")), "given valid input: BadIndex: a.weight"),
    ],
)
def test_a_reference_that_does_not_do_what_the_case_says_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
    judging: Any,
    input_class: str,
    served_by: Any,
    complaint: str,
) -> None:
    monkeypatch.setattr(run, "reference", served_by)
    case = Case("tests/reference", ("FMT-1",), input_class=input_class, names=("a.weight",))

    result = judge(case, judging(served_by))

    assert result.status == "error"
    assert complaint in result.reason

"""What is measured: which checkpoint is loaded how, and what the reference must hold."""

from __future__ import annotations

from dataclasses import dataclass

from conformance.bench.checkpoints import LLAMA2_7B, Weights, llama, many_small, mixtral

LLAMA = "transformers:LlamaForCausalLM"
MIXTRAL = "transformers:MixtralForCausalLM"


@dataclass(frozen=True)
class Case:
    """One kind of load.

    Attributes:
        id: what `--case` names.
        title: what is loaded, in words.
        weights: what the checkpoint holds.
        dtype: as for `from_pretrained`.
        model: the class, `MODULE:ATTR`.
        clock: `first`, `again` or `touched`: the seconds that are compared, see `Sample`.
        again: how often the process loads once more.
        cold: whether the page cache forgets the files first.
        device: "cpu" or "cuda".
        converts: whether the release merges stored tensors, which most contenders cannot.
    """

    id: str
    title: str
    weights: Weights
    dtype: str = "auto"
    model: str = LLAMA
    clock: str = "first"
    again: int = 0
    cold: bool = False
    device: str = "cpu"
    converts: bool = False


CASES = (
    Case("tiny", "tiny Llama, one more load", Weights("llama-f32"), clock="again", again=40),
    Case("same", "dense 1 GB, same dtype", llama(16, "bfloat16"), clock="again", again=5),
    Case("widen", "dense 1 GB, bfloat16 to float32", llama(16, "bfloat16"), "float32"),
    Case("narrow", "dense 1 GB, float32 to bfloat16", llama(6, "float32"), "bfloat16"),
    Case(
        "small",
        "10,000 small tensors",
        many_small(5000),
        model="conformance.bench.many_small:ManySmall",
        clock="again",
        again=3,
    ),
    Case(
        "moe-same",
        "1 GB of experts merged, same dtype",
        mixtral(12, "bfloat16"),
        model=MIXTRAL,
        converts=True,
    ),
    Case(
        "moe-widen",
        "1 GB of experts merged, bfloat16 to float32",
        mixtral(12, "bfloat16"),
        "float32",
        model=MIXTRAL,
        converts=True,
    ),
    Case(
        "cold",
        "dense 1 GB, same dtype, page cache cold, all pages touched",
        llama(16, "bfloat16"),
        clock="touched",
        cold=True,
    ),
    Case(
        "cuda-same",
        "1 GB to a GPU, same dtype",
        llama(16, "bfloat16"),
        clock="again",
        again=5,
        device="cuda",
    ),
    Case(
        "cuda-widen",
        "1 GB to a GPU, bfloat16 to float32",
        llama(16, "bfloat16"),
        "float32",
        clock="again",
        again=5,
        device="cuda",
    ),
    Case(
        "cuda-7b",
        "Llama-2-7B to a GPU, same dtype",
        LLAMA2_7B,
        clock="again",
        again=3,
        device="cuda",
    ),
    Case(
        "cuda-7b-cast",
        "Llama-2-7B to a GPU, float16 to bfloat16",
        LLAMA2_7B,
        "bfloat16",
        clock="again",
        again=3,
        device="cuda",
    ),
    Case(
        "cuda-cold",
        "1 GB to a GPU, same dtype, page cache cold",
        llama(16, "bfloat16"),
        cold=True,
        device="cuda",
    ),
)


@dataclass(frozen=True)
class Bound:
    """What the reference must hold in a case.

    Attributes:
        what: in words.
        case: the case's id.
        of: the contender that is held.
        clock: see `Case`; "whole", "peak", "limit", "predicted", "anonymous" and "gpu" besides.
        most: the largest ratio to stock as it comes; for "peak", to the result; for "peak, stock",
            of both peaks; for "above", MiB of the peak above the result; for "limit", the
            smallest share of the limit; for "predicted", how far the prediction may be off; for
            "anonymous", MB of the host; for "gpu", MB of the device above the result.
    """

    what: str
    case: str
    clock: str
    most: float
    of: str = "reference"


BOUNDS = (
    Bound("tiny model, one more load", "tiny", "again", 0.60),
    Bound("same dtype, one more load", "same", "again", 0.35),
    Bound("same dtype, whole process, own Llama", "same", "whole", 0.40, "reference, own Llama"),
    Bound("bfloat16 to float32", "widen", "first", 0.75),
    Bound("float32 to bfloat16", "narrow", "first", 0.75),
    Bound("bfloat16 to float32, peak to result", "widen", "peak", 1.10),
    Bound("float32 to bfloat16, peak to result", "narrow", "peak", 1.10),
    Bound("bfloat16 to float32, share of the limit", "widen", "limit", 0.85),
    Bound("float32 to bfloat16, share of the limit", "narrow", "limit", 0.85),
    Bound("10,000 small tensors", "small", "again", 0.30),
    *(
        bound
        for case, what in (("moe-same", "experts merged"), ("moe-widen", "experts merged, cast"))
        for bound in (
            Bound(what, case, "first", 0.50),
            Bound(f"{what}, peak to stock's", case, "peak, stock", 0.65),
            Bound(f"{what}: peak above the result, MiB", case, "above", 64),
        )
    ),
    *(
        Bound(f"{case}: predicted peak is off by", case, "predicted", 0.10)
        for case in ("tiny", "same", "widen", "narrow", "small", "moe-same", "moe-widen", "cold")
    ),
    *(
        bound
        for case, what, ratio in (
            ("cuda-same", "1 GB to a GPU", 0.35),
            ("cuda-widen", "1 GB to a GPU, cast", 0.25),
            ("cuda-7b", "7B to a GPU", 0.35),
            ("cuda-7b-cast", "7B to a GPU, cast", 0.25),
        )
        for bound in (
            Bound(what, case, "again", ratio),
            Bound(f"{what}: host's anonymous memory, MB", case, "anonymous", 300),
            Bound(f"{what}: GPU's memory above the model, MB", case, "gpu", 200),
        )
    ),
    Bound("1 GB to a GPU: share of the limit", "cuda-same", "limit", 0.85),
    Bound("7B to a GPU: share of the limit", "cuda-7b", "limit", 0.85),
)

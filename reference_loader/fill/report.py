"""`LoadReport`: what a load did, as the loading info and as a warning in the log."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from torch import Size

from reference_loader.errors import NotStrict, shown
from reference_loader.plan.plan import LoadPlan

logger = logging.getLogger("reference_loader")


@dataclass(frozen=True)
class LoadReport:
    """What a load did.

    Attributes:
        plan: what was decided.
        untied: names the model would tie and the checkpoint stores with other values (TIE-4).
    """

    plan: LoadPlan
    untied: tuple[str, ...] = ()

    def info(self) -> dict[str, Any]:
        """The loading info that reports a load, in the fields of stock's newest release (INF-1)."""
        plan = self.plan
        return {
            "missing_keys": set(plan.missing),
            "unexpected_keys": set(plan.unexpected),
            "mismatched_keys": {(m.name, Size(m.stored), Size(m.model)) for m in plan.mismatched},
            "error_msgs": [],
        }

    def __str__(self) -> str:
        found = dict(self.plan.disagreements)
        if self.untied:
            found["not tied because the stored values differ"] = list(self.untied)
        lines = [f"  {kind}: {', '.join(map(shown, names))}" for kind, names in found.items()]
        head = f"{self.plan.model_class.__name__} from {self.plan.source}:"
        return "\n".join([head, *lines]) if lines else f"{head} the checkpoint matches the model."

    def log(self) -> None:
        """Report a load in the log: a warning if the checkpoint is not exactly the model, and one
        if an adapter lies beside it, which is not applied."""
        adapter = self.plan.source / "adapter_config.json" if self.plan.source else None
        if adapter is not None and adapter.exists():
            logger.warning("%s is the config of an adapter, which was not applied.", adapter)
        if self.plan.disagreements or self.untied:
            logger.warning("%s", self)


def refuse_disagreements(plan: LoadPlan) -> None:
    """Raise for what the report of a load would warn of: checkpoint and model are not the same.

    Raises:
        NotStrict: naming every key.
    """
    if plan.disagreements:
        found = "; ".join(f"{kind}: {', '.join(n)}" for kind, n in plan.disagreements.items())
        raise NotStrict(
            f"{plan.source} does not match the model exactly. {found}.",
            "Load without `strict=True`.",
        )

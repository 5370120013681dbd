"""The reference loader: plain code that keeps the specification of `from_pretrained`.

`load.py` tells the whole load in one page; `docs/reading.md` gives an order for the rest. Importing
this package does not import transformers; loading a transformers model does.
"""

from reference_loader.api import from_pretrained, plan
from reference_loader.errors import LoadError
from reference_loader.plan.plan import LoadPlan
from reference_loader.speed import plain

__all__ = ["LoadError", "LoadPlan", "from_pretrained", "plain", "plan"]

"""The reference loader: the plainest code that keeps the specification of `from_pretrained`.

Read `load.py` first; it is the story. Nothing here imports transformers until a transformers model
is asked for.
"""

from reference_loader.errors import LoadError
from reference_loader.load import from_pretrained, plan
from reference_loader.plan.plan import LoadPlan
from reference_loader.speed import plain

__all__ = ["LoadError", "LoadPlan", "from_pretrained", "plain", "plan"]

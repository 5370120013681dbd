"""What `conformance explain` says of a load's peak, in a fresh process, as a user would ask.

`python -m conformance.bench.predicted TASK`, both sides JSON: bytes of the host.
"""

from __future__ import annotations

import json
import sys

from conformance.bench.contenders import Task
from conformance.bench.sample import touch_itself
from conformance.inspect.footprint import explain, planned


def predicted(task: Task) -> int:
    """The load's peak that `conformance explain` predicts, from headers and config."""
    model_class = task.model_class()
    touch_itself()  # as before what is measured
    decided, taken = planned(task.folder, model_class=model_class, **task.placed())
    return explain(decided, taken=taken).peaks.host


if __name__ == "__main__":
    print(json.dumps(predicted(Task(**json.loads(sys.argv[1])))))

"""Run transformers' own tests of loading with stock, then with the reference in its place.

`python -m tests.upstream.run [GLOB …]`: globs of model types; without any, those of every eighth
type that take tokens. The tests are those of the installed release, from its source distribution,
which is downloaded once into `runs/upstream`. What passes with stock must pass with the reference,
but for `OTHERWISE`. Exit code 1 if it does not, or if something of `OTHERWISE` passes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

from conformance.world.architectures.types import model_types
from tests.upstream import NOT_SHIPPED, OTHERWISE

ROOT = Path(__file__).parents[2]
PACKAGE = "upstream_tests"
COMMON = "test_modeling_common.py"

# Of the 170 tests of a model, those whose names speak of what loading does.
ABOUT_LOADING = (
    *(
        "save_load",
        "load_save",
        "can_load",
        "cannot_load",
        "load_with",
        "load_contiguous",
        "reload",
    ),
    *("missing", "mismatched", "tied", "init_weights", "initialized_on_meta", "base_model_prefix"),
    *("disk_offload", "cpu_offload", "bc_torch_dtype", "reverse_loading", "keep_in_fp32"),
    "resize_embeddings",
)

# Every eighth model type, for variety within minutes; those that take no tokens are left out.
EVERY = 8


def unpacked(folder: Path) -> Path:
    """The tests of the installed release as a package in `folder`; downloaded the first time.

    What they import from folders that the source distribution leaves out is an empty class.
    """
    package = folder / version("transformers") / PACKAGE
    if (package / "__init__.py").is_file():
        return package
    package.mkdir(parents=True, exist_ok=True)
    wanted = f"transformers=={version('transformers')}"
    words = ["download", "-q", "--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
    subprocess.run(
        [sys.executable, "-m", "pip", *words, "-d", str(package.parent), wanted], check=True
    )
    (archive,) = package.parent.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        for member in opened:
            if re.fullmatch(r"[^/]+/tests/\w+\.py", member.name) and member.isfile():
                content = opened.extractfile(member)
                assert content is not None
                (package / Path(member.name).name).write_bytes(content.read())
    absent = re.findall(r"^from \.([\w.]+) import (\w+)$", (package / COMMON).read_text(), re.M)
    for module, name in absent:
        file = package.joinpath(*module.split(".")).with_suffix(".py")
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"class {name}:\n    pass\n")
    (package / "__init__.py").touch()
    return package


def outcomes(package: Path, types: list[str], in_place: bool) -> dict[str, str]:
    """Each test by its name, and how it ended: "passed", "failed" or "skipped"."""
    report = package.parent / f"{'reference' if in_place else 'stock'}.xml"
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join([str(package.parent), str(ROOT)]),
        "UPSTREAM_TYPES": ",".join(types),
        "UPSTREAM_IN_PLACE": "1" if in_place else "",
    }
    words = ["-q", "-W", "ignore", "-p", "no:cacheprovider", "-k", " or ".join(ABOUT_LOADING)]
    words += ["--junitxml", str(report), "--tb=short", "-n", "auto", "-o", "strict=false"]
    words += ["-o", "strict_markers=false"]
    subprocess.run(
        [sys.executable, "-m", "pytest", "tests/upstream/of_model_types.py", *words],
        cwd=ROOT,
        env=environment,
        stdout=(report.with_suffix(".txt")).open("w"),
        check=False,
    )
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        ended = {child.tag for child in case}
        state = "failed" if ended & {"failure", "error"} else "skipped" if ended else "passed"
        found[f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"] = state
    return found


def main(globs: list[str]) -> int:
    """Run both, and say what differs; the exit code."""
    package = unpacked(ROOT / "runs" / "upstream")
    types = globs or list(model_types())[::EVERY]
    stock, reference = (outcomes(package, types, in_place) for in_place in (False, True))
    passed = [name for name, ended in stock.items() if ended == "passed"]
    fails = [name for name in passed if reference.get(name) != "passed"]
    known = [name for name in fails if name.rpartition("::")[2] in OTHERWISE]
    stale = [name for name in passed if name.rpartition("::")[2] in OTHERWISE and name not in fails]
    families = len({name.partition("::")[0] for name in stock})
    print(
        f"{families} model types, {len(stock)} tests: stock passes {len(passed)}, the reference "
        f"{len(passed) - len(fails)} of these; {len(known)} it fails for the reason given"
    )
    print(f"not in the source distribution, and left out: {NOT_SHIPPED}")
    for name, reason in OTHERWISE.items():
        print(f"  {name}: {reason}")
    for name in sorted(set(fails) - set(known)):
        print(f"fails with the reference alone: {name}")
    for name in stale:
        print(f"passes, although it should not: {name}")
    return 1 if set(fails) - set(known) or stale or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

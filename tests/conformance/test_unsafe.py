"""Nothing runs code of a checkpoint or of a record, and nothing reads standard input (FMT-22).

Every command runs on folders whose code leaves a mark, once with a terminal on which somebody
types "y" and once with a pipe that stays open and silent.
"""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from conformance.cases.case import Torch
from conformance.cases.own import Own
from conformance.cases.token_cases import PREFIX, Load, load_of
from conformance.cli import COMMANDS, main
from conformance.inspect.load_record import digest
from conformance.releases.prober import Probe, our_packages
from conformance_fixtures.faults.code import MARK
from conformance_fixtures.random_checkpoints import Drawn, Stored
from conformance_fixtures.tokens import BadToken, pack, unpack
from conformance_fixtures.write import materialise

SECONDS = 150

# Runs the commands in one process, whose standard input the command line does not end: the guards
# of the library alone must hold.
DRIVER = """
import json, sys
import reference_loader
from conformance import cli
from transformers import AutoModelForCausalLM

def called(function, folder):
    asked = None if folder.endswith("code-part") else AutoModelForCausalLM
    try:
        function(folder, model_class=asked)
        return "loaded"
    except reference_loader.LoadError as error:
        print(error.code, file=sys.stderr)
        return error.code

def run(words):
    if words[0] in ("from_pretrained", "plan"):
        return called(getattr(reference_loader, words[0]), words[1])
    try:
        return cli.main(words)
    except SystemExit as left:
        return left.code

report = []
for words in json.loads(sys.argv[1]):
    print("####", *words, file=sys.stderr, flush=True)
    report.append([words, run(words)])
open(sys.argv[2], "w").write(json.dumps(report))
"""

REFUSED = ("code-config-and-model", "code-config-elsewhere", "code-part", "code-kernel")
LOADED = ("code-beside-known-type", "code-generate")


def lines(folder: Path, record: Path, out: Path) -> dict[str, list[list[object]]]:
    """What is called with a folder, by command; the functions of the loader are among them."""
    return {
        "from_pretrained": [["from_pretrained", folder]],
        "plan": [["plan", folder]],
        "explain": [["explain", folder], ["explain", folder, "--check"]],
        "record": [["record", folder, "--out", out / "r.json"]],
        "verify": [["verify", record, folder]],
        "check": [["check", folder, "--case", "*/as-saved", "--out", out / "check"]],
    }


# The others take no checkpoint; given one, they say so.
WITHOUT_CHECKPOINT = {
    "bisect": ["FOLDER", "--good", "4.57.6", "--bad", "current"],
    "repro": ["FOLDER", "--out", "OUT/repro"],
    "render": ["FOLDER"],
    "spec": ["FOLDER"],
    "selftest": ["--clause", "FOLDER"],
    "bench": ["--case", "FOLDER"],
    "fixture": ["FOLDER", "OUT/fixture"],
    "releases": ["FOLDER"],
}
# In processes of its own, which are given no standard input: see the test of the probe.
IN_PROCESSES = {"compare"}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("records") / "record.json"
    assert main(["record", str(materialise("llama-f32")), "--out", str(file)]) == 0
    return file


def driven(words: list[list[object]], stdin: str, path: Path) -> tuple[list[list[object]], str]:
    """Each line with its exit code, and what was printed on stderr."""
    script, result, errors = path / "driver.py", path / "result.json", path / "stderr"
    script.write_text(DRIVER)
    asked = json.dumps([[str(word) for word in line] for line in words])
    master, slave = pty.openpty()
    reading, writing = os.pipe()
    if stdin == "terminal":
        os.write(master, b"y\n" * 500)
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-P", script, asked, result],
            stdin=slave if stdin == "terminal" else reading,
            stdout=slave if stdin == "terminal" else subprocess.DEVNULL,
            stderr=stderr,
            cwd=path,
            env=environment(path),
            start_new_session=True,
        )
        os.close(slave)
        threading.Thread(target=_drain, args=(master,), daemon=True).start()
        try:
            process.wait(SECONDS)
        finally:
            process.kill()
            process.wait()
            for each in (reading, writing):
                os.close(each)
    text = errors.read_text()
    assert result.exists(), text[-3000:]
    return json.loads(result.read_text()), text


def _drain(master: int) -> None:
    with suppress(OSError):
        while os.read(master, 1 << 16):
            pass


def environment(path: Path) -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    own = {MARK: str(path / "ran"), "HF_HOME": str(path / "home"), "PYTHONPATH": root}
    return {**os.environ, **own, "HF_HUB_OFFLINE": "1"}


def test_every_command_is_tried(record: Path, tmp_path: Path) -> None:
    every = {name for group in COMMANDS.values() for name in group}
    tried = lines(tmp_path, record, tmp_path).keys() - {"from_pretrained", "plan"}
    assert tried | WITHOUT_CHECKPOINT.keys() | IN_PROCESSES == every


@pytest.mark.parametrize("stdin", ["terminal", pytest.param("silent pipe", marks=pytest.mark.slow)])
def test_no_command_runs_code_or_asks(stdin: str, record: Path, tmp_path: Path) -> None:
    words: list[list[object]] = []
    for fault in (*REFUSED, *LOADED):
        folder = Path(shutil.copytree(materialise("llama-f32", [fault]), tmp_path / fault))
        for called in lines(folder, record, tmp_path / f"out-{fault}").values():
            words += called
    others = {
        name: [each.replace("FOLDER", str(folder)).replace("OUT", str(tmp_path)) for each in given]
        for name, given in WITHOUT_CHECKPOINT.items()
    }
    (tmp_path / "out-code-generate").mkdir()
    (tmp_path / "out-code-beside-known-type").mkdir()
    codes, printed = driven([*words, *([n, *w] for n, w in others.items())], stdin, tmp_path)
    assert not (tmp_path / "ran").exists()
    assert "Traceback" not in printed
    assert not (tmp_path / "home" / "modules" / "transformers_modules").exists()

    said = [part.splitlines() for part in printed.split("#### ")[1:]]
    for (called, code), (_, *told) in zip(codes, said, strict=True):
        folder_name = next((Path(w).name for w in called[1:] if Path(w).name in REFUSED), None)
        if called[0] in others:
            assert code in (2, 64), called
        elif folder_name is None:
            assert code in (0, 1, "loaded"), (called, told)  # stock's own deviations
        elif "--check" in called or (called[0], folder_name) == ("verify", "code-part"):
            assert code == 1, called  # a finding, a difference
        else:
            assert code in (2, "remote-code-refused"), (called, code, told)
            # A part is made by the model class only: the verdict or stock's error names it.
            errors = [line for line in told if "remote-code-refused" in line]
            assert len(errors) == 1 or folder_name == "code-part", (called, told)
    assert len(codes) == len(words) + len(others)


def test_a_trusted_folder_leaves_its_mark(tmp_path: Path) -> None:
    """So the test above can fail."""
    folder = materialise("llama-f32", ["code-config-and-model"])
    codes, _ = driven([["explain", folder, "--trust-remote-code"]], "terminal", tmp_path)
    assert codes[0][1] == 0
    assert (tmp_path / "ran").exists()


def test_a_command_has_no_standard_input(tmp_path: Path) -> None:
    """The real command line, with a pipe that nobody writes to: whatever reads it gets its end."""
    code = (
        "import sys; from conformance import cli; cli.run = lambda name, options: print(repr("
        "sys.stdin.read())) or 0; sys.argv[1:] = ['spec']; sys.exit(cli.main())"
    )
    reading, writing = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdin=reading,
            capture_output=True,
            text=True,
            timeout=60,
            env=environment(tmp_path),
            check=True,
        )
    finally:
        os.close(reading), os.close(writing)
    assert done.stdout == "''\n"


def test_a_probe_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `compare` and `bisect` start for each load of a user's checkpoint."""
    folder = Path(materialise("llama-f32", ["code-config-and-model"]))
    monkeypatch.setenv(MARK, str(tmp_path / "ran"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    python = Path(sys.executable)
    with (
        our_packages() as ours,
        Probe(python, ours, own=Own((folder,)), seconds=60) as probe,
    ):
        for loader in ("stock", "reference"):
            seen = probe.observe(f"own/{folder.name}/as-saved", loader)
            assert seen.exception is not None and "ValueError" in seen.exception["types"]
    assert not (tmp_path / "ran").exists()


# --- records ---


def changed(record: Path, path: Path, **options: object) -> Path:
    """The record with other options, and the digest that they have."""
    content = json.loads(record.read_text())
    content["options"] |= options
    del content["digest"]
    file = path / "changed.json"
    file.write_text(json.dumps({**content, "digest": digest(content)}))
    return file


@pytest.mark.parametrize(
    "model",
    [
        "planted_by_a_record:Model",
        "transformers.models.llama.modeling_llama:LlamaModel",
        "transformers:models.llama",
        "os:system",
        "transformers",
    ],
)
def test_a_record_decides_no_import(
    model: str,
    record: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mark = tmp_path / "ran"
    (tmp_path / "planted_by_a_record.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["verify", str(changed(record, tmp_path, model=model))]) == 64
    told = capsys.readouterr().err
    assert model in told and f"--model-class {model}" in told
    assert not mark.exists()


def test_a_class_of_transformers_is_found_by_its_name(record: Path, tmp_path: Path) -> None:
    named = changed(record, tmp_path, model="transformers:LlamaForCausalLM")
    assert main(["verify", str(named)]) == 0


def test_the_command_line_may_name_the_class(
    record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = "conformance.world.user_models:WithHook"
    file = tmp_path / "own.json"
    assert main(["record", str(materialise("llama-f32")), "--out", str(file), "--model", own]) == 0
    assert f"--model-class {own}" in capsys.readouterr().out
    assert main(["verify", str(file)]) == 64
    assert main(["verify", str(file), "--model", own]) == 0


@pytest.mark.parametrize("option", ["model", "dtype"])
def test_a_record_with_an_option_of_another_type(option: str, record: Path, tmp_path: Path) -> None:
    assert main(["verify", str(changed(record, tmp_path, **{option: 7}))]) == 2


# --- ids of cases ---


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "planted_by_a_record:Model"),
        ("model", "transformers:pipeline.x"),
        ("options", {"dtype": ["load:evil.pt"]}),
        ("options", {"dtype": ["hub"]}),
        ("options", {"trust_remote_code": True}),
        ("options", {"config": "org/evil"}),
    ],
)
def test_the_id_of_a_case_is_no_code(field: str, value: object) -> None:
    drawn = Drawn(((Stored("model.norm.weight", (8,)),),))
    good = Load(drawn, options={"dtype": Torch("bfloat16")}).case().id
    assert load_of(good).drawn == drawn
    data = unpack(good.removeprefix(PREFIX)) | {field: value}
    with pytest.raises(BadToken):
        load_of(PREFIX + pack(data))

"""Have loads observed by the probe of a target, in a process that may crash."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from conformance.cases.own import NO_CHECKPOINT, Own
from conformance.results.records import Observation

OURS = ("conformance", "conformance_fixtures", "reference_loader")

# Importing torch and transformers from a cold disk.
START_SECONDS = 300.0
END_SECONDS = 3.0
LOAD_SECONDS = 300.0


class NotObserved(RuntimeError):
    """A load left no observation: its process crashed, was killed, or exceeded the time limit.

    Attributes:
        kind: of divergence that it is, `crash` or `hang`.
    """

    def __init__(self, told: str, kind: str = "crash") -> None:
        super().__init__(told)
        self.kind = kind


class TargetUnusable(RuntimeError):
    """The probe does not start in the target's environment."""


class Probe:
    """The probe of one target, started when needed and again after it ended.

    Attributes:
        ready: the probe's environment, once it was started: the header of a report, and the release
            of transformers.
    """

    def __init__(
        self,
        python: Path,
        ours: Path,
        loader: str = "stock",
        own: Own = NO_CHECKPOINT,
        seconds: float = LOAD_SECONDS,
    ) -> None:
        """Args: the interpreter, the folder of `our_packages`, what `probe.main` takes, a limit."""
        arguments = [loader, own.to_json()]
        self._command = [str(python), "-P", "-m", "conformance.releases.probe", *arguments]
        self._environment = {**os.environ, "PYTHONPATH": str(ours), "PYTHONNOUSERSITE": "1"}
        self._seconds = seconds
        self._process: _Process | None = None
        self.ready: dict[str, Any] = {}

    def __enter__(self) -> Probe:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the probe unless it runs.

        Raises:
            TargetUnusable: it does not start; with the last line that it wrote.
        """
        if self._process is not None:
            return
        self._process = _Process(self._command, self._environment)
        try:
            self.ready = self._process.read(START_SECONDS)["ready"]
        except NotObserved as cause:
            told = self._process.last_words()
            self.stop()
            raise TargetUnusable(f"{self._command[0]}: {cause}; {told}") from cause

    def observe(self, case: str, loader: str, folder: Path | None = None) -> Observation:
        """What `loader` leaves of the case, or of the same load of another folder.

        Raises:
            TargetUnusable: see `start`.
            NotObserved: the process ended during the load, or exceeded the time limit.
        """
        moved = {} if folder is None else {"folder": str(folder)}
        return Observation.of(self._ask({"case": case, "loader": loader, **moved})["observation"])

    def save(self, case: str, folder: Path) -> str:
        """Have stock load the checkpoint of the case and save it; the error, "" if there is none.

        Raises:
            TargetUnusable, NotObserved: see `observe`.
        """
        answer = self._ask({"case": case, "loader": "stock", "into": str(folder)})
        return str(answer["saved"])

    def _ask(self, request: dict[str, str]) -> dict[str, Any]:
        """The answer of the process; it is stopped if there is none."""
        self.start()
        assert self._process is not None
        try:
            self._process.write(request)
            return self._process.read(self._seconds)
        except NotObserved:
            self.stop()
            raise

    def stop(self) -> None:
        """End the process; the next load starts another."""
        if self._process is not None:
            self._process.end()
            self._process = None


class _Process:
    """A probe's process: lines of JSON to it, lines of JSON from it, and its stderr."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        # Lives as long as the process does, so no block can hold it.
        self._complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env=environment,
        )
        assert self._process.stdin and self._process.stdout
        self._in, self._out = self._process.stdin, self._process.stdout
        self._buffer = b""

    def write(self, message: dict[str, Any]) -> None:
        try:
            self._in.write(json.dumps(message).encode() + b"\n")
            self._in.flush()
        except BrokenPipeError as cause:
            raise NotObserved(self._ending()) from cause

    def read(self, seconds: float) -> dict[str, Any]:
        """The next message.

        Raises:
            NotObserved: the process ended, or `seconds` passed.
        """
        until = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise NotObserved(f"no answer within {seconds:g} seconds", "hang")
                chunk = os.read(self._out.fileno(), 1 << 20)
                if not chunk:
                    raise NotObserved(self._ending())
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def _ending(self) -> str:
        """How the process ended."""
        code = self._process.wait()
        if code < 0:
            hint = " (out of memory?)" if -code == signal.SIGKILL else ""
            return f"the process was killed by {signal.Signals(-code).name}{hint}"
        return f"the process ended with exit code {code}: {self.last_words()}"

    def last_words(self) -> str:
        """The last line that the process wrote to stderr."""
        self._complaints.seek(0)
        lines = self._complaints.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1].strip() if lines else "it wrote nothing"

    def end(self) -> None:
        """Let the process end by itself, so that it removes its temporary folders; else kill it."""
        with suppress(BrokenPipeError):
            self._in.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for file in (self._out, self._complaints):
            file.close()


@contextmanager
def our_packages() -> Iterator[Path]:
    """A folder with nothing but our own packages, for the front of a target's path.

    The folder that they are installed in may also hold another transformers.
    """
    with tempfile.TemporaryDirectory(prefix="conformance-ours-") as folder:
        home = Path(__file__).resolve().parents[2]
        for package in OURS:
            Path(folder, package).symlink_to(home / package)
        yield Path(folder)

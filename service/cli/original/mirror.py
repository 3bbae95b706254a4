"""A run's progress and results as the files of the scripts, written while it trains."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from service.cli.original.output_directory import OutputDirectory, State
from service.cli.original.tensorboard import EventFile

if TYPE_CHECKING:
    from fairtune import Client, Run
    from fairtune.models import EventView

LOG_FILE = "training.log"
STATE_FILE = "trainer_state.json"
_RESULTS = {
    "training_args.json": "training_args.json",
    STATE_FILE: STATE_FILE,
    "train_results.json": "train_results.json",
    "eval_results.json": "eval_results.json",
    "all_results.json": "all_results.json",
    "bias_report.json": "report.json",
    "bias_report.html": "report.html",
    "performance_metrics.csv": "performance_metrics.csv",
    "bias_metrics.csv": "bias_metrics.csv",
}
"""Path among the run's files -> name in the output directory."""


class TrainingLog:
    """training.log: the run's log and its metrics, appended while it trains."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("w", encoding="utf-8", newline="")
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.failure: Exception | None = None
        """Reason why lines of the run's log are missing."""

    def append(self, text: str) -> None:
        """Append whole lines."""
        with self._lock:
            self._file.write(text)
            self._file.flush()

    def start_copying(self, client: "Client", run_id: str) -> None:
        """Copy the run's log, in a thread, until the run rests."""
        arguments = (client, run_id)
        self._thread = threading.Thread(target=self._copy, args=arguments, daemon=True)
        self._thread.start()

    def finish(self, seconds: float | None = None) -> None:
        """Wait until the copy is complete, for `seconds` at most."""
        if self._thread is not None:
            self._thread.join(seconds)
            if self._thread.is_alive():
                return  # it ends with this process
        self._file.close()

    def _copy(self, client: "Client", run_id: str) -> None:
        from fairtune import FairtuneError

        try:
            for piece in client.runs.get(run_id).follow_logs():
                self.append(piece)
        except (FairtuneError, OSError) as error:
            self.failure = error


class Mirror:
    """Follows a run and keeps the output directory like the run."""

    def __init__(
        self,
        run: "Run",
        directory: OutputDirectory,
        state: State,
        log: TrainingLog,
        logging_dir: Path | None,
        say: Callable[[str], None],
    ) -> None:
        """`say` shows a line to the user."""
        self._run = run
        self._directory = directory
        self._state = state
        self._log = log
        self._logging_dir = logging_dir
        self._say = say
        self._board: EventFile | None = None

    def follow(self) -> None:
        """Return when the run rests. Metrics and checkpoints are written as they arrive."""
        try:
            for event in self._run.events():
                self._take(event)
        finally:
            if self._board is not None:
                self._board.close()

    def _take(self, event: "EventView") -> None:
        data, time = event.data, event.created_at.timestamp()
        if self._board is None and self._logging_dir is not None:
            self._board = EventFile(self._logging_dir, time)
        match event.type:
            case "metrics":
                if self._board is not None:
                    self._board.write(data["values"], data["step"], time)
                line = str({**data["values"], "epoch": round(data["epoch"], 2)})
                self._log.append(f"{event.created_at:%Y-%m-%dT%H:%M:%SZ} {line}\n")
                self._say(line)
            case "rewound":
                if self._board is not None:
                    self._board.rewind(data["step"], time)
                self._say(f"The run continues from step {data['step']}.")
            case "checkpoint":
                self._copy_checkpoints()
            case "warning":
                self._say(f"{data['code']}: {data['detail']}")
            case "status" | "phase":
                words = [str(data.get(name)) for name in ("status", "phase") if data.get(name)]
                self._say(f"{self._run.id}: {', '.join(words)}")

    def _copy_checkpoints(self) -> None:
        """Download new checkpoints and remove those that the run has dropped."""
        from fairtune import NotFound

        stored = [checkpoint.step for checkpoint in self._run.checkpoints()]
        self._directory.remove_checkpoints(self._state, stored)
        for step in stored:
            if step in self._state.checkpoints:
                continue
            self._state.checkpoints.append(step)
            self._directory.write_state(self._state)
            try:
                self._run.download(self._directory.checkpoint(step), checkpoint=step)
            except NotFound:  # dropped for a better one in the meantime
                self._directory.remove_checkpoints(self._state, set(stored) - {step})

    def copy_results(self) -> list[str]:
        """Download adapter and result files of a run that has succeeded; return their names."""
        self._copy_checkpoints()
        self._run.download(self._directory.path)
        available = {entry.path for entry in self._run.artifacts()}
        names = [name for name in _RESULTS if name in available]
        for name in names:
            self._run.download_artifact(name, self._directory.path / _RESULTS[name])
        self._name_best_checkpoint()
        return [_RESULTS[name] for name in names]

    def _name_best_checkpoint(self) -> None:
        """Make trainer_state.json name the best checkpoint's directory here, as transformers' does.

        The server's copy names it relative to the run's files.
        """
        file = self._directory.path / STATE_FILE
        state = json.loads(file.read_text("utf-8"))
        step = state.get("best_global_step")
        if step is not None:
            state["best_model_checkpoint"] = str(self._directory.checkpoint(step))
            file.write_text(json.dumps(state, indent=2, ensure_ascii=False) + "\n", "utf-8")

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


class LogCopy:
    """Appends the run's training log to a file, in a thread, until the run rests."""

    def __init__(self, client: "Client", run_id: str, file: Path) -> None:
        self._client = client
        self._run_id = run_id
        self._file = file
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self.failure: Exception | None = None
        """Reason why the copy is incomplete."""

    def start(self) -> None:
        self._file.write_bytes(b"")
        self._thread.start()

    def finish(self, seconds: float | None = None) -> None:
        """Wait until the log is complete, for `seconds` at most."""
        self._thread.join(seconds)

    def _copy(self) -> None:
        from fairtune import FairtuneError

        try:
            with self._file.open("a", encoding="utf-8", newline="") as file:
                for piece in self._client.runs.get(self._run_id).follow_logs():
                    file.write(piece)
                    file.flush()
        except (FairtuneError, OSError) as error:
            self.failure = error


class Mirror:
    """Follows a run and keeps the output directory like the run."""

    def __init__(
        self,
        run: "Run",
        directory: OutputDirectory,
        state: State,
        logging_dir: Path | None,
        say: Callable[[str], None],
    ) -> None:
        """`say` shows a line to the user."""
        self._run = run
        self._directory = directory
        self._state = state
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
                self._say(str({**data["values"], "epoch": round(data["epoch"], 2)}))
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

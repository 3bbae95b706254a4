"""Live view of a run on a terminal: bars, loss, evaluations, the last events."""

from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from service.cli.figures import printable
from service.cli.run_events import group_rates, line_of
from service.domain.states import JobStatus, Phase

if TYPE_CHECKING:
    from fairtune import Run
    from fairtune.models import EventView

_PHASES = (
    Phase.LOADING,
    Phase.BASELINE,
    Phase.TRAINING,
    Phase.EVALUATING,
    Phase.SAVING,
    Phase.REPORTING,
)
_EVENT_LINES = 6
_EVALUATIONS = 5
_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = "_.-~=*#@"
_STYLES = {
    JobStatus.SUCCEEDED: "green",
    JobStatus.FAILED: "red",
    JobStatus.CANCELLED: "yellow",
    JobStatus.PAUSED: "yellow",
}
# Shown in the list of events neither for each step nor for each file.
_QUIET_EVENTS = frozenset({"artifact", "metrics"})


class LiveView:
    """Collects the state of a run from its answers and events, and renders it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._run: Run | None = None
        self._losses: dict[int, float] = {}
        self._evaluations: dict[int, dict[str, float]] = {}
        self._lines: deque[str] = deque(maxlen=_EVENT_LINES)
        self.notice = ""
        """Message below the view, for example that the server does not answer."""

    def update(self, run: "Run") -> None:
        """Take the current state of the run."""
        self._run = run

    def add(self, events: "Sequence[EventView]") -> None:
        """Take events in their order."""
        for event in events:
            step: int = event.data.get("step") or 0
            if event.type == "metrics":
                values = event.data.get("values") or {}
                if "loss" in values:
                    self._losses[step] = values["loss"]
                if "eval_loss" in values:
                    self._evaluations[step] = values
            elif event.type == "rewound":
                self._losses = {at: loss for at, loss in self._losses.items() if at <= step}
                self._evaluations = {at: row for at, row in self._evaluations.items() if at <= step}
            if event.type not in _QUIET_EVENTS:
                self._lines.append(self._plain(line_of(event)))

    def __rich__(self) -> RenderableType:
        run = self._run
        if run is None:
            return Text("connecting …")
        parts: list[RenderableType] = [self._head(run), self._progress(run)]
        if self._losses:
            parts.append(self._loss())
        if self._evaluations:
            parts.append(self._table(run))
        parts += [Text(f"  {line}", style="dim", no_wrap=True, overflow="ellipsis")
                  for line in self._lines]  # fmt: skip
        if self.notice:
            parts.append(Text(self._plain(self.notice), style="yellow"))
        return Group(*parts)

    @property
    def _has_unicode(self) -> bool:
        return self._console.encoding.startswith("utf")

    def _plain(self, text: str) -> str:
        """Return a text from the data without characters that the terminal cannot take."""
        encoding = self._console.encoding
        return printable(text).encode(encoding, errors="replace").decode(encoding)

    def _head(self, run: "Run") -> RenderableType:
        state = run.status if run.status != JobStatus.RUNNING else run.phase
        if run.requested:
            state += f", {run.requested} requested"
        if run.queue_position is not None:
            state += f" at position {run.queue_position}"
        head = Table.grid(expand=True, padding=(0, 2))
        head.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        head.add_column(justify="right", no_wrap=True)
        name = Text.assemble((self._plain(run.name), "bold"), f"  {run.id}")
        head.add_row(name, Text(state, style=_STYLES.get(JobStatus(run.status), "cyan")))
        return head

    def _progress(self, run: "Run") -> RenderableType:
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(width=min(40, max(10, self._console.width // 3)))
        table.add_column(no_wrap=True, overflow="ellipsis")
        bar = ProgressBar(total=100, completed=run.percent)
        table.add_row("total", bar, f"{run.percent:3.0f} %  {'  '.join(_times(run))}")
        if run.total_steps:
            facts = [f"step {run.step:,} of {run.total_steps:,}", f"epoch {run.epoch:.2f}"]
            if run.samples_per_second and run.status == JobStatus.RUNNING:
                facts.append(f"{run.samples_per_second:.1f} samples/s")
            bar = ProgressBar(total=run.total_steps, completed=run.step)
            table.add_row("steps", bar, "  ".join(facts))
        return Group(table, self._phases(run))

    def _phases(self, run: "Run") -> Text:
        """Return the phases in their order: done, current, to come."""
        done, current, future = ("✓", "▶", "·") if self._has_unicode else ("+", ">", ".")
        names = [str(phase) for phase in _PHASES]
        position = names.index(run.phase) if run.phase in names else -1
        if run.status == JobStatus.SUCCEEDED:
            position = len(names)
        line = Text("phase  ", no_wrap=True, overflow="ellipsis")
        for number, name in enumerate(names):
            if number < position:
                line.append(f"{done} {name}  ", "green")
            elif number == position:
                line.append(f"{current} {name}  ", "bold")
            else:
                line.append(f"{future} {name}  ", "dim")
        return line

    def _loss(self) -> RenderableType:
        steps = sorted(self._losses)
        values = [self._losses[step] for step in steps]
        width = min(60, max(10, self._console.width - 40))
        line = sparkline(values, width, _BLOCKS if self._has_unicode else _ASCII_BLOCKS)
        figures = f"  {values[-1]:.4g}"
        if len(values) > 1:
            figures += f" (first {values[0]:.4g}, lowest {min(values):.4g})"
        return Text.assemble("loss   ", (line, "cyan"), figures, no_wrap=True, overflow="ellipsis")

    def _table(self, run: "Run") -> RenderableType:
        """Return a row for each of the last evaluations; rates beyond their cap are red."""
        rows = [(step, self._evaluations[step]) for step in sorted(self._evaluations)]
        rows = rows[-_EVALUATIONS:]
        caps: dict[tuple[str, str], float] = {
            (cap.metric, cap.group): cap.max for cap in run.spec.fairness.caps
        }
        present = {key for _, values in rows for key in group_rates(values)}
        others = sorted(present - caps.keys(), key=lambda key: (key[1], key[0]))
        columns = [key for key in caps if key in present] + others
        columns = columns[: max(1, (self._console.width - 30) // 14)]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        has_f1 = any("eval_f1" in values for _, values in rows)
        for name in ("eval at step", "loss", *(("F1",) if has_f1 else ())):
            table.add_column(name, justify="right", no_wrap=True)
        for metric, group in columns:
            cap = caps.get((metric, group))
            sign = "≤" if self._has_unicode else "<="
            limit = "" if cap is None else f" {sign} {cap:g}"
            table.add_column(
                Text(self._plain(f"{metric.upper()} {group}{limit}")),
                justify="right",
                overflow="ellipsis",
                no_wrap=True,
            )
        for step, values in rows:
            rates = group_rates(values)
            table.add_row(
                f"{step:,}",
                _number(values.get("eval_loss")),
                *((_number(values.get("eval_f1")),) if has_f1 else ()),
                *(_rate(rates.get(key), caps.get(key)) for key in columns),
            )
        return table


def sparkline(values: Sequence[float], width: int, blocks: str) -> str:
    """Return a line of blocks whose heights are the means of at most `width` groups of values."""
    means = list(_means(values, width))
    low, high = min(means), max(means)
    top = len(blocks) - 1
    if high == low:
        return blocks[0] * len(means)
    return "".join(blocks[round(top * (mean - low) / (high - low))] for mean in means)


def _means(values: Sequence[float], width: int) -> Iterator[float]:
    count = min(width, len(values))
    for number in range(count):
        group = values[number * len(values) // count : (number + 1) * len(values) // count]
        yield sum(group) / len(group)


def _times(run: "Run") -> Iterator[str]:
    if run.started_at is not None:
        end = run.finished_at or datetime.now(UTC)
        yield f"{_clock((end - run.started_at).total_seconds())} elapsed"
    if run.eta_seconds is not None and run.status == JobStatus.RUNNING:
        yield f"{_clock(run.eta_seconds)} left"


def _clock(seconds: float) -> str:
    minutes, whole = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole:02}" if hours else f"{minutes}:{whole:02}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _rate(value: float | None, cap: float | None) -> Text:
    if value is None:
        return Text("-")
    style = "" if cap is None else "green" if value <= cap else "red"
    return Text(f"{value:.3f}", style=style)

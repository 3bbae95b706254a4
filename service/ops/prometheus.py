"""Prometheus metrics: requests counted in this process, jobs read from the database."""

from collections.abc import Iterator

import prometheus_client as prometheus
import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from service import __version__
from service.domain.errors import Unavailable
from service.domain.job_kinds import KINDS
from service.domain.states import JobStatus
from service.ops.paced_figure import PacedFigure
from service.store import monitoring
from service.store.database import Database
from service.store.monitoring import Figures, JobCounts

log = structlog.get_logger()

# Up to the duration of an upload of a large dataset.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
# Clients choose the method's text: a label for each would be a series for each.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"

# The start times of series would double their number and are of no use here.
prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]


class Monitoring:
    """One application's metrics, in a registry of its own: a process may make several."""

    def __init__(self, database: Database) -> None:
        self.registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self.registry)
        prometheus.PlatformCollector(registry=self.registry)
        prometheus.GCCollector(registry=self.registry)
        prometheus.Gauge(
            "fairtune_build_info", "1, with the version.", ["version"], registry=self.registry
        ).labels(__version__).set(1)
        self._requests = prometheus.Counter(
            "fairtune_http_requests",
            "Completed HTTP requests.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._durations = prometheus.Histogram(
            "fairtune_http_request_duration_seconds",
            "Duration of HTTP requests without event streams.",
            ["method", "route"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.registry.register(DatabaseCollector(database))

    def answered(self, method: str, route: str, status: int, seconds: float | None) -> None:
        """Count a request; `route` is a template. `seconds` is None for an event stream."""
        method = method if method in _METHODS else OTHER
        self._requests.labels(method, route, str(status)).inc()
        if seconds is not None:
            self._durations.labels(method, route).observe(seconds)


class DatabaseCollector(Collector):
    """Reads the database once per scrape; reports only fairtune_database_up while it cannot."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ended = PacedFigure(self._count_ended)

    def _count_ended(self) -> JobCounts:
        with self._database.read() as session:
            return monitoring.ended(session)

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("fairtune_database_up", "1 if the database could be read, else 0.")
        try:
            with self._database.read() as session:
                figures = monitoring.figures(session)
            ended = self._ended.value()
        except (Unavailable, SQLAlchemyError) as error:  # the latter: not migrated yet
            log.warning("jobs not counted", error=str(error))
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from _job_metrics(figures, figures.unfinished | ended)


def _job_metrics(figures: Figures, counts: JobCounts) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("fairtune_jobs", "Jobs.", labels=["kind", "status"])
    for (kind, status), count in counts.items():
        jobs.add_metric([kind, status], count)
    yield jobs
    yield GaugeMetricFamily(
        "fairtune_queue_depth",
        "Queued jobs.",
        sum(count for (_, status), count in counts.items() if status == JobStatus.QUEUED),
    )
    yield GaugeMetricFamily(
        "fairtune_queue_oldest_age_seconds",
        "Age of the oldest queued job; 0 if none is queued.",
        figures.oldest_queued_seconds,
    )
    yield CounterMetricFamily(
        "fairtune_job_takeovers",
        "Jobs taken over from unresponsive workers.",
        figures.takeovers,
    )
    speed = GaugeMetricFamily(
        "fairtune_training_samples_per_second",
        "Recent training speed of a running run.",
        labels=["run_id"],
    )
    memory = GaugeMetricFamily(
        "fairtune_job_gpu_memory_bytes",
        "Peak GPU memory of a running job's program in this attempt.",
        labels=["run_id", "job_id"],
    )
    for job in figures.running:
        job_kind = KINDS.get(job.kind)
        if job_kind is not None and job_kind.trains and job.samples_per_second is not None:
            speed.add_metric([job.run_id], job.samples_per_second)
        if job.gpu_memory_bytes is not None:
            memory.add_metric([job.run_id, job.id], job.gpu_memory_bytes)
    yield speed
    yield memory

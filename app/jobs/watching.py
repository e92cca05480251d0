"""Each job is counted, timed and a span; its id is in the log and in `application_name`. A worker's own /metrics."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from procrastinate import JobContext
from prometheus_client import start_http_server

from app import metrics
from app.domain.operation.vitals import Collected
from app.domain.runtime import Runtime
from app.telemetry import Timings, origin, request_id


async def watched(run: Callable[[], Awaitable[Any]], context: JobContext, _worker: Any) -> Any:
    """The middleware around every job of a worker."""
    job = context.job
    request_id.set(f"job-{job.id}")
    origin.set(f"pgretrieve-worker job-{job.id}")
    outcome = "failed"
    try:
        with metrics.job_seconds.labels(job.task_name).time(), Timings()(f"job {job.task_name}"):
            found = await run()
        outcome = "ok"
        return found
    finally:
        metrics.jobs.labels(job.task_name, outcome).inc()


@contextmanager
def metrics_served(runtime: Runtime) -> Iterator[None]:
    """/metrics of a worker on its own, which has no HTTP beside it, where a port is set; what waits, `serve` tells."""
    settings = runtime.settings
    if settings.worker_metrics_port is None:
        yield
        return
    server, thread = start_http_server(settings.worker_metrics_port, settings.host, registry=Collected(runtime))
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

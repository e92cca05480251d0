"""OpenTelemetry traces, where an endpoint is set: requests, jobs, their phases, and statements without their values.

The packages come with `pgretrieve[otel]`.
"""

from contextlib import nullcontext

from app.errors import Unavailable
from app.settings import Settings
from app.telemetry import spans_by

try:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    MISSING = False
except ImportError:
    MISSING = True


def provider(settings: Settings, part: str) -> "TracerProvider | None":
    """Starts tracing in this process; None where no endpoint is set. `part` is who it is: api or worker."""
    if settings.otlp_endpoint is None:
        return None
    if MISSING:
        message = "PGRETRIEVE_OTLP_ENDPOINT needs OpenTelemetry's packages: pip install 'pgretrieve[otel]'."
        raise Unavailable(message, code="otel_missing")
    made = TracerProvider(
        resource=Resource.create({"service.name": f"pgretrieve-{part}"}),
        sampler=ParentBased(TraceIdRatioBased(settings.trace_ratio)),
        shutdown_on_exit=False,
    )
    url = f"{settings.otlp_endpoint.rstrip('/')}/v1/traces"
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url, timeout=5)))
    spans_by(made.get_tracer("pgretrieve").start_as_current_span)
    PsycopgInstrumentor().instrument(tracer_provider=made)  # values of parameters are not captured
    return made


def stop(made: "TracerProvider | None") -> None:
    """Sends what is left, for a few seconds at most."""
    if made is not None:
        PsycopgInstrumentor().uninstrument()
        spans_by(nullcontext)
        made.shutdown()

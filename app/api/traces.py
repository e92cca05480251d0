"""Requests as spans, by litestar's own plugin, named by their routes."""

from typing import Any

from litestar.types import ASGIApp, Middleware, Receive, Scope, Send


def traced(provider: Any) -> list[Middleware]:
    """The middleware, where traces are sent somewhere."""
    if provider is None:
        return []
    from litestar.plugins.opentelemetry import OpenTelemetryConfig

    config = OpenTelemetryConfig(
        tracer_provider=provider,
        scope_span_details_extractor=lambda scope: (str(scope.get("method", "")), {}),
        exclude="^/(metrics|health)",
        exclude_spans=["receive", "send"],
    )
    return [config.middleware, _named]


def _named(app: ASGIApp) -> ASGIApp:
    """litestar opens the span before it looks for the route."""
    from opentelemetry.trace import get_current_span

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        route = scope["path_template"]
        span = get_current_span()
        span.update_name(f"{scope.get('method', '')} {route}")
        span.set_attribute("http.route", route)
        await app(scope, receive, send)

    return run

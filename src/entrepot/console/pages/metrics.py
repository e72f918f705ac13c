"""/metrics, for Prometheus."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


async def metrics(request: Request) -> Response:
    """Answer with everything that is counted, in Prometheus' text format."""
    return Response(request.app.state.exposition(), media_type=CONTENT_TYPE)


ROUTES = [Route("/metrics", metrics, name="metrics")]

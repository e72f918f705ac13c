"""Traces through the real process: a file sent over SFTP arrives at a collector as one trace."""

from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.acceptance.receivers import HttpReceiver
from tests.running import Stack, wait_for


def test_a_file_is_one_trace_at_a_collector(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "stack")
    with HttpReceiver() as collector:
        with (stack.folder / "stack.toml").open("a") as file:
            file.write(f'\n[tracing]\notlp_endpoint = "{collector.url}"\n')
        with stack:
            (tmp_path / "a.csv").write_text("a,b\n")
            stack.sftp(f"put {tmp_path / 'a.csv'} a.csv")
            row = stack.delivered("demo/a.csv")
            wait_for(lambda: collector.at("/v1/traces"), what="the trace")
        request = ExportTraceServiceRequest.FromString(collector.at("/v1/traces")[0].body)
        (resource,) = request.resource_spans
        spans = [span for scope in resource.scope_spans for span in scope.spans]
        names = [span.name for span in spans]
        assert {"file", "session", "upload", "event", "delivery", "execution", "state", "function invocation"} == set(
            names
        )
        assert len({span.trace_id for span in spans}) == 1
        known = {span.span_id for span in spans}
        assert [span.name for span in spans if span.parent_span_id not in known] == ["file"]
        attributes = {pair.key: pair.value.string_value for pair in spans[names.index("file")].attributes}
        assert attributes["entrepot.file.id"] == row["file_id"] and attributes["entrepot.file.status"] == "transferred"
        assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in spans)

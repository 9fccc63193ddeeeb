"""A collector of traces: takes OTLP over HTTP as JSON, by the protocol's own definitions, and writes a line for each span.

Arguments: port, file, how many requests it refuses first, and the token that it wants ("-": none).
"""
import base64, http.server, json, sys

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

port, path, refused, token = int(sys.argv[1]), sys.argv[2], [int(sys.argv[3])], sys.argv[4]


def own_names(value):
    """Names are hexadecimal in OTLP's JSON, where Protocol Buffers have base64."""
    if isinstance(value, list):
        return [own_names(item) for item in value]
    if not isinstance(value, dict):
        return value
    ids = {"traceId", "spanId", "parentSpanId"}
    return {k: base64.b64encode(bytes.fromhex(v)).decode() if k in ids else own_names(v) for k, v in value.items()}


class Collector(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if refused[0] > 0:
            refused[0] -= 1
            return self.answer(503)
        if token != "-" and self.headers.get("Authorization") != f"Bearer {token}":
            return self.answer(401)
        assert self.path == "/v1/traces" and self.headers["Content-Type"] == "application/json", self.path
        request = json_format.ParseDict(own_names(json.loads(body)), ExportTraceServiceRequest())
        with open(path, "a") as file:
            for resource in request.resource_spans:
                of = {a.key: a.value.string_value for a in resource.resource.attributes}
                for span in (span for scope in resource.scope_spans for span in scope.spans):
                    assert len(span.trace_id) == 16 and len(span.span_id) == 8, span
                    assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano, span
                    said = {a.key: a.value.string_value for a in span.attributes}
                    line = {"name": span.name, "trace": span.trace_id.decode(), "id": span.span_id.hex(),
                            "parent": span.parent_span_id.hex(), "status": span.status.code, "node": of["service.instance.id"],
                            "service": of["service.name"], "kind": span.kind, **said}
                    file.write(json.dumps(line) + "\n")
        self.answer(200)

    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


http.server.HTTPServer(("127.0.0.1", port), Collector).serve_forever()

"""A replica for tests: a real process with Triton's readiness and metrics paths, as quick as Python starts.

python fake_replica.py PORT METRICS_PORT [VERSION]      version 13 dies while loading; 14 never gets ready
"""

import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = b'nv_inference_pending_request_count{model="intent",version="1"} 0\n'


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        ready = self.path == "/metrics" or version != 14
        self.send_response(200 if ready else 400)
        self.end_headers()
        self.wfile.write(PAGE if self.path == "/metrics" else b"")

    def log_message(self, format: str, *arguments: object) -> None:
        pass


port, metrics_port = int(sys.argv[1]), int(sys.argv[2])
version = int(sys.argv[3])
if version == 13:
    print("error: failed to load model 'intent': unlucky weights", flush=True)
    sys.exit(1)
for number in (port, metrics_port):
    server = ThreadingHTTPServer(("127.0.0.1", number), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
while True:
    time.sleep(60)

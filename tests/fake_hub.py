"""A hub of models on this computer: its addresses, its headers, and what can go wrong with it."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading


class FakeHub:
    """Serves `files` (repository -> name -> bytes); a context manager.

    Large files are sent from a second host, as the real one does it, with ranges.
    """

    def __init__(self):
        self.files = {}
        self.private = set()  # repositories
        self.asked = []  # (host, path, range, key)
        self.cut_after = []  # bytes after which the next answers break off
        self.wrong_sha = False
        self.tells_sha = True
        self.keeps_ranges = True

    def __enter__(self):
        self._servers = [self._serve("hub"), self._serve("cdn")]
        self.url, self.cdn = (f"http://127.0.0.1:{s.server_port}" for s in self._servers)
        return self

    def __exit__(self, *error):
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def _serve(self, host):
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                hub.answer(host, self)

            def log_message(self, *args):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def answer(self, host, call):
        self.asked.append(
            (host, call.path, call.headers.get("Range"), call.headers.get("Authorization"))
        )
        if call.path.startswith("/api/models/"):
            self._list(call, call.path.removeprefix("/api/models/"))
            return
        repo, _, file = call.path.lstrip("/").partition("/resolve/main/")
        is_let_in = call.headers.get("Authorization") == "Bearer key"
        if host == "hub" and repo in self.private and not is_let_in:
            self._end(call, 401, {"X-Error-Message": "Invalid username or password."})
            return
        data = self.files.get(repo, {}).get(file.replace("%20", " "))
        if data is None:
            self._end(call, 404, {"X-Error-Message": "Entry not found"})
        elif host == "hub":
            sha = hashlib.sha256(b"other" if self.wrong_sha else data).hexdigest()
            headers = {"Location": f"{self.cdn}{call.path}", "X-Linked-Size": str(len(data))}
            if self.tells_sha:
                headers["X-Linked-Etag"] = f'"{sha}"'
            self._end(call, 302, headers)
        else:
            self._send(call, data)

    def _list(self, call, repo):
        if repo not in self.files:
            self._end(call, 401, {})
            return
        names = [{"rfilename": name} for name in self.files[repo]]
        self._end(call, 200, {}, json.dumps({"siblings": names}).encode())

    @staticmethod
    def _end(call, status, headers, body=b""):
        call.send_response(status)
        for name, value in headers.items():
            call.send_header(name, value)
        call.send_header("Content-Length", str(len(body)))
        call.end_headers()
        call.wfile.write(body)

    def _send(self, call, data):
        given = call.headers.get("Range")
        begin = int(given.removeprefix("bytes=").rstrip("-")) if given and self.keeps_ranges else 0
        call.send_response(206 if begin else 200)
        if begin:
            call.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        call.send_header("Content-Length", str(len(data) - begin))
        call.end_headers()
        rest = data[begin:]
        if self.cut_after:
            call.wfile.write(rest[: self.cut_after.pop(0)])
            call.close_connection = True
            call.connection.close()
            return
        call.wfile.write(rest)

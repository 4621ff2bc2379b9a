"""A ranking service for an agent of kind http://127.0.0.1:8080/rank: `python scenarios/rank_server.py [PORT]`."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ITEMS = [str(number) for number in range(1, 1683)]  # the log's own item ids, best first


class Rank(BaseHTTPRequestHandler):
    """Answers with the first of ITEMS that each user may be shown."""

    def do_POST(self) -> None:
        """Answer one batch of users."""
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        slates = []
        for user in question["users"]:  # features, history (newest last), feedback, step, excluded or candidates
            allowed = set(user.get("candidates", ITEMS)) - set(user["excluded"])
            slates.append([item for item in ITEMS if item in allowed][: question["slate_size"]])
        answer = json.dumps({"slates": slates}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int([*sys.argv, "8080"][1])), Rank).serve_forever()

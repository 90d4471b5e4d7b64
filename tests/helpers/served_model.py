"""A server with OpenAI's completions interface over a model folder, greedy, one request at a time: it stands in for vLLM."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM


@contextmanager
def serve(folder: Path, name: str = "the-model") -> Iterator[tuple[str, list[dict]]]:
    """Serves a model; yields the URL and the bodies of the completions that were asked for."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    lock, bodies = threading.Lock(), []

    def completion(body: dict) -> dict:
        if "prompt_logprobs" in body or body.get("echo"):
            raise ValueError("no log-probabilities")
        prompt, stops = body["prompt"], set(body.get("stop_token_ids", ()))
        if body.get("logit_bias"):
            ids, reason = [int(next(iter(body["logit_bias"])))], "length"
        else:
            bodies.append(body)
            with lock, torch.no_grad():
                made = model.generate(
                    torch.tensor([prompt]), do_sample=False, max_new_tokens=body["max_tokens"], eos_token_id=sorted(stops)
                )
            ids = made[0, len(prompt) :].tolist()
            reason = "stop" if ids and ids[-1] in stops else "length"
        choice = {"text": "", "token_ids": ids, "finish_reason": reason}
        return {"choices": [choice], "usage": {"prompt_tokens": len(prompt)}}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            self._send(200, {"data": [{"id": name, "max_model_len": 512}]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                self._send(200, completion(body))
            except ValueError as error:
                self._send(400, {"error": {"message": str(error)}})

        def _send(self, status, value):
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", bodies
    finally:
        server.shutdown()
        server.server_close()

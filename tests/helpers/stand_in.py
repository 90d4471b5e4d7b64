"""A server with OpenAI's completions interface and every bad habit that one can have, and what asks it."""

import json
import re
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from dgr_lightning.engines.engine import STOP, Completion, Request, Sampling
from dgr_lightning.models.thinking import FORMATS

STOP_ID, OTHER_STOP_ID = 2, 3
MARKS = list(dict.fromkeys(mark for format_ in FORMATS.values() for mark in format_.marks))
# A letter is its code point; control tokens have ids beyond.
CONTROLS = {"<end>": STOP_ID, "<over>": OTHER_STOP_ID} | {mark: 200_000 + i for i, mark in enumerate(MARKS)}
NAMES = {id_: name for name, id_ in CONTROLS.items()}
SAMPLING = Sampling(temperature=0.6, top_p=0.95, max_new_tokens=50, seed=3, stop_ids=(STOP_ID, OTHER_STOP_ID))


def encode(text):
    return [CONTROLS.get(piece) or ord(piece) for piece in re.findall("|".join(map(re.escape, CONTROLS)) + "|.", text, re.S)]


class Letters:
    """Decodes to text, end tokens behind it cut."""

    pad_id = STOP_ID

    def decode(self, ids):
        return re.sub("(<end>|<over>)+$", "", "".join(NAMES.get(id_) or chr(id_) for id_ in ids))


class StandIn:
    """A server with OpenAI's completions interface that answers `text` with `TEXT</think>text`.

    Attributes:
        bodies: of all completion requests, those of the engine's start excluded once `forget` was called.
        answer: called with each body before it is answered; may wait, or return (status, headers, body) to send instead.
    """

    def __init__(self):
        self.models = [{"id": "model-a", "max_model_len": 400}]
        self.token_ids = self.keeps_controls = self.takes_extras = self.takes_ids = self.knows_bias = True
        self.logprobs = ("prompt_logprobs", "echo")
        self.shift = self.extra_prompt_tokens = 0
        self.key = None
        self.answer = lambda body: None
        self.bodies, self.under_way, self.most_under_way, self.hung_up = [], 0, 0, 0
        self.lock = threading.Lock()
        self.http = None

    def start(self, port=0):
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize, disable_nagle_algorithm = -1, True

            def setup(self):
                super().setup()
                stand_in.connections.add(self.connection)

            def log_message(self, *_):
                pass

            def do_GET(self):
                if not self.refused():
                    self.send(200, {}, {"data": stand_in.models})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.refused():
                    return
                with stand_in.lock:
                    stand_in.bodies.append(body)
                    stand_in.under_way += 1
                    stand_in.most_under_way = max(stand_in.most_under_way, stand_in.under_way)
                try:
                    instead = stand_in.answer(body) or stand_in.complete(body)
                finally:
                    with stand_in.lock:
                        stand_in.under_way -= 1
                if instead == "hang up":
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                elif not stand_in.stopped:
                    self.send(*instead)

            def refused(self):
                if stand_in.key and self.headers.get("Authorization") != f"Bearer {stand_in.key}":
                    given = self.headers.get("Authorization", "nothing")
                    self.send(401, {}, {"error": {"message": f"Incorrect API key provided: {given}"}})
                    return True
                if not self.path.startswith("/v1/"):
                    self.send(404, {}, {"detail": "Not Found"})
                    return True
                return False

            def send(self, status, headers, body):
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                    self.wfile.flush()
                except (BrokenPipeError, ConnectionResetError):
                    with stand_in.lock:
                        stand_in.hung_up += 1

        class Http(ThreadingHTTPServer):
            daemon_threads, allow_reuse_address, request_queue_size = True, True, 256

            def handle_error(self, *_):
                pass

        self.stopped, self.connections = False, set()
        self.http = Http(("127.0.0.1", port), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def stop(self):
        """Dies: what is under way is never answered."""
        self.stopped = True
        self.http.shutdown()
        self.http.server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def port(self):
        return self.http.server_address[1]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    def forget(self):
        with self.lock:
            self.bodies, self.most_under_way = [], 0

    def complete(self, body):
        known = {"model", "prompt", "max_tokens", "temperature", "top_p", "seed", "logit_bias", "echo", "logprobs"}
        known |= {"presence_penalty", "frequency_penalty"}
        if not self.takes_extras and body.keys() - known:
            return 400, {}, {"error": {"message": f"Unrecognized request argument: {min(body.keys() - known)}"}}
        if not self.takes_ids:
            return 422, {}, {"error": "Input validation error: `prompt` must be a string", "error_type": "validation"}
        prompt = body["prompt"]
        text = "".join(map(chr, prompt)) if max(prompt) < 200_000 else ""
        ids = [*encode(text.upper() + "</think>" + text), STOP_ID]
        if self.knows_bias and "logit_bias" in body:
            ids = [int(next(iter(body["logit_bias"]))) + self.shift]
        reason = "stop" if len(ids) <= body["max_tokens"] else "length"
        ids = ids[: body["max_tokens"]]
        shown = [id_ for id_ in ids if id_ < 200_000 or (self.keeps_controls and body.get("skip_special_tokens") is not True)]
        choice = {"text": Letters().decode(shown), "finish_reason": reason}
        if self.token_ids and body.get("return_token_ids"):
            choice["token_ids"] = ids
        logprobs = [None, *(-id_ / 1000 for id_ in prompt[1:])]
        if "prompt_logprobs" in self.logprobs and "prompt_logprobs" in body:
            choice["prompt_logprobs"] = [
                logprob and {"7777": {"logprob": -99.0, "rank": 1}, str(id_): {"logprob": logprob, "rank": 3}}
                for id_, logprob in zip(prompt, logprobs, strict=True)
            ]
        if body.get("echo") and body.get("logprobs"):
            choice["logprobs"] = {"token_logprobs": [*(logprobs if "echo" in self.logprobs else []), -0.5]}
        return 200, {}, {"choices": [choice], "usage": {"prompt_tokens": len(prompt) + self.extra_prompt_tokens}}


def request(text):
    return Request(f"key of {text}", tuple(map(ord, text)))


def expected(text, finish_reason=STOP):
    output = text.upper() + "</think>" + text
    return Completion(f"key of {text}", tuple(encode(output)), output, finish_reason)


def texts(count):
    return [f"prompt {'x' * (i % 7)}{i}" for i in range(count)]


def wait_until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def client_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "server-client"}

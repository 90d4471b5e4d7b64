"""A small server in place of the Hugging Face hub, which the real libraries talk to, for tests."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.helpers.runs import ROOT

COMMIT = "c" * 40
MODEL = {
    "config.json": b'{"model_type": "qwen2"}',
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"pickle",
    "consolidated.safetensors": b"the weights once more",
    "modeling.py": b"code",
}
DATASET = {"README.md": b"# rows\n", "train.jsonl": b'{"prompt": "a", "answer": "b"}\n{"prompt": "c", "answer": null}\n'}
ROWS = [{"prompt": "a", "answer": "b"}, {"prompt": "c", "answer": None}]


class Hub(ThreadingHTTPServer):
    """The part of the hub's protocol that snapshot_download and load_dataset use, for one model and one dataset."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.asked: list[str] = []
        self.repositories = {"/api/models/owner/model": ("/owner/model", MODEL)}
        self.repositories["/api/datasets/owner/MySet"] = ("/datasets/owner/MySet", DATASET)
        self.gated: set[str] = set()  # of their api paths
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class HubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_) -> None:
        pass

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(path)
        for api, (files_at, files) in self.server.repositories.items():
            if api in self.server.gated and path.startswith((f"{api}/auth-check", f"{files_at}/resolve/")):
                return self.reply(403, X_Error_Code="GatedRepo", X_Error_Message=f"Access to {api} is restricted.")
            if path == f"{api}/auth-check":
                return self.reply(200)
            hashes = {name: hashlib.sha1(content).hexdigest() for name, content in files.items()}
            name = path.removeprefix(f"{files_at}/resolve/{COMMIT}/")
            if name in files:
                return self.reply(200, files[name], ETag=f'"{hashes[name]}"', X_Repo_Commit=COMMIT)
            if path.startswith((f"{files_at}/resolve/{COMMIT}/", f"{api}/tree/{COMMIT}/")):
                return self.reply(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
            if path == f"{api}/tree/{COMMIT}":
                entries = [
                    {"type": "file", "path": name, "size": len(content), "oid": hashes[name]} for name, content in files.items()
                ]
                return self.reply(200, json.dumps(entries).encode())
            if path in (f"{api}/revision/{COMMIT}", f"{api}/revision/main", api):
                info = {"id": api.split("/", 3)[3], "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
                return self.reply(200, json.dumps(info).encode())
        return self.reply(200 if path == "/" else 404, X_Error_Code="" if path == "/" else "RepoNotFound")

    do_HEAD = do_GET


NOBODY = "http://127.0.0.1:9"  # the discard port: nobody listens


class Asker:
    """Runs code in a process of its own, since huggingface_hub and datasets read their settings when they are imported."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, code: str, endpoint: str, **environment: str) -> tuple[object, str, float]:
        """Runs it against a hub's address.

        Returns:
            Its result, or its UserError; all else that it printed; the seconds that it slept, as it does between retries.
        """
        program = (
            "import json, time\nslept, sleep = [], time.sleep\n"
            "time.sleep = lambda seconds: (slept.append(seconds), sleep(seconds))\n"
            "from dgr_lightning.cli.preflight import *\nfrom dgr_lightning.config import *\n"
            "from dgr_lightning.data.hub import *\nfrom dgr_lightning.models.hub import *\n"
            f"try:\n    result = {code}\nexcept UserError as error:\n    result = f'UserError: {{error}}'\n"
            "print('\\n' + json.dumps([result, sum(slept)], default=str))"
        )
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "HF_HOME": str(self._folder / "hf"),
            "HF_ENDPOINT": endpoint,
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "PYTHONPATH": str(ROOT),
            **environment,
        }
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        *printed, result = done.stdout.splitlines()
        answer, slept = json.loads(result)
        return answer, "\n".join(printed).strip() + done.stderr.strip(), slept

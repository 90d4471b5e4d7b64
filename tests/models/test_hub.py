"""The hub: asked once and quickly; a small server stands in for it, and the real libraries talk to it.

Every test runs in processes of its own, since huggingface_hub and datasets read their settings when they are imported.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

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


@pytest.fixture
def hub():
    server = Hub()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def ask(tmp_path):
    """Runs code in a process of its own against a hub address; returns what it printed, as JSON, or its UserError."""

    def run(code: str, endpoint: str, **environment: str) -> tuple[object, str, float]:
        program = (
            "import json\nfrom dgr_lightning.cli.preflight import *\nfrom dgr_lightning.config import *\n"
            "from dgr_lightning.data.hub import *\nfrom dgr_lightning.models.hub import *\n"
            f"try:\n    result = {code}\nexcept UserError as error:\n    result = f'UserError: {{error}}'\n"
            "print('\\n' + json.dumps(result, default=str))"
        )
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "HF_HOME": str(tmp_path / "hf"),
            "HF_ENDPOINT": endpoint,
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "PYTHONPATH": str(ROOT),
            **environment,
        }
        start = time.monotonic()
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        *printed, result = done.stdout.splitlines()
        return json.loads(result), "\n".join(printed).strip() + done.stderr.strip(), time.monotonic() - start

    return run


NOBODY = "http://127.0.0.1:9"  # the discard port: nobody listens
BOTH = (
    f"require_sources(Config(model=ModelConfig(hub_id='owner/model', revision='{COMMIT}'), "
    f"data=DataConfig(hub_id='owner/MySet', revision='{COMMIT}')))"
)


def test_without_a_hub_one_message_names_model_and_data_quickly_and_quietly(ask):
    message, noise, seconds = ask(BOTH, NOBODY)
    assert message.startswith(f"UserError: The Hugging Face hub ({NOBODY}) cannot be reached")
    assert all(part in message for part in ("model owner/model", "data owner/MySet", "model.path=", "data.path="))
    assert noise == "" and seconds < 6


def test_a_hub_that_accepts_and_never_answers_is_given_up_in_time(ask):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as mute:
        reachable, noise, seconds = ask("hub_reachable()", f"http://127.0.0.1:{mute.getsockname()[1]}")
    assert reachable is False and noise == "" and seconds < 6


def test_offline_mode_asks_nobody(ask, hub):
    message, _, _ = ask(BOTH, hub.url, HF_HUB_OFFLINE="1")
    assert "switched off (HF_HUB_OFFLINE)" in message and not hub.asked


def test_the_hub_is_asked_once_a_process(ask, hub):
    assert ask(f"[hub_reachable(), hub_reachable(), {BOTH}]", hub.url)[0] == [True, True, None]
    assert hub.asked.count("/") == 1


def test_what_is_local_needs_no_hub(ask, hub, tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_bytes(MODEL[name])
    data = f"DataConfig(path={str(tmp_path / 'rows.jsonl')!r})"
    local = f"require_sources(Config(model=ModelConfig(path={str(tmp_path)!r}, hub_id='a/b'), data={data}))"
    recipe = "require_sources(Config(model=ModelConfig(recipe='micro'), data=DataConfig(recipe='micro-r1act')))"
    for code in (local, recipe):
        assert ask(code, hub.url)[0] is None
    assert not hub.asked


def test_what_is_local_already_is_said_so(ask):
    message = ask("require_sources(Config(model=ModelConfig(recipe='micro'), data=DataConfig(hub_id='owner/MySet')))", NOBODY)[
        0
    ]
    assert "cache: data owner/MySet." in message and "(local already: micro)" in message and "model.path=" in message


def test_what_is_no_repository_id_is_refused(ask):
    assert str(ask("cached_model('no such id', None)", NOBODY)[0]).startswith("UserError: model.hub_id=no such id")


def test_a_model_is_fetched_once_without_pickles_and_duplicates(ask, hub):
    fetch = f"fetch_model('owner/model', '{COMMIT}')"
    folder = Path(ask(fetch, hub.url)[0])
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}
    hub.asked.clear()
    assert ask(fetch, hub.url)[0] == ask(fetch, NOBODY)[0] == str(folder)
    assert ask("model_available('owner/model', None)", NOBODY)[0] is False  # the default branch was never looked up
    assert ask(f"model_available('owner/model', '{COMMIT}')", NOBODY)[0] is True
    assert not hub.asked
    (folder / "model.safetensors").unlink()
    assert ask(f"model_available('owner/model', '{COMMIT}')", NOBODY)[0] is False


def test_code_of_a_cached_model_is_asked_for_where_it_is_trusted(ask, hub):
    fetch = f"fetch_model('owner/model', '{COMMIT}', with_code={{}})"
    folder = Path(ask(fetch.format(False), hub.url)[0])
    assert not (folder / "modeling.py").exists()
    assert "not in the local cache" in ask(fetch.format(True), NOBODY)[0]
    assert ask(fetch.format(True), hub.url)[0] == ask(fetch.format(True), NOBODY)[0] == str(folder)
    assert (folder / "modeling.py").exists()


def test_the_default_branch_follows_the_hub_where_it_answers(ask, hub):
    folder = Path(ask("fetch_model('owner/model', None)", hub.url)[0])
    hub.asked.clear()
    assert ask("fetch_model('owner/model', None)", hub.url)[0] == str(folder)
    assert any("revision/main" in path for path in hub.asked)
    assert ask("fetch_model('owner/model', None)", NOBODY)[0] == str(folder)


def test_a_dataset_is_prepared_once_and_read_from_the_cache_at_its_commit(ask, hub):
    rows = f"dataset_rows('owner/MySet', '{COMMIT}', 'train')"
    assert ask(rows, hub.url)[0] == ROWS
    hub.asked.clear()
    result, noise, seconds = ask(rows, NOBODY)
    assert result == ROWS and noise == "" and seconds < 6 and not hub.asked
    other = ask(f"dataset_rows('owner/MySet', '{'d' * 40}', 'train')", NOBODY)[0]
    assert other.startswith("UserError: ") and "data owner/MySet is not in the local cache. Set data.path=" in other
    assert "no split 'test'" in ask(f"dataset_rows('owner/MySet', '{COMMIT}', 'test')", NOBODY)[0]


@pytest.mark.parametrize(
    ("code", "parts"),
    [
        ("fetch_model('owner/none', None)", ("UserError: owner/none: ", "Not Found", "model.path=")),
        (f"fetch_model('owner/model', '{'d' * 40}')", (f"UserError: owner/model@{'d' * 40}: ", "model.path=")),
        (
            "dataset_rows('owner/None', None, 'train', path_key='evaluation.path.x')",
            ("UserError: owner/None, split train: ", "doesn't exist on the Hub", "evaluation.path.x="),
        ),
        (f"dataset_rows('owner/MySet', '{COMMIT}', 'nosuch')", ("UserError: owner/MySet@", "split nosuch: ", "data.path=")),
    ],
)
def test_what_the_hub_does_not_have_is_named(ask, hub, code, parts):
    message = ask(code, hub.url)[0]
    assert isinstance(message, str) and all(part in message for part in parts)

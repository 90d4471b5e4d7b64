"""Fixtures for the whole suite: the shipped miniature, real data from `$DGR_SHARED`, vLLM's server."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import dgr_lightning  # noqa: F401 - before torch, so that threads wait as they do everywhere

# Before anything imports torch: a test's sums are the same on every machine, and two tests share two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real data sets and tokenizers; tests that need it skip where it is not given."""
    if "DGR_SHARED" not in os.environ:
        pytest.skip("$DGR_SHARED is not set: no real data and tokenizers on this machine")
    return Path(os.environ["DGR_SHARED"])


@pytest.fixture(scope="session")
def micro_folder() -> Path:
    """The miniature that comes with the package."""
    from dgr_lightning.config import ModelConfig
    from dgr_lightning.pipeline.locate_model import locate

    return locate(ModelConfig(recipe="micro"))


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained Qwen3 in bf16 with the miniature's tokenizer."""
    import torch

    from tests.helpers.trainings import save_base

    folder = tmp_path_factory.mktemp("base") / "model"
    return save_base(folder, "Qwen3", torch.bfloat16, tie_word_embeddings=True, head_dim=8)


@pytest.fixture
def cache(tmp_path):
    """A cache of its own, so that no rewrite or evaluation is there already."""
    return tmp_path / "cache"


@pytest.fixture
def hub():
    """A stand-in for the Hugging Face hub with one model and one data set."""
    from tests.helpers.hub import Hub

    server = Hub()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def ask(tmp_path):
    """Runs code in a process of its own against a hub's address; see `tests.helpers.hub.Asker`."""
    from tests.helpers.hub import Asker

    return Asker(tmp_path)


@pytest.fixture
def stand_in():
    """A stand-in for a server, up and well."""
    from tests.helpers.stand_in import StandIn

    stand_in = StandIn().start()
    yield stand_in
    if not stand_in.stopped:
        stand_in.stop()


@pytest.fixture
def connect(monkeypatch):
    """Returns a function that connects to a stand-in, with little patience; what it made is closed at the end."""
    from dgr_lightning.config import EngineConfig
    from dgr_lightning.engines.server import client
    from dgr_lightning.engines.server.engine import ServerEngine
    from tests.helpers.stand_in import Letters, encode

    monkeypatch.setattr(client, "FIRST_PAUSE", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    engines = []

    def connect(stand_in, **settings):
        settings = {"url": stand_in.url, "batch_size": 4, "retries": 4, "timeout_seconds": 20.0} | settings
        engines.append(ServerEngine(Letters(), encode, EngineConfig(name="server", **settings)))
        stand_in.forget()
        return engines[-1]

    yield connect
    for engine in engines:
        engine.close()


@pytest.fixture(scope="session")
def vllm_server(micro_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of vLLM's OpenAI-compatible server with the miniature in fp32, alive as long as this process is."""
    if find_spec("vllm") is None:
        pytest.skip("vLLM is not installed: no server to talk to")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    # `vllm serve` itself looks for a distribution called vllm, which the one for CPUs is not; this is what it runs.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(micro_folder), "--dtype", "float32"]
    command += ["--enforce-eager", "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    # vLLM's engine outlives a server that is killed. So a shell ends its whole group when the server ends, or when the pipe
    # from this process does, however that dies.
    watched = ["sh", "-c", '("$@"; kill -9 0) & cat > /dev/null; kill -9 0', "sh", *command]
    with open(log, "wb") as output:
        server = subprocess.Popen(
            watched,
            env=os.environ | quiet,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        for _ in range(1800):
            try:
                direct.open(f"http://127.0.0.1:{port}/health", timeout=10)
                break
            except OSError:
                assert server.poll() is None, f"the server ended:\n{log.read_text()[-3000:]}"
                time.sleep(0.5)
        else:
            raise AssertionError(f"no server after 15 minutes:\n{log.read_text()[-3000:]}")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.stdin.close()
        server.wait()


WIDTHS = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131072,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}


@pytest.fixture(scope="session")
def wide_folder(shared, tmp_path_factory):
    """A sharded folder of 1.6B random parameters, as a download of R1-Distill-Qwen-7B would lie there: two of its layers."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    path = tmp_path_factory.mktemp("wide") / "model"
    with torch.device("meta"):
        model = Qwen2ForCausalLM(Qwen2Config(num_hidden_layers=2, **WIDTHS)).to(torch.bfloat16)
    model.to_empty(device="cpu")
    torch.manual_seed(0)
    noise = 0.02 * torch.randn(2**20 + 7, dtype=torch.bfloat16)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
            else:  # one block of noise over and over: a billion normal draws would take longer than the test
                copies = -(-parameter.numel() // len(noise))
                parameter.copy_(noise.repeat(copies)[: parameter.numel()].view_as(parameter))
    model.save_pretrained(path, max_shard_size="1GB")
    for file in (shared / "tokenizers" / "r1-distill-qwen").iterdir():
        shutil.copy(file, path)
    return path

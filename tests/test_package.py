"""The package as it is shipped: what wheel and sdist hold, and the commands of a wheel that is installed alone.

A fresh virtual environment gets the wheel, and sees the libraries of the environment that runs these tests: pip checks every
pinned requirement against them and fetches nothing. No checkout is on its path.
"""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import dgr_lightning
from tests.helpers.runs import ROOT

pytestmark = pytest.mark.slow

COMMANDS = ("train", "refine", "evaluate")  # that take a config; dgr-compare takes directories
SMALL = ["data.limit=8", "sft.max_steps=2", "evaluation.limit=2", "probes.every=0", "trainer.precision=fp32"]


@dataclass
class Installed:
    """A fresh environment with the wheel."""

    python: Path
    cwd: Path
    cache: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a program of the environment from an empty folder."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"DGR_CACHE": str(self.cache), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        command = [str(self.python.parent / arguments[0]), *arguments[1:]]
        return subprocess.run(command, cwd=self.cwd, env=environment, capture_output=True, text=True, check=False)

    def output(self, *arguments: str) -> str:
        """Runs a program to its end, and returns what it printed."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def build(source: Path, out: Path, *what: str) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", *what, "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """A folder with an sdist, and the wheel that was built from it."""
    out = tmp_path_factory.mktemp("dist")
    build(ROOT, out)
    return out


@pytest.fixture(scope="module")
def wheel(dist) -> Path:
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Installed:
    return install(tmp_path_factory.mktemp("installed"), str(wheel))


def install(folder: Path, *what: str) -> Installed:
    """Makes a virtual environment that sees the libraries of this one, and has pip install something into it, offline."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    (folder / "empty").mkdir()
    python = folder / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-index", "--quiet", *what]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Installed(python, folder / "empty", folder / "cache")


def files_of(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_the_wheel_holds_the_package_and_conf_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        content = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    expected = {f"dgr_lightning/{name}": text for name, text in files_of(ROOT / "dgr_lightning").items()}
    expected |= {f"dgr_lightning/conf/{name}": text for name, text in files_of(ROOT / "conf").items()}
    assert sorted(content) == sorted(expected)
    assert content == expected
    for name in (
        "conf/train.yaml",
        "conf/refine/dgr.yaml",
        "prompts/dgr_trace.jinja",
        "prompts/meta_thinking.txt",
        "micro/shipped/model.safetensors",
        "data/label_lists/star1-1.json",
        "report/page.html.jinja",
        "report/comparison.html.jinja",
    ):
        assert f"dgr_lightning/{name}" in content


def test_the_sdist_builds_the_same_wheel_byte_for_byte_and_nothing_is_left_in_the_checkout(wheel, tmp_path):
    build(ROOT, tmp_path, "--wheel")
    (direct,) = tmp_path.glob("*.whl")
    assert direct.read_bytes() == wheel.read_bytes()
    assert not (ROOT / "build").exists() and not list(ROOT.glob("*.egg-info"))


def test_the_sdist_holds_what_a_checkout_needs_to_run_and_be_tested(dist):
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "train.py",
        "refine.py",
        "evaluate.py",
        "compare.py",
        "requirements.txt",
        "Makefile",
        "README.md",
        "LICENSE",
    } <= names
    assert {"conf/train.yaml", "tests/conftest.py", "benchmarks/large_set.py", "docs/headline.json"} <= names
    assert not any(name.startswith((".venv", "shared", "runs")) for name in names)


def test_the_installed_package_is_the_one_in_the_fresh_environment(installed):
    program = (
        "import dgr_lightning as p, sys; from dgr_lightning import installation as i; from importlib.metadata import version"
    )
    shown = "print(p.__file__, i.CONF, i.CHECKOUT, version('dgr-lightning'), sys.path, sep='\\n')"
    file, conf, checkout, version, path = installed.output("python", "-c", f"{program}; {shown}").splitlines()
    environment = installed.python.parents[1]
    assert Path(file).is_relative_to(environment) and Path(conf) == Path(file).parent / "conf"
    assert (checkout, version) == ("None", dgr_lightning.__version__)
    assert repr(str(ROOT)) not in path


@pytest.mark.parametrize("command", COMMANDS)
def test_console_commands_say_their_version_and_help_and_config_from_an_empty_folder(installed, command):
    assert installed.output(f"dgr-{command}", "--version") == f"dgr-lightning {dgr_lightning.__version__}\n"
    page = installed.output(f"dgr-{command}", "--help")
    assert f"dgr-{command} key=value" in page and ".py" not in page
    composed = installed.output(f"dgr-{command}", "--cfg", "job")
    script = [sys.executable, str(ROOT / f"{command}.py"), "--cfg", "job"]
    assert composed == subprocess.run(script, capture_output=True, text=True, check=True).stdout
    assert list(installed.cwd.iterdir()) == []


def test_a_mistake_is_named_by_the_installed_command(installed):
    done = installed.run("dgr-evaluate", "plan=true")
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == "error: plan=true: dgr-evaluate reads no source set; give it to dgr-train or dgr-refine.\n"


def test_the_installed_commands_train_the_miniature_measure_it_and_refine_its_set(installed):
    installed.output("dgr-train", *SMALL, "hydra.run.dir=trained")
    assert json.loads((installed.cwd / "trained" / "summary.json").read_text())["training"]["steps"] == 2
    assert "same command" not in installed.output("dgr-evaluate", "model.path=trained/model", "evaluation.limit=2")
    installed.output("dgr-refine", "data.limit=8", "hydra.run.dir=refined")
    assert len((installed.cwd / "refined" / "refined.jsonl").read_text().splitlines()) == 8
    # A checkout finds the run finished: both give it the same hash.
    script = [sys.executable, str(ROOT / "train.py"), *SMALL, f"hydra.run.dir={installed.cwd / 'trained'}"]
    environment = os.environ | {"DGR_CACHE": str(installed.cache), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    again = subprocess.run(script, env=environment, capture_output=True, text=True, check=True).stdout
    assert "training:" not in again


def test_the_installed_comparison_says_what_it_takes_and_compares(installed):
    assert installed.output("dgr-compare", "--version") == f"dgr-lightning {dgr_lightning.__version__}\n"
    page = installed.output("dgr-compare", "--help")
    assert "dgr-compare RUN RUN … [out=FOLDER]" in page and "dgr-evaluate 'models=[A,B]'" in page
    installed.output("dgr-evaluate", "models=[micro,trained]", "evaluation.limit=2", "name=both")
    runs = sorted(path.parent.name for path in installed.cwd.glob("runs/both/evaluate-*/summary.json"))
    done = installed.run("dgr-compare", f"runs/both/{runs[0]}", "out=compared")
    assert done.returncode == 2 and done.stderr.startswith("error: dgr-compare: one run is named")
    installed.output("dgr-compare", f"runs/both/{runs[0]}", "trained", "out=compared")
    assert json.loads((installed.cwd / "compared" / "comparison.json").read_text())["pairs"]


def test_a_study_sweeps_the_installed_package(installed):
    program = (
        "from dgr_lightning.config import StudyConfig; from dgr_lightning.experiments import grid;"
        "print(grid.sweep(StudyConfig(bases=[0], seeds=[1], workers=1), 'study', ['plan=true', 'data.limit=8'], 1))"
    )
    assert installed.output("python", "-c", program).splitlines()[-1] == "True"
    assert "the set can be trained on as it is" in (installed.cwd / "runs" / "study" / "base-0.log").read_text()


def test_an_editable_installation_runs_the_checkouts_own_files(tmp_path):
    editable = install(tmp_path, "--no-build-isolation", "--editable", str(ROOT))
    assert "dgr-train key=value" in editable.output("dgr-train", "--help")
    where = editable.output("python", "-c", "from dgr_lightning.installation import CHECKOUT, CONF; print(CHECKOUT, CONF)")
    assert where.split() == [str(ROOT), str(ROOT / "conf")]
    assert not (ROOT / "build").exists() and not list(ROOT.glob("*.egg-info"))

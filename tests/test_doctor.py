"""`inceptionnet doctor`: whatever is missing or broken is a line with the reason, and nothing private is told."""

from __future__ import annotations

import copy
import getpass
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement

import inceptionnet
from inceptionnet.doctor import examine, machine, packages, working
from inceptionnet.doctor.finding import Finding, guarded, private, without_names
from inceptionnet.engines import builders
from inceptionnet.engines.builders import BUILDERS, build_engine

from .forked import Forked
from .test_extras import OTHER_TORCH, broken

forks = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere everything is examined in one process")
# Of what is needed only some, since all would take seconds to import; then the command line that is given.
PROGRAM = """
import json, sys
from packaging.requirements import Requirement
from inceptionnet.cli import main
from inceptionnet.doctor import packages
needed = {extra: [*map(Requirement, names)] for extra, names in json.loads(sys.argv[1]).items()}
packages.requirements = lambda: needed
sys.argv[1:] = ["doctor", *sys.argv[2:]]
main()
"""
WITHOUT_TORCH = """
class Hook:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, Hook())
"""


@pytest.fixture(scope="module")
def light() -> Iterator[Forked]:
    """Runs a program in a fresh process in which torch is not imported."""
    yield (forked := Forked("json", "inceptionnet.cli", "inceptionnet.doctor"))
    forked.close()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is imported already."""
    needed = {"": ["numpy>=2"], "reports": ["jinja2>=3"]}
    groups = {extra: [*map(Requirement, names)] for extra, names in needed.items()}
    monkeypatch.setattr(packages, "requirements", lambda: groups)


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def examined_packages(**needed: list[str]) -> dict[str, Finding]:
    imports = packages.Imports()
    try:
        return by_name([*packages.extras(imports)])
    finally:
        imports.end()


def test_what_works(command, few: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INCEPTIONNET_CACHE", str(tmp_path))
    code, out, err = command("doctor", "--json")
    told = json.loads(out)
    assert (code, err, told["problems"]) == (0, "", [])
    assert [*told] == [
        "versions", "processor", "torch", "threads", "engines", "data workers", "self-test", "cache", "packages",
        "problems",
    ]  # fmt: skip
    assert told["versions"]["inceptionnet"] == inceptionnet.__version__
    assert told["torch"]["version"] == torch.__version__
    assert told["threads"]["torch"]["within an operation"] == torch.get_num_threads()
    assert ([*told["engines"]] == [*BUILDERS] and told["engines"]["fused"] == {"devices": ["cpu"], "reason": ""}) or (
        torch.accelerator.is_available()
    )
    assert told["packages"]["reports"]["installed"] is True
    tested = told["self-test"]["prediction"]
    shares = tested["probabilities"].values()
    assert tested["difference"] < 1e-5 and max(shares) > min(shares) + 0.1, "the network tells classes apart"
    code, out, _ = command("doctor")
    assert code == 0 and out.endswith("\nproblems: none\n") and "engines eager and fused differ by" in out


@pytest.mark.slow
def test_on_this_machine_as_it_is(light: Forked) -> None:
    """All packages that are installed."""
    done = light("from inceptionnet.cli import main; main()", "doctor", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr, told["problems"]) == (0, "", [])
    assert {"onnx", "openvino", "reports"} < told["packages"].keys() and "test" not in told["packages"]


def test_without_torch(light: Forked) -> None:
    done = light(f"import sys\n{WITHOUT_TORCH}{PROGRAM}", '{"": ["numpy", "torch"]}', "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (1, "")
    assert told["problems"] == ["torch: error: ModuleNotFoundError: No module named 'torch'"]
    assert told["versions"]["inceptionnet"] and told["cache"]["folder"] and told["processor"]["cores"]["allowed"] > 0


def test_a_torch_that_is_optional(command, few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = packages.version_of
    monkeypatch.setattr(packages, "version_of", lambda name: None if name == "torch" else installed(name))
    code, out, _ = command("doctor")
    assert code == 0 and "not installed; the extras that need it say so below" in out and "self-test" not in out


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (OTHER_TORCH, "RuntimeError: operator torchvision::nms does not exist"),
        ("import os; os.kill(os.getpid(), 4)", "the process was ended by SIGILL while this was examined"),
    ],
)
@forks
def test_a_torch_that_cannot_be_imported(code: str, said: str, tmp_path: Path, light: Forked) -> None:
    folder = broken(tmp_path, "torch", code)
    done = light(PROGRAM, '{"": ["numpy", "torch"]}', env=os.environ | {"PYTHONPATH": str(folder)}, absent=["torch"])
    assert (done.returncode, done.stderr) == (1, "") and "Traceback" not in done.stdout
    assert f"PROBLEM: {said}" in done.stdout
    assert "packages\n  core" in done.stdout and "numpy" in done.stdout, "the rest is examined all the same"


BROKEN = {
    "raises": (OTHER_TORCH, "cannot be imported (RuntimeError: operator torchvision::nms does not exist)"),
    "misses a library": (
        "raise ImportError('x.so: undefined symbol: _Z')",
        "(ImportError: x.so: undefined symbol: _Z)",
    ),
    "crashes": ("import os; os.kill(os.getpid(), 11)", "(importing it ends the process, which was ended by SIGSEGV)"),
    "exits": ("import os; os._exit(3)", "(importing it ends the process, which ended with code 3)"),
    "prints": ("print('hello'); import sys; sys.stderr.write('hello')", ""),
    "hangs": ("import time; time.sleep(100)", "the time was too short to import broken-one"),
}


@forks
@pytest.mark.parametrize("how", BROKEN)
def test_a_package_that_cannot_be_imported(how: str, tmp_path: Path, light: Forked) -> None:
    code, said = BROKEN[how]
    folder = broken(tmp_path, "broken_one", code)
    program = f"from inceptionnet import doctor; doctor.WITH_TORCH = {{}}; doctor.packages.LIMIT_S = 1.0\n{PROGRAM}"
    needed = json.dumps({"": ["rich"], "reports": ["broken-one"], "onnx": ["rich", "absent-one"]})
    done = light(program, needed, env=os.environ | {"PYTHONPATH": str(folder)})
    lines = [line for line in done.stdout.splitlines() if line.startswith("  reports")]
    assert len(lines) == 1 and said in lines[0] and "hello" not in done.stdout, done.stdout + done.stderr
    problem = how not in ("prints", "hangs")
    assert (done.returncode, done.stderr) == (int(problem), "")
    assert problem == lines[0].endswith("; repair: pip install --force-reinstall 'inceptionnet[reports]'")
    assert "missing: absent-one; pip install 'inceptionnet[onnx]'" in done.stdout


def test_an_extra_that_is_missing_is_no_problem(few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "version_of", lambda name: None if name == "jinja2" else "2.0")
    found = examined_packages()
    assert found["reports"].text == "missing: jinja2; pip install 'inceptionnet[reports]'"
    assert found["reports"].value["missing"] == ["jinja2"] and not found["reports"].value["installed"]
    assert not found["reports"].problem and not found["core"].problem


def test_a_version_that_is_too_old(few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "version_of", lambda name: "1.26.4")
    found = examined_packages()
    assert (
        found["core"].text == "unfit: numpy 1.26.4 (expected >=2); pip install 'inceptionnet'" and found["core"].problem
    )
    assert not found["reports"].problem and "jinja2 1.26.4 (expected >=3)" in found["reports"].text


def test_what_is_needed_is_what_the_metadata_says() -> None:
    needed = packages.requirements()
    assert {"numpy", "pillow"} <= {one.name for one in needed[""]}
    assert "torch" in {one.name for one in needed["torch"]}
    assert {"onnx", "onnxruntime", "onnxscript", "torch"} <= {one.name for one in needed["onnx"]}
    assert not {one.name for one in needed[""]} & {one.name for one in needed["onnx"]} and "test" not in needed


def test_without_metadata_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "NAME", "absent-package")
    (finding,) = guarded("packages", lambda: packages.extras(packages.Imports()))
    assert finding.problem and finding.text.startswith("PackageNotFoundError") and "absent-package" in finding.text


def test_modules_of_packages_with_other_names() -> None:
    assert packages.modules_of("scikit-learn") == ["sklearn"] and packages.modules_of("pillow") == ["PIL"]


@pytest.mark.parametrize(
    ("place", "reason"), [("file/sub", "Not a directory"), ("\0", "embedded null byte"), ("file", "Not a directory")]
)
def test_a_cache_that_cannot_be_written(
    place: str, reason: str, command, few: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(machine, "cache_file", lambda: tmp_path / place / "engines.json")
    monkeypatch.setattr("inceptionnet.doctor.WITH_TORCH", {})
    code, out, err = command("doctor", "--json")
    told = json.loads(out)
    (problem,) = told["problems"]
    assert (code, err) == (1, "") and reason in problem and problem.startswith("cache: ")
    code, out, _ = command("doctor")
    assert code == 1 and out.endswith("\nproblems: 1\n") and "PROBLEM: " in out


def test_the_cache_stays_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INCEPTIONNET_CACHE", str(tmp_path / "none" / "yet"))
    found = by_name([*machine.cache()])
    assert found["writable"].value is True and found["size"].value == 0 and not [*tmp_path.iterdir()]
    (tmp_path / "none" / "yet").mkdir(parents=True)
    (tmp_path / "none" / "yet" / "engines.json").write_bytes(bytes(1000))
    assert by_name([*machine.cache()])["size"].value == 1000 and len([*tmp_path.rglob("*")]) == 3


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    found = by_name([*working.engines()])
    for name in ("winograd", "compile"):
        assert f"cannot be used: engine {name}: expected a C++ compiler, got none" in found[name].text
        assert found[name].value["devices"] == [] and not found[name].problem
    assert found["fused"].value["devices"] and not found["fused"].value["reason"]
    for package in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, package, None)
    found = by_name([*working.engines()])
    assert found["onnxruntime"].text == (
        "cannot be used: ONNX Runtime needs onnxruntime; install it with: pip install 'inceptionnet[onnx]'"
    )
    assert "pip install 'inceptionnet[openvino]'" in found["openvino"].text


def test_engines_that_disagree(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: Any, target: Any) -> Any:
        other = copy.deepcopy(model)
        torch.nn.init.ones_(other.head["logits"].weight)
        return build_engine("eager", other, target)

    monkeypatch.setitem(builders.BUILDERS, "fused", wrong)
    (finding,) = guarded("self-test", working.self_test)
    assert (finding.problem and finding.text.startswith("engine fused")) or "expected logits within" in finding.text


def test_probabilities_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working, "PROBABILITIES", -1.0)
    (finding,) = guarded("self-test", working.self_test)
    assert finding.problem and "engines eager and fused give probabilities that differ by" in finding.text


def test_nothing_private_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "jo"))
    monkeypatch.setattr(getpass, "getuser", lambda: "jo")
    home = tmp_path / "home" / "jo"
    assert without_names(f"{home}/lib/x.so: {home}") == "~/lib/x.so: ~"
    assert (
        without_names(f"{home}anna/x /scratch/jo/x /scratch/joe jo") == f"{home}anna/x /scratch/USER/x /scratch/joe jo"
    )
    monkeypatch.setenv("INCEPTIONNET_CACHE", str(home / "cache"))
    told = [private(one) for one in machine.cache()]
    assert by_name(told)["folder"].value == by_name(told)["folder"].text == os.path.join("~", "cache")
    finding = Finding("a", "b", {"c": [f"{home}/d"]}, f"{home}", True)
    assert private(finding) == Finding("a", "b", {"c": ["~/d"]}, "~", True)


def test_no_host_name(few: None) -> None:
    host = os.uname().nodename if hasattr(os, "uname") else "no-such-host"
    told = json.dumps([finding for finding in examine() if finding.section != "packages"])
    assert f'"{host}"' not in told and f"{Path.home()}/" not in told


def test_the_drivers_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (file := tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.133.20  Release Build\nGCC version:  gcc 12.2.0\n"
    )
    monkeypatch.setattr(working, "DRIVER", file)
    assert working.nvidia_driver() == "570.133.20"
    monkeypatch.setattr(working, "DRIVER", tmp_path / "absent")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert working.nvidia_driver() is None

"""What a release needs besides code: its citation, continuous integration and forms agree with the package."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from inceptionnet import __version__
from inceptionnet.nets import PAPERS

from .documents import site

ROOT = Path(__file__).parent.parent
GITHUB = ROOT / ".github"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
YAML = [ROOT / "CITATION.cff", *sorted(GITHUB.rglob("*.yml"))]


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def workflow(name: str) -> Any:
    return read(GITHUB / "workflows" / f"{name}.yml")


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_yaml_is_a_mapping_without_repeated_keys(path: Path) -> None:
    def keys(node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            names = [key.value for key, _ in node.value]
            assert len(names) == len({*names}), f"{path.name}: {names}"
            for _, value in node.value:
                keys(value)
        elif isinstance(node, yaml.SequenceNode):
            for value in node.value:
                keys(value)

    root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    keys(root)


def test_the_citation_is_of_this_version_and_of_the_papers() -> None:
    citation = read(ROOT / "CITATION.cff")
    assert str(citation["version"]) == __version__
    assert citation["license"] in PROJECT["license"] and citation["cff-version"] == "1.2.0"
    cited = {one["identifiers"][0]["value"]: one for one in citation["references"]}
    for paper in PAPERS.values():
        authors, title, arxiv = paper.split(", ", 1)[0], paper.split(", ", 1)[1].rsplit(", ", 1)[0], paper.split()[-1]
        reference = cited.pop(arxiv)
        assert (
            reference["title"].lower().startswith(title.lower()) and reference["authors"][0]["family-names"] in authors
        )
    assert not cited


def test_every_supported_version_is_tested() -> None:
    matrix = workflow("ci")["jobs"]["test"]["strategy"]["matrix"]
    stated = [found[1] for one in PROJECT["classifiers"] if (found := re.search(r"Python :: (3\.\d+)$", one))]
    assert matrix["python"] == stated
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert all(version in allowed for version in stated) and "3.10" not in allowed
    (torch,) = (one for one in map(Requirement, PROJECT["optional-dependencies"]["torch"]) if one.name == "torch")
    oldest = str(torch.specifier).removeprefix(">=")
    assert matrix["torch"] == [f"=={oldest}.*", str(torch.specifier)]


def test_the_pinned_torch_is_what_the_workflow_replaces() -> None:
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    steps = workflow("ci")["jobs"]["test"]["steps"]
    assert len(re.findall(r"^torch==.*", pinned, re.MULTILINE)) == 1
    assert [step["run"] for step in steps if "sed" in step.get("run", "")] == [
        'sed -i "s/^torch==.*/$TORCH/" constraints.txt'
    ]


def test_only_the_job_that_publishes_may_ask_for_an_identity() -> None:
    for name in ("ci", "release"):
        jobs = workflow(name)["jobs"]
        assert workflow(name)["permissions"] == {"contents": "read"}
        rights = {job: about["permissions"] for job, about in jobs.items() if "permissions" in about}
        assert rights == ({"publish": {"id-token": "write"}} if name == "release" else {})
    publish = workflow("release")["jobs"]["publish"]
    assert publish["environment"] == "pypi" and all("run" not in step for step in publish["steps"])


def test_files_that_the_workflow_looks_for_are_in_the_package() -> None:
    (looked,) = (
        step["run"] for step in workflow("ci")["jobs"]["distributions"]["steps"] if "fresh" in step.get("run", "")
    )
    files = re.findall(r"[\w/]+\.(?:cpp|h|toml|tsv|html|typed)\b", looked)
    assert len(files) == 8 and all((ROOT / "src" / "inceptionnet" / file).is_file() for file in files)


@pytest.mark.parametrize("form", ["bug", "question"])
def test_issues_ask_for_what_doctor_says(form: str) -> None:
    about = read(GITHUB / "ISSUE_TEMPLATE" / f"{form}.yml")
    assert {"name", "description", "body"} <= about.keys()
    fields = {field["id"]: field for field in about["body"] if "id" in field}
    assert "inceptionnet doctor" in fields["doctor"]["attributes"]["label"]
    assert fields["doctor"].get("validations", {}).get("required", False) is (form == "bug")


def test_the_badges_say_what_is_true() -> None:
    badges = site("badges")
    stated = badges.badges(PROJECT)
    assert stated["python"].split(", ") == [
        str(one) for one in workflow("ci")["jobs"]["test"]["strategy"]["matrix"]["python"]
    ]
    assert (ROOT / "docs" / "badges.svg").read_text(encoding="utf-8") == badges.drawn(stated)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(text in readme for name, text in stated.items() if name != "licence") and stated["licence"] in readme

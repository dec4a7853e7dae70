"""The site: its pages are made from all that the package has, and it opens without asking anybody else for anything."""

from __future__ import annotations

import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import inceptionnet
from inceptionnet.nets import NETWORKS
from inceptionnet.train.recipes import DEFAULT
from inceptionnet.weights.known import PUBLISHED

from .conftest import opened
from .documents import ROOT, cli_commands
from .documents import site as pages_of_site

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def made() -> dict[str, dict[str, str]]:
    """The pages that are made from the package, by kind and file name."""
    return {kind: pages() for kind, pages in pages_of_site().KINDS.items()}


def test_a_page_for_every_network(made: dict[str, dict[str, str]]) -> None:
    for name in NETWORKS:
        page = made["networks"][f"{name}.md"]
        assert f'create_model("{name}")' in page and made["networks"][f"{name}.svg"].startswith("<svg")
        assert all(one.name in page for one in PUBLISHED if one.network == name)
        assert f"({name}.md)" in made["networks"]["index.md"]
    assert "299 px, at least 75 px" in made["networks"]["inception_v4.slim.md"]
    facts = pages_of_site("networks").FACTS
    assert facts.keys() == NETWORKS.keys()


def test_what_differs_between_two_networks(made: dict[str, dict[str, str]]) -> None:
    differences = pages_of_site("networks").differences
    assert differences(NETWORKS["inception_v3"], NETWORKS["inception_v3"]) == []
    changed = differences(NETWORKS["inception_v3.torchvision"], NETWORKS["inception_v3"])
    assert ["average pools count their padding", "yes", "no"] in changed
    changed = differences(NETWORKS["inception_v4.slim"], NETWORKS["inception_v4"])
    assert any(row[0].startswith("`inception_b1` to `inception_b7`") for row in changed)
    for name in NETWORKS:
        if other := pages_of_site("networks").base(name):
            assert differences(NETWORKS[name], NETWORKS[other]), name


def test_every_setting_with_its_values(made: dict[str, dict[str, str]]) -> None:
    page = made["settings"]["index.md"]
    for key, _ in DEFAULT.items():
        assert f"### {key}\n" in page
    assert "Takes: number above 0. Default `0.004`; finetune `0.0003`" in page
    assert "Takes: whole number at least 1, or none. Default `none` in every recipe." in page
    assert "Takes: ." not in page


def test_every_command_with_every_option(made: dict[str, dict[str, str]]) -> None:
    for name, command in cli_commands().items():
        page = made["commands"][f"{name}.md"]
        for parameter in command.params:
            if not parameter.hidden and type(parameter).__name__ == "TyperOption":
                assert f"`{parameter.opts[0]}" in page, (name, parameter.name)
        assert f"({name}.md)" in made["commands"]["index.md"]


def test_every_public_name(made: dict[str, dict[str, str]]) -> None:
    page = made["api"]["inceptionnet.md"]
    assert all(f":: inceptionnet.{name}\n" in page for name in inceptionnet.__all__)
    api = pages_of_site("api")
    assert all(api.found(name) for _, _, names in api.PAGES.values() for name in names)


def test_links_to_documents_beside_docs_lead_to_their_copies(made: dict[str, dict[str, str]]) -> None:
    pages = pages_of_site()
    text = "[a](../benchmarks/README.md#engines) [b](../examples/x.py) [c](data.md)"
    assert pages.mended("engines", text) == text.replace("../benchmarks/README.md", "generated/project/benchmarks.md")
    deep = pages.mended("decisions/0007-engines", "[a](../../SECURITY.md)")
    assert deep == "[a](../generated/project/security.md)"
    assert "](../../timm.md)" in made["project"]["benchmarks.md"]


def test_patterns_that_match_nothing_are_left_out(made: dict[str, dict[str, str]]) -> None:
    pages = pages_of_site()
    text = "```{toctree}\n:glob:\n\n0*\nmissing*\n\n```\n"
    assert pages.without_empty_globs("decisions/index", text) == text.replace("missing*\n", "")
    assert pages.without_empty_globs("index", "missing*\n") == "missing*\n"


WIDER = """Math.max(...["html", ".content"].map((part) => document.querySelector(part)).map(
    (part) => part.scrollWidth - part.clientWidth))"""
"""How much wider than the window a page is, px: furo hides what html has too much, and scrolls the text instead."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does."""
    for package in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(package, reason=f"no {package}; pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "-n", "--keep-going", "-q", "-d", folder / "doctrees", DOCS]
    ended = subprocess.run([*command, folder / "site"], capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    return folder / "site"


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_ask_nobody_and_fit(browser: Any, site: Path, width: int, scheme: str) -> None:
    pages = [*site.glob("*.html"), *(site / "generated").rglob("*.html"), *(site / "decisions").glob("00*.html")]
    assert len(pages) > 70
    view = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
    tab, said = opened(browser, site / "index.html", **view)
    tab.on("request", lambda request: request.url.startswith(("data:", site.as_uri())) or said.append(request.url))
    for page in sorted(pages):
        tab.goto(page.as_uri())
        wide = tab.evaluate(WIDER)
        assert wide <= 0, f"{page.name} is {wide} px wider than {width} px"
        assert said == [], page.name
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in ground[4:-1].split(",")[:3]) > 380) == (scheme == "light"), ground
    tab.close()


@pytest.mark.slow
def test_search_finds_a_setting(browser: Any, site: Path) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *what: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tab = browser.new_page()
        tab.goto(f"http://127.0.0.1:{server.server_port}/search.html?q=label_smoothing")
        tab.wait_for_selector("#search-results li a", timeout=30_000)
        assert any("settings" in link for link in tab.locator("#search-results li a").evaluate_all(
            "links => links.map((link) => link.href)"
        ))  # fmt: skip
        tab.close()
        server.shutdown()

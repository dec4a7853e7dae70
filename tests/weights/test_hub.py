"""Weights from a hub on this machine by the real huggingface_hub: what is fetched, kept, compared and refused."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import pytest
import torch

from inceptionnet import create_model, read_record
from inceptionnet.errors import InceptionNetError, MissingExtraError, WeightsError
from inceptionnet.weights.hub import Fetched, fetch, is_address
from inceptionnet.weights.layouts.torchvision import GOOGLENET

from ..data.server import COMMIT, Site, hub
from ..forked import Forked
from .published import as_published, write

LARGE = bytes(range(256)) * 400
CONFIG = {"architecture": "inception_v3", "pretrained_cfg": {"mean": [0.5, 0.5, 0.5]}}
FILES = {
    "README.md": b"# Nets", "config.json": json.dumps(CONFIG).encode(), "model.safetensors": LARGE,
    "pytorch_model.bin": b"B" * 300, "more/fine tuned.pth": b"P" * 200,
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The library's folders within tmp_path, no token, and no waiting between tries."""
    monkeypatch.setenv("no_proxy", "*")
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    for name, file in {
        "HF_HUB_CACHE": "hub", "HF_TOKEN_PATH": "token", "HF_STORED_TOKENS_PATH": "tokens",
        "AGENT_HARNESSES_PATH": "harnesses.json",
    }.items():  # fmt: skip
        monkeypatch.setattr(huggingface_hub.constants, name, str(tmp_path / file), raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    yield tmp_path / "hub"
    huggingface_hub.close_session()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with hub(dict(FILES), "me/nets", "models") as served:
        point_at(served.url, monkeypatch)
        yield served


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def refused(address: str, reason: str) -> str:
    with pytest.raises(InceptionNetError, match=reason) as caught:
        fetch(address)
    message = str(caught.value)
    assert type(caught.value) is WeightsError and len(message.splitlines()) == 1 and message.isprintable()
    return message


def resolved(found: Fetched, data: bytes) -> str:
    assert found.path.read_bytes() == data
    return found.address


def test_addresses() -> None:
    assert all(map(is_address, ("hf:a/b", "hf:"))) and not any(map(is_address, ("", "a/b", "hf", "https://hf:a/b")))


def test_fetched_once_then_from_the_cache(
    site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    found = fetch("hf:me/nets")
    assert resolved(found, LARGE) == f"hf:me/nets/model.safetensors@{COMMIT}" and found.config == CONFIG
    assert found.path == cache / "models--me--nets" / "snapshots" / COMMIT / "model.safetensors"
    site.asked.clear()
    assert fetch("hf:me/nets") == found, "only asked whether there is something newer"
    assert len(site.asked) == 2 and not any(span for _, span in site.asked)
    offline(monkeypatch)
    site.asked.clear()
    for address in ("hf:me/nets", "hf:me/nets@main", "hf:me/nets/model.safetensors", f"hf:me/nets@{COMMIT}"):
        assert fetch(address) == fetch(found.address) == found
    assert site.asked == [] and capfd.readouterr() == ("", "")


def test_named_files_and_revisions(site: Site) -> None:
    for revision in ("", "@main", f"@{COMMIT}"):
        found = fetch(f"hf:me/nets/more/fine tuned.pth{revision}")
        assert resolved(found, FILES["more/fine tuned.pth"]) == f"hf:me/nets/more/fine tuned.pth@{COMMIT}"
        assert found.config == CONFIG
    assert resolved(fetch(f"hf:me/nets/README.md@{COMMIT}"), b"# Nets")


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["a.h5", "b.keras", "c.BIN", "d.safetensors"], "d.safetensors"),
        (["a.h5", "b.keras", "x/c.pt"], "x/c.pt"),
        (["a.weights.h5", "b.keras"], "b.keras"),
        (["a.weights.h5", "b.onnx"], "a.weights.h5"),
        (
            ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors", "m.safetensors.index.json", "m.pth"],
            "m.pth",
        ),
    ],
)
def test_the_best_kind(files: list[str], chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub({name: name.encode() for name in files}, "me/nets", "models") as site:
        point_at(site.url, monkeypatch)
        found = fetch("hf:me/nets")
        assert resolved(found, chosen.encode()) == f"hf:me/nets/{chosen}@{COMMIT}" and found.config == {}


ENDINGS = r"\(\.safetensors, \.pth, \.pt, \.bin, \.keras, \.h5\)"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (
            ["b.pth", "a.pt", "c.h5"],
            r"^hf:me/nets@main: expected one .pth or .pt or .bin file, got a.pt, b.pth: "
            r"choose one, as in hf:me/nets/a.pt@main$",
        ),
        ([f"{i}.h5" for i in range(12)], r"got 0.h5, 1.h5, .* … and 2 more: choose one, as in hf:me/nets/0.h5@"),
        (["a.ckpt", "b.json"], f"^hf:me/nets@main: expected a weights file {ENDINGS}, got none: name the file$"),
        ([], "got none: name the file$"),
        (
            ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"],
            "got parts of one .m-00001-of-00002.safetensors, m-00002-of-00002.safetensors.: join them, and give the p",
        ),
    ],
)
def test_no_single_best_file(files: list[str], reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub(dict.fromkeys(files, b"x"), "me/nets", "models") as site:
        point_at(site.url, monkeypatch)
        refused("hf:me/nets@main", reason)
        assert not any("/resolve/" in path for path, _ in site.asked), "nothing is downloaded"


@pytest.mark.parametrize("spoilt", [LARGE[:-1] + b"?", LARGE[:100], b""], ids=["byte", "end", "all"])
def test_a_damaged_file_in_the_cache(site: Site, monkeypatch: pytest.MonkeyPatch, spoilt: bytes) -> None:
    blob = fetch("hf:me/nets").path.resolve()
    blob.write_bytes(spoilt)
    expected, got = (hashlib.sha256(data).hexdigest() for data in (LARGE, spoilt))
    reason = f"^hf:me/nets/model.safetensors@{COMMIT}: expected a file with SHA-256 {expected}, got {got}: "
    reason += f"delete {blob}, download it again$"
    refused("hf:me/nets", reason)
    with monkeypatch.context() as patch:
        offline(patch)
        refused("hf:me/nets", reason)
    blob.unlink()
    assert resolved(fetch("hf:me/nets"), LARGE), "the advice helps"


@pytest.mark.parametrize("links", [True, False])
def test_a_server_that_sends_something_else(site: Site, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:  # as on Windows: the snapshot holds the file itself
        monkeypatch.setattr(huggingface_hub.file_download, "are_symlinks_supported", lambda folder=None: False)
    site.swapped["model.safetensors"] = LARGE[::-1]
    message = refused("hf:me/nets", "expected a file with SHA-256")
    Path(message.partition("delete ")[2].removesuffix(", download it again")).unlink()
    site.swapped.clear()
    found = fetch("hf:me/nets")
    assert resolved(found, LARGE) and found.path.is_symlink() == links


def test_a_broken_download_is_gone_on_with(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    site.cuts[:] = [len(LARGE), 20_000, 50_000]  # the list, then the file
    assert resolved(fetch("hf:me/nets"), LARGE)
    spans = [span for path, span in site.asked if path.endswith("model.safetensors") and span]
    assert spans == ["bytes=20000-", "bytes=70000-"]


def test_a_download_that_ends_early_leaves_nothing(site: Site, cache: Path) -> None:
    site.swapped["model.safetensors"] = LARGE[:5000]
    refused("hf:me/nets", r"^hf:me/nets/model.safetensors: cannot be fetched \(.*102400.*5000.*\)$")
    blob = cache / "models--me--nets" / "blobs" / hashlib.sha256(LARGE).hexdigest()
    assert blob.parent.is_dir() and not blob.exists() and not list(cache.rglob("model.safetensors"))
    site.swapped.clear()
    assert resolved(fetch("hf:me/nets"), LARGE) and blob.exists()


@pytest.mark.parametrize("name", ["me/nets", "me/nets/pytorch_model.bin"])
def test_without_a_connection(
    site: Site, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a server nor HF_HUB_OFFLINE."""
    found = fetch(f"hf:{name}")
    with Site({}).served() as gone:
        pass
    point_at(gone.url, monkeypatch)
    assert fetch(f"hf:{name}") == found
    [record] = caplog.records
    assert record.name == "inceptionnet" and record.levelno == logging.WARNING
    remark = rf"hf:{name}: cannot be fetched \(.*refused.*\); the copy in the cache is used"
    assert re.fullmatch(remark, record.getMessage())
    for missing in ("hf:me/nets/more/fine tuned.pth", "hf:me/nets/model.safetensors@other", "hf:me/dogs/a.pth"):
        repository, file = missing[3:10].rstrip("/"), missing.partition("@")[0].split("/", 2)[2]
        refused(
            missing,
            rf"^{missing}: cannot be fetched \(.*refused\); expected {file} of {repository} in the cache "
            r"\(.+\), got none: fetch it once with a connection, or download it, give its path$",
        )
    refused("hf:me/dogs", r"expected a weights file of me/dogs in the cache \(.+\), got none")


def test_a_network_that_says_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    found = fetch("hf:me/nets")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_ETAG_TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        point_at(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        assert fetch("hf:me/nets") == found
        refused(
            "hf:me/nets/a.pth",
            r"cannot be fetched \(timed out\); expected a.pth of me/nets in the cache \(.+\), got none",
        )


def test_offline_and_not_in_the_cache(site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch)
    refused("hf:me/nets/a.pth@v1", "^hf:me/nets/a.pth@v1: HF_HUB_OFFLINE is set; expected a.pth of me/nets in the c")
    assert site.asked == [] and not cache.exists()


def test_a_cache_that_another_tool_filled(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    huggingface_hub.snapshot_download("me/nets", allow_patterns=["pytorch_model.bin", "README.md"])
    offline(monkeypatch)
    found = fetch("hf:me/nets")
    assert resolved(found, b"B" * 300) == f"hf:me/nets/pytorch_model.bin@{COMMIT}" and found.config == {}
    assert "the cache has no config.json; if there is one, its settings are unknown" in caplog.text
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.hf_hub_download("me/nets", "more/fine tuned.pth")
    offline(monkeypatch)
    refused("hf:me/nets", "expected one .pth or .pt or .bin file, got more/fine tuned.pth, pytorch_model.bin: choose")


def test_a_model_from_the_hub_and_then_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way: another library's file with its own description beside it, then the same from the cache."""
    theirs = create_model("inception_v1.torchvision", width=0.125).eval()
    file = write(as_published(theirs, GOOGLENET), tmp_path / "model.safetensors")
    stated = {
        "input_size": [3, 240, 240], "crop_pct": 0.9, "interpolation": "bicubic", "mean": [0.4] * 3, "std": [0.3] * 3
    }  # fmt: skip
    files = {"model.safetensors": file.read_bytes(), "config.json": json.dumps({"pretrained_cfg": stated}).encode()}
    x = torch.randn(1, 3, 64, 64)
    with hub(files, "me/nets", "models") as site:
        point_at(site.url, monkeypatch)
        assert create_model(weights="hf:me/nets", width=0.125).eval()(x).equal(theirs(x))
    offline(monkeypatch)
    assert create_model(weights="hf:me/nets", width=0.125).eval()(x).equal(theirs(x))
    record = read_record("hf:me/nets")
    assert record.provenance["source"] == f"hf:me/nets/model.safetensors@{COMMIT}"
    assert (record.preprocessing.size_px, record.preprocessing.crop, record.preprocessing.std) == (
        240,
        240 / 266,
        (0.3,) * 3,
    )


def test_a_known_file_that_is_not_there_is_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch)
    refused("hf:timm/inception_v4.tf_in1k", "expected model.safetensors of timm/inception_v4.tf_in1k in the cache")


def test_a_repository_known_to_have_no_config(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with hub({"a.pth": b"x"}, "me/nets", "models") as site:
        point_at(site.url, monkeypatch)
        found = fetch("hf:me/nets")
    offline(monkeypatch)
    assert fetch("hf:me/nets") == found and found.config == {} and caplog.text == ""


@pytest.mark.parametrize(
    ("config", "reason"),
    [(b"{", "JSON, got what cannot be read"), (b"\xff", "JSON, got what cannot"), (b"[1]", "a JSON object, got list")],
)
def test_a_config_that_is_none(config: bytes, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub({"a.pth": b"x", "config.json": config}, "me/nets", "models") as site:
        point_at(site.url, monkeypatch)
        refused("hf:me/nets", f"config.json: expected {reason}")


NONE = r"does not exist or is private \(40[134]\): check its name, or set HF_TOKEN$"


@pytest.mark.parametrize(
    ("address", "answers", "reason"),
    [
        ("hf:me/dogs", {"/me/dogs": (404, "RepoNotFound")}, f"^hf:me/dogs: me/dogs {NONE}"),
        ("hf:me/dogs/a.pth", {"/me/dogs": (401, "RepoNotFound")}, f"^hf:me/dogs/a.pth: me/dogs {NONE}"),
        ("hf:me/nets", {"/api/models": (401, "")}, f"^hf:me/nets: me/nets {NONE}"),
        ("hf:me/nets", {"/resolve/": (403, "")}, f"^hf:me/nets/model.safetensors: me/nets {NONE}"),
        (
            "hf:me/nets@nope",
            {"/revision/nope": (404, "RevisionNotFound")},
            "^hf:me/nets@nope: me/nets has no revision nope: check what comes after @$",
        ),
        (
            "hf:me/nets/more/fine.pth",
            {},
            "^hf:me/nets/more/fine.pth: expected a file of the repository, which has more/fine tuned.pth, .*README",
        ),
        (
            "hf:me/nets/pytorch_model.bin",
            {"/resolve/": (401, "GatedRepo")},
            r"^hf:me/nets/pytorch_model.bin: me/nets is gated \(401\): ask for access on its page, then set HF_TOKEN$",
        ),
        ("hf:me/nets", {"/api/models": (503, "")}, "^hf:me/nets: the hub answers 503: try again later$"),
        ("hf:me/nets", {"model.safetensors": (500, "")}, "^hf:me/nets/model.safetensors: the hub answers 500: try"),
        ("hf:me/nets", {"config.json": (500, "")}, "^hf:me/nets/config.json: the hub answers 500: try again"),
    ],
)
def test_what_the_hub_refuses(site: Site, address: str, answers: dict[str, tuple[int, str]], reason: str) -> None:
    site.refused = answers
    refused(address, reason)


def test_refused_but_in_the_cache(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    found = fetch("hf:me/nets")
    site.refused = {"/me/nets": (404, "RepoNotFound")}
    assert fetch("hf:me/nets") == found
    assert "me/nets does not exist or is private (404): check its name, or set HF_TOKEN; the copy in" in caplog.text


@pytest.mark.parametrize(
    "address",
    [
        "", "hf:", "hf:foo", "hf:a/b/../c", "hf:a/b/./c.pth", "hf:a/b/", "hf:a/b//c.pth", "hf:/b", "hf:a/", "hf:a/b@",
        "hf:a/b/c.pth@", "hf:a/b@../x", "hf:a/b@x/", "hf:a b/c", "hf:a/b\n", "hf:a/b/c\\d.pth", "a/b", "hf:a--b/c",
        "hf:a/..", "hf:-a/b", "hf:a/b/..",
    ],
)  # fmt: skip
def test_malformed_addresses(site: Site, address: str) -> None:
    message = refused(address, "expected hf:owner/name or hf:owner/name/file, with @revision after it where needed$")
    assert message.startswith(repr(address)) and site.asked == []


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"^fetching hf:me/nets needs huggingface_hub; .*inceptionnet\[hub\]"):
        fetch("hf:me/nets")


SCRIPT = """
import sys
from inceptionnet.weights.hub import fetch
assert "huggingface_hub" not in sys.modules
found = fetch("hf:me/nets")
print(found.path, found.address, sep="|")
"""


def test_the_variables_of_the_library(site: Site, tmp_path: Path, with_torch: Forked) -> None:
    """HF_ENDPOINT, HF_HOME and HF_TOKEN, which it reads when it is imported."""
    site.token = "secret"
    refused("hf:me/nets", rf"^hf:me/nets: me/nets {NONE}")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    own = {"HF_ENDPOINT": site.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "secret", "HOME": str(tmp_path)}
    done = with_torch(SCRIPT, env=kept | own)
    path = tmp_path / "home" / "hub" / "models--me--nets" / "snapshots" / COMMIT / "model.safetensors"
    assert (done.stdout, done.stderr) == (f"{path}|hf:me/nets/model.safetensors@{COMMIT}\n", "")

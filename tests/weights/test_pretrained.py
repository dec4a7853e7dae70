"""`pretrained=True` and the hub's own methods, against servers on this machine and local folders."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from inceptionnet import create_model, read_record
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.errors import WeightsError
from inceptionnet.registry import names
from inceptionnet.registry.hub import HubInceptionNet
from inceptionnet.weights import download
from inceptionnet.weights.known import PUBLISHED
from inceptionnet.weights.layouts.cadene import INCEPTION_V4
from inceptionnet.weights.layouts.torchvision import GOOGLENET

from ..data.server import Site, hub
from ..forked import Forked
from .published import as_published, write
from .test_hub import cache, offline, point_at  # noqa: F401  the first is a fixture for every test here

KNOWN = {one.name: one for one in PUBLISHED}
NARROW = {"width": 0.125, "num_classes": 2}


def images(px: int = 96) -> torch.Tensor:
    return torch.randn(2, 3, px, px, generator=torch.Generator().manual_seed(px))


def test_a_file_is_downloaded_once_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    data, known = b"weights" * 100, KNOWN["torchvision/googlenet"]
    with Site({known.file: data}).served() as site:
        here = replace(known, source=f"{site.url}/{known.file}")
        good = replace(here, sha256=hashlib.sha256(data).hexdigest())
        path = download.downloaded(good)
        assert path.read_bytes() == data and path == tmp_path / "hub" / "checkpoints" / known.file
        assert download.downloaded(good) == path and len(site.asked) == 1
        path.unlink()
        for published, reason in (
            (here, "invalid hash value"),
            (replace(here, source=f"{site.url}/nothing.pth"), "HTTP Error 404"),
        ):
            with pytest.raises(WeightsError, match=rf"cannot be downloaded \({reason}") as caught:
                download.downloaded(published)
            assert "\n" not in str(caught.value) and not path.exists()


def test_pretrained_from_a_publishers_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's GoogLeNet, narrow, under another file name and hash."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    theirs = create_model("googlenet", width=0.125).eval()
    data = write(as_published(theirs, GOOGLENET), tmp_path / "googlenet.pth").read_bytes()
    with Site({"googlenet.pth": data}).served() as site:
        published = replace(
            KNOWN["torchvision/googlenet"],
            file="googlenet.pth",
            source=f"{site.url}/googlenet.pth",
            sha256=hashlib.sha256(data).hexdigest(),
        )
        monkeypatch.setitem(names.KNOWN, "googlenet", names.Named("inception_v1.torchvision", published))
        model = create_model("googlenet", pretrained=True, width=0.125).eval()
        backbone = create_model("googlenet", True, width=0.125, features_only=True, out_indices=[-1]).eval()
    x = images()
    assert model(x).equal(theirs(x)) and backbone(x)[0].equal(theirs.forward_features(x))
    cfg = model.pretrained_cfg
    assert cfg["tag"] == "torchvision/googlenet" and cfg["url"] == published.source and cfg["crop_pct"] == 0.875
    assert (cfg["crop_mode"], cfg["input_size"], cfg["mean"]) == ("center", (3, 224, 224), (0.5, 0.5, 0.5))


def test_pretrained_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's Inception-v4, narrow: by timm's name and by ours; refused where the hash is not the listed one."""
    theirs = create_model("inception_v4.slim", width=0.125).eval()
    data = write(as_published(theirs, INCEPTION_V4), tmp_path / "model.safetensors").read_bytes()
    known = KNOWN["timm/inception_v4.tf_in1k"]
    x = images()
    with hub({"model.safetensors": data}, "timm/inception_v4.tf_in1k", "models") as site:
        point_at(site.url, monkeypatch)
        for name in ("inception_v4.slim", "inception_v4.tf_in1k", "hf-hub:timm/inception_v4.tf_in1k"):
            with pytest.raises(WeightsError, match=f"whose SHA-256 starts with {known.sha256[:16]}"):
                create_model(name, pretrained=True, width=0.125)
        monkeypatch.setattr("inceptionnet.weights.reading._check_hash", lambda path, known: None)
        model = create_model("inception_v4.tf_in1k", pretrained=True, width=0.125).eval()
        grey = create_model("inception_v4.tf_in1k", pretrained=True, width=0.125, in_chans=1, num_classes=0).eval()
    assert model(x).equal(theirs(x)) and model.preprocessing == known.preprocessing
    cfg = model.pretrained_cfg
    assert (cfg["tag"], cfg["hf_hub_id"], cfg["license"]) == ("tf_in1k", "timm/inception_v4.tf_in1k", "Apache-2.0")
    assert cfg["interpolation"] == "bicubic" and int(299 / cfg["crop_pct"]) == 341
    torch.testing.assert_close(grey(x[:, :1]), theirs.embed(x[:, :1].expand(-1, 3, -1, -1)))
    assert grey.pretrained_cfg["input_size"] == (1, 299, 299) and grey.pretrained_cfg["mean"] == (0.5,)


def test_saved_and_loaded_by_the_hubs_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = create_model("inception_v3", **NARROW).eval()
    prep = Preprocessing(size_px=299, crop=0.9, interpolation="bicubic")
    model = HubInceptionNet.of(plain, classes=("cat", "dog"), preprocessing=prep)
    assert not model.training and next(model.parameters()) is next(plain.parameters()), "no copy"
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architecture"] == "inception_v3" and config["num_classes"] == 2
    assert config["pretrained_cfg"]["interpolation"] == "bicubic" and config["inceptionnet"]["width"] == 0.125
    assert read_record(tmp_path / "model.safetensors").classes == ("cat", "dog"), "this package's file, alone enough"
    x = images()
    again = HubInceptionNet.from_pretrained(tmp_path)
    assert again(x).equal(plain(x)) and again.classes == ("cat", "dog") and again.preprocessing == prep
    other = HubInceptionNet.from_pretrained(tmp_path, num_classes=5)
    assert other.num_classes == 5 and other.classes == ()
    assert other.forward_features(x).equal(plain.forward_features(x))
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with hub(files, "me/nets", "models") as site:
        point_at(site.url, monkeypatch)
        assert HubInceptionNet.from_pretrained("me/nets")(x).equal(plain(x))
        assert create_model(weights="hf:me/nets").eval()(x).equal(plain(x))
    offline(monkeypatch)
    assert HubInceptionNet.from_pretrained("me/nets", local_files_only=True).classes == ("cat", "dog")


def test_push_to_hub_uploads_what_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: dict[str, Any] = {}

    def create_repo(self: object, repo_id: str, **_: Any) -> Any:
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    def upload_folder(self: object, *, repo_id: str, folder_path: Path, **_: Any) -> str:
        sent.update({path.name: path.read_bytes() for path in Path(folder_path).iterdir()}, repo=repo_id)
        return "done"

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    model = HubInceptionNet.of(create_model("inception_v3", **NARROW))
    assert model.push_to_hub("me/nets") == "done"
    assert sent["repo"] == "me/nets" and b"library_name: inceptionnet" in sent["README.md"]
    assert json.loads(sent["config.json"])["architecture"] == "inception_v3" and sent["model.safetensors"]


def test_without_huggingface_hub(with_torch: Forked) -> None:
    """The models work, and the module for the hub names the extra."""
    code = (
        "import sys; sys.modules['huggingface_hub'] = None\n"
        "import inceptionnet.model.network, inceptionnet.registry.create\n"
        "inceptionnet.create_model('inception_v3', device='meta')\n"
        "import inceptionnet.registry.hub"
    )
    done = with_torch(code, absent=["huggingface_hub"])
    expected = "inceptionnet.registry.hub needs huggingface_hub; install it with: pip install 'inceptionnet[hub]'"
    assert done.stderr.splitlines()[-1] == f"inceptionnet.errors.MissingExtraError: {expected}"


def test_numbers_that_nobody_gave_are_no_names(tmp_path: Path) -> None:
    HubInceptionNet.of(create_model("inception_v1.slim", num_classes=2, width=0.125)).save_pretrained(tmp_path)
    assert HubInceptionNet.from_pretrained(tmp_path).classes == ()

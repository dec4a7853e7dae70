"""The list of published checkpoints agrees with itself, and with what file names, networks and Pillow say."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from inceptionnet.cli import main
from inceptionnet.data import centre_crop
from inceptionnet.nets import NETWORKS
from inceptionnet.weights.known import LABELS, PUBLISHED, Published, published_as, published_at

BY_NAME = {one.name: one for one in PUBLISHED}
CLASSES = {
    "ImageNet": 1000,
    "ImageNet with background": 1001,
    "2015 ImageNet graph (1008)": 1008,
    "VGGFace2": 8631,
    "CASIA-WebFace": 10575,
    "none (features)": 0,
}


@pytest.fixture(params=PUBLISHED, ids=lambda one: one.name)
def one(request: pytest.FixtureRequest) -> Published:
    return request.param  # type: ignore[no-any-return]


def test_names_and_addresses_are_given_once() -> None:
    for field in ("name", "source"):
        assert Counter(getattr(one, field) for one in PUBLISHED).most_common(1)[0][1] == 1
    assert set(LABELS) == CLASSES.keys() == {one.labels for one in PUBLISHED}


def test_classes_are_those_of_the_labels(one: Published) -> None:
    assert one.classes == CLASSES[one.labels]


def test_the_network_is_one_of_ours_at_its_size(one: Published) -> None:
    assert one.preprocessing.size_px == NETWORKS[one.network].input_size
    assert one.preprocessing.channels == 3


def test_licence_reference_and_accuracy(one: Published) -> None:
    assert one.license in ("Apache-2.0", "not stated")
    assert one.reference.startswith("https://")
    assert (one.top1 is None) == (one.top5 is None) == (not one.labels.startswith("ImageNet") or "adv_" in one.file)
    if one.top1 and one.top5:
        assert 69 < one.top1 < 81 and 89 < one.top5 < 96


def test_a_file_name_with_digits_is_the_beginning_of_its_digest(one: Published) -> None:
    """torch.hub's convention, which the whole digests come from elsewhere and must keep."""
    assert re.fullmatch(r"([0-9a-f]{8,9}|[0-9a-f]{64})?", one.sha256)
    if digits := re.search(r"-([0-9a-f]{8,9})\.pth$", one.file):
        assert one.sha256.startswith(digits[1])


def test_an_address_ends_with_the_file_or_is_an_archive_or_a_repository(one: Published) -> None:
    if one.source.startswith("hf:"):
        assert one.file == "model.safetensors" and one.source == f"hf:{one.name}"
    else:
        assert one.source.endswith((f"/{one.file}", f"/{one.name.partition('/')[2]}.tar.gz"))


def test_images_go_in_as_published() -> None:
    """By hand: a black and a white image, as each publisher's own arithmetic brings them in."""
    for name, black, white in (
        ("slim/inception_v3_2016_08_28", -1, 1),
        ("torchvision/inception_v3", -1, 1),
        ("timm/inception_v3.gluon_in1k", -0.485 / 0.229, (1 - 0.485) / 0.229),
        ("facenet-pytorch/vggface2", -127.5 / 128, 127.5 / 128),
        ("fid/weights-inception-2015-12-05", -1, 127 / 128),
        ("cadene/bninception", (0 - 128) / 127.5, (255 - 128) / 127.5),
    ):
        prep = BY_NAME[name].preprocessing
        for grey, expected in ((0, black), (255, white)):
            pixels = centre_crop(Image.new("RGB", (640, 480), (grey,) * 3), prep)
            assert pixels.shape == (prep.size_px, prep.size_px, 3)
            red = (pixels[0, 0, 0] / 255 - prep.mean[0]) / prep.std[0]
            assert red == pytest.approx(expected, abs=1e-6), name


@pytest.mark.parametrize(
    ("name", "short_px"),
    [
        ("torchvision/inception_v3", 342),
        ("torchvision/googlenet", 256),
        ("timm/inception_v4.tf_in1k", 341),
        ("timm/inception_resnet_v2.tf_in1k", 333),
        ("cadene/bninception", 256),
    ],
)
def test_the_short_side_is_resized_to_whole_pixels_as_published(name: str, short_px: int) -> None:
    """The middle square of an image that has that short side already is the image's own pixels."""
    prep = BY_NAME[name].preprocessing
    noise = np.random.default_rng(0).integers(0, 256, (short_px, short_px + 51, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    left, top = round(((short_px + 51) - prep.size_px) / 2), round((short_px - prep.size_px) / 2)
    middle = image.crop((left, top, left + prep.size_px, top + prep.size_px))
    assert Image.fromarray(centre_crop(image, prep)).tobytes() == middle.tobytes()


def test_files_are_known_by_name() -> None:
    for file, name in (
        ("inception_v3_google-0cc3c7bd.pth", "torchvision/inception_v3"),
        ("inception_v3.ckpt", "slim/inception_v3_2016_08_28"),
        ("adv_inception_v3.ckpt.index", "slim/adv_inception_v3_2017_08_18"),
        ("adv_inception_v3.ckpt.data-00000-of-00001", "slim/adv_inception_v3_2017_08_18"),
        ("inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5", "keras/inception_v3_notop"),
    ):
        assert published_as(file) == BY_NAME[name]
    for file in ("model.safetensors", "mine.pth", "", "inception_v3.ckpt.meta", "x/inception_v3.ckpt"):
        assert published_as(file) is None


def test_repositories_are_known_by_address() -> None:
    wanted = BY_NAME["timm/inception_v4.tf_in1k"]
    for rest in ("", "@main", "/model.safetensors", "/model.safetensors@24edbb8"):
        assert published_at(f"hf:timm/inception_v4.tf_in1k{rest}") == wanted
    for address in ("hf:timm/inception_v4", "timm/inception_v4.tf_in1k", "hf:", "", PUBLISHED[0].source):
        assert published_at(address) is None


def test_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["inceptionnet", "weights", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        return capsys.readouterr().out

    listed = json.loads(run("--json"))["weights"]
    assert [row["name"] for row in listed] == [one.name for one in PUBLISHED]
    assert listed[0]["preprocessing"]["size_px"] == 299 and listed[0]["sha256"] == "0cc3c7bd"
    table = run()
    assert all(f" {name} " in table for name in (one.name.partition("/")[2] for one in PUBLISHED))
    assert "keras: https://storage.googleapis.com/tensorflow/keras-applications/, licence Apache-2.0" in table
    assert "Every command that takes weights takes hf: addresses" in table


def test_the_table_fits_100_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows are whole lines: no cell is folded onto a second one."""
    for name, value in (("FORCE_COLOR", "1"), ("NO_COLOR", "1"), ("COLUMNS", "100"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["inceptionnet", "weights"])
    with pytest.raises(SystemExit):
        main()
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= 100
    for one in PUBLISHED:
        name = re.escape(one.name.partition("/")[2])
        assert any(re.match(rf" {name} +{re.escape(one.network)} +{one.classes or 'none'} ", line) for line in lines)

"""Heat maps against hand calculation, and the command as a person meets it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from inceptionnet import create_model, list_models, save_weights
from inceptionnet.data.imagenet import imagenet_classes
from inceptionnet.errors import ConfigurationError, InputError, MissingExtraError
from inceptionnet.explain import METHODS, attribute, attribution, default_layer, overlay
from inceptionnet.explain.attribution import AT_ONCE, raw_attribution
from inceptionnet.explain.files import class_number, names_for
from inceptionnet.explain.images import GAP_PX, sheet
from inceptionnet.model.network import InceptionNet
from inceptionnet.nets import NETWORKS

LAST = {
    "inception_v1": "inception_5b",
    "inception_v1.slim": "inception_5b",
    "inception_v1.torchvision": "inception_5b",
    "inception_v2": "inception_5b",
    "inception_v2.slim": "inception_5b",
    "inception_v2.caffe": "inception_5b",
    "inception_v3": "mixed_7c",
    "inception_v3.torchvision": "mixed_7c",
    "inception_v3.fid": "mixed_7c",
    "inception_v2.rethinking": "mixed_7c",
    "inception_v4": "inception_c3",
    "inception_v4.slim": "inception_c3",
    "inception_resnet_v1": "residual_c5",
    "inception_resnet_v1.facenet": "residual_c6",
    "inception_resnet_v2": "residual_c5",
    "inception_resnet_v2.slim": "conv_7b",
}


def small(**changes: object) -> InceptionNet:
    """A narrow network at 64 px; the last channels all speak for its even classes and against its odd ones."""
    torch.manual_seed(0)
    arguments = {"num_classes": 5, "width": 0.125, "input_size": 64} | changes
    model = create_model("inception_v1.slim", **arguments)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics of the one batch that follows
    with torch.no_grad():
        model(torch.randn(8, model.network.in_channels, 64, 64))
        for parameter in model.head.parameters():
            parameter.normal_().abs_()[1::2] *= -1
    return model.eval()


def images(count: int = 3, channels: int = 3, size: tuple[int, int] = (64, 64)) -> Tensor:
    return torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(1))


def spoken_for(method: str) -> Tensor:
    """Classes of `small` that have no empty map: noise turned to grey makes its channels louder."""
    return torch.tensor([1, 3] if method == "occlusion" else [0, 2])


class Corner(nn.Module):
    """Logit 0 is the sum of the upper left 16×16 values, logit 1 that of all others: linear, so that all is known."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        corner = x[:, :, :16, :16].sum((1, 2, 3))
        return torch.stack([corner, x.sum((1, 2, 3)) - corner], 1) * self.factor


@pytest.fixture
def corner() -> InceptionNet:
    model = create_model("inception_v1.slim", num_classes=2, width=0.125, input_size=64)
    model.body, model.head = nn.Sequential(), Corner()
    return model


def test_the_default_layer_is_the_last_one_at_the_published_size() -> None:
    assert list_models() == list(LAST)
    assert {name: default_layer(network, network.input_size) for name, network in NETWORKS.items()} == LAST


@pytest.mark.parametrize(
    ("name", "size_px", "layer"),
    [
        ("inception_v1.slim", 96, "inception_5b"),  # halved five times: 48 24 12 6 3
        ("inception_v1.slim", 64, "inception_4e"),  # 32 16 8 4 2: the last of the fourth
        ("inception_v1.slim", 32, "inception_3b"),  # 16 8 4 2 1
        ("inception_v1.slim", 2, "inception_5b"),  # 1 from the first convolution on
        ("inception_v3.fid", 75, "mixed_5d"),  # 37 35 35 17 17 15 7, then 3 and 1
        ("inception_v4.slim", 96, "inception_b7"),  # 47 45 45 22 20 9, then 4 and 1
    ],
)
def test_small_images_have_an_earlier_layer(name: str, size_px: int, layer: str) -> None:
    network = create_model(name, num_classes=2, width=0.125, input_size=size_px).network
    assert default_layer(network, size_px) == layer


def test_gradcam_is_what_its_paper_says() -> None:
    """Selvaraju et al., equations 1 and 2, with the network cut in two by hand."""
    model, x, targets = small(), images(), torch.tensor([4, 0, 2])
    for layer in (None, "inception_5b", "conv_2"):
        cut = list(dict(model.body.named_children())).index(layer or "inception_4e") + 1
        parts = list(model.body.children())
        activations = nn.Sequential(*parts[:cut])(x).detach().requires_grad_()
        logits = model.head(nn.Sequential(*parts[cut:])(activations.clone()))
        (gradients,) = torch.autograd.grad(logits[torch.arange(3), targets].sum(), activations)
        weights = gradients.sum((2, 3)) / gradients[0, 0].numel()
        cam = torch.einsum("nc,nchw->nhw", weights, activations).relu()
        expected = F.interpolate(cam[:, None], (64, 64), mode="bilinear")[:, 0].detach()
        assert (expected.amax((1, 2)) > 0).all(), "a map of nothing would prove nothing"
        expected /= expected.amax((1, 2), keepdim=True)
        assert attribute(model, x, targets, layer=layer) == pytest.approx(expected.numpy(), abs=1e-4)


def test_integrated_gradients_add_up_to_the_difference_of_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sundararajan et al., proposition 1."""
    monkeypatch.setattr(attribution, "STEPS", 200)  # noise needs more of them than images do
    model, x, targets = small().requires_grad_(False), images(), torch.tensor([4, 0, 2])
    found = raw_attribution(model, x, targets, "integrated-gradients", None)
    with torch.no_grad():
        change = (model(x) - model(torch.zeros_like(x)))[torch.arange(3), targets]
    assert found.shape == x.shape
    assert found.sum((1, 2, 3)).tolist() == pytest.approx(change.tolist(), rel=0.05)


def test_integrated_gradients_of_a_linear_network_by_hand(corner: InceptionNet) -> None:
    """They are the values themselves; averaged over 3×3 where 64 / 25 px are asked for."""
    x = images(2)
    own = torch.zeros(2, 64, 64)
    own[:, :16, :16] = x.sum(1)[:, :16, :16]
    expected = torch.zeros(2, 64, 64)
    for row in range(64):
        for column in range(64):
            square = own[:, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            expected[:, row, column] = square.mean((1, 2)).clamp(min=0)
    expected /= expected.amax((1, 2), keepdim=True)
    found = attribute(corner, x, torch.tensor([0, 0]), "integrated-gradients")
    assert found == pytest.approx(expected.numpy(), abs=1e-4)
    assert found[:, :16, :16].max() == 1 and not found[:, 17:].any() and not found[:, :, 17:].any()


def test_occlusion_of_a_linear_network_by_hand(corner: InceptionNet) -> None:
    """Covering a square takes its values away; a place has the mean of what the squares over it took."""
    x = images(2)
    total, count = torch.zeros(2, 64, 64), torch.zeros(64, 64)
    inside = torch.zeros(64, 64)
    inside[:16, :16] = 1
    values = x.sum(1) * inside
    for row in range(0, 56, 5):  # 64 / 6 px is 11, half of that 5; the last squares are cut off
        for column in range(0, 56, 5):
            place = (slice(row, row + 11), slice(column, column + 11))
            total[(slice(None), *place)] += values[(slice(None), *place)].sum((1, 2))[:, None, None]
            count[place] += 1
    expected = (total / count).clamp(min=0)
    expected /= expected.amax((1, 2), keepdim=True)
    found = attribute(corner, x, torch.tensor([0, 0]), "occlusion")
    assert found == pytest.approx(expected.numpy(), abs=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_a_bright_patch_is_found_where_it_is(method: str) -> None:
    """Each convolution is the mean over its channels and moves nothing, so that the map's middle is the patch's."""
    model = small()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            height, width = module.kernel_size
            nn.init.zeros_(module.weight)
            nn.init.constant_(module.weight[:, :, height // 2, width // 2], 1 / module.in_channels)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    nn.init.constant_(model.head.get_submodule("logits").weight, 1.0)
    x = torch.zeros(2, 3, 64, 64)
    x[0, :, 8:20, 8:20] = 3
    x[1, :, 40:52, 44:56] = 3
    layer = "conv_2" if method == "gradcam" else None  # the modules' max pools would make the patch larger
    maps = attribute(model, x, torch.zeros(2, dtype=torch.int64), method, layer=layer)
    for map_, (row, column) in zip(maps, [(14, 14), (46, 50)], strict=True):
        rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
        centre = [float((map_ * axis).sum() / map_.sum()) for axis in (rows, columns)]
        assert centre == pytest.approx([row, column], abs=6), method


@pytest.mark.parametrize("method", METHODS)
def test_the_network_is_left_as_it_was(method: str) -> None:
    model, x, targets = small(), images(2), spoken_for(method)
    expected = attribute(model, x, targets, method)
    assert [float(map_.max()) for map_ in expected] == [1, 1]
    model.train()
    model.body.get_submodule("conv_1").eval()
    model.body.get_submodule("conv_2").requires_grad_(False)
    next(model.head.parameters()).grad = torch.ones_like(next(model.head.parameters()))

    def state() -> list[object]:
        modes = [module.training for module in model.modules()]
        hooks = [len(module._forward_hooks) for module in model.modules()]
        return [modes, hooks, [(p.requires_grad, p.grad) for p in model.parameters()], model.training]

    before, values = state(), {name: value.clone() for name, value in model.state_dict().items()}
    shown = x.clone().requires_grad_()
    with torch.inference_mode():
        found = attribute(model, shown, targets, method)
    assert found.equal(expected) and attribute(model, x, targets, method).equal(expected), "and it is repeatable"
    assert found.dtype == torch.float32 and not found.requires_grad and not found.is_inference()
    assert state() == before and shown.grad is None and shown.equal(x)
    assert all(value.equal(values[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
def test_it_is_left_as_it_was_after_an_error_too(method: str) -> None:
    model = small().train()
    with pytest.raises(InputError, match=r"expected images as float in \[-1, 1\], got torch.uint8"):
        attribute(model, images(1).byte(), torch.tensor([0]), method)
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_one_channel_and_sides_that_differ(method: str) -> None:
    model, x, targets = small(in_channels=1), images(2, 1, (64, 90)), spoken_for(method)
    maps = attribute(model, x, targets, method)
    assert maps.shape == (2, 64, 90) and maps.min() >= 0
    assert [float(map_.max()) for map_ in maps] == [1, 1]
    assert maps[1].numpy() == pytest.approx(attribute(model, x[1:], targets[1:], method)[0].numpy(), abs=1e-3)


def test_auxiliary_heads_play_no_part() -> None:
    torch.manual_seed(0)
    model = create_model("inception_v1", num_classes=3, width=0.125, input_size=96, aux=True).eval()
    x, targets = images(1, size=(96, 96)), torch.tensor([2])
    before = attribute(model, x, targets)
    for parameter in model.aux.parameters():
        nn.init.ones_(parameter)
    assert attribute(model, x, targets).equal(before)


def test_many_images_go_in_portions_and_none_are_nothing() -> None:
    model, x = small(), images(AT_ONCE + 3)
    targets = torch.arange(len(x)) % 5
    maps = attribute(model, x, targets)
    assert maps[-3:].numpy() == pytest.approx(attribute(model, x[-3:], targets[-3:]).numpy(), abs=1e-4)
    assert attribute(model, x[:0], targets[:0]).shape == (0, 64, 64)


def test_where_nothing_speaks_for_the_class_the_map_is_empty(corner: InceptionNet) -> None:
    maps = attribute(corner, -torch.ones(1, 3, 64, 64), torch.tensor([0]), "occlusion")
    assert maps.shape == (1, 64, 64) and not maps.any()


@pytest.mark.parametrize(
    ("changes", "options", "error", "message"),
    [
        ({"num_classes": 0}, {}, ConfigurationError, "expected a network with a classifier, got one without"),
        ({}, {"method": "grad-cam"}, ConfigurationError, "unknown method 'grad-cam': did you mean gradcam?"),
        ({}, {"layer": "inception_6b"}, ConfigurationError, "has no endpoint 'inception_6b' .* did you mean inception"),
        (
            {},
            {"method": "occlusion", "layer": "inception_5b"},
            ConfigurationError,
            r"layer inception_5b: expected method gradcam, got occlusion, which has no layer; omit it",
        ),
        ({}, {"x": torch.zeros(2, 4, 64, 64)}, InputError, r"shape \(N, 3, H, W\), got \(2, 4, 64, 64\)"),
        ({}, {"x": torch.zeros(2, 3, 64)}, InputError, r"shape \(N, 3, H, W\), got \(2, 3, 64\)"),
        ({}, {"targets": torch.tensor([1])}, InputError, r"expected targets of shape \(2,\) in whole numbers, got \(1"),
        ({}, {"targets": torch.ones(2)}, InputError, "got .* in torch.float32"),
        ({}, {"targets": torch.tensor([0, 5])}, InputError, r"expected targets from 0 to 4, got 0 to 5"),
    ],
)
def test_what_cannot_be_explained(
    changes: dict[str, object], options: dict[str, object], error: type[Exception], message: str
) -> None:
    arguments = {"x": images(2), "targets": torch.tensor([0, 1])} | options
    with pytest.raises(error, match=message) as caught:
        attribute(small(**changes), **arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_image_that_is_too_small_and_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = create_model("inception_v3.fid", num_classes=2, width=0.125)
    with pytest.raises(InputError, match="takes images of 75 px or more on each side, got 60"):
        attribute(model, images(1, size=(60, 99)), torch.tensor([0]))
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(
        MissingExtraError, match=r"needs captum; install it with: pip install 'inceptionnet\[explain\]'"
    ):
        attribute(small(), images(1), torch.tensor([0]))


@pytest.mark.parametrize("channels", [1, 3])
def test_an_overlay_is_grey_where_the_map_is_0_and_lightest_where_it_is_1(channels: int) -> None:
    pixels = np.full((2, 3, channels), 90, np.uint8)
    heat = torch.tensor([[0, 0.5, 1.0]]).expand(2, 3)
    laid = overlay(pixels, heat)
    assert laid.shape == (2, 3, 3) and laid.dtype == np.uint8
    assert laid[:, 0].tolist() == [[90, 90, 90]] * 2
    # 0.3 of the grey and 0.7 of a pale yellow: 27 + 0.7 · (255, 250, 150)
    assert laid[0, 2].tolist() == pytest.approx([205.5, 202, 132], abs=0.51)
    assert np.array_equal(laid, overlay(pixels, heat.numpy()))
    with pytest.raises(InputError, match=r"expected a map of the image's shape \(2, 3\), got \(3, 2\)"):
        overlay(pixels, heat.T)


@pytest.mark.parametrize("size", [32, 75, 299])
def test_a_sheet_holds_image_map_and_all_of_a_long_caption(size: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (size, size, 1), np.uint8)
    heat = torch.zeros(size, size)
    short = np.array(sheet(pixels, heat, "ant 93.1%", "occlusion"))
    long = np.array(sheet(pixels, heat, "an ant " * 20 + "W" * 90 + " 93.1%", "occlusion"))
    side = (short.shape[1] - 3 * GAP_PX) // 2
    assert side >= 224 and side % size == 0 and short.shape[1] == long.shape[1] and long.shape[0] > short.shape[0]
    for drawn in (short, long):
        assert (drawn[:, :GAP_PX] == 255).all() and (drawn[:, -GAP_PX:] == 255).all(), "text runs into no margin"
        left, right = (drawn[-GAP_PX - side : -GAP_PX, at : at + side] for at in (GAP_PX, 2 * GAP_PX + side))
        assert np.array_equal(left, right), "a map of nothing covers nothing"
    assert (short[:22] < 128).any(), "the caption"


def test_no_two_images_have_one_result_and_none_is_a_image(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("red/0.png", "blue/0.jpg", "blue/0.PNG", "ant.jpg", "out/Ant.jpg", "bee.jpg")]
    files.append(tmp_path / "out" / "bee-gradcam.png")
    found = [path.name for path in names_for(files, "gradcam", tmp_path / "out")]
    assert found == [
        "red-0-gradcam.png", "blue-0-gradcam.png", "blue-0-gradcam-2.png", f"{tmp_path.name}-ant-gradcam.png",
        "out-Ant-gradcam.png", "bee-gradcam-2.png", "bee-gradcam-gradcam.png",
    ]  # fmt: skip


def test_classes_by_name_wnid_or_number() -> None:
    assert class_number("bee", ("ant", "bee")) == 1 == class_number("1", ("ant", "bee"))
    assert class_number("1", ("1", "0")) == 0, "a name comes before a number"
    tabby = imagenet_classes().index("tabby")
    assert {class_number(name, imagenet_classes()) for name in ("tabby", "n02123045", str(tabby))} == {tabby}
    for name, classes, message in (
        ("be", ("ant", "bee"), "the network has no class 'be': did you mean bee"),
        ("2", ("ant", "bee"), "the network has no class '2': known: ant, bee"),
        ("tabbi", imagenet_classes(), "did you mean tabby"),
        ("@@@", imagenet_classes(), "and 990 more"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            class_number(name, classes)


def test_explain(command, run: Path, colours: Path, tmp_path: Path) -> None:
    out, broken = tmp_path / "new" / "out", tmp_path / "broken.png"
    broken.touch()
    given = (colours / "red", colours / "blue" / "00.png", broken)
    code, printed, _ = command("explain", run, *given, "--out", out, "--json", "--batch-size", 5)
    rows = json.loads(printed)
    assert code == 1 and len(rows) == 14 and rows[-1] == {"file": str(broken), "error": "is empty (0 bytes)"}
    assert {Path(row["output"]) for row in rows[:-1]} == set(out.iterdir()) and len(set(out.iterdir())) == 13
    code, printed, _ = command("predict", run, *given, "--json", "--top", 1)
    for row, said in zip(rows[:-1], json.loads(printed)["predictions"][:-1], strict=True):
        assert (row["file"], row["class"]) == (said["file"], said["top"][0]["class"])
        assert row["probability"] == pytest.approx(said["top"][0]["probability"], abs=1e-5)
        assert (row["method"], row["layer"]) == ("gradcam", "inception_3b")
    assert Path(rows[0]["output"]).name == "red-00-gradcam.png"
    with Image.open(rows[0]["output"]) as image:
        assert image.format == "PNG" and image.width == 2 * 224 + 3 * GAP_PX

    first = Path(rows[0]["output"]).read_bytes()
    code, printed, _ = command("explain", run, colours / "red", "--out", out, "--layer", "inception_3b")
    assert code == 0 and "inception_3b" in printed and f"{rows[0]['probability']:.1%}" in printed
    assert (out / "00-gradcam.png").read_bytes() == first, "the same image, the same result"


@pytest.mark.parametrize("method", METHODS[1:])
def test_explain_another_class(command, run: Path, colours: Path, tmp_path: Path, method: str) -> None:
    image = colours / "red" / "00.png"
    code, printed, _ = command("explain", run, image, "--out", tmp_path, "--class", "blue", "--method", method)
    assert code == 0 and f"00-{method}.png" in printed and "blue" in printed
    assert [file.name for file in tmp_path.iterdir()] == [f"00-{method}.png"]


def test_what_explain_cannot_do_is_one_line_and_exit_code_2(
    command, run: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty, text, headless = tmp_path / "empty", tmp_path / "text.jpg", tmp_path / "headless.safetensors"
    empty.mkdir()
    text.write_text("no image")
    save_weights(create_model("inception_v1.slim", num_classes=0, width=0.125), headless)
    out = tmp_path / "out"
    for arguments, message in (
        ((run, colours, "--class", "rad"), "the network has no class 'rad': did you mean red?"),
        ((run, colours, "--method", "gradcan"), "'gradcan' is not one of 'gradcam', 'integrated-gradients'"),
        ((run, colours, "--layer", "inception_3x"), "no endpoint 'inception_3x' in its body: did you mean inception_3"),
        ((run, colours, "--layer", "logits"), "no endpoint 'logits' in its body"),
        ((run, colours, "--method", "occlusion", "--layer", "conv_1"), "expected method gradcam, got occlusion"),
        ((run, empty), "expected images, got none: it is empty"),
        ((run, text, text), "none of 2 images could be read; the first: "),
        ((headless, colours), "expected weights with a classifier, got none"),
        ((run, colours, "--device", "abacus"), "--device abacus"),
        ((run, colours, "--out", text / "below"), "cannot be written"),
        ((run, colours, "--out", text), "cannot be written"),
    ):
        if "--out" not in arguments:
            arguments = (*arguments, "--out", out)
        code, _, err = command("explain", *arguments)
        assert code == 2 and message in err and err.count("\n") == 1, (arguments, err)
        assert not list(out.glob("*"))
    code, _, err = command("explain", run, colours)
    assert code == 2 and "--out" in err and err.count("\n") == 1
    monkeypatch.setitem(sys.modules, "captum", None)
    code, _, err = command("explain", run, colours, "--out", tmp_path / "never")
    assert code == 2 and "pip install 'inceptionnet[explain]'" in err and not (tmp_path / "never").exists()


def test_results_inside_the_folder_are_not_explained_the_next_time(
    command, run: Path, colours: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    shutil.copytree(colours / "red", folder)
    for _ in range(2):
        code, printed, _ = command("explain", run, folder, "--out", folder / "maps", "--json")
        assert code == 0 and len(json.loads(printed)) == 12
    assert len(list((folder / "maps").iterdir())) == 12
    code, printed, _ = command("explain", run, folder / "maps", "--out", folder / "maps", "--json")
    assert code == 0 and len(json.loads(printed)) == 12, "asked for, they are images like others"

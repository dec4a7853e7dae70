"""What a run warns of: dead features and batch norm that does not fit, where they are and where they are not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from inceptionnet import create_model, load_model, read_record, save_weights
from inceptionnet.model.network import InceptionNet
from inceptionnet.nets import NETWORKS
from inceptionnet.system.distributed import ALONE, World
from inceptionnet.train.batch_norm import norms_of
from inceptionnet.train.loop import train
from inceptionnet.train.run import Run
from inceptionnet.train.watch import Features, advice, batch_norm_gap
from inceptionnet.weights.folder import weights_of

from .conftest import DESCENT, tiny_plan, write_images


def watched() -> tuple[nn.Module, Features]:
    """A head alone, which gets what the test gives it."""
    head = nn.Identity()
    return head, Features(SimpleNamespace(head=head))  # type: ignore[arg-type]


def grid(*alive: Sequence[int]) -> Tensor:
    """(N, 4, 2, 2): for each image the channels that are other than zero, in one place."""
    x = torch.zeros(len(alive), 4, 2, 2)
    for i, channels in enumerate(alive):
        x[i, list(channels), 1, 0] = 0.5
    return x


def test_a_feature_is_dead_if_no_image_wakes_it() -> None:
    """Channels 0, then 0 and 2, then none: 1 and 3 are dead, half of the four."""
    head, features = watched()
    assert features.dead_share(ALONE) == 0.0, "nothing seen yet"
    head(grid([0], [0]))
    assert features.dead_share(ALONE) == 0.75
    head(grid([2], [0]))
    head(grid([], []))
    assert features.dead_share(ALONE) == 0.5
    assert features.alive is not None and features.alive.tolist() == [True, False, True, False]
    head(grid([]) * float("nan"))
    assert features.dead_share(ALONE) == 0.5, "not a number is no life"
    features.clear()
    assert features.dead_share(ALONE) == 0.0
    head(grid([3]))
    assert features.dead_share(ALONE) == 0.75


def test_features_are_watched_in_training_only() -> None:
    head, features = watched()
    head.eval()(grid([0, 1, 2, 3]))
    assert features.alive is None
    head.train()(grid([1]))
    head.eval()(grid([0, 1, 2, 3]))
    head.train()(grid())  # a process without an image of this step
    assert features.dead_share(ALONE) == 0.75


def test_a_feature_lives_if_any_process_saw_it() -> None:
    class Two(World):
        def total(self, values: Sequence[float]) -> list[float]:
            return [value + other for value, other in zip(values, (0, 0, 1, 0), strict=True)]

    head, features = watched()
    head(grid([0]))
    assert features.dead_share(Two(0, 2)) == 0.5


def killed(model: InceptionNet) -> None:
    """Every norm of the last block far below zero, so that ReLU lets nothing through."""
    last = list(model.body.children())[-1]
    assert norms_of(last)
    for norm in norms_of(last):
        nn.init.constant_(norm.bias, -100)


def test_dead_features_of_a_network() -> None:
    """Of the last block of inception_v1 nothing comes but what batch norm and ReLU let through."""
    torch.manual_seed(0)
    model = create_model("inception_v1.slim", num_classes=3, width=0.125, input_size=64)
    features = Features(model)
    x = torch.randn(4, 3, 64, 64)
    model.train()(x)
    alive = (model.body(x) != 0).any(0).flatten(1).any(1)
    assert features.dead_share(ALONE) == pytest.approx(float((~alive).float().mean())) and alive.any()
    features.clear()
    killed(model)
    model(x)
    assert features.dead_share(ALONE) == 1.0


def test_the_remedy_is_one_that_the_network_has() -> None:
    for name, network in NETWORKS.items():
        line = advice(network)
        assert ("network.residual_scale" in line) == ("resnet" in name), name
        assert "\n" not in line and "learning rate" in line


def spoil(model: InceptionNet) -> None:
    """Running statistics as at the start, moved by one: not those of the weights."""
    for norm in norms_of(model):
        norm.reset_running_stats()
        norm.running_mean.add_(1)


def coloured(count: int = 4) -> list[tuple[Tensor, Tensor]]:
    """Inputs of the three colours in [-1, 1], blue, green, red."""
    generator = torch.Generator().manual_seed(0)
    colours = torch.tensor([(40, 60, 200), (40, 180, 60), (210, 40, 50)]) / 127.5 - 1
    labels = torch.arange(9) % 3
    return [
        (colours[labels][:, :, None, None] + 0.2 * torch.randn(9, 3, 32, 32, generator=generator), labels)
        for _ in range(count)
    ]


def test_the_gap_of_spoilt_statistics(run: Path) -> None:
    model = load_model(weights_of(run)).train()
    seen, batchwise, running = batch_norm_gap(model, coloured())
    assert seen == 36 and batchwise >= 30 and running >= 30
    spoil(model)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    assert batch_norm_gap(model, coloured())[:2] == (36, batchwise), "each batch's own statistics are as they were"
    assert batch_norm_gap(model, coloured())[2] <= 18
    after = dict(model.named_buffers())
    assert model.training and [name for name in before if not torch.equal(before[name], after[name])] == []
    assert batch_norm_gap(model, []) == (0, 0, 0)


def changed_weights(run: Path, folder: Path, change: Any) -> Path:
    model, record = load_model(weights_of(run)), read_record(weights_of(run))
    change(model)
    file = folder / "changed.safetensors"
    save_weights(model, file, classes=record.classes, preprocessing=record.preprocessing)
    return file


def tuned(data: Path, weights: Path, out: Path, epochs: int = 1, **settings: object) -> None:
    settings = DESCENT | settings
    plan = tiny_plan(data, model=None, width=None, size=None, weights=str(weights), epochs=epochs, settings=settings)
    train(plan, out)


STILL = 1e-7
"""A learning rate at which the weights stay what they were, so that their statistics fit as they did."""


def test_a_run_says_that_batch_norm_does_not_fit(
    colours: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = changed_weights(run, tmp_path, spoil)
    tuned(colours, weights, tmp_path / "run", 2, **{"batch_norm.momentum": 1e-6, "optimizer.lr": STILL})
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert "running statistics do not fit the weights: accuracy on 31 training images is" in line
    assert "--bn recalibrate" in line and "--set batch_norm.momentum" in line


def test_a_healthy_run_is_not_warned_of(
    colours: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The network as it was trained, with the statistics of just its training images."""
    tuned(colours, weights_of(run), tmp_path / "run", 2, **{"batch_norm.mode": "recalibrate", "optimizer.lr": STILL})
    assert "warning" not in capsys.readouterr().err
    assert all(row["dead_features"] < 0.5 for row in Run(tmp_path / "run").read_metrics())


def swapped(folder: Path) -> Path:
    """Data whose validation split lies in folders under each other's names, so that all of it is classified wrongly."""
    write_images(folder / "train", 8)
    held_out = write_images(folder / "val", 4, seed=1)
    for old, new in (("blue", "x"), ("green", "blue"), ("red", "green"), ("x", "red")):
        (held_out / old).rename(held_out / new)
    return folder


def test_batch_norm_is_not_blamed_for_other_images(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"batch_norm.mode": "recalibrate", "optimizer.lr": STILL}
    tuned(swapped(tmp_path / "data"), weights_of(run), tmp_path / "run", 2, **settings)
    metrics = Run(tmp_path / "run").read_metrics()
    assert all(row["train_top1"] - row["val_top1"] > 0.5 for row in metrics)
    assert "warning" not in capsys.readouterr().err


FITS, OFF = (24, 23, 23), (24, 23, 10)
"""Of 24 images, how many are classified correctly with each batch's own statistics, and with the running ones."""


@pytest.mark.parametrize(
    ("gaps", "warned_in"),
    [
        ([FITS, FITS, FITS], None),
        ([OFF, FITS, FITS], None),  # the weights had just moved
        ([OFF, FITS, OFF], 3),
        ([OFF, OFF, OFF], 2),
        ([FITS, OFF, OFF], 3),
        ([(24, 16, 10)] * 3, None),  # a quarter of the images, but 6 can be chance
        ([(40, 40, 32)] * 3, 2),
        ([(60, 60, 49)] * 3, None),  # 11 images, but less than a fifth
    ],
)
def test_when_batch_norm_is_blamed(
    gaps: list[tuple[int, int, int]], warned_in: int | None, run: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Only what two evaluations running find, or the last one; and never of a few images."""
    found = iter(gaps)
    monkeypatch.setattr("inceptionnet.train.validation.batch_norm_gap", lambda *arguments: next(found))
    tuned(swapped(tmp_path / "data"), weights_of(run), tmp_path / "run", 3, **{"optimizer.lr": STILL})
    lines = capsys.readouterr().err.splitlines()
    epochs = [line.split()[1] for line in lines if line.startswith("epoch ") and "train loss" in line]
    before = next((i for i, line in enumerate(lines) if "warning: batch norm" in line), None)
    assert epochs == ["1/3", "2/3", "3/3"] and sum("warning" in line for line in lines) == (warned_in is not None)
    if warned_in is not None:
        assert sum("train loss" in line for line in lines[:before]) == warned_in - 1


def test_a_run_says_that_its_features_have_died(
    colours: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = changed_weights(run, tmp_path, killed)
    tuned(colours, weights, tmp_path / "run", 2, **{"optimizer.lr": 1e-5})
    warnings = [line for line in capsys.readouterr().err.splitlines() if "features" in line]
    assert len(warnings) == 1, "once"
    assert "100% of the features before the pool were zero for every image of the epoch" in warnings[0]
    assert "--set schedule.warmup_epochs=5" in warnings[0]
    assert [row["dead_features"] for row in Run(tmp_path / "run").read_metrics()] == [1.0, 1.0]

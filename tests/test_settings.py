"""Settings of torch: float32 that is float32, whichever way somebody asks a network on a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inceptionnet import load
from inceptionnet.data import Preprocessing, open_source
from inceptionnet.data.loading import EvalLoader
from inceptionnet.evaluate import features
from inceptionnet.evaluate.fid import FidFeatures
from inceptionnet.system import settings
from inceptionnet.system.settings import exact


@pytest.mark.parametrize("products", ["none", "tf32"])
def test_float32_stays_float32_on_cuda(products: str) -> None:
    """The settings alone: there need not be such a device. TF32 is on for convolutions, and may be for products."""
    operations = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    first = operations[1].fp32_precision
    operations[1].fp32_precision = products
    try:
        before = [operation.fp32_precision for operation in operations]
        with exact(torch.device("cuda")):
            assert [operation.fp32_precision for operation in operations] == ["ieee"] * 2
        assert [operation.fp32_precision for operation in operations] == before
        one, other = (exact(torch.device("cuda")) for _ in range(2))
        one.__enter__()
        other.__enter__()
        one.__exit__(None, None, None)  # in another thread, before the other one ends
        assert [operation.fp32_precision for operation in operations] == ["ieee"] * 2
        other.__exit__(None, None, None)
        assert [operation.fp32_precision for operation in operations] == before
    finally:
        operations[1].fp32_precision = first


@pytest.mark.parametrize("way", ["predict", "embed", "features", "of data", "fid", "evaluate"])
def test_every_answer_in_float32_is_without_tf32(
    way: str, run: Path, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if it were the CPU on which torch has TF32 on."""
    monkeypatch.setattr(settings, "TF32_ON", "cpu")
    clf, seen = load(run, device="cpu"), list[str]()
    clf.model.body[0].register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.conv.fp32_precision))
    image, before = colours / "red" / "00.png", torch.backends.cudnn.conv.fp32_precision
    match way:
        case "predict":
            clf.predict(image)
        case "embed":
            clf.embed(image)
        case "features":
            clf.features(image)
        case "evaluate":
            clf.evaluate(colours, workers=0)
        case "of data":
            loader = EvalLoader(
                open_source(str(colours), seed=0).splits["train"],
                Preprocessing(32),
                batch_size=5,
                workers=0,
                corrupt_images="fail",
            )
            for _ in features.features(clf.model, loader, Preprocessing(32), "embed"):
                assert torch.backends.cudnn.conv.fp32_precision == before, "between batches"
        case "fid":
            FidFeatures(clf.model, clf.preprocessing)(torch.zeros(2, 3, 32, 32))
    assert set(seen) == {"ieee"} and torch.backends.cudnn.conv.fp32_precision == before

"""Agreement of int8 networks with the trained fp32 network: python benchmarks/int8_agreement.py RUN DATA [IMAGES]

The networks are calibrated on IMAGES images of the training split (default: 128) and compared on the whole held-out
split, as quantised by this package and with other settings. The output is top-1 accuracy, top-1 agreement with its 95 %
interval, and the explained variance of the logits.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor

from inceptionnet.data.augment import as_input
from inceptionnet.data.decode import pixels_of
from inceptionnet.data.sources import open_source
from inceptionnet.data.splits import evenly_spaced
from inceptionnet.engines import int8
from inceptionnet.engines.agreement import agreement
from inceptionnet.engines.fusion import fused
from inceptionnet.engines.int8 import CALIBRATED, quantised_onnx, quantised_openvino
from inceptionnet.engines.onnx import to_onnx
from inceptionnet.engines.openvino import import_nncf, to_openvino
from inceptionnet.engines.sessions import INPUT, import_onnxruntime, openvino_core
from inceptionnet.model.outputs import Outputs
from inceptionnet.weights import read_weights
from inceptionnet.weights.folder import weights_of

AT_ONCE = 64


def main(run: str, data: str, count: int = CALIBRATED) -> None:
    read = read_weights(weights_of(run))
    model, prep = read.model().eval(), read.record.preprocessing
    source = open_source(data, seed=read.record.provenance.get("seed", 0), evaluating=True)

    def loaded(name: str, most: int) -> tuple[Tensor, Tensor]:
        _, split = source.pick(name, own=True)
        split = split.take(evenly_spaced(len(split), most))
        pixels = [pixels_of(split.read(i), prep, "") for i in range(len(split))]
        return as_input(pixels, prep).contiguous(), torch.from_numpy(np.asarray(split.labels))

    calibration, _ = loaded("train", count)
    images, labels = loaded("auto", 10**6)
    plain = fused(model)
    made = to_openvino(plain, images[:2])

    def by_openvino(quantised) -> Tensor:
        compiled = openvino_core().compile_model(quantised, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return torch.cat([torch.from_numpy(compiled(part.numpy())[0].copy()) for part in images.split(AT_ONCE)])

    def by_onnxruntime(quantised) -> Tensor:
        session = import_onnxruntime().InferenceSession(quantised.SerializeToString())
        return torch.cat(
            [torch.from_numpy(session.run(None, {INPUT: part.numpy()})[0]) for part in images.split(AT_ONCE)]
        )

    def by_default() -> Tensor:
        nncf = import_nncf()
        batches = [image[None].numpy() for image in calibration]
        return by_openvino(nncf.quantize(made, nncf.Dataset(batches), subset_size=len(batches)))

    def in_7_bits(quantise, model_, by) -> Tensor:
        own, int8.weight_bits = int8.weight_bits, lambda: 7
        try:
            return by(quantise(model_, calibration))
        finally:
            int8.weight_bits = own

    with torch.inference_mode():
        want = torch.cat([model(part) for part in images.split(AT_ONCE)])
    print(
        f"{run}: {read.record.configuration.name}, calibrated on {len(calibration)} images, compared on {len(labels)}"
    )
    print(f"  {'fp32':30} top-1 {accuracy(want, labels):.1%}")
    written = to_onnx(plain, images[:2])
    ways = {
        "ONNX Runtime": lambda: by_onnxruntime(quantised_onnx(written, calibration)),
        "ONNX Runtime, 7-bit weights": lambda: in_7_bits(quantised_onnx, written, by_onnxruntime),
        "OpenVINO": lambda: by_openvino(quantised_openvino(made, calibration)),
        "OpenVINO, 7-bit weights": lambda: in_7_bits(quantised_openvino, made, by_openvino),
        "OpenVINO, NNCF defaults": by_default,
    }
    for name, way in ways.items():
        got = way()
        found = agreement(want, got, outputs=Outputs(logits=want.shape[1]), batch_sizes=())
        low, high = binomtest(round(found.top1_agreement * len(labels)), len(labels)).proportion_ci(method="wilson")
        print(
            f"  {name:30} top-1 {accuracy(got, labels):.1%}, top-1 agreement {found.top1_agreement:.1%} "
            f"({low:.1%}–{high:.1%}), explained variance {found.explained_variance:.4f}",
            flush=True,
        )


def accuracy(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(1) == labels).float().mean().item()


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))

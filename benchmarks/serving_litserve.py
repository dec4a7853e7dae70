"""The same network behind LitServe: python benchmarks/serving_litserve.py MODEL PORT BATCH; see serving.py.

One worker process decodes with Pillow and torchvision's usual transforms and runs the network in torch, in batches that
wait for at most 5 ms.
"""

import sys

import litserve
import torch
from input_speed import usual_transforms
from starlette.requests import Request

from inceptionnet import load


class Classify(litserve.LitAPI):
    """The hooks in LitServe's order: from a request to its answer."""

    def setup(self, device: str) -> None:
        classifier = load(sys.argv[1])
        self.model, self.prepare = classifier.model.eval(), usual_transforms(classifier.preprocessing.size_px)

    def decode_request(self, request: Request) -> torch.Tensor:  # this annotation makes it a form, not JSON
        return self.prepare(request["request"].file.read())

    def batch(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(inputs)

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.model(images).softmax(1)

    def unbatch(self, output: torch.Tensor) -> list[torch.Tensor]:
        return list(output)

    def encode_response(self, output: torch.Tensor) -> dict[str, list[float]]:
        values, numbers = output.topk(min(5, len(output)))
        return {"probabilities": values.tolist(), "classes": [float(number) for number in numbers]}


if __name__ == "__main__":
    api = Classify(max_batch_size=int(sys.argv[3]), batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")

"""LitServe with its dynamic batching: python benchmarks/serving_litserve.py MODEL PORT BATCH; see serving.py."""

import io
import sys

import litserve
import torch
from input_speed import import_torchvision
from PIL import Image

from inceptionnet import load


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        transforms = import_torchvision().transforms
        classifier = load(sys.argv[1])
        self.network, size = classifier.model.eval(), classifier.preprocessing.size_px
        self.prepare = transforms.Compose(
            [
                transforms.Resize(round(size / 0.875)),
                transforms.CenterCrop(size),
                transforms.ToTensor(),
                transforms.Normalize([0.5] * 3, [0.5] * 3),
            ]
        )

    def decode_request(self, request: object) -> torch.Tensor:
        return self.prepare(Image.open(io.BytesIO(request["request"].file.read())).convert("RGB"))

    def batch(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(inputs)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.network(x).softmax(1)

    def unbatch(self, output: torch.Tensor) -> list[torch.Tensor]:
        return list(output)

    def encode_response(self, output: torch.Tensor) -> dict[str, list[float]]:
        values, numbers = output.topk(min(5, len(output)))
        return {"probabilities": values.tolist(), "classes": [float(number) for number in numbers]}


if __name__ == "__main__":
    api = Api(max_batch_size=int(sys.argv[3]), batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")

"""The service that tutorials show: python benchmarks/serving_fastapi.py MODEL PORT BATCH; see serving.py.

A coroutine reads the upload, decodes it with Pillow, applies torchvision's usual transforms, and runs the network, one
image at a time, in the event loop.
"""

import io
import sys

import torch
import uvicorn
from fastapi import FastAPI, Request
from input_speed import import_torchvision
from PIL import Image

from inceptionnet import load

transforms = import_torchvision().transforms
classifier = load(sys.argv[1])
model, size = classifier.model.eval(), classifier.preprocessing.size_px
prepare = transforms.Compose(
    [
        transforms.Resize(round(size / 0.875)),
        transforms.CenterCrop(size),
        transforms.ToTensor(),
        transforms.Normalize([0.5] * 3, [0.5] * 3),
    ]
)
app = FastAPI()


@app.post("/predict")
async def predict(request: Request) -> dict[str, list[float]]:
    form = await request.form()
    image = Image.open(io.BytesIO(await form["request"].read())).convert("RGB")
    with torch.no_grad():
        probabilities = model(prepare(image)[None]).softmax(1)[0]
    values, numbers = probabilities.topk(min(5, len(probabilities)))
    return {"probabilities": values.tolist(), "classes": [float(number) for number in numbers]}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")

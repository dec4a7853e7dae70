"""The service that tutorials show: python benchmarks/serving_fastapi.py MODEL PORT BATCH; see serving.py.

A coroutine reads the upload, decodes it with Pillow, applies torchvision's usual transforms, and runs the network, one
image at a time, in the event loop.
"""

import sys

import torch
import uvicorn
from fastapi import FastAPI, Request
from input_speed import usual_transforms

from inceptionnet import load

classifier = load(sys.argv[1])
model, prepare = classifier.model.eval(), usual_transforms(classifier.preprocessing.size_px)
app = FastAPI()


@app.post("/predict")
async def predict(request: Request) -> dict[str, list[float]]:
    form = await request.form()
    with torch.no_grad():
        probabilities = model(prepare(await form["request"].read())[None]).softmax(1)[0]
    values, numbers = probabilities.topk(min(5, len(probabilities)))
    return {"probabilities": values.tolist(), "classes": [float(number) for number in numbers]}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")

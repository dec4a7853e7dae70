"""Keras's guide to transfer learning: a new head on the frozen network, then the whole with a small learning rate.

Head: global average, dropout 0.2, dense; Adam at 1e-3. Then all layers, with batch norm in inference mode; Adam at
1e-5. Images are flipped and rotated by up to a tenth of a turn. The guide's 20 + 10 epochs become 40 % and 60 % of the
time, since an epoch of all layers takes about three times as long as one of the head; both parts stop by the clock.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

os.environ["KERAS_BACKEND"] = os.environ.get("KERAS_BACKEND", "tensorflow")
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import keras
import tensorflow as tf
from common import Job, arguments, trained, write_predictions

NETWORKS = {"inception_v3": "InceptionV3", "inception_resnet_v2.keras": "InceptionResNetV2"}
HEAD_SHARE = 0.4


class StopAt(keras.callbacks.Callback):
    """Ends a training after the first step that is over at `until`, of time.time(); counts the steps."""

    def __init__(self, until: float) -> None:
        super().__init__()
        self.until, self.steps = until, 0

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.steps += 1
        self.model.stop_training = time.time() >= self.until


def main() -> None:
    job = arguments()
    if job.network not in NETWORKS or job.weights.suffix not in (".h5", ".keras"):
        sys.exit(f"Keras has no {job.network}, or {job.weights.name} is no file of Keras")
    keras.utils.set_random_seed(job.seed)
    images = dataset(job)
    base = getattr(keras.applications, NETWORKS[job.network])(
        weights=str(job.weights), include_top=False, input_shape=(job.size, job.size, 3)
    )
    inputs = keras.Input(shape=(job.size, job.size, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = base(x, training=False)
    x = keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, keras.layers.Dense(len(job.classes))(x))
    base.trainable = False
    head = fit(model, images, 1e-3, time.time() + HEAD_SHARE * job.left_s)
    base.trainable = True
    whole = fit(model, images, 1e-5, job.began + 60 * job.minutes)
    trained(job, f"{head} steps of the head, {whole} of all")
    predict(job, model)


def dataset(job: Job) -> tf.data.Dataset:
    """Batches of an epoch, with the guide's augmentation."""
    augment = keras.Sequential([keras.layers.RandomFlip("horizontal"), keras.layers.RandomRotation(0.1)])
    images = keras.utils.image_dataset_from_directory(
        job.images / "train", class_names=job.classes, batch_size=job.batch, image_size=(job.size, job.size),
        seed=job.seed,
    )  # fmt: skip
    return images.map(lambda x, y: (augment(x, training=True), y)).prefetch(1)


def fit(model: keras.Model, images: tf.data.Dataset, rate: float, until: float) -> int:
    """Train until that time; returns the number of steps."""
    model.compile(
        optimizer=keras.optimizers.Adam(rate), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    stop = StopAt(until)
    model.fit(images, epochs=10**9, verbose=0, callbacks=[stop])
    return stop.steps


def predict(job: Job, model: keras.Model) -> None:
    images = keras.utils.image_dataset_from_directory(
        job.held_out, class_names=job.classes, batch_size=job.batch, image_size=(job.size, job.size), shuffle=False
    )
    numbers = model.predict(images, verbose=0).argmax(1)
    write_predictions([Path(path) for path in images.file_paths], [job.classes[n] for n in numbers])


if __name__ == "__main__":
    main()

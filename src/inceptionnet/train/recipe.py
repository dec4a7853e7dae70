"""A recipe: every setting of a training run that is not the data or the network, typed, frozen and written down.

`--set key=value` changes one setting by its dotted key. The run folder holds the whole recipe as it was used. The named
recipes are in recipes.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inceptionnet.data.preprocess import Color, Interpolation, Resize, TrainInterpolation
from inceptionnet.errors import ConfigurationError, nearest

BatchNormMode = Literal["update", "freeze", "recalibrate"]


class Settings(BaseModel):
    """A group of settings: frozen, finite, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Optimizer(Settings):
    """The step from gradients to weights."""

    name: Literal["adamw", "sgd", "rmsprop"] = "adamw"
    """rmsprop is TensorFlow's, not torch's."""
    lr: float = Field(default=4e-3, gt=0)
    """Learning rate at its height, for an effective batch of `lr_batch` images."""
    lr_batch: int = Field(default=32, ge=1)
    lr_scaling: Literal["none", "sqrt", "linear"] = "sqrt"
    """How the rate follows the effective batch: × (batch / lr_batch) to the power of 0, 1/2 or 1."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of sgd and rmsprop; adamw's first beta."""
    nesterov: bool = True
    """Nesterov's momentum for sgd; the papers do not say so, and their recipes have the plain one."""
    decay: float = Field(default=0.9, ge=0, lt=1)
    """Of rmsprop's mean square."""
    eps: float = Field(default=1.0, gt=0)
    """Of rmsprop, inside the root; [v3] has 1.0."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Factor on the rate for each endpoint on the way from the head down, see `layers.rate_factors`."""
    weight_decay: float = Field(default=0.02, ge=0)
    """On the weights of convolutions and linear layers only, not on biases and batch norm."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Gradients are scaled down to this norm over all parameters; [v3] has 2.0."""


class Schedule(Settings):
    """Learning rate over the run: a start, then a fall."""

    epochs: int = Field(default=30, ge=1)
    """Times through all images."""
    name: Literal["cosine", "exponential", "constant"] = "cosine"
    warmup: Literal["linear", "two-phase"] = "linear"
    """A rise to the full rate, or a first phase at a tenth of it (He et al., arXiv:1512.03385, section 4.2)."""
    warmup_epochs: float = Field(default=1.0, ge=0)
    """At most a fifth of the run."""
    decay: float = Field(default=0.94, gt=0, le=1)
    """Of exponential: the factor every `decay_epochs` epochs ([v3], [v4])."""
    decay_epochs: float = Field(default=2.0, gt=0)


class Loss(Settings):
    """Cross-entropy and what is added to it."""

    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    """[v3] section 7."""
    aux_weight: float = Field(default=0.4, ge=0)
    """Weight of each auxiliary head's loss, where the network has any ([v1] has 0.3, [v3] and [v4] 0.4)."""


class Network(Settings):
    """What `create_model` can change about the network, and how much of it is trained."""

    train_from: str = "all"
    """From loaded weights: `head`, or an endpoint, for it and all that follows; the rest stays as it is."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    residual_scale: float | tuple[float, ...] | None = None
    """One number, or one for each stage with commas between them."""
    aux: bool = False


class BatchNorm(Settings):
    """Batch norm's running statistics, which evaluation uses."""

    mode: BatchNormMode = "update"
    """update: a running average of the batches' statistics. freeze: those of the loaded weights, in training too.
    recalibrate: update, and before each evaluation the plain mean over up to 100 batches."""
    momentum: float = Field(default=0.1, gt=0, le=1)
    """Share of the newest batch. In a fresh network it is at first larger, see `batch_norm.momentum_at`."""


class Averaging(Settings):
    """Running average of parameters and batch-norm statistics, evaluated and kept beside the raw ones."""

    decay: float | None = Field(default=None, gt=0, lt=1)
    """None: no average. At step t no more than (1 + t) / (10 + t), as in the released code; there 0.9999."""


class Augmentation(Settings):
    """What training does to an image: a random box of it, mirrored half of the time, its colours changed."""

    area_min: float = Field(default=0.4, gt=0, le=1)
    """Smallest share of the image's area that a box may have; the papers' 0.05 and 0.08 are for ImageNet's size."""
    flip: bool = True
    color: Color = "none"
    """fast: brightness and saturation. full: hue and contrast too, in one of the four released orders."""
    interpolation: TrainInterpolation = "same"
    """random: bilinear, nearest, bicubic or area for each image, as released with the full colours."""


class Preprocess(Settings):
    """How an image is made ready for evaluation; it travels with the weights."""

    crop: float = Field(default=0.875, gt=0, le=1)
    """Share of each side that the centre crop keeps."""
    resize: Resize = "squash"
    interpolation: Interpolation = "bilinear"


class Compute(Settings):
    """How the same numbers are computed (bf16: nearly the same)."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: forward and backward under autocast; weights and optimiser stay float32."""
    channels_last: bool = True
    compile: bool = False
    """torch.compile of the training step's network; its first steps take minutes."""


class Watch(Settings):
    """What stops or warns."""

    skipped_steps: int = Field(default=10, ge=1)
    """Steps without a finite loss and gradient, one after the other, before the run stops; each one is skipped."""


class Checkpoint(Settings):
    """When the state of the training is written, besides at the end of every epoch."""

    every_minutes: float | None = Field(default=10.0, gt=0)
    every_steps: int | None = Field(default=None, ge=1)
    keep: int = Field(default=2, ge=1)
    """The newest ones that stay."""


class Log(Settings):
    """What is written down besides metrics.csv."""

    every_steps: int = Field(default=10, ge=1)
    """A line of steps.jsonl each."""
    tensorboard: bool = False
    report: bool = True
    """Whether a training ends with report.html, curves.png and predictions.png."""


class Recipe(Settings):
    """All settings, by group."""

    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    loss: Loss = Loss()
    network: Network = Network()
    batch_norm: BatchNorm = BatchNorm()
    average: Averaging = Averaging()
    augment: Augmentation = Augmentation()
    preprocess: Preprocess = Preprocess()
    compute: Compute = Compute()
    watch: Watch = Watch()
    checkpoint: Checkpoint = Checkpoint()
    log: Log = Log()

    def changed(self, settings: Mapping[str, object]) -> Recipe:
        """A copy with the settings of these dotted keys in place of its own; values may be text.

        Raises:
            ConfigurationError: an unknown key (with the nearest known ones), or a value it cannot take.
        """
        known = dict(self.items())
        merged = self.model_dump()
        for key, value in settings.items():
            if key not in known:
                raise ConfigurationError(f"unknown setting {key!r}: {nearest(key, known)}")
            group, _, name = key.partition(".")
            merged[group][name] = _from_text(key, value) if isinstance(value, str) else value
        try:
            return Recipe.model_validate(merged)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"][:2])
            value = settings.get(key)
            raise ConfigurationError(f"setting {key} is {value!r}: {first['msg']}{_nearest_word(key, value)}") from None

    def items(self) -> Iterator[tuple[str, Any]]:
        """Every setting as (dotted key, value)."""
        for group, values in self.model_dump().items():
            for name, value in values.items():
                yield f"{group}.{name}", value


def parse_settings(texts: Sequence[str]) -> dict[str, object]:
    """`["optimizer.lr=0.02"]` → `{"optimizer.lr": "0.02"}`.

    Raises:
        ConfigurationError: no `=`, or the same key twice.
    """
    settings: dict[str, object] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigurationError(f"--set {text!r}: expected key=value, such as optimizer.lr=0.02")
        if key in settings:
            raise ConfigurationError(f"--set {key} is given twice; give it once")
        settings[key] = value
    return settings


def _from_text(key: str, text: str) -> object:
    """Text as the setting takes it: `none` for nothing, numbers with commas for a list, else as it is."""
    if text.lower() == "none" and "none" not in _words(key):
        return None
    return text.split(",") if "," in text else text


def _words(key: str) -> list[str]:
    """The words that a setting takes, where it takes words."""
    group, _, name = key.partition(".")
    annotation = type(getattr(Recipe(), group)).model_fields[name].annotation
    return [choice for choice in get_args(annotation) if isinstance(choice, str)]


def _nearest_word(key: str, value: object) -> str:
    """Which of a setting's words was probably meant."""
    hint = nearest(str(value), _words(key)) if _words(key) else ""
    return f"; {hint}" if hint.startswith("did you mean") else ""

"""Every setting of a training run besides the data and the network, by group: typed, frozen, described.

The descriptions are those of `train --settings`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from inceptionnet.data.balance import Sampler
from inceptionnet.data.preprocess import LEVELS, Color, Interpolation, Policy, Resize, TrainInterpolation
from inceptionnet.nets.ablations import EditName


def _as_names(value: object) -> object:
    """One name, several or none, as a tuple of different names."""
    names = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)):
        return value
    return tuple(dict.fromkeys(name.strip() if isinstance(name, str) else name for name in names))


Trackers = Annotated[tuple[Literal["tensorboard", "mlflow", "wandb"], ...], BeforeValidator(_as_names)]
Edits = Annotated[tuple[EditName, ...], BeforeValidator(_as_names)]


class Settings(BaseModel):
    """A group of settings: frozen, finite, no unknown keys."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Optimizer(Settings):
    """Optimiser and learning rate."""

    name: Literal["adamw", "sgd", "rmsprop"] = Field(default="adamw", description="Optimiser; rmsprop is TensorFlow's.")
    lr: float = Field(default=4e-3, gt=0, description="Peak learning rate for an effective batch size of lr_batch.")
    lr_batch: int = Field(default=32, ge=1, description="Effective batch size that lr is stated for.")
    lr_scaling: Literal["none", "sqrt", "linear"] = Field(
        default="sqrt",
        description="Scaling of lr for another batch size: by (batch size / lr_batch) to the power 0, 1/2 or 1.",
    )
    range_test: bool = Field(
        default=False,
        description="Lower lr where a range test before the first epoch asks for it; see range_test.json.",
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum of sgd and rmsprop; first beta of adamw.")
    nesterov: bool = Field(default=True, description="Nesterov momentum of sgd; the papers' recipes have none.")
    decay: float = Field(default=0.9, ge=0, lt=1, description="Decay of the mean square of rmsprop.")
    eps: float = Field(default=1.0, gt=0, description="Epsilon of rmsprop, inside the square root; 1.0 in [v3].")
    layer_decay: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Layer-wise learning-rate decay: a factor per endpoint from the head down; that of finetune "
        "depends on the network.",
    )
    weight_decay: float = Field(
        default=0.02,
        ge=0,
        description="Weight decay of convolution and linear weights; biases and batch norm have none.",
    )
    clip_norm: float | None = Field(default=None, gt=0, description="Maximum norm of the gradient; 2.0 in [v3].")


class Schedule(Settings):
    """Epochs and learning-rate schedule."""

    epochs: int = Field(
        default=30, ge=0, description="Number of passes over the training set; 0 with network.train_from=head."
    )
    minutes: float | None = Field(
        default=None,
        gt=0,
        description="Time budget of the whole run, minutes (--time): the schedule follows the clock, not the epochs.",
    )
    evaluate_every: int = Field(
        default=1, ge=1, description="Epochs between two evaluations; there is one after the last epoch too."
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        description="Early stopping: end after this many epochs without a better accuracy on the validation split.",
    )
    name: Literal["cosine", "exponential", "constant"] = Field(
        default="cosine", description="Learning-rate decay after the warm-up."
    )
    warmup: Literal["linear", "two-phase"] = Field(
        default="linear", description="Warm-up: a linear rise, or a first phase at a tenth of the peak learning rate."
    )
    warmup_epochs: float = Field(default=1.0, ge=0, description="Length of the warm-up; at most a fifth of the run.")
    decay: float = Field(
        default=0.94,
        gt=0,
        le=1,
        description="Factor of the exponential schedule every decay_epochs epochs; [v3], [v4].",
    )
    decay_epochs: float = Field(default=2.0, gt=0, description="Epochs between two steps of the exponential schedule.")


class Data(Settings):
    """Which training images an epoch has."""

    sampler: Sampler = Field(
        default="shuffled",
        description="shuffled: every image once; balanced: as many images, every class equally often.",
    )


class Loss(Settings):
    """Cross-entropy loss; with sigmoid binary cross-entropy, of several labels an image the sum over the labels."""

    label_smoothing: float = Field(default=0.1, ge=0, lt=1, description="Label smoothing; [v3] section 7.")
    aux_weight: float = Field(
        default=0.4, ge=0, description="Weight of the loss of each auxiliary head; 0.3 in [v1], 0.4 in [v3] and [v4]."
    )
    class_weights: Literal["none", "balanced"] = Field(
        default="none",
        description="balanced: the loss of an image times images / (classes × images of its class); of several labels "
        "each by itself.",
    )


class Network(Settings):
    """Options of the network, and which layers are trained."""

    activation: Literal["auto", "softmax", "sigmoid"] = Field(
        default="auto",
        description="sigmoid: several labels an image, or one logit for two classes; auto: by the labels and weights.",
    )
    train_from: str = Field(
        default="all",
        description="First trained layer of a pretrained network: all, an endpoint, or head: only the classifier, by "
        "logistic regression.",
    )
    fit_head: bool = Field(
        default=False,
        description="Fit the classifier by logistic regression on the features of the pretrained network, before "
        "other layers are trained.",
    )
    dropout: float | None = Field(default=None, ge=0, lt=1, description="Dropout rate; none: as published.")
    residual_scale: float | tuple[float, ...] | None = Field(
        default=None, description="Scale of the residuals: a number, or one per stage with commas; none: as published."
    )
    aux: bool = Field(default=False, description="Train with auxiliary heads.")
    edits: Edits = Field(
        default=(),
        description="The papers' ablations, with commas (models --edits); none: as published, or as in --weights.",
    )


class BatchNorm(Settings):
    """Running statistics of batch norm."""

    mode: Literal["update", "freeze", "recalibrate"] = Field(
        default="update",
        description="freeze: keep the pretrained statistics; recalibrate: average over up to 100 batches before each "
        "evaluation.",
    )
    momentum: float = Field(
        default=0.1, gt=0, le=1, description="Weight of the newest batch; larger in the first steps of a new network."
    )


class Averaging(Settings):
    """Exponential moving average (EMA) of the weights, saved and evaluated beside the raw weights."""

    decay: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="EMA decay, at most (1 + t) / (10 + t) at step t; 0.9999 in the released code.",
    )


class Augmentation(Settings):
    """Augmentation of training images."""

    area_min: float = Field(
        default=0.4,
        gt=0,
        le=1,
        description="Smallest area of a random crop, relative to the image; 0.05 and 0.08 in the papers.",
    )
    flip: bool = Field(default=True, description="Random horizontal flips.")
    color: Color = Field(
        default="none", description="Colour jitter. fast: brightness and saturation; full: hue and contrast too."
    )
    interpolation: TrainInterpolation = Field(
        default="same", description="same: as in preprocess; random: bilinear, nearest, bicubic or area for each image."
    )
    policy: Policy = Field(
        default="none", description="trivial: TrivialAugment (wide), one operation per image; rand: RandAugment."
    )
    rand_operations: int = Field(default=2, ge=1, description="Operations per image of RandAugment.")
    rand_magnitude: int = Field(default=9, ge=0, lt=LEVELS, description="Magnitude of RandAugment, 0 to 30.")
    mixup: float = Field(
        default=0.0,
        ge=0,
        description="Alpha of mixup, 0: off; usually 0.1 to 0.8. With cutmix: either at random, per step.",
    )
    cutmix: float = Field(default=0.0, ge=0, description="Alpha of CutMix, 0: off; usually 1.")
    erase: float = Field(default=0.0, ge=0, le=1, description="Probability of random erasing of an image.")


class Preprocess(Settings):
    """Preprocessing for evaluation, saved with the weights."""

    crop: float = Field(default=0.875, gt=0, le=1, description="Side of the centre crop, relative to the image.")
    resize: Resize = Field(
        default="squash", description="Resizing: squash to a square, or keep-aspect, which crops it."
    )
    interpolation: Interpolation = Field(default="bilinear", description="Interpolation of resizing.")


class Compute(Settings):
    """Precision and memory layout."""

    precision: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="bf16: forward and backward passes under autocast; weights and optimiser stay float32.",
    )
    channels_last: bool = Field(default=True, description="Channels-last memory layout.")
    convolutions: Literal["auto", "torch", "winograd"] = Field(
        default="auto",
        description="What computes convolutions; winograd: this package's kernels, in fp32 on CPUs; auto: these where "
        "there is a C++ compiler.",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="Gradient checkpointing: compute activations again in the backward pass; less memory, more time.",
    )
    compile: bool = Field(default=False, description="torch.compile; the first steps take minutes.")


class Watch(Settings):
    """Checks during training."""

    skipped_steps: int = Field(
        default=10, ge=1, description="Stop after this many steps in a row without a finite loss and gradient."
    )


class Checkpoint(Settings):
    """Checkpoints within an epoch; there is one at the end of every epoch too."""

    every_minutes: float | None = Field(default=10.0, gt=0, description="Minutes between two checkpoints.")
    every_steps: int | None = Field(default=None, ge=1, description="Steps between two checkpoints.")
    keep: int = Field(default=2, ge=1, description="Number of newest checkpoints to keep.")


class Log(Settings):
    """Logs and plots besides metrics.csv."""

    every_steps: int = Field(default=10, ge=1, description="Steps between two lines of steps.jsonl.")
    trackers: Trackers = Field(
        default=(),
        description="Experiment trackers, with commas: settings and metrics of the run for each; none: none.",
    )
    report: bool = Field(default=True, description="Write report.html, curves.png and predictions.png at the end.")

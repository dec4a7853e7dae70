"""The metrics of an epoch: their columns in metrics.csv, by which the best epoch is chosen, and how they are written.

One label an image: loss, top-1 accuracy, and of more than five classes top-5 accuracy. Several labels: loss (binary
cross-entropy, mean over the labels), mean average precision and subset accuracy; on training images, whose
probabilities are not kept, loss and subset accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isnan, nan
from typing import TypeAlias

import numpy as np

from inceptionnet.data.crops import Crops
from inceptionnet.data.loading import EvalLoader
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.evaluate.evaluation import Evaluation, Member, evaluate
from inceptionnet.evaluate.metrics import Metrics, measure
from inceptionnet.evaluate.multi_label import MultiLabelEvaluation, evaluate_labels
from inceptionnet.evaluate.multi_label_metrics import MultiLabelMetrics, measure_labels
from inceptionnet.model.network import InceptionNet
from inceptionnet.model.outputs import Outputs

AnyEvaluation: TypeAlias = Evaluation | MultiLabelEvaluation

BEST = {"top1": "accuracy", "map": "mean average precision"}
"""The metrics that choose the best epoch, in words."""


def accuracy_name(outputs: Outputs) -> str:
    """The column of the accuracy on training images."""
    return "subset_accuracy" if outputs.multi_label else "top1"


def accuracy_words(outputs: Outputs) -> str:
    """What the accuracy on training images is."""
    return "subset accuracy" if outputs.multi_label else "accuracy"


def figures(evaluation: AnyEvaluation) -> dict[str, float]:
    """The metrics of an evaluation by name; of no image with a label the mean average precision is NaN."""
    if isinstance(evaluation, Evaluation):
        top5 = {"top5": evaluation.topk} if len(evaluation.classes) > evaluation.k == 5 else {}
        return {"loss": evaluation.loss, "top1": evaluation.top1, **top5}
    found = evaluation.mean_average_precision
    return {
        "loss": evaluation.loss,
        "map": nan if found is None else found,
        "subset_accuracy": evaluation.subset_accuracy,
    }


def accuracy_of(evaluation: AnyEvaluation) -> float:
    """Top-1 accuracy, or subset accuracy."""
    return float(evaluation.correct.mean())


def written(values: Mapping[str, float]) -> str:
    """Metrics for a log line."""
    forms = {
        "loss": "loss {:.4f}", "top1": "accuracy {:.1%}", "top5": "top-5 {:.1%}", "map": "mAP {:.3f}",
        "subset_accuracy": "subset accuracy {:.1%}",
    }  # fmt: skip
    return " ".join(forms[name].format(value) for name, value in values.items())


def summary(evaluation: AnyEvaluation) -> str:
    """The result of a training, in words."""
    if isinstance(evaluation, Evaluation):
        return evaluation.summary
    return f"mean average precision {figures(evaluation)['map']:.3f}, {evaluation.summary}"


def deciding(row: Mapping[str, float]) -> str:
    """The metric of a row that chooses the best epoch, a key of BEST; empty without a validation split."""
    return next((name for name in BEST if f"val_{name}" in row), "")


def value_of(row: Mapping[str, float]) -> str:
    """The deciding metric of a row, as text."""
    name = deciding(row)
    value = row[f"val_{name}"]
    return f"{value:.1%}" if name == "top1" else f"{value:.3f}"


def best_row(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The row of metrics.csv that is best by `deciding`; of equal ones that with the smallest loss.

    Empty without a validation split: a test split is not for choosing an epoch.
    """
    return max(rows, key=worth) if rows and deciding(rows[0]) else {}


def worth(row: Mapping[str, float]) -> tuple[float, float]:
    """How good a row with metrics of the validation split is, to compare: its deciding metric, then the loss."""
    value, loss = row[f"val_{deciding(row)}"], row["val_loss"]
    return -1.0 if isnan(value) else value, -inf if isnan(loss) else -loss


def evaluate_model(
    model: InceptionNet, loader: EvalLoader, prep: Preprocessing, classes: Sequence[str], **options: object
) -> AnyEvaluation:
    """Evaluate one network on one crop of each image, as `inceptionnet evaluate` does; the options are its."""
    outputs = model.outputs
    threshold = outputs.threshold(None)
    if not outputs.multi_label:
        return evaluate(model, loader, prep, classes, threshold=threshold, **options)
    assert threshold is not None
    was_training = model.training
    model.eval()
    member = Member(model, Crops(prep), model.device, outputs=outputs)
    own = np.arange(len(classes))
    found = evaluate_labels([member], loader, classes, labels_of=own, threshold=threshold, **options)
    model.train(was_training)
    return found


def measured(evaluation: AnyEvaluation) -> Metrics | MultiLabelMetrics:
    """All metrics of an evaluation."""
    return measure(evaluation) if isinstance(evaluation, Evaluation) else measure_labels(evaluation)

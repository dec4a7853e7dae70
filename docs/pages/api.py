"""The API reference: which names are documented on which page; the rest is in their docstrings."""

from __future__ import annotations

import builtins
from importlib import import_module
from inspect import isclass
from typing import Any

import inceptionnet
from inceptionnet import errors
from pages.text import page, toctree

PAGES = {
    "inceptionnet": ("The package", "The names of `inceptionnet` itself.", [
        f"inceptionnet.{one}" for one in inceptionnet.__all__
    ]),
    "results": ("Results", "What predictions, evaluations and heat maps consist of.", [
        "inceptionnet.evaluate.prediction.Prediction",
        "inceptionnet.classifier.HeatMap",
        "inceptionnet.evaluate.metrics.Metrics",
        "inceptionnet.evaluate.evaluation.Evaluation",
        "inceptionnet.evaluate.multi_label_metrics.MultiLabelMetrics",
        "inceptionnet.model.outputs.Outputs",
        "inceptionnet.study.comparison.compare",
        "inceptionnet.evaluate.fid.FidFeatures",
    ]),
    "data": ("Data and preprocessing", "Data sets, decoding, and what happens to an image before the network.", [
        f"inceptionnet.data.{one}" for one in import_module("inceptionnet.data").__all__
    ]),
    "weights": ("Weights and engines", "Weights files, what they say, exported files and engines.", [
        "inceptionnet.weights.Record",
        "inceptionnet.weights.Report",
        "inceptionnet.weights.WeightsFile",
        "inceptionnet.weights.read_weights",
        "inceptionnet.weights.known.Published",
        "inceptionnet.engines.export.Exported",
        "inceptionnet.engines.runtimes.Engine",
        "inceptionnet.model.feature_net.FeatureNet",
    ]),
    "nets": ("Networks as data", "The tree of a network, what is counted from it, and its drawing; without torch.", [
        "inceptionnet.nets.spec.Network",
        "inceptionnet.nets.spec.Conventions",
        *(f"inceptionnet.nets.spec.{one}" for one in (
            "Conv", "SeparableConv", "MaxPool", "AvgPool", "AdaptiveAvgPool", "GlobalPool", "LocalResponseNorm",
            "Dropout", "Linear", "BatchNorm", "Activation", "Branches", "Residual",
        )),
        "inceptionnet.nets.edits.Configuration",
        "inceptionnet.nets.edits.configure",
        *(f"inceptionnet.nets.analysis.{one}" for one in (
            "analyse", "endpoints", "parameters", "multiply_adds", "minimum_size", "Row", "Shape", "Field",
            "GridTooSmall",
        )),
        "inceptionnet.draw.svg",
    ]),
    "errors": ("Errors", "Every error that the package raises on purpose; its message is one line.", [
        f"inceptionnet.errors.{name}" for name, one in vars(errors).items()
        if isclass(one) and issubclass(one, errors.InceptionNetError) and name != "InceptionNetError"
    ]),
}  # fmt: skip
"""Title, what is on the page, and its names, by the name of the page."""


def found(name: str) -> Any:
    """The object of a dotted name."""
    module, _, own = name.rpartition(".")
    return getattr(import_module(module), own)


def _entry(name: str) -> str:
    if not isclass(found(name)):
        return f".. autofunction:: {name}"
    return f".. autoclass:: {name}\n   :members:\n   :exclude-members: __init__, __new__"


def pages() -> dict[str, str]:
    """A page for each group of names, and their list."""
    made = {
        f"{name}.md": page(f"# {title}", told, *(f"```{{eval-rst}}\n{_entry(one)}\n```" for one in names))
        for name, (title, told, names) in PAGES.items()
    }
    made["index.md"] = page(
        "# Python API",
        "From the docstrings. [The Python interface](../../python.md) shows how these names are used together.",
        "\n".join(f"- [{title}]({name}.md): {told[0].lower() + told[1:]}" for name, (title, told, _) in PAGES.items()),
        "Other modules are the package's own, and may change in any version.",
        toctree(*PAGES),
    )
    return made


def resolved(app: Any, env: Any, node: Any, shown: Any) -> Any:
    """A reference by a short name, to the page that documents it; else None, which is a broken reference.

    Types in signatures that are not documented here (other packages', the package's own) stand as text, and so do
    Python's exceptions.
    """
    from sphinx.addnodes import desc_signature
    from sphinx.util.nodes import make_refnode

    if node.get("refdomain") != "py":
        return None
    own = node["reftarget"].rpartition(".")[2]
    documented = {name.rpartition(".")[2]: name for _, _, names in PAGES.values() for name in names}
    if name := documented.get(own):
        about = env.domains["py"].objects.get(name)
        if about:
            return make_refnode(app.builder, node["refdoc"], about.docname, about.node_id, [shown], name)
    above = node.parent
    while above is not None and not isinstance(above, desc_signature):
        above = above.parent
    return shown if above is not None or hasattr(builtins, own) else None

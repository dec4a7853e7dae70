"""The fastest of the engines that agree with the network: measured once, then from the cache."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from statistics import median
from typing import Any

from inceptionnet import __version__
from inceptionnet.engines.builders import LACKS, WITH_STREAMS
from inceptionnet.engines.cache import Choice, device_name, recall, remember
from inceptionnet.engines.candidates import AUTO, Candidates
from inceptionnet.engines.runtimes import DTYPES, Engine, labelled
from inceptionnet.engines.timing import measured, take_turns
from inceptionnet.errors import ConfigurationError, InceptionNetError, number_of
from inceptionnet.system.devices import cpu_says
from inceptionnet.system.extras import version_of

log: logging.Logger = logging.getLogger("inceptionnet")

KEYED = ("torch", "onnx", "onnxruntime", "openvino", "nncf", "tensorrt")
"""Packages on whose versions speed depends."""
TURNS, GAIN = 5, 0.97
"""Another number of threads or streams is taken if the median of so many turns is below this share."""
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16", "avx_ne_convert"}
"""What /proc/cpuinfo calls bfloat16 products."""


def fastest(of: Candidates, names: Sequence[str], *, remeasure: bool, fixed_threads: bool) -> Engine:
    """The fastest of the engines that agree, by the latencies in the cache or measured now.

    Args:
        names: of the engines to choose from.
        remeasure: whatever is in the cache.
        fixed_threads: the number of threads is asked for; else fewer may be chosen.

    Raises: as `optimize`.
    """
    key = _key(of, names, fixed_threads)
    choice = None if remeasure else recall(key)
    if choice is not None:
        try:
            made = _first_that_agrees(of, choice, (), cached=True)
            return _tuned(of, key, choice, made, fixed_threads)
        except InceptionNetError as error:
            log.warning("cached %s; measuring the engines again", error)
    engines, skipped = _usable(of, names)
    times = measured(engines, of.target.example)
    choice = Choice(min(times, key=times.__getitem__), times, skipped)
    remember(key, choice)
    return _tuned(of, key, choice, _first_that_agrees(of, choice, engines, cached=False), fixed_threads)


def _tuned(of: Candidates, key: Mapping[str, Any], choice: Choice, made: Engine, fixed_threads: bool) -> Engine:
    """The engine with the number of threads and streams that is fastest, from the cache or measured now."""
    threads = of.target.threads
    if threads == 1 or made.precision == "int8" or made.name == "compile" or of.target.example.device.type != "cpu":
        return made  # int8 and compile would take longer to build than they could gain
    if made.label in choice.runs:
        asked, streams = choice.runs[made.label]
        return made if (asked, streams) == (threads, 1) else _variant(of, made, asked, streams)
    ways = [] if fixed_threads else [(threads // 2, 1)]
    if made.name in WITH_STREAMS:
        ways += [(threads, streams) for streams in {2, threads} if streams <= min(threads, len(of.target.example))]
    best, run = made, (threads, 1)
    for way in sorted(ways):
        other = _variant(of, made, *way)
        first, second = (median(taken) for taken in take_turns([best, other], of.target.example, TURNS))
        if second < GAIN * first:
            best, run = other, way
    remember(key, replace(choice, runs={**choice.runs, made.label: run}))
    return best


def _variant(of: Candidates, made: Engine, threads: int, streams: int) -> Engine:
    other = of.built(made.name, made.precision, threads, streams)
    other.about |= {name: value for name, value in made.about.items() if name not in other.about}
    return other


def _first_that_agrees(of: Candidates, choice: Choice, engines: Iterable[Engine], *, cached: bool) -> Engine:
    """The fastest engine of the choice that agrees with the network on the images."""
    ready = {engine.label: engine for engine in engines}
    skipped = dict(choice.skipped)
    for label in sorted(choice.latency_ms, key=choice.latency_ms.__getitem__):
        name, _, precision = label.partition(" ")
        made = ready.get(label) or of.built(name, precision or "fp32")
        try:
            of.judge(made)
        except ConfigurationError as error:
            skipped[label] = str(error)
            continue
        why = choice.why if label == choice.engine else f"{choice.why}; the faster ones do not agree"
        why += _of_precision(of, made) if of.target.precision == AUTO else ""
        latencies = {"latency_ms": dict(choice.latency_ms), "skipped": skipped, "cached": cached}
        made.about |= {"why": why, **latencies}
        log.info("engine %s: %s%s", label, why, " (cached)" if cached else "")
        return made
    raise _none(of, skipped)


def _of_precision(of: Candidates, made: Engine) -> str:
    """Why its precision will do."""
    if made.precision == "fp32":
        return ""
    if of.images is None:
        return f"; logits in {made.precision} differ by {made.about['difference']:.1%} of the largest, on noise"
    share, count = made.about["agreement"], made.about["compared_on"]
    what = "predicts the class of fp32 for" if of.plain.outputs.logits else "has features that explain"
    images = number_of("image", count)
    on = f"of {images}" if of.plain.outputs.logits else f"of fp32's variance on {images}"
    return f"; {made.precision} {what} {share:.1%} {on} (at least {of.least:.1%} is asked)"


def _usable(of: Candidates, names: Sequence[str]) -> tuple[list[Engine], dict[str, str]]:
    """The engines that run here and may agree with the network, and the reasons why the others do not."""
    log.info("measuring which engine is the fastest; this is done once and takes some minutes")
    engines: list[Engine] = []
    skipped: dict[str, str] = {}
    auto = of.target.precision == AUTO
    for precision in DTYPES if auto else [of.target.precision]:
        if auto and (why := _impossible(of, precision)):
            skipped[precision] = why
            continue
        for name in names:
            if auto and name in LACKS.get(precision, ()):
                continue
            try:
                engines.append(of.built(name, precision))
            except InceptionNetError as error:
                skipped[labelled(name, precision)] = str(error)
    if not engines:
        raise _none(of, skipped)
    return engines, skipped


def _none(of: Candidates, skipped: Mapping[str, str]) -> ConfigurationError:
    told = "; ".join(skipped.values())
    return ConfigurationError(
        f"no engine can run {of.plain.network.name} in {of.target.precision} on this machine: {told}"
    )


def _impossible(of: Candidates, precision: str) -> str:
    """Why auto does not try a precision, or nothing."""
    device = of.target.example.device.type
    if precision == "fp32":
        return ""
    if precision == "int8":
        return "" if of.target.calibration is not None else "no images are given to calibrate int8 on"
    if precision == "fp16":
        return "" if device != "cpu" else "processors have no instructions for fp16 that are worth it"
    if device == "cpu" and not BF16_FLAGS & {*cpu_says("flags").split(), *cpu_says("Features").split()}:
        return f"this processor has no instructions for {precision}"
    return ""


def _key(of: Candidates, names: Sequence[str], fixed_threads: bool) -> dict[str, Any]:
    """Everything that speed depends on; weights are not part of it."""
    return {
        "network": asdict(of.plain.configuration),
        "shape": list(of.target.example.shape),
        "precision": of.target.precision,
        "calibrated": of.target.calibration is not None,
        "device": device_name(of.target.example.device),
        "threads": [of.target.threads, fixed_threads],
        "engines": list(names),
        "versions": {
            "inceptionnet": __version__,
            **{package: version_of(package) for package in KEYED},
        },
    }

"""`inceptionnet bench NAME|WEIGHTS…`: latency and throughput of every engine on this machine."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inceptionnet.cli.options import Device, Json, opened
from inceptionnet.errors import ConfigurationError, nearest, number_of
from inceptionnet.system.printing import say

log: logging.Logger = logging.getLogger("inceptionnet")

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from inceptionnet.engines.bench import Measurement, Skipped
    from inceptionnet.model.network import InceptionNet


def bench(
    networks: Annotated[list[str], typer.Argument(metavar="NAME|WEIGHTS…", help="Networks by name (randomly "
                                                  "initialised), weights files or run folders.")],
    engines: Annotated[str, typer.Option(help="Comma-separated engines; default: all that are installed.")] = "",
    batch: Annotated[str, typer.Option(help="Comma-separated batch sizes.")] = "1,16",
    precision: Annotated[str, typer.Option(help="fp32, bf16, fp16 or int8; comma-separated.")] = "fp32",
    rounds: Annotated[int, typer.Option(help="Number of rounds; each engine runs once per round.", min=1)] = 20,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: as torch is set.", min=1,
                                                rich_help_panel="Machine")] = None,
    plot: Annotated[Path | None, typer.Option(help="Plot the results into this .png file.")] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:  # fmt: skip
    """Benchmark engines: latency, p95, throughput, share of the machine's arithmetic peak, memory and load time.

    Measured on batches of noise, interleaved. Engines that cannot run on this machine are listed with the reason.
    """
    import torch

    from inceptionnet.cli.tables import print_json
    from inceptionnet.engines.bench import Measurement, arithmetic_peak, bench
    from inceptionnet.engines.builders import BUILDERS, LACKS
    from inceptionnet.engines.runtimes import DTYPES
    from inceptionnet.system.devices import pick_device

    named = _known(engines, "engine", BUILDERS) if engines else []
    batches = _numbers(batch)
    precisions = _known(precision, "precision", DTYPES)
    if plot and plot.suffix != ".png":
        raise ConfigurationError(f"--plot {plot}: expected a .png file; change the extension")
    at = pick_device(device)
    count = threads or torch.get_num_threads()
    models = {name: _model(name).to(at).eval() for name in networks}
    peaks = {one: arithmetic_peak(at, one, count) for one in precisions}
    chosen = [
        (name, one) for one in precisions for name in named or BUILDERS if named or name not in LACKS.get(one, ())
    ]
    rows: list[Measurement | Skipped] = []
    for name, model in models.items():
        for size in batches:
            log.info("measuring %s, batch %d", name, size)
            rows += bench(name, model, chosen, batch_size=size, peaks=peaks, threads=count, rounds=rounds)
    measured = [row for row in rows if isinstance(row, Measurement)]
    title = (
        f"{' and '.join(precisions)} on {at}, {number_of('thread', count)}, {number_of('interleaved round', rounds)}"
    )
    if plot:
        from inceptionnet.report.plots import speeds

        speeds([row.to_dict() for row in measured], plot, title)
    peak_gflops = {kind: peak / 1e9 for kind, peak in peaks.items()}
    if json:
        about = {"device": str(at), "threads": count, "rounds": rounds, "peak_gflops": peak_gflops}
        print_json({**about, "rows": [row.to_dict() for row in rows]})
    else:
        _print(rows, title, peak_gflops)
    if not measured:
        raise ConfigurationError("no engine can run on this machine; see the reasons above")


def _numbers(text: str) -> list[int]:
    numbers = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if min(numbers) < 1:
        raise ConfigurationError(f"--batch {text}: expected comma-separated whole numbers, 1 or more, such as 1,16")
    return numbers


def _model(name: str) -> InceptionNet:
    from inceptionnet import create_model
    from inceptionnet.nets import NETWORKS

    if name.isdecimal() and not Path(name).exists():
        raise ConfigurationError(
            f"{name}: expected a network name or a weights file; separate batch sizes by commas: --batch 1,16"
        )
    return create_model(name) if name in NETWORKS else opened(name, device="cpu").model


def _known(text: str, kind: str, names: Collection[str]) -> list[str]:
    given = [name.strip() for name in text.split(",")]
    if unknown := [name for name in given if name not in names]:
        raise ConfigurationError(f"unknown {kind} {unknown[0]!r}: {nearest(unknown[0], names)}")
    return given


def _print(rows: Sequence[Measurement | Skipped], title: str, peak_gflops: Mapping[str, float]) -> None:
    from inceptionnet.cli.tables import print_table
    from inceptionnet.engines.bench import Measurement

    fastest: dict[tuple[str, int], float] = {}
    for row in rows:
        if isinstance(row, Measurement):
            key = row.network, row.batch_size
            fastest[key] = max(fastest.get(key, 0.0), row.images_per_s)
    print_table(
        ["network", "batch", "engine", "precision", "images/s", "of the fastest", "latency (ms)", "p95 (ms)",
         "of peak", "memory (MB)", "load time (s)"],
        [
            [row.network, str(row.batch_size), row.engine, row.precision, f"{row.images_per_s:.2f}",
             f"{row.images_per_s / fastest[row.network, row.batch_size]:.0%}", f"{row.latency_ms:.1f}",
             f"{row.p95_ms:.1f}", f"{row.share_of_peak:.0%}", f"{row.memory_mb:.0f}", f"{row.load_time_s:.1f}"]
            for row in rows if isinstance(row, Measurement)
        ],
        right={1, 4, 5, 6, 7, 8, 9, 10},
        title=title,
        note="peak: "
        + ", ".join(f"{peak:.0f} GFLOP/s ({kind})" for kind, peak in peak_gflops.items())
        + " for a large matrix product",
    )  # fmt: skip
    for row in rows:
        if not isinstance(row, Measurement):
            say(f"skipped: {row.network}, batch {row.batch_size}, {row.engine} in {row.precision}: {row.reason}")

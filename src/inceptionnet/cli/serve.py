"""`inceptionnet serve RUN|WEIGHTS…`: classifiers over HTTP, with a page to try them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from inceptionnet.cli.options import BatchSize, Calibrate, Device, Engine, Precision
from inceptionnet.errors import ConfigurationError

KEY = "INCEPTIONNET_API_KEY"
LEAST_KEY = 16


def serve(
    models: Annotated[list[str], typer.Argument(metavar="RUN|FILE…", help="Run folders, weights files, hf:OWNER/NAME "
                      "or exported files; NAME=SOURCE gives one a name. The first is the default model.")],
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all of them.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 for any free one.", min=0, max=65535)] = 8000,
    engine: Engine = "auto",
    precision: Precision = "fp32",
    calibrate: Calibrate = None,
    device: Device = "auto",
    batch_size: BatchSize = 16,
    max_wait: Annotated[str, typer.Option(metavar="TIME", help="How long the first image of a batch waits for others, "
                        "such as 5ms.")] = "5ms",
    workers: Annotated[int, typer.Option(help="Processes that answer requests, each with the models in memory.",
                                         min=1, max=64)] = 1,
    decoders: Annotated[int | None, typer.Option(help="Processes that decode images, of each worker. Default: half of "
                                                 "the cores, at most 4, over all workers.", min=1, max=64)] = None,
    queue: Annotated[int, typer.Option(help="Images that may wait or be worked on; beyond them requests get 503.",
                                       min=1, rich_help_panel="Limits")] = 256,
    max_images: Annotated[int, typer.Option(help="Images in one request.", min=1, rich_help_panel="Limits")] = 64,
    max_mib: Annotated[int, typer.Option("--max-mib", help="Size of one request, MiB; an image may have half.", min=1,
                                         max=1024, rich_help_panel="Limits")] = 64,
    max_pixels: Annotated[int | None, typer.Option(help="Pixels of one image. Default: 89478485.", min=1,
                                                   rich_help_panel="Limits")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to receive a request, and again to answer it.", min=0.1,
                                           max=3600, rich_help_panel="Limits")] = 30.0,
    api_key_file: Annotated[Path | None, typer.Option(metavar="FILE", help="A file with a key that requests must have. "
                            f"Default: the variable {KEY}; without either, no key.")] = None,
) -> None:  # fmt: skip
    """Answer requests for predictions over HTTP, with a page at / to try them.

    Images of several requests run as one batch. There are limits on everything that a client sends. SIGTERM ends the
    service when all requests are answered. /docs describes the requests, docs/serving.md everything else.
    """
    from inceptionnet.data.limits import MAX_PIXELS
    from inceptionnet.serve.settings import Limits, Settings, named_models, seconds
    from inceptionnet.system.extras import import_extra

    for module, package in (("starlette", None), ("uvicorn", None), ("python_multipart", "python-multipart"),
                            ("prometheus_client", "prometheus-client")):  # fmt: skip
        import_extra(module, "serve", "inceptionnet serve", package)
    if max_images > queue:
        raise ConfigurationError(f"--max-images {max_images}: expected at most --queue, {queue}; change one of them")
    if max_pixels is not None and max_pixels > MAX_PIXELS:
        raise ConfigurationError(f"--max-pixels {max_pixels}: expected at most {MAX_PIXELS}, the most that is decoded")
    settings = Settings(
        named_models(models), engine, precision, tuple(calibrate or ()), device, None, batch_size,
        seconds(max_wait, "--max-wait"), host, port, workers, decoders or 0,
        limits=Limits(
            request_bytes=max_mib * 2**20, image_bytes=max_mib * 2**19, pixels=max_pixels or MAX_PIXELS,
            images=max_images, queue=queue, held_bytes=max(8 * max_mib, 512) * 2**20, timeout_s=timeout,
        ),
        api_key=_key(api_key_file),
    )  # fmt: skip
    from inceptionnet.serve.running import run

    run(settings)


def _key(file: Path | None) -> str:
    if file is None:
        name, key = KEY, os.environ.get(KEY, "")
        if not key:
            return ""
    else:
        from inceptionnet.system.opening import text_of, unreadable

        name = f"--api-key-file {file}"
        try:
            key = text_of(file).strip()
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{name}: cannot be read: {unreadable(error)}; name another file") from None
    if len(key) < LEAST_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError(f"{name}: expected a key of {LEAST_KEY} or more ASCII characters without spaces")
    return key

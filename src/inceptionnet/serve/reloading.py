"""A reload in one worker process reaches the others: by a file in the folder that they share."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

from inceptionnet.errors import InceptionNetError
from inceptionnet.serve.answers import aside
from inceptionnet.serve.service import Service
from inceptionnet.serve.settings import Settings
from inceptionnet.system.files import replacing

log: logging.Logger = logging.getLogger("inceptionnet")

EVERY_S = 0.5


def _note(settings: Settings, name: str) -> Path:
    return Path(settings.shared) / f"reload-{name}.json"


def tell(settings: Settings, name: str, since: float) -> None:
    """Tell the other processes that a model was loaded again."""
    if settings.shared:
        with replacing(_note(settings, name)) as temporary:
            temporary.write_text(json.dumps(since))


async def watch(service: Service) -> None:
    """Load models again that another process has loaded later than this one."""
    while True:
        await asyncio.sleep(EVERY_S)
        for name in service.names:
            try:
                if json.loads(_note(service.settings, name).read_text()) > service.get(name).since:
                    await aside(service.load, name)
            except FileNotFoundError:
                continue
            except InceptionNetError as error:
                log.error("%s: cannot be loaded again, and stays as it was: %s", name, error)
                await asyncio.sleep(10)

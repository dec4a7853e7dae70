"""A published file from its publisher's own web server, into torch.hub's cache, where torchvision keeps its own."""

from __future__ import annotations

from pathlib import Path
from urllib.error import HTTPError

from inceptionnet.errors import WeightsError
from inceptionnet.weights.known import Published


def downloaded(published: Published) -> Path:
    """The file in the cache (TORCH_HOME), downloaded if it is not there; its SHA-256 is compared where it is known.

    Raises:
        WeightsError: the server is not reached or does not have it, or the bytes are others.
    """
    import torch

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / published.file
    if path.is_file():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(published.source, str(path), published.sha256 or None)
    except (OSError, RuntimeError) as error:  # of the network and the disk; another hash
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection
        raise WeightsError(
            f"{published.source}: cannot be downloaded ({' '.join(str(error).split())}); try again, or download it "
            "yourself and give its path as weights"
        ) from None
    return path

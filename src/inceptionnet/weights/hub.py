"""Weights files from the Hugging Face hub, verified against the SHA-256 that the hub states.

`hf:owner/name` is the only weights file of a repository, `hf:owner/name/folder/file.pth` a given one; `@revision` at
the end is a branch, tag or commit. Requests, cache, tokens and progress bars are those of huggingface_hub, as are the
environment variables HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE. If the hub cannot be reached or
refuses, the file is read from the cache.

Source: https://huggingface.co/docs/huggingface_hub/guides/manage-cache for the layout of the cache.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from inceptionnet.errors import WeightsError, listed
from inceptionnet.system.extras import import_extra
from inceptionnet.system.opening import SETTINGS_BYTES, WEIGHTS_BYTES, contents, from_json, opened
from inceptionnet.weights.known import published_at

log: logging.Logger = logging.getLogger("inceptionnet")

KINDS = ((".safetensors",), (".pth", ".pt", ".bin"), (".keras",), (".h5",))
"""Endings of weights files, best kind first."""
CONFIG = "config.json"

_ADDRESS = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:/([^\\]*?[^\\@]))?(?:@([^@\\]+))?")
_SHARD = re.compile(r"-\d+-of-\d+\.")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Fetched:
    """A file in the cache."""

    path: Path
    address: str
    """hf:owner/name/file@commit, which is immutable."""
    config: Mapping[str, Any]
    """The repository's config.json, which may state the preprocessing; empty if there is none."""


@dataclass(frozen=True)
class _Wanted:
    """A parsed address."""

    address: str
    repository: str
    file: str | None
    revision: str | None

    def named(self, file: str, revision: str | None) -> str:
        """The address of a file in the same repository."""
        return f"hf:{self.repository}/{file}" + (f"@{revision}" if revision else "")


def is_address(text: str) -> bool:
    """Whether a text is an address on the hub, well-formed or not.

    Example:
        >>> is_address("hf:timm/inception_v4.tf_in1k"), is_address("runs/best.safetensors")
        (True, False)
    """
    return text.startswith("hf:")


def fetch(address: str) -> Fetched:
    """Fetch the file at `address` from the hub or, if that fails, from the cache.

    Without a file name it is the repository's only file of the preferred kind: .safetensors, then .pth, .pt and .bin,
    then .keras, then .h5. Shards of a model split into several files are skipped.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        WeightsError: a malformed address; no such repository, revision or file, or no permission; several candidate
            files; the hub cannot be reached and the file is not in the cache; or the file is damaged.
    """
    wanted = _parse(address)
    import_extra("huggingface_hub", "hub", f"fetching {address}")
    import huggingface_hub.errors

    try:
        hashes = _list(wanted)
    except huggingface_hub.errors.HFValidationError:
        raise _malformed(address) from None
    except Exception as error:  # of several libraries: not found, not permitted, not reachable
        return _from_cache(wanted, error)
    asked = file = _choose(wanted, hashes)
    try:
        path = Path(huggingface_hub.hf_hub_download(wanted.repository, file, revision=wanted.revision))
        commit = path.parents[file.count("/")].name
        asked = CONFIG
        config = _fetch_config(wanted, commit)
    except Exception as error:  # as above, and of the disk
        raise WeightsError(f"{wanted.named(asked, wanted.revision)}: {_why(wanted, error)}") from None
    resolved = wanted.named(file, commit)
    _check(path, resolved, hashes[file])
    return Fetched(path, resolved, _read_config(config))


def _parse(address: str) -> _Wanted:
    match = _ADDRESS.fullmatch(address) if address.isprintable() else None
    if not match:
        raise _malformed(address)
    repository, file, revision = match.groups()
    parts = [part for path in (file, revision) if path is not None for part in path.split("/")]
    if any(part in ("", ".", "..") for part in parts):
        raise _malformed(address)
    return _Wanted(address, repository, file, revision)


def _malformed(address: str) -> WeightsError:
    return WeightsError(
        f"{address!r}: expected hf:owner/name or hf:owner/name/file, with @revision after it where needed"
    )


def _list(wanted: _Wanted) -> dict[str, str | None]:
    """The repository's files by name, with the SHA-256 of those that the hub keeps outside git."""
    from huggingface_hub import HfApi, constants

    seconds = constants.HF_HUB_ETAG_TIMEOUT
    info = HfApi().model_info(wanted.repository, revision=wanted.revision, files_metadata=True, timeout=seconds)
    return {entry.rfilename: entry.lfs.sha256 if entry.lfs else None for entry in info.siblings or ()}


def _from_cache(wanted: _Wanted, error: Exception) -> Fetched:
    """The same without the hub, which gave an error."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    folder = _cached_snapshot(wanted)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} if folder else set()
    there = any(map(_is_weights, files)) if wanted.file is None else wanted.file in files
    if not folder or not there:
        from huggingface_hub import constants

        known = published_at(wanted.address)
        file = wanted.file or (known.file if known else "a weights file")
        missing = f"expected {file} of {wanted.repository} in the cache ({constants.HF_HUB_CACHE}), got none"
        advice = (
            "" if _status(error) else f"; {missing}: fetch it once with a connection, or download it, give its path"
        )
        raise WeightsError(f"{wanted.address}: {_why(wanted, error)}{advice}") from None
    if not isinstance(error, OfflineModeIsEnabled):
        log.warning("%s: %s; the copy in the cache is used", wanted.address, _why(wanted, error))
    file = _choose(wanted, files)
    resolved = wanted.named(file, folder.name)
    _check(folder / file, resolved, None)
    return Fetched(folder / file, resolved, _read_config(_cached_config(wanted, folder)))


def _cached_snapshot(wanted: _Wanted) -> Path | None:
    """The cache's folder of the revision."""
    from huggingface_hub import snapshot_download

    try:  # no patterns: a folder that lacks other files will do
        return Path(
            snapshot_download(wanted.repository, revision=wanted.revision, local_files_only=True, allow_patterns=[])
        )
    except OSError:  # which the library's own error is too
        return None


def _is_weights(file: str) -> bool:
    return any(file.lower().endswith(kind) for kind in KINDS)


def _choose(wanted: _Wanted, files: Iterable[str]) -> str:
    """The file asked for, or the only one of the best kind."""
    if name := wanted.file:
        if name not in files:
            alike = sorted(files, key=lambda file: -SequenceMatcher(None, name, file).ratio())
            raise WeightsError(f"{wanted.address}: expected a file of the repository, which has {_some(alike)}")
        return name
    weights = sorted(filter(_is_weights, files))
    whole = [file for file in weights if not _SHARD.search(file)]
    for kind in KINDS:
        found = [file for file in whole if file.lower().endswith(kind)]
        if len(found) > 1:
            raise WeightsError(
                f"{wanted.address}: expected one {' or '.join(kind)} file, got {_some(found)}: "
                f"choose one, as in {wanted.named(found[0], wanted.revision)}"
            )
        if found:
            return found[0]
    got = f"parts of one ({_some(weights)}): join them, and give the path" if weights else "none: name the file"
    kinds = ", ".join(ending for kind in KINDS for ending in kind)
    raise WeightsError(f"{wanted.address}: expected a weights file ({kinds}), got {got}")


def _some(files: list[str]) -> str:
    return listed(files, ordered=True) or "no files"


def _check(path: Path, resolved: str, stated: str | None) -> None:
    """Compare with the hash that names the blob, or, in a cache without links, with the hub's list.

    Raises: WeightsError where they differ.
    """
    expected = Path(os.readlink(path)).name if path.is_symlink() else stated or ""
    if not _SHA256.fullmatch(expected):  # git's own hash, of a small file; or none known
        return
    try:
        with opened(path, WEIGHTS_BYTES) as data:
            got = hashlib.file_digest(data, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}): check its permissions") from None
    if got != expected:
        raise WeightsError(
            f"{resolved}: expected a file with SHA-256 {expected}, got {got}: delete {path.resolve()}, "
            "download it again"
        )


def _fetch_config(wanted: _Wanted, commit: str) -> Path | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:  # asked for even where the list has none: so the cache knows that there is none
        return Path(hf_hub_download(wanted.repository, CONFIG, revision=commit))
    except RemoteEntryNotFoundError:
        return None


def _cached_config(wanted: _Wanted, folder: Path) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(wanted.repository, CONFIG, revision=folder.name)
    if found is None:
        log.warning("%s: the cache has no %s; if there is one, its settings are unknown", wanted.address, CONFIG)
    return Path(found) if isinstance(found, str) else None


def config_in(folder: Path) -> dict[str, Any]:
    """The config.json of a folder that was downloaded from the hub; empty if it has none.

    Raises:
        WeightsError: it is damaged.
    """
    path = folder / CONFIG
    return _read_config(path if path.is_file() else None)


def _read_config(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        config = from_json(contents(path, SETTINGS_BYTES))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: expected JSON, got what cannot be read ({error})") from None
    if not isinstance(config, dict):
        raise WeightsError(f"{path}: expected a JSON object, got {type(config).__name__}")
    return config


def _status(error: BaseException | None) -> int | None:
    """The hub's answer, where an error is one."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _why(wanted: _Wanted, error: BaseException) -> str:
    """What the hub, or the way to it, had against it; in one line."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__:
        error = error.__cause__
    status = _status(error)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, errors.GatedRepoError):
        return f"{wanted.repository} is gated ({status}): ask for access on its page, then set HF_TOKEN"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{wanted.repository} has no revision {wanted.revision or 'main'}: check what comes after @"
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403):
        return f"{wanted.repository} does not exist or is private ({status}): check its name, or set HF_TOKEN"
    if status:
        return f"the hub answers {status}: try again later"
    return f"cannot be fetched ({' '.join(str(error).split()) or type(error).__name__})"

"""Resolves a local folder or a hub id to a local folder with the files that an export needs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from issun.export.adapter import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    check_adapter_files,
    refuse_adapter,
)
from issun.export.errors import CheckpointError
from issun.export.tokenizer_files import (
    TOKENIZER_CONFIGS,
    TOKENIZER_FILES,
    check_tokenizer_files,
)
from issun.export.weights import PYTORCH, PYTORCH_INDEX, SAFETENSORS, SAFETENSORS_INDEX
from issun.runtime.errors import IssunError
from issun.runtime.files import user_path

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SMALL = re.compile(
    r"(config|generation_config|adapter_config|tokenizer_config|special_tokens_map|added_tokens"
    r"|tokenizer|chat_template)\.json|chat_template\.jinja|[\w.-]+\.model"
)


@dataclass(frozen=True, slots=True)
class Located:
    """The checkpoint's folder, and its name and revision for the manifest."""

    folder: Path
    name: str
    revision: str | None


@dataclass(frozen=True, slots=True)
class _Selection:
    """Which files of a hub repository to download.

    `choose` selects from all file names. `check` validates the folder after the small files are
    there and before the large ones are downloaded. If anything of the repository is in the local
    cache, one of `probes` is.
    """

    choose: Callable[[list[str]], list[str]]
    check: Callable[[Path, list[str]], None]
    probes: tuple[str, ...]


def locate(
    source: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    check: Callable[[Path], None] = lambda folder: None,
) -> Located:
    """Find the checkpoint `source`: a folder, else a hub id, which is downloaded.

    `check` is called with the folder before the weights are downloaded, and may raise. Raises
    CheckpointError if `source` is neither, is an adapter on the hub, or cannot be downloaded and is
    not in the local cache; and what `check` raises.
    """

    def check_small(folder: Path, names: list[str]) -> None:
        refuse_adapter(folder, names, name=source)
        check(folder)

    selection = _Selection(needed_files, check_small, ("config.json", ADAPTER_CONFIG))
    return _locate(source, selection, revision, token)


def locate_tokenizer(source: str, *, token: str | None = None) -> Located:
    """Find the tokenizer `source`: a folder, else a hub id, from which only its files are fetched.

    Raises CheckpointError as `locate` does, and if there is no such file.
    """

    def choose(names: list[str]) -> list[str]:
        check_tokenizer_files(source, names)
        wanted = {*TOKENIZER_FILES, *TOKENIZER_CONFIGS, "config.json"}  # which may name the class
        return [name for name in names if name in wanted]

    selection = _Selection(choose, lambda folder, names: None, TOKENIZER_FILES)
    return _locate(source, selection, None, token)


def locate_adapter(source: str, *, token: str | None = None) -> Located:
    """Find the LoRA adapter `source`: a folder, else a hub id, whose two files are downloaded.

    Raises CheckpointError as `locate` does, and if there is no adapter that issun can read.
    """

    def choose(names: list[str]) -> list[str]:
        check_adapter_files(source, names)
        return [ADAPTER_CONFIG, ADAPTER_WEIGHTS]

    selection = _Selection(choose, lambda folder, names: None, (ADAPTER_CONFIG,))
    return _locate(source, selection, None, token)


def _locate(source: str, selection: _Selection, revision: str | None, token: str | None) -> Located:
    folder = user_path(source)
    if folder.exists():
        if not folder.is_dir():
            raise CheckpointError("{source} is a file; name its folder.", source=source)
        return Located(folder, folder.resolve().name, None)
    if not _HUB_ID.fullmatch(source) or source.startswith("."):
        raise CheckpointError(
            "There is no folder {source}, and it is not a hub id (owner/name).", source=source
        )
    return _download(source, selection, revision, token)


def _download(repo: str, selection: _Selection, revision: str | None, token: str | None) -> Located:
    from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache  # noqa: PLC0415

    def get(names: list[str]) -> Path:
        # By revision name, not info.sha: the cache then also resolves the name when offline.
        patterns = [_literal(name) for name in names]
        return Path(
            snapshot_download(repo, revision=revision, token=token, allow_patterns=patterns)
        )

    try:
        info = HfApi().model_info(repo, revision=revision, token=token)
        names = [s.rfilename for s in info.siblings or []]
        needed = selection.choose(names)
        folder = get([name for name in needed if _SMALL.fullmatch(name)])
        selection.check(folder, names)
        folder = get(needed)
        return Located(folder, repo, folder.name)
    except IssunError:
        raise
    except Exception as error:  # each version of the hub library has its own network errors
        if (refusal := _refusal(error)) is not None:
            raise CheckpointError(
                "The hub refused {repo} at revision {revision}: {reason}",
                repo=repo,
                revision=revision or "main",
                reason=refusal,
            ) from error
        network = error
    # Offline, snapshot_download would fail because the repository was never downloaded completely.
    probes = (try_to_load_from_cache(repo, name, revision=revision) for name in selection.probes)
    cached = next((path for path in probes if isinstance(path, str)), None)
    if cached is None:
        raise CheckpointError(
            "There is no folder {repo}, the hub cannot be reached ({reason}), and the model is "
            "not in the hub's local cache: go online once, or name a folder.",
            repo=repo,
            reason=_first_line(network),
        ) from network
    folder = Path(cached).parent
    return Located(folder, repo, folder.name)


def needed_files(names: list[str]) -> list[str]:
    """The files of a repository that an export reads, with the weights in one format only."""
    top = [name for name in names if "/" not in name]
    weights: list[str] = []
    for whole, index, shards in (
        (SAFETENSORS, SAFETENSORS_INDEX, r"model-\d+-of-\d+\.safetensors"),
        (PYTORCH, PYTORCH_INDEX, r"pytorch_model-\d+-of-\d+\.bin"),
    ):
        if whole in top:
            weights = [whole]
        elif index in top:
            weights = [index, *(name for name in top if re.fullmatch(shards, name))]
        if weights:
            break
    return [*(name for name in top if _SMALL.fullmatch(name)), *weights]


def _refusal(error: Exception) -> str | None:
    """Why the hub refused the request; None if it did not answer."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status is None or status >= 500:
        return None
    absent = "it does not exist, or needs a token"
    reason = {401: absent, 403: "access is not granted", 404: absent}
    return reason.get(status, _first_line(error))


def _first_line(error: BaseException) -> str:
    text = re.sub(r"^\[Errno -?\d+\] ", "", str(error))  # the text that follows says it
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


def _literal(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)

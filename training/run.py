"""The folder of a fine-tuning run: settings, log, results and checkpoints.

    run.json          the settings, with hashes of the base and the data
    log.jsonl         the loss of every step and epoch
    epochs.json       loss and evaluation of every epoch, evaluation of the base, best epoch
    epoch-1 ...       complete checkpoints
    best              a link to the best epoch
    steps/            the rolling checkpoint for --resume; removed at the end

A folder in steps/ is valid once it contains the file `complete`, which is written after everything
else is on disk. Epoch folders are written under a temporary name and renamed.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import msgspec
from filelock import FileLock, Timeout

from issun.runtime.files import reason_of, sync
from issun.training.errors import RunError
from issun.training.files import sync_tree, write_atomically, write_json

SETTINGS, LOG, EPOCHS, BEST, STEPS = "run.json", "log.jsonl", "epochs.json", "best", "steps"
_FORMAT: Literal[1] = 1
_COMPLETE, _LOCK, _TEMPORARY = "complete", ".lock", ".aside-"


class Run:
    """The folder of a run, locked by this process; opened with `open_run`."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder, self.settings, self.steps = folder, settings, folder / STEPS

    def checkpoint(self) -> Path | None:
        """The newest complete rolling checkpoint."""
        marks = self.steps.glob(f"*/{_COMPLETE}")
        return max((mark.parent for mark in marks), key=_step_of, default=None)

    def mark_complete(self, folder: Path) -> None:
        """Mark the rolling checkpoint `folder` as complete, and remove the older ones."""
        sync_tree(folder)
        sync(self.folder / LOG)  # with the losses of the steps up to here
        write_atomically(folder / _COMPLETE, b"")
        sync(folder)
        for other in self.steps.iterdir():
            if other != folder:
                shutil.rmtree(other)

    @contextmanager
    def atomic_folder(self, name: str) -> Iterator[Path]:
        """A new folder that is renamed to `name` if the block ends without an error."""
        with self.scratch() as folder:
            yield folder
            sync_tree(folder)
            folder.rename(self.folder / name)
            folder.mkdir()  # for `scratch` to remove

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A temporary folder, removed at the end or, after a crash, by the next `--resume`."""
        folder = self.folder / f"{_TEMPORARY}{secrets.token_hex(4)}"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def epoch_folder(self, epoch: int) -> Path:
        """The folder of an epoch's checkpoint; epochs count from 1."""
        return self.folder / f"epoch-{epoch}"

    def log(self, **values: Any) -> None:
        """Add a line to the log."""
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """The entries of the log; an incomplete line is left out."""
        lines = []
        with suppress(FileNotFoundError):
            for line in (self.folder / LOG).read_text(encoding="utf-8").splitlines():
                with suppress(ValueError):
                    lines.append(json.loads(line))
        return lines

    def rewind_log(self, step: int) -> None:
        """Remove steps after `step`, which will be repeated, and epochs that are not recorded."""
        recorded = {entry["epoch"] for entry in self.epochs()}
        kept = [
            line
            for line in self.read_log()
            if (line["step"] <= step if "step" in line else line["epoch"] in recorded)
        ]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_atomically(self.folder / LOG, text.encode())

    def results(self) -> dict[str, Any]:
        """The content of `epochs.json`."""
        with suppress(FileNotFoundError):
            content: dict[str, Any] = json.loads((self.folder / EPOCHS).read_text(encoding="utf-8"))
            return content
        return {"base": None, "best": None, "best_linked": False, "epochs": []}

    def epochs(self) -> list[dict[str, Any]]:
        """The entries of the finished epochs."""
        entries: list[dict[str, Any]] = self.results()["epochs"]
        return entries

    def record_base(self, entry: dict[str, Any]) -> None:
        """Write the evaluation of the base to `epochs.json`."""
        write_json(self.folder / EPOCHS, self.results() | {"base": entry})

    def record_epoch(self, entry: dict[str, Any]) -> None:
        """Add an epoch's entry to `epochs.json`, and link `best` to the best epoch."""
        entries = [*self.epochs(), entry]
        best = best_epoch(entries)
        linked = best is not None and self._link(self.epoch_folder(best).name)
        found = {"best": best, "best_linked": linked, "epochs": entries}
        write_json(self.folder / EPOCHS, self.results() | found)

    def _link(self, name: str) -> bool:
        """Link `best` to `name`; False, without a `best`, if links are not available."""
        best, new = self.folder / BEST, self.folder / f"{_TEMPORARY}{secrets.token_hex(4)}"
        try:
            new.symlink_to(name, target_is_directory=True)
            try:
                new.replace(best)
            except OSError:  # Windows cannot replace a link to a folder
                if not best.is_symlink():
                    raise
                best.unlink()
                new.rename(best)
        except OSError:
            new.unlink(missing_ok=True)
            if best.is_symlink():
                best.unlink()  # it links to a previous best epoch
            return False
        return True

    def finish(self) -> None:
        """Remove what is only needed to resume the run."""
        shutil.rmtree(self.steps, ignore_errors=True)


def best_epoch(entries: list[dict[str, Any]]) -> int | None:
    """The epoch with the best rate, then the lowest loss; None if epochs were not evaluated."""
    rated = [entry for entry in entries if entry["rate"] is not None]
    best = max(rated, key=lambda entry: (entry["rate"], -entry["loss"]), default=None)
    return None if best is None else best["epoch"]


def is_run(folder: Path) -> bool:
    """True if `folder` is a run that can be resumed."""
    return (folder / SETTINGS).is_file()


@contextmanager
def open_run(folder: Path, settings: Mapping[str, Any], *, resume: bool) -> Iterator[Run]:
    """Create or resume the run in `folder`, and lock it for the duration of the block.

    A new run that fails before its first rolling checkpoint is removed. Raises RunError if there
    is no run to resume, it was started with other settings, or another process has locked it.
    """
    if not resume:
        folder.mkdir()
    run = Run(folder, dict(settings))
    try:
        with FileLock(folder / _LOCK, timeout=0):
            if resume:
                _check_settings(folder, settings)
                _clear(folder)
            else:
                content = _SettingsFile(_FORMAT, version("issun"), dict(settings))
                write_json(folder / SETTINGS, msgspec.to_builtins(content))
            yield run
    except Timeout as error:
        raise RunError("Another process is training in {folder}.", folder=folder) from error
    except Exception:
        if not resume and run.checkpoint() is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings of the run in `folder`; raises RunError if there is none."""
    path = folder / SETTINGS
    if not path.is_file():
        raise RunError(
            "{folder} contains no fine-tuning run: start one without --resume.", folder=folder
        )
    try:
        content = msgspec.json.decode(path.read_bytes(), type=_SettingsFile)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RunError(
            "{path} cannot be read ({reason}): start a run in another folder.",
            path=path,
            reason=reason_of(error),
        ) from error
    return content.settings


class _SettingsFile(msgspec.Struct, frozen=True):
    """The content of `run.json`."""

    format: Literal[1]
    issun: str
    settings: dict[str, Any]


def _check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    original = read_settings(folder)
    differences = [
        f"{name} is {settings.get(name)}, it was {original.get(name)}"
        for name in dict.fromkeys([*settings, *original])
        if settings.get(name) != original.get(name)
    ]
    if differences:
        raise RunError(
            "{folder} was started with other settings: {differences}. Resume it with the same "
            "settings, or start another run.",
            folder=folder,
            differences="; ".join(differences),
        )


def _clear(folder: Path) -> None:
    """Remove the incomplete folders of a killed run."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path)
    for path in (folder / STEPS).glob("*"):
        if not (path / _COMPLETE).is_file():
            shutil.rmtree(path)


def _step_of(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])

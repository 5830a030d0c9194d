"""The folder of a fine-tuning run: settings, log, results, and checkpoints that are whole.

    run.json          what was asked, and what base and data it was asked of
    log.jsonl         the loss of every step and epoch
    epochs.json       loss and evaluation of every epoch, the base's evaluation, the best epoch
    epoch-1 ...       a complete checkpoint each
    best              a link to the best of them
    steps/            the rolling checkpoint that --resume goes on from; gone at the end

A folder in steps/ counts once it holds the file `complete`, which is written when all else is on
the disk; epoch folders are written aside and renamed.
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
from issun.training.files import sync_tree, write_json, write_whole

SETTINGS, LOG, EPOCHS, BEST, STEPS = "run.json", "log.jsonl", "epochs.json", "best", "steps"
_FORMAT: Literal[1] = 1
_COMPLETE, _LOCK, _ASIDE = "complete", ".lock", ".aside-"


class Run:
    """The folder of a run that is held by this process; opened by `opened_run`."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder, self.settings, self.steps = folder, settings, folder / STEPS

    def checkpoint(self) -> Path | None:
        """The newest whole rolling checkpoint."""
        marks = self.steps.glob(f"*/{_COMPLETE}")
        return max((mark.parent for mark in marks), key=_step_of, default=None)

    def complete(self, folder: Path) -> None:
        """Make the rolling checkpoint `folder` count, and remove the older ones."""
        sync_tree(folder)
        sync(self.folder / LOG)  # it has the losses of the steps up to here
        write_whole(folder / _COMPLETE, b"")
        sync(folder)
        for other in self.steps.iterdir():
            if other != folder:
                shutil.rmtree(other)

    @contextmanager
    def aside(self, name: str) -> Iterator[Path]:
        """A new folder that becomes `name` in the run's folder when the block ends well."""
        with self.scratch() as folder:
            yield folder
            sync_tree(folder)
            folder.rename(self.folder / name)
            folder.mkdir()  # for `scratch` to remove

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder that is removed at the end, at the latest by the next `--resume`."""
        folder = self.folder / f"{_ASIDE}{secrets.token_hex(4)}"
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

    def logged(self) -> list[dict[str, Any]]:
        """The lines of the log; one that was cut is left out."""
        lines = []
        with suppress(FileNotFoundError):
            for line in (self.folder / LOG).read_text(encoding="utf-8").splitlines():
                with suppress(ValueError):
                    lines.append(json.loads(line))
        return lines

    def rewind_log(self, step: int) -> None:
        """Forget the steps behind `step`, which will be done again, and epochs not recorded."""
        known = {entry["epoch"] for entry in self.epochs()}
        kept = [
            line
            for line in self.logged()
            if (line["step"] <= step if "step" in line else line["epoch"] in known)
        ]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_whole(self.folder / LOG, text.encode())

    def results(self) -> dict[str, Any]:
        """The content of `epochs.json`."""
        with suppress(FileNotFoundError):
            content: dict[str, Any] = json.loads((self.folder / EPOCHS).read_text(encoding="utf-8"))
            return content
        return {"base": None, "best": None, "best_linked": False, "epochs": []}

    def epochs(self) -> list[dict[str, Any]]:
        """The entries of the epochs that are done."""
        entries: list[dict[str, Any]] = self.results()["epochs"]
        return entries

    def record_base(self, entry: dict[str, Any]) -> None:
        """Write what the evaluation of the base gave to `epochs.json`."""
        write_json(self.folder / EPOCHS, self.results() | {"base": entry})

    def record_epoch(self, entry: dict[str, Any]) -> None:
        """Add an epoch's entry to `epochs.json`, and let `best` point to the best epoch."""
        entries = [*self.epochs(), entry]
        best = best_epoch(entries)
        linked = best is not None and self._link(self.epoch_folder(best).name)
        found = {"best": best, "best_linked": linked, "epochs": entries}
        write_json(self.folder / EPOCHS, self.results() | found)

    def _link(self, name: str) -> bool:
        """Point `best` to `name`; False where there are no symbolic links, and then no `best`."""
        best, new = self.folder / BEST, self.folder / f"{_ASIDE}{secrets.token_hex(4)}"
        try:
            new.symlink_to(name, target_is_directory=True)
            try:
                new.replace(best)
            except OSError:  # Windows replaces no link to a folder
                if not best.is_symlink():
                    raise
                best.unlink()
                new.rename(best)
        except OSError:
            new.unlink(missing_ok=True)
            if best.is_symlink():
                best.unlink()  # it points to an epoch that is no longer the best
            return False
        return True

    def finish(self) -> None:
        """Remove what only a resumption needs."""
        shutil.rmtree(self.steps, ignore_errors=True)


def best_epoch(entries: list[dict[str, Any]]) -> int | None:
    """The epoch that answers best, of equal ones that with the lower loss; None unevaluated."""
    rated = [entry for entry in entries if entry["rate"] is not None]
    best = max(rated, key=lambda entry: (entry["rate"], -entry["loss"]), default=None)
    return None if best is None else best["epoch"]


def is_run(folder: Path) -> bool:
    """True where a run has begun, so that it can be resumed."""
    return (folder / SETTINGS).is_file()


@contextmanager
def opened_run(folder: Path, settings: Mapping[str, Any], *, resume: bool) -> Iterator[Run]:
    """The run in `folder`, a new one or that which is there, held while the block lasts.

    A new one that fails before its first rolling checkpoint is removed. Raises RunError when
    there is no run to resume, when it was started with other settings, or when another process
    holds it.
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
                described = _Described(_FORMAT, version("issun"), dict(settings))
                write_json(folder / SETTINGS, msgspec.to_builtins(described))
            yield run
    except Timeout as error:
        raise RunError("Another process is training in {folder}.", folder=folder) from error
    except Exception:
        if not resume and run.checkpoint() is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings of the run in `folder`; raises RunError when there is none."""
    path = folder / SETTINGS
    if not path.is_file():
        raise RunError(
            "{folder} holds no fine-tuning run: start one without --resume.", folder=folder
        )
    try:
        described = msgspec.json.decode(path.read_bytes(), type=_Described)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RunError(
            "{path} cannot be read ({reason}): start a run in another folder.",
            path=path,
            reason=reason_of(error),
        ) from error
    return described.settings


class _Described(msgspec.Struct, frozen=True):
    """What `run.json` holds."""

    format: Literal[1]
    issun: str
    settings: dict[str, Any]


def _check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    then = read_settings(folder)
    differences = [
        f"{name} is {settings.get(name)}, it was {then.get(name)}"
        for name in dict.fromkeys([*settings, *then])
        if settings.get(name) != then.get(name)
    ]
    if differences:
        raise RunError(
            "{folder} was started otherwise: {differences}. "
            "Resume it as it was started, or start another run.",
            folder=folder,
            differences="; ".join(differences),
        )


def _clear(folder: Path) -> None:
    """Remove what a killed run has left unfinished."""
    for path in folder.glob(f"{_ASIDE}*"):
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path)
    for path in (folder / STEPS).glob("*"):
        if not (path / _COMPLETE).is_file():
            shutil.rmtree(path)


def _step_of(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])

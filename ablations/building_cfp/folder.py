"""The folder in which CFP is built: what lies where, the prompts, and the settings that it was begun with.

prompts.jsonl               the prompts, and those that cannot be used
stages/STAGE.json           what the stage was begun with: settings, model, digest of its weights
stages/STAGE-I-of-N.jsonl   what is done (`ledger`)
images/000/000017.png       the fine image of prompt 17
cfp.csv, manifest.json      what the stage `table` writes
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock

from ablations.building_cfp.ledger import read_entries
from ablations.building_cfp.prompts import Prompt, read_prompts
from ablations.runtime.errors import RunFolderError, UserError
from ablations.runtime.files import write_atomically, write_json
from ablations.runtime.foreign import is_file
from datamodules.records import BadRecord

STAGES = ("images", "coarse", "nsfw")
SAMPLER = "Euler a"
# Not compared: the same weights may lie elsewhere on another machine.
_DESCRIPTIVE = ("model", "commit")


class BuildFolder:
    """Paths and prompts of one build. Several processes may use one folder at the same time."""

    def __init__(self, path: Path):
        self.path = path
        self.stages = path / "stages"
        self.table = path / "cfp.csv"
        self.manifest = path / "manifest.json"
        self._prompts = path / "prompts.jsonl"

    def image(self, prompt_id: int) -> Path:
        """Where the fine image of a prompt lies; a thousand to a folder, which file systems and people can look at."""
        return self.path / "images" / f"{prompt_id // 1000:03d}" / f"{prompt_id:06d}.png"

    def has_image(self, entry: Mapping[str, object]) -> bool:
        """Whether the image that an entry of the ledger speaks of is there, whole."""
        try:
            return (self.path / str(entry["image"])).stat().st_size == entry["bytes"]
        except OSError:
            return False

    def _lock(self) -> FileLock:
        try:
            self.stages.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFolderError(f"cannot write in {self.path}: {error.strerror or error}") from error
        return FileLock(self.stages / "settings.lock")

    def take_prompts(self, source: Path | None, column: str | None, limit: int | None) -> None:
        """Keep the prompts of `source`, the first time; later, those that go on behind them. None: they must be here already.

        Raises UserError where they are not, or where those that are here are not the first of `source`.
        """
        if source is None:
            if not is_file(self._prompts):
                raise UserError(f"{self.path} holds no prompts yet: give a file with --prompts")
            return
        prompts, bad = read_prompts(source, column, limit)
        lines = {prompt.id: {"id": prompt.id, "prompt": prompt.text} for prompt in prompts}
        lines |= {record.id: asdict(record) for record in bad}
        content = "".join(json.dumps(lines[number], ensure_ascii=False) + "\n" for number in sorted(lines)).encode()
        with self._lock():
            before = self._prompts.read_bytes() if is_file(self._prompts) else b""
            if not content.startswith(before):
                raise UserError(
                    f"{self.path} was begun with other prompts than those of {source}: leave out --prompts, --column and --limit to go on "
                    "with those, or take another folder"
                )
            if content != before:
                write_atomically(self._prompts, content)

    def read_prompts(self) -> tuple[list[Prompt], list[BadRecord]]:
        """The prompts and those that cannot be used, as they were taken."""
        try:
            lines = [json.loads(line) for line in self._prompts.read_bytes().split(b"\n")[:-1]]
            prompts = [Prompt(line["id"], line["prompt"]) for line in lines if "prompt" in line]
            return prompts, [BadRecord(**line) for line in lines if "prompt" not in line]
        except FileNotFoundError:
            raise UserError(f"{self.path} holds no prompts: build it first, with --prompts FILE") from None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunFolderError(f"{self._prompts} is damaged ({error}): restore it, or build in another folder") from error

    def prompts_digest(self) -> str:
        return hashlib.sha256(self._prompts.read_bytes()).hexdigest()

    def settings(self, stage: str) -> dict | None:
        """What the stage was begun with; None if it was not."""
        try:
            return json.loads((self.stages / f"{stage}.json").read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise RunFolderError(
                f"{self.stages / stage}.json is damaged ({error}): remove it, and give the stage's options again"
            ) from error

    def check_settings(self, stage: str, settings: Mapping[str, object]) -> None:
        """Raises UserError if the stage was begun with other settings than these, which may be some of them."""
        begun = self.settings(stage)
        for name, value in settings.items() if begun is not None else ():
            if name not in _DESCRIPTIVE and begun.get(name) != value:
                anew = "" if read_entries(self.stages, stage) else f", or remove {self.stages / stage}.json, since nothing is done yet"
                raise UserError(
                    f"stage {stage} in {self.path} was begun with {name}={begun.get(name)}, not {value}: give the same, take another "
                    f"folder{anew}"
                )

    def keep_settings(self, stage: str, settings: Mapping[str, object]) -> None:
        """`check_settings`, and write them down the first time."""
        with self._lock():
            self.check_settings(stage, settings)
            if self.settings(stage) is None:
                write_json(self.stages / f"{stage}.json", settings)

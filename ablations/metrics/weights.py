"""The files that metrics read their weights from: which, from where, under what licence, and whether they are here and whole.

All lie side by side in one folder: `eval.metrics_dir` or, where that is null, pyiqa's own cache, `$TORCH_HOME/hub/pyiqa`
(`~/.cache/torch/hub/pyiqa` unless TORCH_HOME says otherwise), so that what pyiqa has downloaded before is found. Nothing here ever
downloads by itself: `python -m ablations.metrics fetch` does, beforehand. Imports no heavy library.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ablations.runtime.errors import OneLineError, UserError
from ablations.runtime.foreign import is_file

if TYPE_CHECKING:
    from torch import nn

_PYIQA_LICENCE = "CC BY-NC-SA 4.0 (pyiqa's weights)"
_BLOCK = 1 << 20
_TIMEOUT_SECONDS = 30
_HDF5 = b"\x89HDF\r\n\x1a\n"


class FetchError(OneLineError, RuntimeError):
    """A file of weights could not be got. Its message is one line that names the file, the address and the remedy."""


@dataclass(frozen=True)
class WeightFile:
    """A file of weights. `address` may hold {hub}, the Hugging Face hub's address (HF_ENDPOINT, where that is set).

    `sha256` is the whole digest, or its first 8 digits where no more was published, or "" where nothing was: then a file counts as
    whole that begins with the bytes `begins`.
    """

    name: str
    address: str
    licence: str
    sha256: str = ""
    megabytes: float | None = None
    begins: bytes = b""

    @property
    def url(self) -> str:
        """Where it is downloaded from."""
        hub = os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
        return self.address.format(hub=hub) if "{hub}" in self.address else self.address


def _of_pyiqa(name: str, sha256: str, megabytes: float | None = None, licence: str = _PYIQA_LICENCE) -> WeightFile:
    return WeightFile(name, "{hub}/chaofengc/IQA-PyTorch-Weights/resolve/main/" + urllib.parse.quote(name), licence, sha256, megabytes)


def _of_idealo(name: str, sha256: str, megabytes: float) -> WeightFile:
    address = f"https://github.com/idealo/image-quality-assessment/raw/master/models/MobileNet/{name}"
    return WeightFile(name, address, "Apache-2.0 (idealo)", sha256, megabytes, _HDF5)


# pyiqa names many of its files after the first 8 digits of their SHA-256.
WEIGHTS: dict[str, WeightFile] = {
    file.name: file
    for file in (
        _of_pyiqa("NIMA_InceptionV2_ava-b0c77c00.pth", "b0c77c00c789565be8e6af96c1641bbad716c1592bff1cdc749c6006b95bd34e", 218.0),
        _of_pyiqa("NIMA_VGG16_ava-dc4e8265.pth", "dc4e8265bee9475027f321adcb4241bb0ec15722c955d53e3869492b7f33ab34", 58.9),
        _of_pyiqa("musiq_koniq_ckpt-e95806b9.pth", "e95806b9eae5f3814c410f574ba8e552362bd5bc63d758ed5b97860f5d6185aa", 108.6),
        _of_pyiqa("musiq_ava_ckpt-e8d3f067.pth", "e8d3f0671965dfe4301a1f7a4aedc8f49be8fed33b82dd5d116a9eb3ce2bd16b", 109.0),
        _of_pyiqa("DBCNN_KonIQ10k-2de81c0a.pth", "2de81c0a"),
        _of_pyiqa("tres_koniq-f0502926.pth", "f0502926"),
        _of_pyiqa("brisque_svm_weights.pth", "0e976ea2dcf746a966888565bc754484ec28f7318f60b5ac8080259033f27a37", 0.12),
        _of_pyiqa("niqe_modelparameters.mat", "fa2aa4d12dd9595c3fb6bf8b4e1a15c79d5d1469238d0901c88dead195be578d", 0.01),
        _of_pyiqa("ILNIQE_templateModel.mat", "14f4919a630498d732bbf11837d894d45a57f89c9ed84bea98851147290ce93c", 2.8),
        _of_pyiqa(
            "sac+logos+ava1-l14-linearMSE.pth",
            "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
            3.7,
            "Apache-2.0 (improved-aesthetic-predictor)",
        ),
        _of_pyiqa(
            "pt_inception-2015-12-05-6726825d.pth",
            "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            95.6,
            "Apache-2.0 (pytorch-fid, after TensorFlow's)",
        ),
        WeightFile(
            "ViT-L-14.pt",
            "https://openaipublic.azureedge.net/clip/models/b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
            "MIT (OpenAI CLIP)",
            "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
            933.0,
        ),
        _of_idealo("weights_mobilenet_aesthetic_0.07.hdf5", "e563ad91b3d47410e45f7238f07ab8f6abd1bd0c4b18a4b0af9c681a21a91cb2", 13.2),
        # No digest of this one was published where we could see it.
        _of_idealo("weights_mobilenet_technical_0.11.hdf5", "", 13.2),
    )
}


def weights_folder(given: str | os.PathLike[str] | None = None) -> Path:
    """The folder that weights lie in: the one given or, for None, pyiqa's cache. It need not exist."""
    if given is not None:
        return Path(given).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or os.path.join(cache, "torch")
    return Path(home).expanduser() / "hub" / "pyiqa"


_verified: dict[tuple[Path, int, int], str] = {}


def digest_of(path: Path) -> str:
    """SHA-256 (hex) of a file, remembered while it stays as it is."""
    status = path.stat()
    key = (path, status.st_size, status.st_mtime_ns)
    if key not in _verified:
        with open(path, "rb") as stream:
            _verified[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    return _verified[key]


def _damage(path: Path, file: WeightFile) -> str:
    """What is wrong with a file that is there; "" where it is what was published."""
    if file.sha256:
        found = digest_of(path)
        return "" if found.startswith(file.sha256) else f"its SHA-256 begins with {found[:8]}, not {file.sha256[:8]}"
    with open(path, "rb") as stream:
        return "" if stream.read(len(file.begins)) == file.begins else "it is not a file of weights"


def state_of(name: str, folder: Path | None = None, look_inside: bool = True) -> str:
    """ "present", "missing", or "damaged (why)" for a file of weights; without `look_inside` a file that is there is present."""
    path = (folder or weights_folder()) / name
    if not is_file(path):
        return "missing"
    damage = _damage(path, WEIGHTS[name]) if look_inside else ""
    return f"damaged ({damage})" if damage else "present"


def problem_of(names: Sequence[str], folder: Path | None = None, look_inside: bool = True) -> str:
    """Why weights of these names cannot be read, with the files and the folder; "" where they can."""
    folder = folder or weights_folder()
    states = {name: state_of(name, folder, look_inside) for name in names}
    bad = [f"{name} is {state}" for name, state in states.items() if state != "present"]
    return f"{' and '.join(bad)} (looked for in {folder})" if bad else ""


def path_of(name: str, folder: Path | None = None) -> Path:
    """A file of weights that is there and whole. Raises UserError otherwise."""
    folder = folder or weights_folder()
    if problem := problem_of([name], folder):
        raise UserError(f"{problem}: get it with `python -m ablations.metrics fetch`")
    return folder / name


def fetch(
    name: str,
    folder: Path,
    track: Callable[[Iterable[bytes], int, str], Iterable[bytes]],
    source: Path | None = None,
) -> None:
    """Get a file of weights into `folder`, whole or not at all.

    `source`: a folder to copy it from in place of downloading; `track(blocks, total, label)` shows progress.
    Raises FetchError where it cannot be reached, breaks off, or is not what was published; RunFolderError where it cannot be written.
    """
    # Not at the top: it reads the config's declarations, which name this package.
    from ablations.runtime.files import whole_file

    file = WEIGHTS[name]
    origin = str(source / name) if source else file.url
    with whole_file(folder / name) as aside:
        received = 0
        with open(aside, "wb") as written, _opened(name, origin, source) as stream:
            announced = int(stream.headers.get("Content-Length") or 0) if hasattr(stream, "headers") else (source / name).stat().st_size
            total = max(1, -(-announced // _BLOCK)) if announced else int(file.megabytes or 1)
            for block in track(_blocks(name, origin, stream), total, f"{name} (MB)"):
                written.write(block)
                received += len(block)
        if announced and received != announced:
            raise FetchError(f"{name}: {origin} broke off after {received} of {announced} bytes: try again")
        if damage := _damage(aside, file):
            raise FetchError(f"{name}: what {origin} gave is not the published file ({damage}): nothing was kept")


def _opened(name: str, origin: str, source: Path | None) -> BinaryIO:
    try:
        if source is not None:
            return open(source / name, "rb")
        request = urllib.request.Request(origin, headers={"User-Agent": "uf-fgtg-ablations"})
        return urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        raise FetchError(f"{name}: {origin} answers {error.code} ({error.reason})") from error
    except FileNotFoundError as error:
        raise FetchError(f"{name}: there is no file {origin}") from error
    except (OSError, http.client.HTTPException) as error:
        raise FetchError(_unreachable(name, origin, error)) from error


def _blocks(name: str, origin: str, stream: BinaryIO) -> Iterator[bytes]:
    while True:
        try:
            block = stream.read(_BLOCK)
        except (OSError, http.client.HTTPException) as error:
            raise FetchError(_unreachable(name, origin, error)) from error
        if not block:
            return
        yield block


def _unreachable(name: str, origin: str, error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return (
        f"{name}: {origin} cannot be reached ({reason}); without a network, download it elsewhere and hand over the folder with --from DIR"
    )


def load_shipped(network: nn.Module, path: Path) -> None:
    """Load weights that come with the package. Raises UserError, one line, where the file is damaged."""
    from lightning_modules.backbones.tiny import load_weights
    from lightning_modules.backbones.whole_files import require_whole

    try:
        require_whole(path.parent, [path.name])
        load_weights(network, path)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error

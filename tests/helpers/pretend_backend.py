"""The pretend accelerator's name in torch, for the whole test process: see `pretend_device`. Imports torch alone.

torch's autograd makes its queues, one for each device, at the first backward pass of a process. So the name is registered before any test
runs, whichever it is; until a test enters the device, it is not available.
"""

from __future__ import annotations

import torch
from torch.utils import backend_registration

NAME = "pretend"
# Whether a test is on the device now.
entered = False


class _Module(backend_registration._DummyBackendModule):
    def is_available(self) -> bool:
        return entered

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def register() -> None:
    """Register the device with torch; once more is harmless."""
    if not hasattr(torch, NAME):
        torch.utils.rename_privateuse1_backend(NAME)
        backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())

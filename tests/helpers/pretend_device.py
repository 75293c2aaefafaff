"""A pretend accelerator: real arithmetic on the CPU by tensors that say that they are on a device of their own, and refuse to be mixed.

A machine without a GPU can so run what a GPU would run, and find every place where ids are here and weights there. torch lets a Python
program be a device ("privateuseone"); its tensors are hollow, and every operator on them comes by `_run`, which

- raises `DevicesMixed` where a GPU would: an operand of one dimension or more that is on the CPU beside one that is not;
- counts what a GPU would be slowed down by: copies to the device, and waits, where the program reads a value back.

Not shown by it: rounding, autocast (there is none on this device), memory, kernels that a real device lacks, other processes.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.accelerators import Accelerator, AcceleratorRegistry
from pytorch_lightning.strategies import SingleDeviceStrategy
from pytorch_lightning.trainer.connectors.accelerator_connector import _AcceleratorConnector
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ablations.cell.loading import device
from helpers import pretend_backend
from helpers.pretend_backend import NAME
from helpers.small_sweeps import small

# A cell of seconds, with everything that a cell does.
TINY_CELL = small(
    *("prompt_len=2", "eval.num_prompts=1", "eval.max_new_tokens=2", "eval.steps=1", "train.accumulate=2", "train.log_every=2"),
    *(
        "trainer.progress=none",
        "eval.draw=all",
        "eval.controls=true",
        "eval.plug_in=true",
        "eval.rewrite_too=true",
        "train.check_records=8",
    ),
    *("train.validate_every=1", "eval.text_prompts=2"),
)
_ROOT = f"{Path(__file__).parents[2]}/"
_OURS = tuple(f"{_ROOT}{package}/" for package in ("ablations", "lightning_modules", "datamodules"))
# Operators that look at values, so that the program waits for the device.
_WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique", "unique_", "equal", "is_nonzero")


class DevicesMixed(RuntimeError):
    """Tensors of two devices in one operator."""


@dataclass
class Traffic:
    """What went between host and device: what each copy and wait was, and the line of ours that it came from."""

    copies: list[str] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)

    @property
    def counts(self) -> tuple[int, int]:
        """Copies to the device, and waits."""
        return len(self.copies), len(self.waits)

    def places(self) -> str:
        """Every place with its number, the most frequent first: to see what a count that rose is made of."""
        lines = [f"{kind} {place}" for kind, places in (("copy", self.copies), ("wait", self.waits)) for place in places]
        return "\n".join(f"{number:4d} {line}" for line, number in Counter(lines).most_common())


_open: list[Traffic] = []


def _our_line() -> str:
    """The innermost line of this project on the stack, outside the tests."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_OURS):
            return f"{file.removeprefix(_ROOT)}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "a library"


def _note(kind: str, what: str) -> None:
    for traffic in _open:
        getattr(traffic, kind).append(f"{what} at {_our_line()}")


class _Hollow(torch.Tensor):
    """A tensor on the pretend device; `on_cpu` has its values."""

    on_cpu: torch.Tensor

    @staticmethod
    def __new__(cls, real: torch.Tensor) -> _Hollow:
        made = torch.Tensor._make_wrapper_subclass(
            cls, real.size(), strides=real.stride(), storage_offset=real.storage_offset(), dtype=real.dtype, device=torch.device(NAME, 0)
        )
        made.on_cpu = real
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"tensor(shape={tuple(self.shape)}, device='{NAME}:0')"

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})

    def tolist(self) -> Any:
        _note("waits", "tolist")
        return self.on_cpu.tolist()

    def numpy(self, *args, **kwargs):
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first.")

    def __array__(self, *args, **kwargs):
        return self.numpy()

    def __reduce_ex__(self, protocol):
        """A checkpoint holds the values, and is loaded to the CPU."""
        _note("waits", f"saved {tuple(self.shape)}")
        return self.on_cpu.__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict) -> torch.Tensor:
        if id(self) not in memo:
            copied = _Hollow(self.on_cpu.detach().clone())
            memo[id(self)] = torch.nn.Parameter(copied, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copied
        return memo[id(self)]


def _run(function, args: tuple, kwargs: dict) -> Any:
    """An operator, on the values behind the hollow tensors; what comes of it is hollow where it would be on the device."""
    operands = list(_tensors(args)) + list(_tensors(kwargs.values()))
    hollow = [value for value in operands if isinstance(value, _Hollow)]
    on_device = bool(hollow)
    if kwargs.get("device") is not None:
        on_device = torch.device(kwargs["device"]).type == NAME
        kwargs = {**kwargs, "device": torch.device("cpu") if on_device else kwargs["device"]}
    if "pin_memory" in kwargs:
        kwargs = {**kwargs, "pin_memory": False}
    on_device = _judge(function._schema.name.removeprefix("aten::"), operands, hollow, on_device)
    out = function(*(_on_cpu(value) for value in args), **{name: _on_cpu(value) for name, value in kwargs.items()})
    if not (on_device or hollow):
        return out
    known = {id(value.on_cpu): value for value in hollow}

    def wrap(value):
        if not isinstance(value, torch.Tensor):
            return [wrap(each) for each in value] if isinstance(value, list) else value
        if id(value) in known:  # an operator in place, or one that had nothing to do
            return known[id(value)] if on_device else value.clone()
        return _Hollow(value) if on_device else value

    return tuple(wrap(each) for each in out) if isinstance(out, tuple) else wrap(out)


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _judge(name: str, operands: list, hollow: list, on_device: bool) -> bool:
    """Count what the operator moves, refuse what it mixes, and say whether its result is on the device."""
    if name in ("_to_copy", "copy_"):
        source = operands[-1] if name == "copy_" else operands[0]
        if name == "copy_":
            on_device = isinstance(operands[0], _Hollow)
        if on_device and not isinstance(source, _Hollow):
            _note("copies", f"{tuple(source.shape)}")
        elif isinstance(source, _Hollow) and not on_device:
            _note("waits", f"to the CPU {tuple(source.shape)}")
        return on_device
    if hollow and name.startswith(_WAITS):
        _note("waits", name)
        return on_device and not name.startswith(("_local_scalar_dense", "equal", "is_nonzero"))
    strangers = [value for value in operands if not isinstance(value, _Hollow) and value.dim() > 0] if hollow else []
    if strangers and name in ("index", "index_put", "index_put_", "_unsafe_index") and not isinstance(operands[0], _Hollow):
        raise DevicesMixed(f"{name}: a tensor on cpu is indexed by one on {NAME}")
    if strangers and name in ("index", "index_put", "index_put_"):  # a GPU takes indices from the host, and copies them
        _note("copies", f"index {tuple(strangers[0].shape)}")
    elif strangers:
        raise DevicesMixed(f"{name}: tensors on {NAME} and on cpu, of shapes {[tuple(value.shape) for value in operands]}")
    return on_device


def _on_cpu(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_on_cpu(each) for each in value]
    return value.on_cpu if isinstance(value, _Hollow) else value


class _Everywhere(TorchDispatchMode):
    """Sees the operators that no hollow tensor takes part in: what is made on the device, or copied there."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


class PretendAccelerator(Accelerator):
    """The pretend device as Lightning knows devices."""

    def setup_device(self, device: torch.device) -> None:
        assert device.type == NAME, device

    def teardown(self) -> None:
        pass

    def get_device_stats(self, device) -> dict[str, Any]:
        return {}

    @staticmethod
    def parse_devices(devices) -> list[int]:
        return list(range(int(devices)))

    @staticmethod
    def get_parallel_devices(devices: list[int]) -> list[torch.device]:
        return [torch.device(NAME, number) for number in devices]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return NAME


class _MadeHereThenMoved(TorchFunctionMode):
    """`torch.tensor(data, device=...)` reads its data on the host: a copy, which the operators alone do not show. So does a list as an
    index (`x[:, [0]]`), which PyTorch makes a tensor of by a kernel that this device has not; from the host, as any device takes it."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.Tensor.__getitem__ and isinstance(args[1], tuple):
            args = (args[0], tuple(torch.tensor(part) if isinstance(part, list) else part for part in args[1]))
        if function is not torch.tensor or kwargs.get("device") is None or torch.device(kwargs["device"]).type != NAME:
            return function(*args, **kwargs)
        return function(*args, **{**kwargs, "device": None}).to(kwargs["device"])


def _on_the_pretend_device(choose):
    """Lightning puts everything but CUDA and MPS on the CPU."""

    @wraps(choose)
    def strategy(self):
        return SingleDeviceStrategy(self._parallel_devices[0]) if self._accelerator_flag == NAME else choose(self)

    return strategy


@contextmanager
def pretend_device(patch) -> Iterator[torch.device]:
    """The device `pretend`, for as long as the block lasts, as the one that `trainer.accelerator=auto` finds. `patch` is pytest's."""
    pretend_backend.register()
    if NAME not in AcceleratorRegistry:
        AcceleratorRegistry.register(NAME, PretendAccelerator, description="a device for tests")
    patch.setattr(pretend_backend, "entered", True)
    patch.setattr(_AcceleratorConnector, "_choose_strategy", _on_the_pretend_device(_AcceleratorConnector._choose_strategy))
    patch.setattr(torch, "inference_mode", torch.no_grad)  # hollow tensors have no version in it
    patch.setattr(device, "kinds", lambda: (NAME, "cpu"))
    with _Everywhere(), _MadeHereThenMoved():
        yield torch.device(NAME, 0)


@contextmanager
def counting(traffic: Traffic | None = None) -> Iterator[Traffic]:
    """What goes between host and device within the block, in addition to what `traffic` has."""
    traffic = traffic or Traffic()
    _open.append(traffic)
    try:
        yield traffic
    finally:
        _open.remove(traffic)

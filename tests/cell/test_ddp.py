"""Training in several processes: what it computes is what one process computes, and rank 0 alone leaves traces."""

from __future__ import annotations

import multiprocessing
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

from ablations.cell.lives import crew_of, follow
from ablations.cell.loading.data import build_data
from ablations.cell.loading.module import build_module
from ablations.cell.processes import group as companions
from ablations.cell.processes.group import JoinedDDP
from ablations.cell.processes.place import Place, ProcessLost, find_place
from ablations.cell.training.fit import read_curves
from ablations.cell.training.train import finish_training
from ablations.cell.work import Work
from ablations.config import Config, from_flat_dict, parse, to_flat_dict
from ablations.results.checkpoints import FINAL, LAST
from ablations.results.run_folder import RunFolder
from ablations.runtime.console import Console
from ablations.runtime.errors import UserError
from ablations.runtime.stopping import StopRequest
from datamodules.sharing import Sharing
from lightning_modules.prompt_refiner import PromptRefinerModule

SETTINGS = {
    **{"backbones.init": "random", "data.num_train": 48, "data.num_validation": 8, "train.batch_size": 8, "loss.clip_bank": 6},
    **{"train.log_every": 1, "trainer.accelerator": "cpu", "trainer.threads": 1, "trainer.progress": "none", "wandb.mode": "disabled"},
    **{"eval.num_prompts": 0, "train.check_records": 0},
}
ARMS = {
    "mse": ("use_text=false", "use_clip=false"),
    "text": ("use_mse=false", "use_clip=false"),
    "clip": ("use_mse=false", "use_text=false"),
    "all": ("use_feature=true", "train.accumulate=2"),
}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "a", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "GROUP_RANK": "1"}
SRUN = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}


def arguments(folder: Path, *more: str) -> list[str]:
    settings = {**SETTINGS, "output_dir": folder, **dict(argument.split("=", 1) for argument in more)}
    return [f"{name}={value}" for name, value in settings.items()]


def train_here(config: Config, backbones) -> RunFolder:
    """Train as rank 0, or alone."""
    with crew_of(config, Console("none")) as crew:
        work = Work.unheard(config, crew=crew)
        module = build_module(config, backbones)
        data = build_data(config, module, work.console.say)
        data.setup("fit")
        finish_training(work, module, data)
    assert not distributed.is_initialized() and all(parameter.requires_grad for parameter in module.parameters())
    return work.folder


def assert_same_training(one: RunFolder, other: RunFolder, steps: int) -> None:
    """Equal to float rounding: every logged value of every step, and every weight."""
    first, second = (read_curves(run.training_path / "metrics.csv") for run in (one, other))
    assert [row["step"] for row in first] == [row["step"] for row in second] == list(range(1, steps + 1))
    for left, right in zip(first, second, strict=True):
        # Float rounding, 1e-7 of every value, until it decides one sign of Adam's or one ReLU (at step 8 on one processor, later on
        # another); from there it adds up, to 1.3e-3 of the gradient's norm by step 15. Another batch or negative changes the first digit.
        assert left == pytest.approx(right, rel=1e-4 if left["step"] <= 3 else 5e-3, abs=5e-6 if left["step"] <= 3 else 5e-5)
    weights, others = (torch.load(run.checkpoints / FINAL, weights_only=True)["state_dict"] for run in (one, other))
    assert weights.keys() == others.keys()
    # Adam turns the rounding of a gradient near zero into a step of either sign: single weights may differ by more than their mean.
    gaps = torch.cat([(weights[name] - others[name]).abs().flatten() for name in weights])
    assert gaps.mean() < 5e-6 and gaps.max() < 5e-3


OVER_20_STEPS = ("train.max_steps=20", "train.accumulate=4", "use_feature=true")


@pytest.fixture(scope="module")
def alone_over_20_steps(small_backbones, tmp_path_factory) -> RunFolder:
    return train_here(parse(arguments(tmp_path_factory.mktemp("one"), *OVER_20_STEPS)), small_backbones)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "each"), [(2, 40), (4, 20)])
def test_processes_share_the_80_micro_batches_of_20_steps_and_give_the_losses_and_weights_of_one(
    alone_over_20_steps, processes, each, small_backbones, tmp_path, monkeypatch
):
    computed: list[int] = []
    step = PromptRefinerModule.training_step

    def counting(module, batch, *more):
        computed.append(len(batch["ids_B"]))
        return step(module, batch, *more)

    monkeypatch.setattr(PromptRefinerModule, "training_step", counting)
    shared = train_here(parse(arguments(tmp_path, *OVER_20_STEPS, f"trainer.devices={processes}")), small_backbones)
    assert computed == [8] * each  # whole micro-batches of 8 records: a half, and a quarter, of the 80 that one process computes
    assert_same_training(alone_over_20_steps, shared, 20)
    assert sorted(path.name for path in shared.training_path.rglob("*") if path.is_file()) == [
        FINAL,
        f"{FINAL}.sha256",
        "metrics.csv",
        "metrics.csv.sha256",
    ]
    assert not multiprocessing.active_children()


def follow_many(flats: list[dict], ports: list[int]) -> None:
    """Process 1 of 2 as torchrun would start it, for one training after the other."""
    stop = StopRequest()
    for flat, port in zip(flats, ports, strict=True):
        with pytest.MonkeyPatch.context() as patch:
            pretend_torchrun(patch, rank=1, port=port)
            config = from_flat_dict(flat)
            follow(config, find_place(config), stop)


def pretend_torchrun(patch: pytest.MonkeyPatch, rank: int, port: int) -> None:
    values = {"TORCHELASTIC_RUN_ID": "test", "RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "GROUP_RANK": 0}
    for name, value in {**values, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        patch.setenv(name, str(value))
    companions.outside_store.cache_clear()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.slow
def test_every_arm_trains_as_in_one_process_where_torchrun_started_the_processes(small_backbones, tmp_path, monkeypatch):
    configs = [parse(arguments(tmp_path / "two", *options, "train.max_steps=4", "trainer.devices=2")) for options in ARMS.values()]
    ports = [free_port() for _ in configs]
    follower = multiprocessing.get_context("spawn").Process(target=follow_many, args=([to_flat_dict(config) for config in configs], ports))
    follower.start()
    try:
        for config, options, port in zip(configs, ARMS.values(), ports, strict=True):
            one = train_here(parse(arguments(tmp_path / "one", *options, "train.max_steps=4")), small_backbones)
            with monkeypatch.context() as patch:
                pretend_torchrun(patch, rank=0, port=port)
                two = train_here(config, small_backbones)
            assert_same_training(one, two, 4)
        follower.join(30)
        assert follower.exitcode == 0
    finally:
        follower.kill()
        companions.outside_store.cache_clear()


@pytest.mark.slow
def test_a_signal_ends_all_processes_with_a_checkpoint_that_one_process_ends_as_if_undisturbed(small_backbones, tmp_path):
    options = ("train.max_steps=40", "train.log_every=2", "train.checkpoint_every=1000")
    whole = train_here(parse(arguments(tmp_path / "whole", *options)), small_backbones)
    command = [
        sys.executable,
        "-m",
        "ablations.run",
        *arguments(tmp_path / "parts", *options, "trainer.devices=2", "trainer.progress=plain"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("training: step 10/"):
                process.send_signal(signal.SIGTERM)
        errors = process.stderr.read()
    assert process.returncode == 143, errors
    assert errors.startswith("stopped by a signal (training, step ") and errors.count("\n") == 1
    assert sum(line.startswith("training: step 10/") for line in said) == sum(line.startswith("cell ") for line in said) == 1
    config = parse(arguments(tmp_path / "parts", *options))
    run = RunFolder(config)
    assert run.read()["status"] == "preempted" and 10 <= torch.load(run.checkpoints / LAST, weights_only=True)["global_step"] < 40
    train_here(config, small_backbones)
    left, right = (read_curves(one.training_path / "metrics.csv") for one in (whole, run))
    assert [row["step"] for row in left] == [row["step"] for row in right] == list(range(2, 42, 2))
    for one, other in zip(left, right, strict=True):
        assert one == pytest.approx(other, rel=2e-2, abs=2e-3)


@pytest.mark.slow
def test_a_process_that_fails_is_named_with_its_reason(small_backbones, tmp_path):
    config = parse(arguments(tmp_path, "trainer.devices=2", "train.max_steps=2"))
    # The networks here are made before the folder is looked for; the other process looks for it and finds none.
    config = replace(config, backbones=replace(config.backbones, init="pretrained", dir=str(tmp_path / "nowhere")))
    with pytest.raises(ProcessLost, match=r"process 1 of 2 failed: UserError: tiny weights .*nowhere"):
        train_here(config, small_backbones)
    assert not distributed.is_initialized() and not multiprocessing.active_children()


@pytest.mark.parametrize("arm", ["mse", "all"])
def test_the_buckets_hold_what_gets_a_gradient_and_nothing_that_is_frozen(small_backbones, tmp_path, monkeypatch, arm):
    in_buckets: set[str] = set()
    setup = JoinedDDP._setup_model

    def watched(strategy: JoinedDDP, module: torch.nn.Module) -> torch.nn.Module:
        names = {id(parameter): name for name, parameter in module.named_parameters()}

        def note(state, bucket):  # DDP refuses annotations that are strings
            in_buckets.update(names[id(parameter)] for parameter in bucket.parameters())
            return default_hooks.allreduce_hook(None, bucket)

        model = setup(strategy, module)
        model.register_comm_hook(None, note)
        return model

    monkeypatch.setattr(JoinedDDP, "_setup_model", watched)
    run = train_here(parse(arguments(tmp_path, *ARMS[arm], "trainer.strategy=ddp", "train.max_steps=1")), small_backbones)
    content = torch.load(run.checkpoints / FINAL, weights_only=True)
    left_out = set(content["state_dict"]) - in_buckets
    assert {name.split(".")[0] for name in content["state_dict"]} == {"text_encoder", "adapter"} | ({"afe"} if arm == "all" else set())
    if arm == "all":
        assert not left_out
    else:
        assert all(
            name.startswith(("adapter.", "text_encoder.transformer.resblocks.", "text_encoder.text_projection")) for name in left_out
        )


@pytest.mark.parametrize("options", [*ARMS.values(), ("use_mse=false", "use_text=false", "use_clip=false", "use_feature=true")])
def test_the_parameters_said_to_be_without_gradient_are_those_that_get_none(small_backbones, make_batch, options):
    module = build_module(parse(["backbones.init=random", *options]), small_backbones)
    module.training_step(make_batch()).backward()
    without = {name for name, parameter in module.named_parameters() if parameter.grad is None}
    said = {id(parameter) for parameter in module.parameters_without_gradient()}
    assert without == {name for name, parameter in module.named_parameters() if id(parameter) in said}
    assert bool(without) == (options != ARMS["all"])


def test_token_shares_make_the_mean_of_the_processes_the_mean_over_all_tokens(small_backbones, tmp_path):
    config = parse(arguments(tmp_path, *ARMS["text"]))
    module = build_module(config, small_backbones)

    def batch(rank: int, world_size: int) -> dict:
        data = build_data(config, module, lambda line: None)
        data.rank, data.sharing, data.start_batch = rank, Sharing(world_size), 0
        return next(iter(data.train_dataloader()))

    with torch.no_grad():
        whole = module.compute_terms(batch(0, 1))[0]["l_text"].item()
        shares = [batch(rank, 4) for rank in range(4)]
        parts = [module.compute_terms(share)[0]["l_text"].item() for share in shares]
    assert len({int(share["target_mask_BT"].sum()) for share in shares}) > 1
    assert sum(parts) / 4 == pytest.approx(whole, rel=1e-5)
    assert sum(share["target_token_share"] for share in shares) == pytest.approx(4)


@pytest.mark.parametrize("environment", [TORCHRUN, SRUN])
def test_processes_started_from_outside_know_their_place(environment):
    config = parse(["trainer.devices=2", "trainer.num_nodes=2"])
    assert find_place(config, environment) == Place(3, 4, 1, 1, from_outside=True)


def test_a_command_that_nobody_launched_is_rank_0():
    assert find_place(parse(["trainer.devices=2"]), {}) == Place(0, 2, 0, 0, from_outside=False)
    # Within a job of SLURM that runs cells side by side, each is alone; so is a batch script that srun has not started.
    assert find_place(parse([]), SRUN) == Place()
    assert find_place(parse(["trainer.devices=2"]), {"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}).from_outside is False


@pytest.mark.parametrize(
    ("keys", "environment", "said"),
    [
        (["trainer.num_nodes=2"], {}, "trainer.num_nodes=2 needs a launcher .* torchrun --nnodes=2 --nproc-per-node=1"),
        ([], TORCHRUN, "torchrun started 4 processes, but trainer.devices=1 and trainer.num_nodes=1 ask for 1"),
        (["trainer.devices=2"], SRUN, "srun started 4 processes, but trainer.devices=2 and trainer.num_nodes=1 ask for 2"),
    ],
)
def test_a_launch_that_does_not_fit_the_config_is_refused(keys, environment, said):
    with pytest.raises(UserError, match=said):
        find_place(parse(keys), environment)

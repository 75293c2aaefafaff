"""The methods of a comparison as objects: which baseline is made of what."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from ablations.baselines.base import Baseline
from ablations.baselines.catalogue import HUB_MODELS
from ablations.baselines.chat import ChatBaseline
from ablations.baselines.endpoint import ChatEndpoint
from ablations.baselines.given import GivenPrompt
from ablations.baselines.hub import HubBaseline
from ablations.baselines.modifiers import FrequentModifiers
from ablations.baselines.refiner import TrainedRefiner
from ablations.comparing.plan import Comparison, answer_store
from lightning_modules.prompt_refiner import PromptRefinerModule


def make_methods(
    comparison: Comparison,
    device: torch.device,
    *,
    train_prompts: Callable[[], Iterable[str]],
    count_tokens: Callable[[str], int],
    load_refiner: Callable[[int], PromptRefinerModule],
    say: Callable[[str], None],
    check: Callable[[], None],
) -> list[Baseline]:
    """The comparison's methods, in the table's order; the callables are not called before the methods are used."""
    config = comparison.config
    sampling = {"top_p": config.eval.top_p, "top_k": config.eval.top_k}

    def one(name: str) -> Baseline:
        if name in ("coarse", "fine"):
            return GivenPrompt(name)
        if name in ("most_frequent", "frequent_drawn"):
            return FrequentModifiers(
                train_prompts,
                count_tokens,
                config.prompt_len,
                drawn=name == "frequent_drawn",
                num_modifiers=comparison.num_modifiers,
                **sampling,
            )
        if name in ("refiner", "refiner_rewrite"):
            return TrainedRefiner(config, load_refiner, 1 if name == "refiner" else 2)
        if name in HUB_MODELS:
            model = HUB_MODELS[name]
            tokenizer = comparison.sources.get(model.tokenizer_of, "")
            return HubBaseline(model, comparison.sources[name], tokenizer, answer_store(comparison, "hub"), device, check=check, **sampling)
        chat = comparison.chat
        endpoint = ChatEndpoint(chat.url, chat.key, chat.patience, say, check)
        return ChatBaseline(
            name.removeprefix("chat:"),
            endpoint,
            answer_store(comparison, "chat"),
            instruction=chat.instruction,
            top_p=config.eval.top_p,
            top_k=chat.top_k,
            prices=chat.prices,
            check=check,
        )

    return [one(name) for name in comparison.methods]

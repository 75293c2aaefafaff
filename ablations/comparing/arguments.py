"""From the command line of `compare` to what is to be compared. Imports no heavy library."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ablations.baselines.chat_settings import INSTRUCTION, ChatSettings, Prices, chat_models
from ablations.baselines.endpoint import Patience, checked_url
from ablations.comparing import plan
from ablations.metrics.register import names_in
from ablations.runtime.errors import UserError
from ablations.runtime.foreign import is_folder, is_there


def prices(text: str) -> tuple[float, float]:
    """An argparse type: what a million tokens cost, read and written, in dollars."""
    try:
        read, written = (float(part) for part in text.split(","))
    except ValueError:
        read = written = -1.0
    if not (0 <= read < float("inf") and 0 <= written < float("inf")):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no pair of prices: write READ,WRITTEN in dollars for a million tokens, as in 0.5,1.5"
        )
    return read, written


def read_comparison(arguments: argparse.Namespace) -> plan.Comparison:
    """The comparison that the arguments describe. Raises UserError."""
    keys = [word for word in arguments.arm if "=" in word]
    folders = [word for word in arguments.arm if "=" not in word]
    if len(folders) > 1:
        raise UserError(f"one arm at a time, got {folders[0]!r} and {folders[1]!r}")
    if arguments.to is not None and is_there(arguments.to) and not is_folder(arguments.to):
        raise UserError(f"--to {str(arguments.to)!r} is a file: give a folder")
    chat = chat_settings(arguments)
    methods = plan.methods_of(arguments.methods, chat)
    sources = plan.sources_of(methods, arguments.models, arguments.model)
    arm, configs = plan.configs_of(Path(folders[0]) if folders else None, keys, arguments.seeds)
    config = next(iter(configs.values()))
    comparison = plan.Comparison(
        arm=arm,
        configs=configs,
        methods=methods,
        num_prompts=arguments.prompts or (plan.TINY_PROMPTS if config.profile == "tiny" else config.eval.num_prompts) or 1,
        num_candidates=arguments.candidates or config.eval.num_candidates,
        num_modifiers=arguments.modifiers,
        figure_prompts=arguments.figure_prompts,
        sources=sources,
        chat=chat,
        to=arguments.to or Path(config.output_dir) / "comparisons" / arm,
        metrics=_metrics(arguments.metrics) if arguments.metrics else None,
        missing_metrics=arguments.missing_metrics,
    )
    plan.require_training_allowed(comparison)
    return comparison


def _metrics(text: str) -> str:
    """The metrics that --metrics lists, as eval.metrics has them. Raises UserError for an unknown name."""
    return ",".join(names_in(text))


def chat_settings(arguments: argparse.Namespace) -> ChatSettings:
    """The chat models to ask, and how. Raises UserError where the key or the address cannot be used."""
    key = (os.environ.get(arguments.chat_key_variable) or "").strip() or None
    if not arguments.chat:
        return ChatSettings()
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise UserError(f"${arguments.chat_key_variable} holds no key: it has blanks or characters that a header cannot carry")
    url = checked_url(arguments.chat_url, key is not None)
    if key is None and url.startswith("https://api.openai.com"):
        raise UserError(
            f"--chat needs a key: set the environment variable {arguments.chat_key_variable}, or give --chat-url of a server of yours"
        )
    instruction = INSTRUCTION
    if arguments.chat_instruction is not None:
        try:
            instruction = arguments.chat_instruction.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--chat-instruction {arguments.chat_instruction} cannot be read: {error}") from error
        if not instruction:
            raise UserError(f"--chat-instruction {arguments.chat_instruction} is empty")
    return ChatSettings(
        models=chat_models(arguments.chat),
        url=url,
        key=key,
        instruction=instruction,
        top_k=arguments.chat_top_k,
        prices=Prices(*arguments.chat_price) if arguments.chat_price else None,
        patience=Patience(
            timeout=arguments.chat_timeout,
            attempts=arguments.chat_attempts,
            requests_per_minute=arguments.chat_rate,
            at_once=arguments.chat_at_once,
        ),
    )

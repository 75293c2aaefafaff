"""`python -m ablations.compare [OUTPUT_DIR/ARM | key=value ...]`: our refiner beside other ways to write prompts, in one table.

Exit codes: 0, 2 a mistake of the user's (a model that cannot be had, a key that is not accepted), 143 stopped by a signal, 1 anything else.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from ablations.cell.training.place import refuse_launcher
from ablations.runtime.command_line import OneLineParser
from ablations.runtime.errors import RunFolderError, UserError, one_line
from ablations.runtime.plugins import load_plugins

_DESCRIPTION = """\
Compares an arm of ours, over its seeds, with other ways to write a prompt out of the same coarse prompt. Every method samples with the
arm's top-p and top-k (0.95 and 50), its chance keyed by seed, prompt and candidate, and is drawn at the same image noise.

  OUTPUT_DIR/ARM     an arm's folder: compares its trained seeds
  key=value ...      the arm as python -m ablations.run would train it, seeds 0, 1 and 2; without any argument the default arm. Tiny
                     seeds that are not trained yet are run first (2 minutes each on two cores); others are an error

methods (those marked * need no download and are compared if --methods says nothing; our refiner always is; the others are published
language models, from a folder, the hub or its cache):
{methods}
  --chat MODEL       a model behind an OpenAI-compatible endpoint; give it again for more models

A method that fails on a prompt is counted as failed there and shown, and never replaced by what it read.
"""
_EXAMPLES = """\
examples:
  python -m ablations.compare                                        tiny profile, no downloads
  python -m ablations.compare outputs/tiny-len6-mse-text-clip-afe-1a2b3c4d --prompts 64
  python -m ablations.compare outputs/ARM --methods all --models models     models/gpt2, models/promptist, ... or else the hub
  OPENAI_API_KEY=... python -m ablations.compare outputs/ARM --chat gpt-3.5-turbo --chat gpt-4 --chat-price 0.5,1.5
  python -m ablations.compare outputs/ARM --chat llama3 --chat-url http://127.0.0.1:11434/v1 --chat-top-k 50

Written to OUTPUT_DIR/comparisons/ARM, or --to: comparison.md (the table: means, paired differences from our refiner with 95% intervals over
seeds and prompts, failures), .csv, .tex, comparison.png (methods as columns, prompts as rows), methods.csv, prompts.jsonl, scores.parquet
and images. Killed and started again it goes on: pictures, scores and answers are kept in OUTPUT_DIR/cache.

The key of a chat endpoint is read from the environment variable that --chat-key-variable names, sent to that endpoint alone, and written
nowhere. Answers are kept, so that none is paid for twice.
"""


def _at_least(least: int):
    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least {least}")
        return int(text)

    return read


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def _seeds(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) < 2**32 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of seeds: write 0,1,2")
    return tuple(sorted({int(part) for part in parts}))


def _prices(text: str) -> tuple[float, float]:
    try:
        read, written = (float(part) for part in text.split(","))
    except ValueError:
        read = written = -1.0
    if not (0 <= read < float("inf") and 0 <= written < float("inf")):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no pair of prices: write READ,WRITTEN in dollars for a million tokens, as in 0.5,1.5"
        )
    return read, written


def parser() -> argparse.ArgumentParser:
    """The command line's arguments."""
    from ablations.baselines.register import describe_methods

    made = OneLineParser(
        prog="python -m ablations.compare",
        description=_DESCRIPTION.format(methods=describe_methods()),
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("arm", nargs="*", metavar="OUTPUT_DIR/ARM | key=value", help="what of ours is compared (default: the default arm)")
    made.add_argument("--methods", metavar="LIST", help="methods, comma-separated, or all (default: those marked *)")
    made.add_argument("--plugins", metavar="LIST", help="modules that add methods or metrics, comma-separated: see docs/extending.md")
    made.add_argument("--seeds", type=_seeds, metavar="LIST", help="seeds, comma-separated (default: the folder's; else 0,1,2)")
    made.add_argument("--prompts", type=_at_least(1), metavar="N", help="evaluation prompts (default: tiny 24, else the arm's)")
    made.add_argument("--candidates", type=_at_least(1), metavar="N", help="prompts that each method writes for each (default: the arm's)")
    made.add_argument("--modifiers", type=_at_least(1), metavar="N", help="append N modifiers rather than prompt_len tokens of them")
    made.add_argument("--metrics", metavar="LIST", help="further metrics, comma-separated, or paper, as eval.metrics (default: the arm's)")
    made.add_argument("--missing-metrics", choices=("error", "skip"), help="as eval.missing_metrics (default: the arm's)")
    made.add_argument("--figure-prompts", type=_at_least(1), default=6, metavar="N", help="rows of the figure (%(default)s)")
    made.add_argument("--to", type=Path, metavar="DIR", help="where to write (default: OUTPUT_DIR/comparisons/ARM)")
    made.add_argument("--progress", choices=("auto", "bar", "plain", "none"), default="auto", help="(%(default)s)")
    models = made.add_argument_group("language models")
    models.add_argument(
        "--models", type=Path, metavar="DIR", help="a folder with models as transformers saves them: DIR/gpt2, DIR/flan_t5, ..."
    )
    models.add_argument("--model", action="append", default=[], metavar="NAME=SOURCE", help="where one comes from: a folder or a hub id")
    chat = made.add_argument_group("chat endpoints")
    chat.add_argument("--chat", action="append", default=[], metavar="MODEL", help="a model of the endpoint; repeatable")
    chat.add_argument("--chat-url", default="https://api.openai.com/v1", metavar="URL", help="(%(default)s)")
    chat.add_argument(
        "--chat-key-variable", default="OPENAI_API_KEY", metavar="NAME", help="environment variable with the key (%(default)s)"
    )
    chat.add_argument("--chat-instruction", type=Path, metavar="FILE", help="a text file with another instruction than ours")
    chat.add_argument("--chat-top-k", type=_at_least(1), metavar="K", help="send top_k, where the server knows it (OpenAI's does not)")
    chat.add_argument("--chat-rate", type=_positive, metavar="N", help="requests a minute at most")
    chat.add_argument("--chat-timeout", type=_positive, default=60.0, metavar="SECONDS", help="patience for one answer (%(default)s)")
    chat.add_argument("--chat-attempts", type=_at_least(1), default=5, metavar="N", help="attempts on a busy server (%(default)s)")
    chat.add_argument("--chat-price", type=_prices, metavar="READ,WRITTEN", help="dollars for a million tokens, for the cost line")
    return made


def read_comparison(arguments: argparse.Namespace):
    """The `Comparison` that the arguments describe. Raises UserError; imports nothing heavy."""
    from ablations.comparing import plan

    keys = [word for word in arguments.arm if "=" in word]
    folders = [word for word in arguments.arm if "=" not in word]
    if len(folders) > 1:
        raise UserError(f"one arm at a time, got {folders[0]!r} and {folders[1]!r}")
    if arguments.to is not None and arguments.to.exists() and not arguments.to.is_dir():
        raise UserError(f"--to {str(arguments.to)!r} is a file: give a folder")
    chat = _chat_settings(arguments)
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
    from ablations.metrics.register import names_in

    return ",".join(names_in(text))


def _chat_settings(arguments: argparse.Namespace):
    from ablations.baselines.chat_settings import INSTRUCTION, ChatSettings, Prices
    from ablations.baselines.endpoint import Patience, checked_url

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
        models=tuple(dict.fromkeys(arguments.chat)),
        url=url,
        key=key,
        instruction=instruction,
        top_k=arguments.chat_top_k,
        prices=Prices(*arguments.chat_price) if arguments.chat_price else None,
        patience=Patience(arguments.chat_timeout, arguments.chat_attempts, requests_per_minute=arguments.chat_rate),
    )


def main(argv: list[str] | None = None) -> int:
    """Make the comparison that the arguments describe; returns the exit code."""
    arguments = parser().parse_args(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    from ablations.runtime.stopping import Preempted, StopRequest

    stop = StopRequest().install()
    try:
        refuse_launcher()
        load_plugins(arguments.plugins)
        comparison = read_comparison(arguments)
        return _compare(comparison, arguments.progress, stop)
    except (UserError, RunFolderError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    except FloatingPointError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    except Preempted as preempted:
        print("stopped by a signal; the same command goes on from there", file=sys.stderr)
        return preempted.exit_code
    finally:
        stop.restore()


def _compare(comparison, progress: str, stop) -> int:
    if progress != "none":
        print("loading libraries (some seconds)", flush=True)
    from ablations.runtime.quiet_libraries import quiet_libraries

    quiet_libraries()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    from ablations.comparing.carrying_out import carry_out
    from ablations.comparing.tables import duels, main_table
    from ablations.comparing.writing import shown_lines, shown_table, write
    from ablations.runtime.console import Console

    console = Console(progress)
    seeds = ", ".join(map(str, comparison.seeds))
    console.say(f"{comparison.arm}, seeds {seeds}: {len(comparison.methods)} methods, {comparison.num_prompts} prompts")
    results = carry_out(comparison, console, stop)
    table = main_table(results)
    against = duels(table, results)
    written = write(results, table, against)
    console.table(shown_table(results, table))
    console.say("* differs from our refiner (p < 0.05, Holm-corrected); intervals are in comparison.md")
    for line in shown_lines(against):
        console.say(line)
    for note in table.notes:
        console.say(note)
    console.say(f"written: {written[0]} and {len(written) - 1} other files, prompts, scores and images beside it")
    return 0


if __name__ == "__main__":
    sys.exit(main())

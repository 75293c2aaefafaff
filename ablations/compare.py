"""`python -m ablations.compare [OUTPUT_DIR/ARM | key=value ...]`: our refiner beside other ways to write prompts, in one table.

Exit codes: 0, 2 a mistake of the user's (a model that cannot be had, a key that is not accepted), 143 stopped by a signal, 1 anything else.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # started by its path
    __import__("runtime.by_path")

from ablations.comparing.arguments import prices
from ablations.comparing.making import make_comparison
from ablations.runtime.command_line import OneLineParser, number, run_command, whole_number, whole_numbers

_DESCRIPTION = """\
Compares an arm of ours, over its seeds, with other ways to write a prompt out of the same coarse prompt. Every method samples with the
arm's top-p and top-k (0.95 and 50) unless its makers' settings are named below, its chance keyed by seed, prompt and candidate, and is
drawn at the same image noise.

  OUTPUT_DIR/ARM     an arm's folder: compares its trained seeds
  key=value ...      the arm as python -m ablations.run would train it, seeds 0, 1 and 2; without any argument the default arm. Tiny
                     seeds that are not trained yet are run first (2 minutes each on two cores); others are an error

methods (those marked * need no download and are compared if --methods says nothing; our refiner always is; the others are published
language models, from a folder, the hub or its cache):
{methods}
  --chat [NAME=]MODEL  a model behind an OpenAI-compatible endpoint; give it again for more models

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
_SEEDS = whole_numbers("seeds", "0,1,2", most=2**32 - 1)


def parser() -> OneLineParser:
    """The command line's arguments."""
    from ablations.baselines.register import describe_methods

    made = OneLineParser("compare", _DESCRIPTION.format(methods=describe_methods()), _EXAMPLES)
    made.add_argument("arm", nargs="*", metavar="OUTPUT_DIR/ARM | key=value", help="what of ours is compared (default: the default arm)")
    made.add_argument(
        "--methods", metavar="LIST", help="methods, comma-separated; all: but those that sample in a way of their own (default: *)"
    )
    made.add_argument("--plugins", metavar="LIST", help="modules that add methods or metrics, comma-separated: see docs/extending.md")
    made.add_argument("--seeds", type=_SEEDS, metavar="LIST", help="seeds, comma-separated (default: the folder's; else 0,1,2)")
    made.add_argument("--prompts", type=whole_number(1), metavar="N", help="evaluation prompts (default: tiny 24, else the arm's)")
    made.add_argument(
        "--candidates", type=whole_number(1), metavar="N", help="prompts that each method writes for each (default: the arm's)"
    )
    made.add_argument("--modifiers", type=whole_number(1), metavar="N", help="append N modifiers rather than prompt_len tokens of them")
    made.add_argument("--metrics", metavar="LIST", help="further metrics, comma-separated, or paper, as eval.metrics (default: the arm's)")
    made.add_argument("--missing-metrics", choices=("error", "skip"), help="as eval.missing_metrics (default: the arm's)")
    made.add_argument("--figure-prompts", type=whole_number(1), default=6, metavar="N", help="rows of the figure (%(default)s)")
    made.add_argument("--to", type=Path, metavar="DIR", help="where to write (default: OUTPUT_DIR/comparisons/ARM)")
    made.add_argument("--progress", choices=("auto", "bar", "plain", "none"), default="auto", help="(%(default)s)")
    models = made.add_argument_group("language models")
    models.add_argument(
        "--models", type=Path, metavar="DIR", help="a folder with models as transformers saves them: DIR/gpt2, DIR/flan_t5, ..."
    )
    models.add_argument("--model", action="append", default=[], metavar="NAME=SOURCE", help="where one comes from: a folder or a hub id")
    chat = made.add_argument_group("chat endpoints")
    chat.add_argument(
        "--chat", action="append", default=[], metavar="[NAME=]MODEL", help="a model of the endpoint, NAME for the tables; repeatable"
    )
    chat.add_argument("--chat-url", default="https://api.openai.com/v1", metavar="URL", help="(%(default)s)")
    chat.add_argument(
        "--chat-key-variable", default="OPENAI_API_KEY", metavar="NAME", help="environment variable with the key (%(default)s)"
    )
    chat.add_argument("--chat-instruction", type=Path, metavar="FILE", help="a text file with another instruction than ours")
    chat.add_argument("--chat-top-k", type=whole_number(1), metavar="K", help="send top_k, where the server knows it (OpenAI's does not)")
    chat.add_argument("--chat-rate", type=number(above=0), metavar="N", help="requests a minute at most")
    chat.add_argument("--chat-at-once", type=whole_number(1), default=1, metavar="N", help="requests that are open at a time (%(default)s)")
    chat.add_argument("--chat-timeout", type=number(above=0), default=60.0, metavar="SECONDS", help="patience for one answer (%(default)s)")
    chat.add_argument("--chat-attempts", type=whole_number(1), default=5, metavar="N", help="attempts on a busy server (%(default)s)")
    chat.add_argument("--chat-price", type=prices, metavar="READ,WRITTEN", help="dollars for a million tokens, for the cost line")
    return made


def main(argv: list[str] | None = None) -> int:
    """Make the comparison that the arguments describe; returns the exit code."""
    return run_command(parser(), make_comparison, argv)


if __name__ == "__main__":
    sys.exit(main())

"""`python -m ablations.refine "a green tree"`: refines prompts, with a person at a terminal or line by line in a pipe."""

from __future__ import annotations

import sys

if __name__ == "__main__" and not __package__:  # started by its path
    __import__("runtime.by_path")

from ablations.config import show
from ablations.refiner.arguments import OWN_KEYS, parse_arguments
from ablations.refiner.refining import refine_prompts
from ablations.runtime.command_line import OneLineParser, run_command

_USAGE = """\
usage: python -m ablations.refine [PROMPT] [key=value ...]

Makes short prompts into fuller ones. Without run= and from= it uses the embedded tiny refiner, which was trained on the tiny world
and claims nothing about Stable Diffusion 2.1.

On a terminal it shows three candidates: pick one and it goes on from there. Type r to redraw, b to go back, a text to edit, Enter
to finish, ? for all commands. Elsewhere (a pipe, input=FILE) it reads prompts, one a line, and writes one JSON record a line, in order,
each as soon as it is done:
  {"line": 1, "status": "ok", "reason": null, "coarse": "a green tree", "unknown_words": [], "passed_through": [], "seed": 0, ...,
   "candidates": [{"refined": ...}, ...]}
status is ok, cleaned (control characters were taken out), shortened (more tokens than the decoder takes) or skipped (empty, not
UTF-8); reason says what happened; unknown_words are those that the refiner never saw in training. What other tools read in a prompt,
(word:1.2), [a|b], <lora:name:0.8>, BREAK, --ar 16:9, Negative prompt: ..., is passed through as it stands.

examples:
  python -m ablations.refine "a green tree"
  python -m ablations.refine "a green tree" mode=rewrite max_new_tokens=20
  python -m ablations.refine "a green tree" images=true run=outputs/ARM/seed-0
  python -m ablations.refine "a green tree" from=OWNER/NAME@REVISION
  python -m ablations.refine "a zebra on a beach" mode=rewrite keep=zebra ban=@never.txt
  python -m ablations.refine input=prompts.txt output=refined.jsonl num_candidates=1
  cat prompts.txt | python -m ablations.refine | jq -r '.candidates[].refined'

A word with = in it is a setting; write -- before a prompt that has one. Exit codes: 0 done, 2 a mistake in the arguments,
130 interrupted, 141 the reader of the output went away, 1 anything else.
"""
_EXPLAINED = {
    "prompt_len": "how many tokens a candidate adds to the prompt (mode=extend)",
    "mode": "extend: the prompt as it is, and more (strategy 1); rewrite: the whole prompt written anew (strategy 2)",
    "max_new_tokens": "the longest prompt that mode=rewrite writes, in tokens; the paper takes 20 and 50",
    "num_candidates": "candidates of each prompt",
    "seed": "equal seeds give equal candidates, here, in Python and on the page",
}


def help_text() -> str:
    """The text of --help."""
    column = max(len(f"{name}={show(key.default)}") for name, key in OWN_KEYS.items())
    lines = []
    for name, key in OWN_KEYS.items():
        allowed = "" if key.type in (str, bool) and not key.option.choices else f"; {key.allowed()}"
        lines.append(f"  {f'{name}={show(key.default)}':<{column}}  {_EXPLAINED.get(name, key.option.text)}{allowed}")
    return f"{_USAGE}\nkeys, as key=default:\n\n" + "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Refine as the arguments say; returns the exit code."""
    parser = OneLineParser("refine", usage=lambda argv: help_text(), words=parse_arguments, help_word=False)
    return run_command(parser, refine_prompts, argv, stoppable=False)


if __name__ == "__main__":
    sys.exit(main())

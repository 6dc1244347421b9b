"""Write a tiny chat model with random weights, as llama.cpp's server takes it.

    python make_model.py model.gguf

A token is a byte, so a reply that is sent back consists of the same tokens that were made, and
what a server has of it can be counted exactly. It writes nothing but lower-case letters, for as
long as it may. Needs gguf and numpy.
"""

from __future__ import annotations

import sys
from string import ascii_lowercase

import gguf
import numpy

LAYERS, HIDDEN, FEED, HEADS, HEAD = 6, 512, 2048, 2, 64
"""Few heads: in large models too attention is a small part of the work up to long contexts."""

CONTEXT = 32768

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

CONSTANT = 16.0
"""What every token has in its first dimension, which no layer changes: it carries the biases."""

_random = numpy.random.default_rng(1)


def letters() -> list[str]:
    """The character that stands for each byte in GPT-2's vocabularies."""
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    other = iter(range(256, 512))
    return [chr(byte if byte in plain else next(other)) for byte in range(256)]


def matrix(rows: int, columns: int, scale: float = 1.0) -> numpy.ndarray:
    """Random weights that keep the size of what they are applied to."""
    return _random.standard_normal((rows, columns), numpy.float32) * (scale / columns**0.5)


def inward(columns: int) -> numpy.ndarray:
    """Weights that add to all dimensions but the constant one."""
    made = matrix(HIDDEN, columns, 0.5)
    made[0] = 0
    return made


def weights(vocabulary: list[str]) -> dict[str, numpy.ndarray]:
    """All tensors by name."""
    size, wide = len(vocabulary), HEADS * HEAD
    embedding = _random.standard_normal((size, HIDDEN), numpy.float32)
    embedding[:, 0] = CONSTANT
    head = matrix(size, HIDDEN)
    head[:, 0] = [0.0 if token in ascii_lowercase else -8.0 for token in vocabulary]
    tensors = {"token_embd": embedding, "output": head, "output_norm": ones()}
    for layer in range(LAYERS):
        block = {
            "attn_q": matrix(wide, HIDDEN, 2.0),
            "attn_k": matrix(wide, HIDDEN, 2.0),
            "attn_v": matrix(wide, HIDDEN),
            "attn_output": inward(wide),
            "ffn_gate": matrix(FEED, HIDDEN),
            "ffn_up": matrix(FEED, HIDDEN),
            "ffn_down": inward(FEED),
            "attn_norm": ones(),
            "ffn_norm": ones(),
        }
        tensors |= {f"blk.{layer}.{name}": tensor for name, tensor in block.items()}
    return tensors


def ones() -> numpy.ndarray:
    """A norm that leaves all dimensions as they are."""
    return numpy.ones(HIDDEN, numpy.float32)


def main(path: str) -> None:
    """Write the model."""
    vocabulary = [*letters(), *SPECIAL]
    kinds = [gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * len(SPECIAL)
    end = vocabulary.index("<|im_end|>")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HEAD)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary)
    writer.add_token_types(kinds)
    writer.add_token_merges([f"{letters()[0]} {letters()[0]}"])  # there has to be one
    writer.add_eos_token_id(end)
    writer.add_bos_token_id(end)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in weights(vocabulary).items():
        kept = tensor if tensor.ndim == 1 else tensor.astype(numpy.float16)
        writer.add_tensor(f"{name}.weight", kept)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(sys.argv[1])

"""Frequencies of rotary positions, scaled in each way that transformers knows and Telly reads."""

import json

from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

HEAD_SIZES = (8, 64)
# Settings as `rope_scaling` of config.json has them, beside `rope_theta` and `max_position_embeddings`.
SETTINGS = [
    (10000.0, 2048, {"rope_type": "default"}),
    (1000000.0, 32768, {"rope_type": "default"}),
    (10000.0, 4096, {"rope_type": "linear", "factor": 2.0}),
    (100000.0, 16384, {"rope_type": "linear", "factor": 4.0}),
]
SETTINGS += [
    (
        theta,
        positions,
        {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": original,
        },
    )
    for theta, positions, factor, original in ((10000.0, 128, 8.0, 64), (500000.0, 131072, 32.0, 8192))
]
SETTINGS += [
    (1000000.0, 131072, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}),
    (
        10000.0,
        65536,
        {
            "rope_type": "yarn",
            "factor": 16.0,
            "original_max_position_embeddings": 4096,
            "beta_fast": 16.0,
            "beta_slow": 2.0,
            "attention_factor": 1.25,
        },
    ),
]


def make_rotary_scaling(path, versions):
    """`inverse_frequencies` [head size / 2], and `attention_factor`, which multiplies the cosines and sines."""
    cases = []
    for head_size in HEAD_SIZES:
        for theta, positions, scaling in SETTINGS:
            config = LlamaConfig(
                hidden_size=4 * head_size,
                num_attention_heads=4,
                max_position_embeddings=positions,
                rope_parameters=scaling | {"rope_theta": theta},
            )
            rotary = LlamaRotaryEmbedding(config)
            cases.append(
                {
                    "head_size": head_size,
                    "rope_theta": theta,
                    "max_position_embeddings": positions,
                    "rope_scaling": scaling,
                    "inverse_frequencies": rotary.inv_freq.tolist(),
                    "attention_factor": rotary.attention_scaling,
                }
            )
    path.write_text(json.dumps({"cases": cases, "versions": versions}) + "\n")
    print(f"{path.name}: {len(cases)} cases, factors {sorted({case['attention_factor'] for case in cases})}")

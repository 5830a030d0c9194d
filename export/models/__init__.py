"""The model families that issun exports, by config.json's `model_type`."""

from issun.export.models.family import Family
from issun.export.models.gpt2 import GPT2
from issun.export.models.gpt_neox import GPT_NEOX
from issun.export.models.llama import LLAMA

FAMILIES: dict[str, Family] = {
    "gpt2": GPT2,
    "gpt_neox": GPT_NEOX,
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
}

"""Text for the teacher: T5 embeddings, of which a model's folder holds the two that every run needs.

The encoder (4.9 billion numbers in the published model) is loaded for a prompt alone, and released before anything
else is.

Source: Cosmos' text conditioning: 512 tokens, the embeddings behind the text's end zeroed, no mask in the network.
"""

import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lyra.errors import LyraError
from lyra.files import save_tensors
from lyra.files.hub import fetch_folder
from lyra.models.folder import Origin, add_part, read_config

TOKENS = 512


def embed_texts(
    source: str, texts: Sequence[str], device: str = "cpu", tokens: int = TOKENS
) -> Float[Tensor, "text text_token text_channel"]:
    """T5 embeddings of some texts, in float32 on the CPU; the encoder is gone when this returns.

    Args:
        source: Folder or pinned hub name with ``text_encoder/`` and ``tokenizer/``.
        texts: What to embed.
        device: Where the encoder works.
        tokens: Length; longer texts are cut.

    Raises:
        LyraError: there is no such encoder.
    """
    from transformers import AutoTokenizer, T5EncoderModel

    folder = fetch_folder(source, ("text_encoder", "tokenizer"))
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True, trust_remote_code=False)
        encoder: Any = T5EncoderModel.from_pretrained(
            folder / "text_encoder",
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32 if device == "cpu" else torch.bfloat16,
        )
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        raise LyraError(f"{source} holds no text_encoder/ and tokenizer/ of T5 ({reason})") from error
    encoder = encoder.to(device).eval()
    given = tokenizer(list(texts), padding="max_length", truncation=True, max_length=tokens, return_tensors="pt")
    mask = given["attention_mask"].to(device)
    with torch.no_grad():
        states = encoder(given["input_ids"].to(device), attention_mask=mask).last_hidden_state
    embedded = (states * mask[..., None]).float().cpu()
    del encoder
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    return embedded


def standard_embeddings(source: str, device: str = "cpu") -> dict[str, Tensor]:
    """Embeddings of no text and of the published negative prompt, as a model's ``text/`` holds them."""
    from diffusers.pipelines.cosmos.pipeline_cosmos_video2world import DEFAULT_NEGATIVE_PROMPT

    empty, negative = embed_texts(source, ["", DEFAULT_NEGATIVE_PROMPT], device)
    return {"empty": empty, "negative": negative}


def add_standard_text(folder: Path, source: str, device: str = "cpu") -> bool:
    """Computes a model folder's ``text/`` where it has none; returns whether it had none.

    Raises:
        LyraError: there is no such encoder, or the folder cannot be written to.
    """
    config = read_config(folder)
    if "text" in config.parts:
        return False
    origin = Origin(Path(source).name, "", "Apache-2.0 (T5)")
    with add_part(folder, "text", replace(config), origin) as part:
        tensors = {name: value.bfloat16().contiguous() for name, value in standard_embeddings(source, device).items()}
        save_tensors(tensors, part / "embeddings.safetensors")
    return True


def takes_text(text: dict[str, Tensor]) -> bool:
    """Whether a model was made to read text: one whose two embeddings are nothing but zeros was not."""
    return any(bool((value != 0).any()) for value in text.values())

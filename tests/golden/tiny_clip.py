"""A tiny CLIP whose weights anyone can rebuild: each parameter is drawn from a generator seeded by its own name.

Names and shapes are those of an OpenAI CLIP ViT state dict (visual.conv1.weight, ...,
transformer.resblocks.0.attn.in_proj_weight, ..., token_embedding.weight, logit_scale).
"""

import math
import zlib

import numpy as np

EMBED_DIM, IMAGE_SIZE, PATCH = 32, 64, 16
VISION_WIDTH, VISION_LAYERS = 64, 2  # OpenAI CLIP: heads = width // 64
TEXT_WIDTH, TEXT_LAYERS, TEXT_HEADS = 64, 2, 1
CONTEXT, VOCAB = 77, 49408


def _draw(name: str, shape: tuple[int, ...], std: float, mean: float = 0.0) -> np.ndarray:
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    return (mean + std * rng.standard_normal(shape)).astype(np.float32)


def _blocks(prefix: str, width: int, layers: int) -> dict[str, np.ndarray]:
    out = {}
    for i in range(layers):
        p = f"{prefix}resblocks.{i}."
        for norm in ("ln_1", "ln_2"):
            out[p + norm + ".weight"] = _draw(p + norm + ".weight", (width,), 0.1, 1.0)
            out[p + norm + ".bias"] = _draw(p + norm + ".bias", (width,), 0.1)
        s = 1.0 / math.sqrt(width)
        out[p + "attn.in_proj_weight"] = _draw(p + "attn.in_proj_weight", (3 * width, width), s)
        out[p + "attn.in_proj_bias"] = _draw(p + "attn.in_proj_bias", (3 * width,), 0.05)
        out[p + "attn.out_proj.weight"] = _draw(p + "attn.out_proj.weight", (width, width), s)
        out[p + "attn.out_proj.bias"] = _draw(p + "attn.out_proj.bias", (width,), 0.05)
        out[p + "mlp.c_fc.weight"] = _draw(p + "mlp.c_fc.weight", (4 * width, width), s)
        out[p + "mlp.c_fc.bias"] = _draw(p + "mlp.c_fc.bias", (4 * width,), 0.05)
        out[p + "mlp.c_proj.weight"] = _draw(p + "mlp.c_proj.weight", (width, 4 * width), 0.5 * s)
        out[p + "mlp.c_proj.bias"] = _draw(p + "mlp.c_proj.bias", (width,), 0.05)
    return out


def state_dict() -> dict[str, np.ndarray]:
    """Float32 arrays under OpenAI CLIP's own parameter names."""
    grid = IMAGE_SIZE // PATCH
    out = {
        "visual.class_embedding": (VISION_WIDTH,),
        "visual.positional_embedding": (grid * grid + 1, VISION_WIDTH),
    }
    out = {k: _draw(k, s, 0.5) for k, s in out.items()}
    out["visual.conv1.weight"] = _draw("visual.conv1.weight", (VISION_WIDTH, 3, PATCH, PATCH), 0.05)
    for norm in ("visual.ln_pre", "visual.ln_post", "ln_final"):
        width = TEXT_WIDTH if norm == "ln_final" else VISION_WIDTH
        out[norm + ".weight"] = _draw(norm + ".weight", (width,), 0.1, 1.0)
        out[norm + ".bias"] = _draw(norm + ".bias", (width,), 0.1)
    out["visual.proj"] = _draw("visual.proj", (VISION_WIDTH, EMBED_DIM), VISION_WIDTH**-0.5)
    out |= _blocks("visual.transformer.", VISION_WIDTH, VISION_LAYERS)
    out["positional_embedding"] = _draw("positional_embedding", (CONTEXT, TEXT_WIDTH), 0.1)
    out["token_embedding.weight"] = _draw("token_embedding.weight", (VOCAB, TEXT_WIDTH), 0.5)
    out["text_projection"] = _draw("text_projection", (TEXT_WIDTH, EMBED_DIM), TEXT_WIDTH**-0.5)
    out["logit_scale"] = np.array(math.log(100.0), dtype=np.float32)
    out |= _blocks("transformer.", TEXT_WIDTH, TEXT_LAYERS)
    return out

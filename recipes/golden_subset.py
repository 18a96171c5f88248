"""Writes ``tests/golden``: of the golden tensors of the official code as much as a fresh clone checks parity with.

    python recipes/golden_subset.py ../shared/golden tests/golden

Frames, decoder blocks and intermediates are left out, the published tokenizer is left out whole; what stays is as it
was made. A decoder keeps one block of each kind, which are checked one by one.
"""

import json
import shutil
import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

Tensors = dict[str, Tensor]
WARPED, DIRECTIONS = 2, 2
"""Frames that stay: of warps one pair, which is normalized together."""
WHOLE = ("gaussian_activation", "losses", "ply_example", "trajectories")


def read(path: Path) -> tuple[Tensors, dict]:
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["config"])


def without(tensors: Tensors, *starts: str) -> Tensors:
    return {key: value for key, value in tensors.items() if not key.startswith(starts)}


def warp(tensors: Tensors) -> Tensors:
    def cut(key: str, value: Tensor) -> Tensor:
        framed = key.startswith(("aux.", "cache_", "warp_single")) or key == "input.target_w2c"
        return value[:, :WARPED] if framed else value

    return {key: cut(key, value) for key, value in without(tensors, "mid.mesh_vertices", "mid.mesh_faces").items()}


def decoder(tensors: Tensors, config: dict, dynamic: bool) -> Tensors:
    """Of the static one all but most blocks; of the dynamic one, whose blocks are the same, the embedding."""
    first_attention = config["attention_block_indices"][0]
    kept = () if dynamic else (f"weights.enc_blocks.{first_attention}.", "weights.enc_blocks.0.")
    tensors = {k: v for k, v in tensors.items() if not k.startswith("weights.enc_blocks.") or k.startswith(kept)}
    if not dynamic:
        return without(tensors, "input.c2w", "output.gaussians_pruned")
    names = ("input.latents", "input.plucker_latents", "input.time_latents", "mid.embed", "weights.patch")
    return {key: value for key, value in tensors.items() if key.startswith(names)}


def main(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in WHOLE:
        shutil.copyfile(source / f"{name}.safetensors", target / f"{name}.safetensors")
    shutil.copyfile(source / "ply_example.ply", target / "ply_example.ply")
    made: dict[str, tuple[Tensors, dict]] = {}
    for name in ("forward_warp", "gen3c_dit", "gen3c_sampler", "rays_time"):
        made[name] = read(source / f"{name}.safetensors")
    tensors, config = made["forward_warp"]
    made["forward_warp"] = warp(tensors), config | {"n": WARPED}
    tensors, config = made["gen3c_dit"]
    made["gen3c_dit"] = without(tensors, "mid.", "input.padding_mask"), config
    tensors, config = made["gen3c_sampler"]
    two = ("input.condition_state_n2", "input.condition_state_mask_n2", "condition.pose_latent_n2")
    made["gen3c_sampler"] = without(tensors, *two), config
    tensors, config = made["rays_time"]
    plucker = tensors["output.plucker"][:, :DIRECTIONS]
    made["rays_time"] = without(tensors, "upstream_bf16") | {"output.plucker": plucker}, config
    for kind in ("static", "dynamic"):
        name = f"lyra_decoder_{kind}"
        tensors, config = read(source / f"{name}.safetensors")
        made[name] = decoder(tensors, config, kind == "dynamic"), config
    for name, (tensors, config) in made.items():
        whole = {key: value.contiguous().clone() for key, value in tensors.items()}
        save_file(whole, target / f"{name}.safetensors", {"config": json.dumps(config | {"subset": True})})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""Published depth estimators: the real classes, tiny and random; and their outputs put into known ones."""

import json
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    DepthProConfig,
    DepthProForDepthEstimation,
    Dinov2Config,
)

from lyra.depth import DepthEstimator, scene_depth
from lyra.depth.pretrained import DepthAnything, DepthPro, MoGe, load_depth_estimator
from lyra.errors import LyraError
from lyra.geometry.sky import MAX_DEPTH


def tiny_depth_anything(kind: str = "relative") -> DepthAnythingForDepthEstimation:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
        "out_indices": [1, 2, 3, 4],
        "reshape_hidden_states": False,
        "apply_layernorm": True,
    }
    backbone = Dinov2Config(**settings)
    return DepthAnythingForDepthEstimation(
        DepthAnythingConfig(
            backbone_config=backbone,
            reassemble_hidden_size=16,
            neck_hidden_sizes=[8, 8, 8, 8],
            fusion_hidden_size=8,
            head_hidden_size=4,
            depth_estimation_type=kind,
            max_depth=20 if kind == "metric" else 1,
        )
    )


def tiny_depth_pro() -> DepthProForDepthEstimation:
    torch.manual_seed(0)
    encoder: dict[str, Any] = {
        "model_type": "dinov2",
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "patch_size": 4,
        "image_size": 16,
    }
    return DepthProForDepthEstimation(
        DepthProConfig(
            patch_size=16,
            fusion_hidden_size=16,
            intermediate_hook_ids=[2, 1],
            intermediate_feature_dims=[8, 8],
            scaled_images_ratios=[0.25, 0.5, 1],
            scaled_images_overlap_ratios=[0.0, 0.5, 0.25],
            scaled_images_feature_dims=[8, 8, 8],
            use_fov_model=True,
            num_fov_head_layers=2,
            image_model_config=encoder,
            patch_model_config=encoder,
            fov_model_config=encoder,
        )
    )


@pytest.mark.parametrize("kind", ["depth-anything", "metric", "depth-pro"])
def test_the_real_classes_load_from_a_folder_and_predict(kind: str, tmp_path: Path):
    network = (
        tiny_depth_pro() if kind == "depth-pro" else tiny_depth_anything("metric" if kind == "metric" else "relative")
    )
    network.save_pretrained(tmp_path / "model")
    estimator = load_depth_estimator(str(tmp_path / "model"))
    assert isinstance(estimator, DepthEstimator)
    image = torch.rand(3, 40, 64, generator=torch.Generator().manual_seed(0))
    prediction = estimator.predict(image)
    assert prediction.depth.shape == prediction.valid.shape == (40, 64)
    assert prediction.metric == (kind != "depth-anything")
    assert (prediction.fov_degrees is not None) == (kind == "depth-pro")
    assert prediction.depth.isfinite().all()
    assert (prediction.depth > 0).all()


class Fixed(nn.Module):
    """Says what it is told, at the size it is asked."""

    def __init__(self, config: dict, **outputs: Any):
        super().__init__()
        self.config = SimpleNamespace(**config)
        self.outputs = outputs
        self.seen: Tensor | None = None

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        self.seen = pixel_values
        return SimpleNamespace(**self.outputs)


def test_relative_disparity_becomes_depth_and_the_farthest_sky():
    disparity = torch.full((1, 14, 14), 2.0)
    disparity[:, 7:] = 1.0
    disparity[:, :3] = 0.001  # beyond the far clamp, seen from the median
    network = Fixed({"patch_size": 14, "depth_estimation_type": "relative"}, predicted_depth=disparity)
    prediction = DepthAnything(network, side=28).predict(torch.rand(3, 14, 14))
    assert not prediction.valid[:3].any()
    assert prediction.valid[3:].all()
    depth = scene_depth(prediction)
    assert depth[10, 0] / depth[5, 0] == pytest.approx(2.0)
    assert (depth[:3] == MAX_DEPTH).all()
    assert depth[3:].median() == pytest.approx(1.0)
    seen = network.seen
    assert seen is not None
    assert seen.shape == (1, 3, 28, 28)


def test_pictures_keep_their_aspect_and_are_normalised_as_published():
    network = Fixed({"patch_size": 14, "depth_estimation_type": "relative"}, predicted_depth=torch.ones(1, 28, 42))
    DepthAnything(network, side=28).predict(torch.ones(3, 20, 30))
    seen = network.seen
    assert seen is not None
    assert seen.shape == (1, 3, 28, 42)
    assert torch.allclose(seen[0, 0], torch.tensor((1 - 0.485) / 0.229), atol=1e-4)


def test_depth_pro_s_inverse_depth_is_of_its_focal_length():
    network = Fixed({"patch_size": 4}, predicted_depth=torch.full((1, 16, 16), 0.5), field_of_view=torch.tensor([90.0]))
    prediction = DepthPro(network).predict(torch.rand(3, 20, 40))
    # 90 degrees across 40 pixels is a focal length of 20, and the canonical one is the width.
    assert prediction.depth[0, 0] == pytest.approx(1 / (0.5 * 40 / 20))
    assert prediction.fov_degrees == pytest.approx(math.degrees(2 * math.atan(10 / 20)))
    assert prediction.metric


def test_moge_s_mask_and_lens_are_kept():
    depth = torch.full((20, 40), 4.0)
    depth[0] = torch.inf
    intrinsics = torch.tensor([[0.5, 0, 0.5], [0, 1.0, 0.5], [0, 0, 1]])

    class Network(nn.Module):
        def infer(self, image: Tensor) -> dict[str, Tensor]:
            mask = torch.ones(20, 40, dtype=torch.bool)
            mask[1] = False
            return {"depth": depth, "mask": mask, "intrinsics": intrinsics}

    prediction = MoGe(Network(), metric=False).predict(torch.rand(3, 20, 40))
    assert not prediction.valid[:2].any()
    assert prediction.fov_degrees == pytest.approx(math.degrees(2 * math.atan(10 / 20)))
    assert scene_depth(prediction)[5, 5] == 1


def test_moge_without_its_package_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "config.json").write_text(json.dumps({"encoder": "dinov2_vitl14"}))
    monkeypatch.setitem(sys.modules, "moge", None)
    with pytest.raises(LyraError, match="MoGe is not installed"):
        load_depth_estimator(str(tmp_path))


def test_moge_is_built_by_its_own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from lyra.files import save_tensors

    (tmp_path / "config.json").write_text(json.dumps({"encoder": "x", "version": "v2", "width": 3}))
    save_tensors({"weight": torch.full((3, 2), 5.0), "bias": torch.zeros(3)}, tmp_path / "model.safetensors")

    def by_version(version: str):
        assert version == "v2"
        return lambda encoder, width: nn.Linear(2, width)

    package = ModuleType("moge.model")
    package.import_model_class_by_version = by_version  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "moge", ModuleType("moge"))
    monkeypatch.setitem(sys.modules, "moge.model", package)
    estimator = load_depth_estimator(str(tmp_path))
    assert isinstance(estimator, MoGe)
    assert estimator.metric
    assert (estimator.network.weight == 5).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "has no config.json"), ("{", "is damaged"), ('{"model_type": "bert"}', "holds a 'bert'")],
)
def test_what_is_no_estimator_is_refused(content: str | None, message: str, tmp_path: Path):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(LyraError, match=message):
        load_depth_estimator(str(tmp_path))

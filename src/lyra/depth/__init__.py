"""Depth of one image: the protocol, the small network of ``mini``, and pretrained estimators."""

from lyra.depth.network import DepthNet, DepthNetConfig
from lyra.depth.prediction import DepthEstimator, DepthPrediction, scene_depth

__all__ = ["DepthEstimator", "DepthNet", "DepthNetConfig", "DepthPrediction", "scene_depth"]

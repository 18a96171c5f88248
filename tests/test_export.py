"""Splat files of other programs: written, read by a program that is not ours, and compared in value and picture."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_harmonics import cameras, colorful

import lyra
from lyra.cli.export import export
from lyra.errors import LyraError
from lyra.export.splat_files import SPLAT_FORMATS, SplatFormat, find_format, load_splats, save_splats
from lyra.files import load_ply, save_ply
from lyra.geometry.gaussians import Gaussians, covariances
from lyra.rendering import render

NEEDS = {"compressed.ply": "gsply", "glb": "pygltflib", "gltf": "pygltflib"} | dict.fromkeys(
    ("usdz", "usda", "usdc"), "pxr"
)
WORST = {"compressed.ply": 45.0, "splat": 45.0, "ksplat": 50.0, "spz": 40.0, "sog": 50.0}
"""dB of the picture after a round trip, of Gaussians without harmonics; the others are exact."""


def need(kind: str) -> None:
    for name in {NEEDS.get(kind, "gaussforge"), *(["gaussforge"] if kind == "compressed.ply" else [])}:
        if kind != "ply":
            pytest.importorskip(name)


def psnr(one: Gaussians, other: Gaussians) -> float:
    poses = torch.eye(4).repeat(2, 1, 1)
    poses[1, 1, 3] = -0.4
    error = (render(one, cameras(poses)).color - render(other, cameras(poses)).color).square().mean()
    return float(-10 * error.clamp(min=1e-12).log10())


@pytest.mark.parametrize("kind", SPLAT_FORMATS)
def test_a_round_trip_shows_the_same(tmp_path, kind: SplatFormat):
    need(kind)
    plain = replace(colorful(300), harmonics=None)
    for gaussians, worst in (
        (plain, WORST.get(kind, 100.0)),
        (colorful(300), {"splat": 15.0, "spz": 28.0}.get(kind, 32.0)),
    ):
        path = tmp_path / f"scene.{kind}"
        save_splats(gaussians, path)
        back = load_splats(path)
        assert len(back) == 300
        assert (back.harmonics is None) == (gaussians.harmonics is None or kind == "splat")
        assert psnr(gaussians, back) > worst
        assert torch.equal(lyra.Scene.load(path).gaussians.means, back.means)


def test_gltf_is_what_the_extension_asks_for(tmp_path):
    need("glb")
    gaussians = colorful(20)
    save_splats(gaussians, tmp_path / "scene.glb")
    data = (tmp_path / "scene.glb").read_bytes()
    magic, version, length, size = struct.unpack("<4sIII", data[:16])
    assert (magic, version, length) == (b"glTF", 2, len(data))
    document = json.loads(data[20 : 20 + size])
    primitive = document["meshes"][0]["primitives"][0]
    assert document["extensionsUsed"] == ["KHR_gaussian_splatting"] and primitive["mode"] == 0
    assert primitive["extensions"]["KHR_gaussian_splatting"]["kernel"] == "ellipse"
    names = {f"SH_DEGREE_{d}_COEF_{o}" for d in range(4) for o in range(2 * d + 1)} | {"ROTATION", "SCALE", "OPACITY"}
    assert {f"KHR_gaussian_splatting:{name}" for name in names} <= set(primitive["attributes"])
    view = document["bufferViews"][document["accessors"][primitive["attributes"]["POSITION"]]["bufferView"]]
    start = 28 + size + view["byteOffset"]
    points = np.frombuffer(data[start : start + view["byteLength"]], "<f4").reshape(-1, 3)
    np.testing.assert_array_equal(points * [1, -1, -1], gaussians.means.numpy())


def test_usd_is_valid_and_upright(tmp_path):
    Usd, UsdGeom, UsdVol, Gf = (pytest.importorskip(f"pxr.{name}") for name in ("Usd", "UsdGeom", "UsdVol", "Gf"))
    validation = pytest.importorskip("pxr.UsdValidation")
    gaussians = colorful(20)
    save_splats(gaussians, tmp_path / "scene.usdz")
    stage = Usd.Stage.Open(str(tmp_path / "scene.usdz"))
    assert UsdGeom.GetStageUpAxis(stage) == "Z" and UsdGeom.GetStageMetersPerUnit(stage) == 1
    splats = UsdVol.ParticleField3DGaussianSplat(stage.GetDefaultPrim().GetChildren()[0])
    x, y, z = np.array(splats.GetPositionsAttr().Get()).T
    np.testing.assert_allclose(np.stack([x, -z, y], 1), gaussians.means.numpy(), atol=1e-6)
    first = splats.GetOrientationsAttr().Get()[0]
    # Gf multiplies rows from the right.
    turn = torch.tensor(np.array(Gf.Matrix3d(Gf.Quatd(first)).GetTranspose()), dtype=torch.float32)
    inner = turn @ torch.diag(torch.tensor(np.array(splats.GetScalesAttr().Get()[0])).square()) @ turn.mT
    axes = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    torch.testing.assert_close(inner, axes @ covariances(gaussians)[0] @ axes.mT, atol=1e-6, rtol=1e-3)
    assert splats.GetRadianceSphericalHarmonicsDegreeAttr().Get() == 3
    validators = validation.ValidationRegistry().GetOrLoadAllValidators()
    assert len(validators) > 10
    assert [error.GetMessage() for error in validation.ValidationContext(validators).Validate(stage)] == []


def test_ascii_and_flat_splats(tmp_path):
    plyfile = pytest.importorskip("plyfile")
    gaussians = colorful(30, 3)
    save_ply(gaussians, tmp_path / "scene.ply")
    data = plyfile.PlyData.read(tmp_path / "scene.ply")
    data.text = True
    data.write(tmp_path / "ascii.ply")
    assert psnr(load_ply(tmp_path / "ascii.ply"), load_ply(tmp_path / "scene.ply")) > 100
    rows = data["vertex"].data
    flat = rows[[name for name in rows.dtype.names if name != "scale_2"]]
    element = plyfile.PlyElement.describe(np.array(flat.tolist(), [(n, "f4") for n in flat.dtype.names]), "vertex")
    plyfile.PlyData([element]).write(tmp_path / "flat.ply")
    back = load_ply(tmp_path / "flat.ply")
    torch.testing.assert_close(back.scales[:, 2], 1e-3 * back.scales[:, :2].amin(-1))


def test_the_command(tmp_path, capsys):
    need("spz")
    save_ply(colorful(30), tmp_path / "scene.ply")
    export(tmp_path / "scene.ply", tmp_path / "again.bin", format="spz")
    assert capsys.readouterr().out == ""
    (tmp_path / "again.bin").rename(tmp_path / "again.spz")
    assert len(load_splats(tmp_path / "again.spz")) == 30
    save_ply(replace(colorful(3), harmonics=None), tmp_path / "plain.ply")
    export(tmp_path / "plain.ply", tmp_path / "zeros.ply", sh_rest="zeros")
    assert b"f_rest_44" in (tmp_path / "zeros.ply").read_bytes() and load_ply(tmp_path / "zeros.ply").harmonics is None
    with pytest.raises(LyraError, match="sh-rest"):
        export(tmp_path / "plain.ply", tmp_path / "x.spz", sh_rest="zeros")
    with pytest.raises(LyraError, match="no format"):
        find_format(Path("scene.obj"))
    (tmp_path / "bad.spz").write_bytes(b"nonsense")
    for name in ("bad.spz", "nothing.glb"):
        with pytest.raises(LyraError, match=name):
            load_splats(tmp_path / name)

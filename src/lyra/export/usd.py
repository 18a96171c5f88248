"""USD with ``UsdVolParticleField3DGaussianSplat``: z up, metres, one default prim, as simulators want it.

Scene axes (x right, y down, z forward) become x right, y forward, z up.
"""

import importlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int

from lyra.errors import LyraError, MissingExtraError
from lyra.files.atomic import explain_reading, write_atomically
from lyra.files.splats import SH_DEGREE_0
from lyra.geometry.gaussians import Gaussians, merge, transform

UPRIGHT = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""From scene axes to z up."""
UsdFormat = Literal["usdz", "usda", "usdc"]
ROOT = "/World"
_MODULES = ("Gf", "Sdf", "Tf", "Usd", "UsdGeom", "UsdPhysics", "UsdUtils", "UsdVol", "Vt")


def save_usd(gaussians: Gaussians, path: Path, kind: UsdFormat) -> None:
    """Writes an unbatched set, turned z up.

    Raises:
        LyraError: The file cannot be written.
        MissingExtraError: usd-core is not installed.
        ValueError: The set is batched, empty, or holds NaN or infinity.
    """
    write_stage(path, kind, lambda stage: add_splats(stage, gaussians))


def write_stage(path: Path, kind: UsdFormat, fill: Callable[[Any], None]) -> None:
    """Writes a stage of one default prim ``/World``, z up and in metres, after ``fill`` has put content below it.

    Raises:
        LyraError: The file cannot be written.
        MissingExtraError: usd-core is not installed.
    """
    pxr = library()
    with tempfile.TemporaryDirectory() as folder:
        # A package wants a binary layer inside; the name shows in viewers.
        layer = str(Path(folder) / f"scene.{'usda' if kind == 'usda' else 'usdc'}")
        stage = pxr.Usd.Stage.CreateNew(layer)
        pxr.UsdGeom.SetStageUpAxis(stage, pxr.UsdGeom.Tokens.z)
        pxr.UsdGeom.SetStageMetersPerUnit(stage, 1.0)
        stage.SetDefaultPrim(pxr.UsdGeom.Xform.Define(stage, ROOT).GetPrim())
        fill(stage)
        stage.GetRootLayer().Save()
        whole = layer
        if kind == "usdz":
            whole = str(Path(folder) / "package.usdz")
            if not pxr.UsdUtils.CreateNewUsdzPackage(layer, whole):
                raise LyraError(f"cannot write {path}: the USD package could not be made")
        with write_atomically(path) as temporary:
            temporary.write_bytes(Path(whole).read_bytes())


def add_splats(stage: Any, gaussians: Gaussians) -> Any:
    """Defines ``/World/Splats`` on a z-up stage; returns its prim."""
    pxr = library()
    if gaussians.means.ndim != 2 or len(gaussians) == 0:
        raise ValueError("a USD holds one set of at least one Gaussian")
    turned = transform(gaussians.map(lambda tensor: tensor.detach().cpu().float()), UPRIGHT, torch.zeros(3))
    fields = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in turned.tensors().items()}
    if not all(np.isfinite(values).all() for values in fields.values()):
        raise ValueError("Gaussians to be saved hold NaN or infinity")
    splats = pxr.UsdVol.ParticleField3DGaussianSplat.Define(stage, f"{ROOT}/Splats")
    splats.CreatePositionsAttr(pxr.Vt.Vec3fArray.FromNumpy(fields["means"]))
    # Their memory has the real part last.
    splats.CreateOrientationsAttr(pxr.Vt.QuatfArray.FromNumpy(np.roll(fields["quaternions"], -1, axis=1)))
    splats.CreateScalesAttr(pxr.Vt.Vec3fArray.FromNumpy(np.maximum(fields["scales"], 1e-9)))
    splats.CreateOpacitiesAttr(pxr.Vt.FloatArray.FromNumpy(np.clip(fields["opacities"], 0, 1)))
    base = (fields["colors"][:, None] - 0.5) / SH_DEGREE_0
    waves = np.concatenate([base, fields.get("harmonics", base[:, :0])], axis=1).astype(np.float32)
    splats.CreateRadianceSphericalHarmonicsDegreeAttr(round(waves.shape[1] ** 0.5) - 1)
    coefficients = splats.CreateRadianceSphericalHarmonicsCoefficientsAttr(
        pxr.Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(waves.reshape(-1, 3)))
    )
    if waves.shape[1] > 1:
        coefficients.SetMetadata("elementSize", waves.shape[1])
    splats.CreateProjectionModeHintAttr(pxr.UsdVol.Tokens.perspective)
    splats.CreateSortingModeHintAttr(pxr.UsdVol.Tokens.zDepth)
    reach = 3 * fields["scales"].max(axis=1, keepdims=True)
    low, high = (fields["means"] - reach).min(0), (fields["means"] + reach).max(0)
    splats.CreateExtentAttr(pxr.Vt.Vec3fArray.FromNumpy(np.stack([low, high]).astype(np.float32)))
    pxr.UsdGeom.Imageable(splats).CreatePurposeAttr(pxr.UsdGeom.Tokens.default_)
    return splats.GetPrim()


def add_collider(
    stage: Any, vertices: Float[np.ndarray, "vertex 3"], faces: Int[np.ndarray, "face 3"], ground: bool = True
) -> None:
    """Defines ``/World/Collider``, an invisible static triangle mesh that things bump into, ``/World/Ground``, a plane
    at z = 0, and a physics scene, on a z-up stage.

    Args:
        stage: Of :func:`write_stage`.
        vertices: In metres, z up.
        faces: Fronts by the right-hand rule.
        ground: Whether the plane is there.
    """
    pxr = library()
    mesh = pxr.UsdGeom.Mesh.Define(stage, f"{ROOT}/Collider")
    mesh.CreatePointsAttr(pxr.Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(vertices, np.float32)))
    mesh.CreateFaceVertexCountsAttr(pxr.Vt.IntArray.FromNumpy(np.full(len(faces), 3, np.int32)))
    mesh.CreateFaceVertexIndicesAttr(pxr.Vt.IntArray.FromNumpy(np.ascontiguousarray(faces, np.int32).ravel()))
    mesh.CreateSubdivisionSchemeAttr(pxr.UsdGeom.Tokens.none)
    mesh.CreateExtentAttr(pxr.Vt.Vec3fArray.FromNumpy(np.stack([vertices.min(0), vertices.max(0)]).astype(np.float32)))
    # Purpose "guide" is not drawn, and physics heeds it all the same.
    mesh.CreatePurposeAttr(pxr.UsdGeom.Tokens.guide)
    pxr.UsdPhysics.CollisionAPI.Apply(mesh.GetPrim())
    # A static body may be concave: its own triangles, not a hull that would fill the room.
    shape = pxr.UsdPhysics.MeshCollisionAPI.Apply(mesh.GetPrim())
    shape.CreateApproximationAttr(pxr.UsdPhysics.Tokens.none)
    if ground:
        plane = pxr.UsdGeom.Plane.Define(stage, f"{ROOT}/Ground")
        plane.CreateAxisAttr(pxr.UsdGeom.Tokens.z)
        plane.CreatePurposeAttr(pxr.UsdGeom.Tokens.guide)
        pxr.UsdPhysics.CollisionAPI.Apply(plane.GetPrim())
    physics = pxr.UsdPhysics.Scene.Define(stage, f"{ROOT}/PhysicsScene")
    physics.CreateGravityDirectionAttr(pxr.Gf.Vec3f(0, 0, -1))
    physics.CreateGravityMagnitudeAttr(9.81)


def load_usd(path: Path) -> Gaussians:
    """Reads every 3D Gaussian splat field of a USD, through the transforms above it, into scene axes and metres.

    Raises:
        LyraError: The file is missing or damaged, or holds no splats, or a transform is no similarity.
        MissingExtraError: usd-core is not installed.
    """
    pxr = library()
    with explain_reading(path), Path(path).open("rb"):
        pass
    try:
        stage = pxr.Usd.Stage.Open(str(path))
    except pxr.Tf.ErrorException as error:
        raise LyraError(f"{path} is no USD that can be read ({str(error)[:120]}): make it again") from None
    parts = []
    for prim in stage.Traverse():
        if prim.IsA(pxr.UsdVol.ParticleField3DGaussianSplat):
            above = np.array(pxr.UsdGeom.Xformable(prim).ComputeLocalToWorldTransform(pxr.Usd.TimeCode.Default()))
            parts.append(_place(_read(path, pxr.UsdVol.ParticleField3DGaussianSplat(prim)), above, path))
    if not parts:
        raise LyraError(f"{path} holds no ParticleField3DGaussianSplat: give a USD of splats")
    y_up = pxr.UsdGeom.GetStageUpAxis(stage) == pxr.UsdGeom.Tokens.y
    turn = torch.diag(torch.tensor([1.0, -1.0, -1.0])) if y_up else UPRIGHT.mT
    return transform(merge(parts), turn, torch.zeros(3), pxr.UsdGeom.GetStageMetersPerUnit(stage))


def _place(gaussians: Gaussians, above: np.ndarray, path: Path) -> Gaussians:
    """Through a transform of USD, which multiplies rows from the right."""
    linear = torch.from_numpy(above[:3, :3].T).float()
    scale = float(torch.linalg.det(linear).abs() ** (1 / 3))
    rotation = linear / max(scale, 1e-12)
    if torch.linalg.det(linear) <= 0 or not torch.allclose(rotation @ rotation.mT, torch.eye(3), atol=1e-3):
        raise LyraError(f"{path} stretches or mirrors its splats by a transform: apply it to the points first")
    return transform(gaussians, rotation, torch.from_numpy(above[3, :3]).float(), scale)


def _read(path: Path, splats: Any) -> Gaussians:
    def values(name: str) -> torch.Tensor:
        full, half = getattr(splats, f"Get{name}Attr")().Get(), getattr(splats, f"Get{name}hAttr")().Get()
        found = full if full is not None and len(full) else half
        if found is None:
            raise LyraError(f"{path} holds splats without {name.lower()}: make the file again")
        return torch.from_numpy(np.array(found, dtype=np.float32))

    means = values("Positions")
    degree = splats.GetRadianceSphericalHarmonicsDegreeAttr().Get()
    waves = values("RadianceSphericalHarmonicsCoefficients").reshape(len(means), -1, 3)
    if waves.shape[1] != (degree + 1) ** 2:
        raise LyraError(f"{path} has {waves.shape[1]} harmonics a splat at degree {degree}: make the file again")
    colors, harmonics = waves[:, 0] * SH_DEGREE_0 + 0.5, waves[:, 1:16]
    plain = degree == 0 or not bool(harmonics.any())
    quaternions = values("Orientations").roll(1, dims=1)
    return Gaussians(
        means=means,
        scales=values("Scales"),
        quaternions=torch.nn.functional.normalize(quaternions, dim=-1),
        opacities=values("Opacities"),
        colors=colors.clamp(0, 1) if plain else colors,
        harmonics=None if plain else harmonics,
    )


def library() -> Any:
    """USD's Python modules by their names; Any, since what they hold is only known when they run.

    Raises:
        MissingExtraError: usd-core is not installed.
    """
    try:
        modules = {name: importlib.import_module(f"pxr.{name}") for name in _MODULES}
    except ImportError:
        raise MissingExtraError("usd-core", "export", "USD") from None
    return SimpleNamespace(**modules)

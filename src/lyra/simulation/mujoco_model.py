"""A scene as a MuJoCo model: its convex parts, the ground, and optionally a small robot."""

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from lyra.files.atomic import explain_writing
from lyra.simulation.collider import Part

ROBOT_RADIUS = 0.15


def save_mjcf(parts: Sequence[Part], folder: Path, robot: tuple[float, float] | None = None) -> Path:
    """Writes ``scene.xml`` and ``parts/*.obj`` into a folder; returns the first.

    Args:
        parts: Of the collider, in metres with z up.
        folder: Made where it is missing.
        robot: Where a wheeled robot stands (x, y): a cylinder that slides in x and y and turns, with velocity motors
            ``drive_x``, ``drive_y``, ``turn`` and a camera ``eye``; none when left out.

    Raises:
        LyraError: a file cannot be written.
    """
    root = ElementTree.Element("mujoco", model="lyra scene")
    ElementTree.SubElement(root, "compiler", angle="radian", meshdir="parts")
    ElementTree.SubElement(root, "option", timestep="0.005", integrator="implicitfast")
    assets, world = ElementTree.SubElement(root, "asset"), ElementTree.SubElement(root, "worldbody")
    ElementTree.SubElement(world, "light", pos="0 0 4", dir="0 0 -1")
    ElementTree.SubElement(world, "geom", name="ground", type="plane", size="0 0 0.05", rgba="0.5 0.5 0.5 1")
    with explain_writing(folder):
        (Path(folder) / "parts").mkdir(parents=True, exist_ok=True)
        for index, part in enumerate(parts):
            name = f"part{index:04d}"
            (Path(folder) / "parts" / f"{name}.obj").write_text(_obj(part))
            ElementTree.SubElement(assets, "mesh", name=name, file=f"{name}.obj", inertia="shell")
            ElementTree.SubElement(world, "geom", name=name, type="mesh", mesh=name, rgba="0.7 0.7 0.75 1")
        if robot is not None:
            _add_robot(root, world, robot)
        ElementTree.indent(root)
        path = Path(folder) / "scene.xml"
        path.write_text(ElementTree.tostring(root, encoding="unicode") + "\n")
    return path


def _obj(part: Part) -> str:
    lines = [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in part.vertices]
    return "\n".join([*lines, *(f"f {a} {b} {c}" for a, b, c in part.faces + 1)]) + "\n"


def _add_robot(root: ElementTree.Element, world: ElementTree.Element, place: tuple[float, float]) -> None:
    # Its belly clears steps of 5 cm, which a wheel would climb.
    body = ElementTree.SubElement(world, "body", name="robot", pos=f"{place[0]:.4f} {place[1]:.4f} 0.3")
    for name, kind, axis in (("x", "slide", "1 0 0"), ("y", "slide", "0 1 0"), ("yaw", "hinge", "0 0 1")):
        ElementTree.SubElement(body, "joint", name=name, type=kind, axis=axis, damping="1")
    ElementTree.SubElement(body, "geom", type="cylinder", size=f"{ROBOT_RADIUS} 0.2", mass="5", rgba="0.9 0.4 0.1 1")
    # MuJoCo's cameras look along their -z.
    ElementTree.SubElement(body, "camera", name="eye", pos="0 0 0.25", xyaxes="1 0 0 0 0 1", fovy="70")
    motors = ElementTree.SubElement(root, "actuator")
    for name, joint, gain in (("drive_x", "x", 60), ("drive_y", "y", 60), ("turn", "yaw", 5)):
        ElementTree.SubElement(motors, "velocity", name=name, joint=joint, kv=str(gain))


def camera_of(position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Camera-to-world in our axes (y down, z forward) of MuJoCo's ``cam_xpos`` and ``cam_xmat`` (y up, z backward)."""
    pose = np.eye(4)
    pose[:3, :3] = rotation.reshape(3, 3) @ np.diag([1.0, -1.0, -1.0])
    pose[:3, 3] = position
    return pose

"""The versions of other packages that this one declares, and the lowest of each as pip's constraints.

python -m lyra.cli.bounds > lowest.txt
"""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.version import Version

PRINTED = ("", "video", "viewer", "photos")
"""Extras whose lowest versions are printed; the empty one is what is always needed."""
_HELD = ("torch",)
"""Left out of the constraints: the lowest torch has no build without gigabytes of CUDA."""


def declared(extras: Sequence[str] = PRINTED, texts: Sequence[str] | None = None) -> list[Requirement]:
    """What the installed package (or ``texts``, as its metadata have them) needs, with some of its extras."""
    found = []
    for text in (requires("lyra") or []) if texts is None else texts:
        need = Requirement(text)
        wanted = need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras)
        if wanted and need.name != "lyra":
            found.append(need)
    return found


def misfit(need: Requirement) -> str | None:
    """What is wrong with the installed version of a package, in words; None where it fits or is not installed."""
    try:
        installed = version(need.name)
    except PackageNotFoundError:
        return None
    if need.specifier.contains(installed, prereleases=True):
        return None
    return (
        f"{need.name} {installed} is installed, {need.specifier} is needed: pip install '{need.name}{need.specifier}'"
    )


def lowest(needs: Sequence[Requirement] | None = None) -> list[str]:
    """``name==version`` of the lowest version of each declared package."""
    lines = []
    for need in declared() if needs is None else needs:
        bounds = [Version(spec.version) for spec in need.specifier if spec.operator in (">=", "==", "~=")]
        if bounds and need.name not in _HELD:
            lines.append(f"{need.name}=={max(bounds)}")
    return sorted(set(lines))


if __name__ == "__main__":
    print("\n".join(lowest()))

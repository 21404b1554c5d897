"""How stiff and how permeable a sheet cut like the picture would be: a model of the picture.

The two phases of a picture are taken for a flat sheet that repeats in both directions. On
one cell of it, one square finite element per pixel, the periodic problems of linear
elasticity (plane stress) and of diffusion are solved for unit mean strains and gradients;
the energies are the effective constants. See `ASSUMPTIONS` for what that leaves out.

Source: Michel, Moulinec and Suquet, CMAME 172 (1999) 109, section 2; elements by scikit-fem.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imagegen.coarsening import coarser_phase
from imagegen.phases import Mask
from orbweave.errors import UsageError

__all__ = ["ASSUMPTIONS", "Homogenised", "Moduli", "homogenise"]

Matrix = NDArray[np.float64]

ASSUMPTIONS = (
    "a model of the picture, not a measurement of a material",
    "a flat sheet of even thickness in plane stress, cut along the threshold of the picture",
    "the picture repeats in both directions; where opposite edges differ, the seam is part of it",
    "the solid is one isotropic, linearly elastic material; small strains, no buckling, no contact",
    "void elements are kept with 1e-6 of the solid's stiffness or diffusivity",
    "one bilinear element per pixel: struts of one or two pixels come out too stiff",
)
VOID_RATIO = 1e-6
"""Stiffness and diffusivity of the other phase relative to the first; 0 would be singular."""
MIN_SIDE_PX, MAX_SIDE_PX = 8, 512
"""The direct solver needs 0.5 GB at 256 x 256 and grows a little faster than the pixels."""


class Moduli(NamedTuple):
    """Engineering constants of the sheet along the picture's axes, from the compliance."""

    ex: float
    """Young's modulus left to right, in the unit of the solid's."""
    ey: float
    """Young's modulus up and down."""
    gxy: float
    """Shear modulus."""
    nu_xy: float
    """Contraction up and down under stretch left to right."""
    nu_yx: float


class Homogenised(NamedTuple):
    """Effective constants of a periodic sheet."""

    stiffness: tuple[tuple[float, ...], ...]
    """3 x 3, plane stress, rows and columns xx, yy, xy (engineering shear); unit of `young`."""
    moduli: Moduli
    diffusivity_solid: tuple[tuple[float, ...], ...]
    """2 x 2, of what moves in the solid only, relative to the bulk solid."""
    diffusivity_void: tuple[tuple[float, ...], ...]
    """2 x 2, of what moves in the void only, relative to free space."""
    solid_fraction: float
    """Of the cell as computed, in [0, 1]."""
    size_px: tuple[int, int]
    """(height, width) of the cell in elements."""
    seam: float
    """Share of edge pixels that do not meet their own phase across the seam, in [0, 1]."""
    change_from_half: float
    """Largest change of a stiffness against half the resolution, as a share of the largest: how
    far from converged."""
    seconds: float
    assumptions: tuple[str, ...] = ASSUMPTIONS


def homogenise(
    solid: Mask,
    *,
    young: float = 1.0,
    poisson: float = 0.3,
    void_ratio: float = VOID_RATIO,
    check: bool = True,
) -> Homogenised:
    """Return the effective constants of the sheet whose repeating cell is `solid`.

    Args:
        solid: Shape (H, W), rows downwards as in a picture; see `imagegen.coarsening`.
        young: Young's modulus of the solid, any unit.
        poisson: Poisson's ratio of the solid, in (-1, 0.5].
        void_ratio: Stiffness and diffusivity of the void relative to the solid, in (0, 1].
        check: Also solve at half the resolution, a quarter more time, for `change_from_half`;
            without it that is NaN.

    Raises:
        UsageError: a number out of range, or a cell smaller than 8 or larger than 512 pixels.
    """
    _check(solid, young, poisson, void_ratio)
    start = time.perf_counter()
    cell = solid[::-1]  # y upwards
    stiffness = young * _elastic(cell, poisson, void_ratio)
    change = float("nan")
    if check and min(solid.shape) >= 2 * MIN_SIDE_PX:
        coarse = young * _elastic(coarser_phase(cell, max(cell.shape) // 2), poisson, void_ratio)
        change = float(np.abs(stiffness - coarse).max() / np.abs(stiffness).max())
    return Homogenised(
        stiffness=_rows(stiffness),
        moduli=_moduli(stiffness),
        diffusivity_solid=_rows(_diffusive(cell, void_ratio)),
        diffusivity_void=_rows(_diffusive(~cell, void_ratio)),
        solid_fraction=float(solid.mean()),
        size_px=(solid.shape[0], solid.shape[1]),
        seam=_seam(solid),
        change_from_half=change,
        seconds=round(time.perf_counter() - start, 2),
    )


def _check(solid: Mask, young: float, poisson: float, void_ratio: float) -> None:
    if not (MIN_SIDE_PX <= min(solid.shape) and max(solid.shape) <= MAX_SIDE_PX):
        raise UsageError(
            f"wanted a cell of {MIN_SIDE_PX} to {MAX_SIDE_PX} pixels a side, got "
            f"{solid.shape[1]} x {solid.shape[0]}; choose another resolution"
        )
    if not 0 < young < float("inf") or not -1 < poisson <= 0.5 or not 0 < void_ratio <= 1:
        raise UsageError(
            "wanted young > 0 and finite, poisson in (-1, 0.5] and void_ratio in (0, 1], got "
            f"{young}, {poisson} and {void_ratio}"
        )


def _elastic(cell: Mask, poisson: float, void_ratio: float) -> Matrix:
    """Effective plane-stress stiffness, shape (3, 3), for a solid with Young's modulus 1."""
    from skfem import (  # type: ignore[import-untyped]
        Basis,
        BilinearForm,
        ElementQuad1,
        ElementVector,
    )
    from skfem.helpers import ddot, eye, sym_grad, trace  # type: ignore[import-untyped]

    mesh, order = _grid(cell.shape)
    basis = Basis(mesh, ElementVector(ElementQuad1()))
    scale = np.where(cell, 1.0, void_ratio).ravel()[order]
    mu, lam = 1 / (2 * (1 + poisson)), poisson / (1 - poisson**2)

    def energy(u: Any, v: Any, w: Any) -> Any:
        strain = sym_grad(u)
        stress = 2 * mu * strain + eye(lam * trace(strain), 2)
        return w.scale * ddot(stress, sym_grad(v))

    x, y = basis.doflocs
    horizontal = np.zeros(basis.N, bool)
    horizontal[basis.nodal_dofs[0]] = True
    # Displacements of unit mean strains xx, yy and (engineering) xy.
    loads = [
        np.where(horizontal, x, 0.0),
        np.where(horizontal, 0.0, y),
        np.where(horizontal, y, x) / 2,
    ]
    matrix = BilinearForm(energy).assemble(basis, scale=_per_point(basis, scale))
    masters = _masters(mesh.p, cell.shape)
    tie = np.empty(basis.N, np.int64)
    for component in (0, 1):
        tie[basis.nodal_dofs[component]] = basis.nodal_dofs[component][masters]
    return _energies(matrix, tie, loads, basis.nodal_dofs[:, 0]) / cell.size


def _diffusive(phase: Mask, void_ratio: float) -> Matrix:
    """Effective diffusivity in a phase of diffusivity 1, shape (2, 2)."""
    from skfem import Basis, BilinearForm, ElementQuad1
    from skfem.helpers import dot, grad

    mesh, order = _grid(phase.shape)
    basis = Basis(mesh, ElementQuad1())
    scale = np.where(phase, 1.0, void_ratio).ravel()[order]

    def energy(u: Any, v: Any, w: Any) -> Any:
        return w.scale * dot(grad(u), grad(v))

    matrix = BilinearForm(energy).assemble(basis, scale=_per_point(basis, scale))
    tie = np.empty(basis.N, np.int64)
    tie[basis.nodal_dofs[0]] = basis.nodal_dofs[0][_masters(mesh.p, phase.shape)]
    return _energies(matrix, tie, list(basis.doflocs), basis.nodal_dofs[:, 0]) / phase.size


def _grid(shape: tuple[int, ...]) -> tuple[Any, NDArray[np.int64]]:
    """A mesh of unit squares, and for each element the number of its pixel, row by row."""
    from skfem import MeshQuad

    mesh = MeshQuad.init_tensor(np.arange(shape[1] + 1.0), np.arange(shape[0] + 1.0))
    x, y = mesh.p[:, mesh.t].mean(1)
    return mesh, y.astype(np.int64) * shape[1] + x.astype(np.int64)


def _per_point(basis: Any, values: Matrix) -> Matrix:
    """One value per element, repeated for its integration points."""
    return np.broadcast_to(values[:, None], (len(values), basis.X.shape[-1]))


def _masters(at: Matrix, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """For each node the one it moves with: right edge as left, upper edge as lower."""
    x, y = np.rint(at).astype(np.int64)
    number = np.empty((shape[0] + 1, shape[1] + 1), np.int64)
    number[y, x] = np.arange(len(x))
    masters: NDArray[np.int64] = number[y % shape[0], x % shape[1]]
    return masters


def _energies(matrix: Any, tie: NDArray[np.int64], loads: list[Matrix], pinned: Any) -> Matrix:
    """Energies of pairs of load cases after each has relaxed by a periodic displacement.

    Args:
        matrix: Sparse and symmetric, (n, n).
        tie: For each unknown the one that it equals in a periodic field.
        loads: Fields of unit mean gradient, (n,) each.
        pinned: Unknowns held at zero, one per component: a shift costs no energy.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import splu

    n = len(tie)
    free = np.setdiff1d(np.unique(tie), tie[pinned])
    column = np.full(n, -1)
    column[free] = np.arange(len(free))
    rows = np.flatnonzero(column[tie] >= 0)
    ones = (np.ones(len(rows)), (rows, column[tie[rows]]))
    spread = coo_array(ones, shape=(n, len(free))).tocsc()
    reduced = (spread.T @ matrix @ spread).tocsc()
    factors = splu(reduced, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
    fields = np.stack(loads, 1)
    relaxed = fields - spread @ factors.solve(np.asarray(spread.T @ (matrix @ fields)))
    energies: Matrix = relaxed.T @ (matrix @ relaxed)
    return (energies + energies.T) / 2


def _moduli(stiffness: Matrix) -> Moduli:
    s = np.linalg.inv(stiffness)
    return Moduli(
        ex=float(1 / s[0, 0]),
        ey=float(1 / s[1, 1]),
        gxy=float(1 / s[2, 2]),
        nu_xy=float(-s[1, 0] / s[0, 0]),
        nu_yx=float(-s[0, 1] / s[1, 1]),
    )


def _seam(solid: Mask) -> float:
    apart = [solid[0] != solid[-1], solid[:, 0] != solid[:, -1]]
    return float(np.concatenate(apart).mean())


def _rows(matrix: Matrix) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(v) for v in row) for row in matrix)

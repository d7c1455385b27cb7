"""`pissa.LinearAlgebra` on torch tensors."""

import torch
from torch import Tensor

from ai_forge.training.backends.torch_model import compute_dtype


class TorchAlgebra:
    """See `pissa.LinearAlgebra`."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)  # the CPU's, so that every device gets the same sketch

    def normal(self, n_rows: int, n_columns: int, like: Tensor) -> Tensor:
        """A standard normal matrix [n_rows, n_columns]."""
        return torch.randn(n_rows, n_columns, generator=self.generator).to(like)

    def uniform(self, n_rows: int, n_columns: int, bound: float, like: Tensor) -> Tensor:
        """Uniform between −bound and bound [n_rows, n_columns]."""
        return (torch.rand(n_rows, n_columns, generator=self.generator) * 2 - 1).to(like) * bound

    def zeros(self, n_rows: int, n_columns: int, like: Tensor) -> Tensor:
        """Zeros [n_rows, n_columns]."""
        return torch.zeros(n_rows, n_columns, dtype=like.dtype, device=like.device)

    def orthonormal(self, matrix: Tensor) -> Tensor:
        """A basis of the columns; Householder's where they depend on each other."""
        # Cholesky's factor of the Gram matrix in float64 is mostly one matrix product: half the time of Householder's QR for
        # 144 of 3,072 columns on a CPU, a tenth for few columns on a GPU.
        wide = matrix.double()
        factor, failed = torch.linalg.cholesky_ex(wide.T @ wide)
        diagonal = factor.diagonal()
        if int(failed) or float(diagonal.min()) < 1e-6 * float(diagonal.max()):  # the Gram matrix squares the condition
            q: Tensor = torch.linalg.qr(matrix).Q
            return q
        basis: Tensor = torch.linalg.solve_triangular(factor, wide.T, upper=False).T.to(matrix.dtype).contiguous()
        return basis

    def eigenvalues(self, symmetric: Tensor) -> list[float]:
        """Eigenvalues of a symmetric matrix, rising."""
        values: list[float] = torch.linalg.eigvalsh(symmetric.double()).tolist()
        return values

    def eigenvectors(self, symmetric: Tensor) -> Tensor:
        """Eigenvectors, that of the largest eigenvalue first."""
        vectors: Tensor = torch.linalg.eigh(symmetric.double()).eigenvectors.flip(1).to(symmetric.dtype)
        return vectors

    def svd(self, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reduced singular value decomposition."""
        u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
        return u, s, vt

    def norm(self, matrix: Tensor) -> float:
        """Frobenius norm, the rows summed in float64."""
        return float(torch.linalg.vector_norm(torch.linalg.vector_norm(matrix, dim=1), dtype=torch.float64))

    def laid_out(self, matrix: Tensor, rough: bool) -> Tensor:
        """The matrix contiguous; `rough`: in the type that models are computed in on its device."""
        if rough:
            matrix = matrix.to(compute_dtype(matrix.device))
        return matrix.contiguous()

    def product(self, matrix: Tensor, block: Tensor) -> Tensor:
        """`matrix` @ `block` as float32."""
        return (matrix @ block.to(matrix.dtype)).float()

    def roughness(self, matrix: Tensor) -> float:
        """Square of the relative rounding of `product` where it is rough."""
        if compute_dtype(matrix.device) == torch.float32:
            return 0.0
        return 2.0**-18  # bf16 carries 8 bits: 2^-9, squared

"""The proof that a freshly initialised model says what its base says, in figures of any array library.

Three models read one text: the base, the base with its weights plainly quantized, and the one with fresh adapters. Without
quantization the weights and the logits must be the base's but for rounding; with it the logits may be no further from the base's
than those of plain quantization. A run that fails this stops: what was asked for was not built.
"""

import math
from dataclasses import asdict

from ai_forge.config import FineTuneConfig
from ai_forge.errors import InternalError
from ai_forge.events import AdapterInitialised
from ai_forge.training.adapters.initialisation import rank_of

ALLOWED_RATIO = 1.10  # of QPiSSA's divergence to plain quantization's: both are single draws of a rounding error


class WeightErrors:
    """Sums over the matrices of squared distances from the base's weights."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._error, self._error_quantized, self._norm = 0.0, 0.0, 0.0
        self._worst_layer, self._worst = "", 0.0

    def add(self, name: str, error: float, error_quantized: float, norm: float) -> None:
        """Count the matrix `name`: squared distances of what was built and of plain quantization, and its squared norm."""
        self._names.append(name)
        self._error += error
        self._error_quantized += error_quantized
        self._norm += norm
        if error > self._worst**2 * norm:
            self._worst_layer, self._worst = name, math.sqrt(error / norm)

    def report(
        self, config: FineTuneConfig, quantization: str, n_trainable: int, kl: tuple[float, float], seconds: float
    ) -> AdapterInitialised:
        """What was initialised; `kl` are the divergences of the fresh model and of the plainly quantized base."""
        kl_initialised, kl_quantized_base = kl
        return AdapterInitialised(
            init_method=config.method_name,
            quantization=quantization,
            rank=config.rank,
            n_matrices=len(self._names),
            n_trainable=n_trainable,
            relative_error=math.sqrt(self._error / self._norm),
            kl_initialised=kl_initialised,
            kl_quantized_base=kl_quantized_base,
            seconds=seconds,
            relative_error_quantized=math.sqrt(self._error_quantized / self._norm),
            worst_layer=self._worst_layer,
            worst_relative_error=self._worst,
            n_other_ranks=sum(rank_of(config, name) != config.rank for name in self._names),
        )


def require_proof(report: AdapterInitialised, weight_tolerance: float, kl_tolerance: float) -> None:
    """Raises `InternalError` where weights or logits are further from the base's than rounding and quantization explain."""
    method = f"Right after {report.init_method} initialisation"
    if report.quantization == "none" and not report.worst_relative_error <= weight_tolerance:  # so that NaN fails, too
        raise InternalError(
            f"{method} {report.worst_layer} is {report.worst_relative_error:.2e} from the base's weight, relatively; "
            f"at most {weight_tolerance:.2e} is rounding ({asdict(report)})."
        )
    allowed = ALLOWED_RATIO * report.kl_quantized_base + kl_tolerance
    if not report.kl_initialised <= allowed:  # NaN fails here, too
        raise InternalError(
            f"{method} the logits are {report.kl_initialised:.2e} nats from the base's; "
            f"at most {allowed:.2e} is explained by quantization ({asdict(report)})."
        )

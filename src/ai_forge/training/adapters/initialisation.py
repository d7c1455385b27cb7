"""How an adapter starts, by `init_method`: the factors B·A and what the frozen weight holds beside them.

    method   A, B at the start                        frozen weight                start without quantization
    pissa    leading singular triplets of W           W − s·B·A                    the base
    lora     random A, zero B                         W                            the base
    loftq    zero; then triplets of W − NF4(W)        W (arXiv 2310.08659)         needs quantization

Where the frozen weight is quantized, `quantization_iterations` alternates: quantize what the factors leave, then let the
factors take the leading triplets of what quantization loses. For pissa one iteration is the paper's QPiSSA; with more,
and for loftq always, the last thing fitted are the factors, so s·B·A + NF4(…) is nearest to W for that quantized weight.

The functions work on any array library (`pissa.LinearAlgebra`) and any quantizer: a function from a float32 matrix to
the float32 values that will be held.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ai_forge.config import FineTuneConfig
from ai_forge.config.training import ALL_LINEAR
from ai_forge.errors import InputError
from ai_forge.model_files.adapter import of_layer
from ai_forge.training.adapters.pissa import Array, LinearAlgebra, pissa_factors

Quantize = Callable[[Array], Array]
"""From a float32 matrix to the values that its quantized form holds, float32."""

HEAD = "lm_head"

Value = TypeVar("Value")


@dataclass(frozen=True)
class Start:
    """`a` [rank, in] and `b` [out, rank] and the matrix [out, in] that is to be frozen (and quantized, where it is)."""

    a: Array
    b: Array
    frozen: Array


def chosen_layers(linear_layers: Sequence[str], names: Sequence[str]) -> list[str]:
    """The linear layers (full names) that get an adapter.

    A name is the end of a layer's full name; `all-linear` is every layer but the head, as in PEFT.

    >>> layers = ["layers.0.mlp.up_proj", "layers.0.self_attn.q_proj", "lm_head"]
    >>> chosen_layers(layers, ["q_proj", "mlp.up_proj"]) == chosen_layers(layers, ["all-linear"])
    True

    Raises:
        InputError: a name fits no layer.
    """
    if tuple(names) == (ALL_LINEAR,):
        return [layer for layer in linear_layers if layer.rpartition(".")[2] != HEAD]

    def fits(layer: str, name: str) -> bool:
        return layer == name or layer.endswith(f".{name}")

    missing = [name for name in names if not any(fits(layer, name) for layer in linear_layers)]
    if missing:
        known = sorted({full.rpartition(".")[2] for full in linear_layers})
        raise InputError(
            f"target_modules names {', '.join(missing)}, which this base does not have.",
            f"its linear layers are {', '.join(known)}.",
        )
    return [layer for layer in linear_layers if any(fits(layer, name) for name in names)]


def require_fitting_patterns(config: FineTuneConfig, adapted_layers: Sequence[str]) -> None:
    """Every key of `rank_pattern` and `alpha_pattern` must fit a layer that is adapted: a misspelt one changes nothing.

    Raises:
        InputError: one fits none.
    """
    for setting in ("rank_pattern", "alpha_pattern"):
        for key in getattr(config, setting):
            if not any(of_layer({key: True}, layer, False) for layer in adapted_layers):
                known = sorted({layer.rpartition(".")[2] for layer in adapted_layers})
                raise InputError(
                    f"training.{setting} names {key!r}, which fits no layer that is adapted ({', '.join(known)}).",
                    "correct it, leave it out, or add the layer to training.target_modules.",
                )


def rank_of(config: FineTuneConfig, name: str) -> int:
    """The rank of the adapter on layer `name`."""
    return of_layer(config.rank_pattern, name, config.rank)


def scaling_of(config: FineTuneConfig, name: str) -> float:
    """What B·A is multiplied by on layer `name`: alpha / rank, with rsLoRA alpha / √rank (arXiv 2312.03732)."""
    alpha, rank = of_layer(config.alpha_pattern, name, config.alpha), rank_of(config, name)
    return alpha / (rank**0.5 if config.use_rslora else rank)


def initial_adapter(
    weight: Array, name: str, config: FineTuneConfig, algebra: LinearAlgebra, quantize: Quantize | None
) -> Start:
    """The start of the adapter on `weight` [out, in], float32; `quantize` is None where nothing is quantized.

    Raises:
        InputError: the rank is larger than the matrix allows.
    """
    rank, scaling = rank_of(config, name), scaling_of(config, name)
    n_out, n_in = weight.shape
    if rank > min(n_out, n_in):
        raise InputError(
            f"rank {rank} is larger than {min(n_out, n_in)}, the smaller side of {name} {[n_out, n_in]}.",
            f"choose a rank of at most {min(n_out, n_in)}.",
        )
    if config.init_method == "lora":
        a = algebra.uniform(rank, n_in, n_in**-0.5, like=weight)  # kaiming_uniform(a=√5), as in LoRA's and PEFT's code
        return Start(a, algebra.zeros(n_out, rank, like=weight), weight)
    oversampling, tolerance = config.svd_oversampling, config.svd_tolerance

    def fitted(matrix: Array) -> tuple[Array, Array]:
        factors = pissa_factors(matrix, rank, scaling, algebra, oversampling=oversampling, tolerance=tolerance)
        return factors.a, factors.b

    frozen, n_left = weight, config.quantization_iterations
    if config.init_method == "pissa":
        a, b = fitted(weight)
        frozen = weight - scaling * (b @ a)
        n_left -= 1  # the paper's QPiSSA is the first iteration
    if quantize is None:  # the settings refuse loftq without quantization, so the factors are there
        return Start(a, b, frozen)
    for turn in range(n_left):
        if turn:  # what is frozen before the first turn has been quantized by nothing yet
            frozen = weight - scaling * (b @ a)
        a, b = fitted(weight - quantize(frozen))
    return Start(a, b, frozen)

"""The precision a model computes in: float32, bfloat16, or fp8 in its linear layers.

``fp8`` is a bfloat16 model whose linear layers (the experts of a mixture among them) multiply e4m3 numbers: weights
with one scale per output channel (and expert), activations with one scale per token, made anew for every batch. As in
serving engines, embeddings, norms, the LM head and routers stay in bfloat16.

What is real and what is emulated: every factor is rounded to e4m3 by torch's own conversion. The product is emulated:
an fp8 tensor core multiplies two e4m3 numbers exactly and adds up in float32 or a little less, and so does the product
here, in float32, of the same numbers held in bfloat16, which has all of e4m3. It runs on any device, and is no faster
than bfloat16.

A CPU without bfloat16 units multiplies it seven to ten times slower than float32 (AVX2, 64 to 4,096 rows). There the
linear layers multiply the same numbers in float32 and round the sums, which is what such units do.

Shapes: ``M`` tokens, ``K`` inputs, ``P`` outputs, ``E`` experts.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import torch
from torch import nn

from drpo.errors import ConfigError
from drpo.kernels.products import multiplies_bf16, wide_mm

Precision = Literal["fp32", "bf16", "fp8"]
E4M3 = torch.float8_e4m3fn
#: Parts of a module's name that keep it out of fp8: what decides where a token goes, or how long it is remembered, and
#: adapters.
UNQUANTIZED = frozenset(
    {"gate", "router", "shared_expert_gate", "in_proj_a", "in_proj_b", "in_proj_ba", "lora_A", "lora_B"}
)


def set_precision(model: Any, precision: Precision) -> Any:
    """Let a causal LM of transformers compute in ``precision``, whichever it was in before; the same model.

    Parameters are rounded in their place. Buffers (rotary frequencies) keep their precision.

    Raises:
        ConfigError: fp8, and the model has no linear layers to quantize or experts in a layout unknown here.
    """
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    _make_plain(model)
    if precision == "fp8":
        _quantize_products(model)
    if precision != "fp32":
        _widen_products(model)
    return model


def _make_plain(model: Any) -> None:
    for module in model.modules():
        if isinstance(module, Quantized | WidenedLinear):
            module.make_plain()


def _quantize_products(model: Any) -> None:
    names = quantized_names(model)
    if not names:
        raise ConfigError(f"fp8: {type(model).__name__} has no linear layers (torch.nn.Linear) to quantize. Use bf16.")
    for name in names:
        plain: Any = model.get_submodule(name)
        plain.__class__ = _quantized_class(type(plain))


def _widen_products(model: Any) -> None:
    """Of linear layers that the device would multiply slowly in bfloat16."""
    for module in model.modules():
        if type(module) is nn.Linear and not multiplies_bf16(module.weight.device):
            module.__class__ = WidenedLinear


def quantized_names(model: Any) -> list[str]:
    """Names of the modules of a causal LM whose products fp8 quantizes.

    Raises:
        ConfigError: it has experts in a layout unknown here.
    """
    names = []
    for name, module in model.named_modules():
        if UNQUANTIZED & set(name.split(".")) or module is model.get_output_embeddings():
            continue
        if isinstance(module, nn.Linear) or _has_experts(name, module):
            names.append(name)
    return names


def quantize(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``values`` ``[…, K]`` as e4m3 numbers ``[…, K]`` (held in bfloat16) times a scale ``[…, 1]`` (float32).

    The scale of a row takes its largest number to the largest of e4m3 (448); it is at least 1e-12.
    """
    wide = values.detach().float()
    largest = torch.finfo(E4M3).max
    # A row of zeros needs some scale.
    scale = (wide.abs().amax(-1, keepdim=True) / largest).clamp_(min=1e-12)
    return (wide / scale).clamp_(-largest, largest).to(E4M3).to(torch.bfloat16), scale


class _Product(torch.autograd.Function):
    """x · weightᵀ of quantized factors. The gradient is straight through: rounding counts as the identity."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor):
        x_codes, x_scale = quantize(x)
        ctx.save_for_backward(x_codes, x_scale, codes, scale)
        return wide_mm(x_codes, codes.T).mul_(x_scale).mul_(scale.T).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor):
        x_codes, x_scale, codes, scale = ctx.saved_tensors
        (slope,) = upstream
        to_x = _rounded_mm(slope, (codes * scale).to(slope.dtype)) if ctx.needs_input_grad[0] else None
        to_weight = _rounded_mm(slope.T, (x_codes * x_scale).to(slope.dtype)) if ctx.needs_input_grad[1] else None
        return to_x, to_weight, None, None


def _rounded_mm(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """left · right in their dtype; summed in float32 where the device does not do that by itself, or only slowly."""
    return left @ right if multiplies_bf16(left.device) else wide_mm(left, right).to(left.dtype)


def _widened_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x · weightᵀ + bias, summed in float32 and rounded once."""
    return nn.functional.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)


class _WidenedProduct(torch.autograd.Function):
    """:func:`_widened_product` with its gradients, each summed in float32 and rounded once."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None):
        ctx.save_for_backward(x, weight)
        return _widened_product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor):
        x, weight = ctx.saved_tensors
        (slope,) = upstream
        to_x = wide_mm(slope, weight).to(x.dtype) if ctx.needs_input_grad[0] else None
        to_weight = wide_mm(slope.T, x).to(weight.dtype) if ctx.needs_input_grad[1] else None
        to_bias = slope.float().sum(0).to(weight.dtype) if ctx.needs_input_grad[2] else None
        return to_x, to_weight, to_bias


class WidenedLinear(nn.Linear):
    """torch.nn.Linear of bfloat16 numbers on a CPU without units for them."""

    #: For :func:`drpo.kernels.plain_head`.
    multiplies_alone = True

    def make_plain(self) -> None:
        """Be a torch.nn.Linear again."""
        self.__class__: Any = nn.Linear

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """``[…, K]`` → ``[…, P]``."""
        if not torch.is_grad_enabled():
            return _widened_product(input, self.weight, self.bias)
        out: Any = _WidenedProduct.apply(input.reshape(-1, input.shape[-1]), self.weight, self.bias)
        return out.view(*input.shape[:-1], -1)


class Quantized(nn.Module):
    """A module of some other class whose products are those of quantized numbers."""

    def make_plain(self) -> None:
        """Be the module of the other class again."""
        self.__class__ = type(self).__bases__[1]
        self.__dict__.pop("_codes", None)

    def codes(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The parameter of that name, quantized; anew only if it has changed since."""
        weight = getattr(self, name)
        state = weight.data_ptr(), weight._version
        kept = self.__dict__.setdefault("_codes", {})
        if name not in kept or kept[name][0] != state:
            # Sampling may come first: what is made in inference mode could not be differentiated through later.
            with torch.inference_mode(False), torch.no_grad():
                kept[name] = state, quantize(weight)
        return kept[name][1]


class QuantizedLinear(Quantized):
    """torch.nn.Linear in fp8."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """``[…, K]`` → ``[…, P]``."""
        out: Any = _Product.apply(input.flatten(0, -2), self.weight, *self.codes("weight"))
        if self.bias is not None:
            out = out + self.bias
        return out.unflatten(0, input.shape[:-1])


class QuantizedExperts(Quantized):
    """The experts of a mixture in fp8: ``gate_up_proj`` ``[E, 2P, K]`` and ``down_proj`` ``[E, K, P]``."""

    num_experts: int
    _apply_gate: Any

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """``[M, K]``: the sum over each token's experts ``top_k_index`` ``[M, T]``, times ``top_k_weights``."""
        chosen = top_k_index.flatten()
        order = chosen.argsort(stable=True)
        counts = chosen.bincount(minlength=self.num_experts).tolist()
        tokens = hidden_states[order // top_k_index.shape[1]].split(counts)
        up, down = self._by_expert("gate_up_proj"), self._by_expert("down_proj")
        found: list[torch.Tensor] = []
        for x, into, out in zip(tokens, up, down, strict=True):
            if len(x):
                inner: Any = _Product.apply(x, *into)
                found.append(_Product.apply(self._apply_gate(inner), *out))  # pyright: ignore[reportArgumentType]
        by_slot = torch.cat(found)[order.argsort()].view(*top_k_index.shape, -1)
        return (by_slot * top_k_weights.unsqueeze(-1)).sum(1).to(hidden_states.dtype)

    def _by_expert(self, name: str) -> list[tuple[torch.Tensor, ...]]:
        """(weight, codes, scale) of each expert."""
        return list(zip(getattr(self, name).unbind(), *(part.unbind() for part in self.codes(name)), strict=True))


@functools.cache
def _quantized_class(plain: type[nn.Module]) -> Any:
    kind = QuantizedLinear if issubclass(plain, nn.Linear) else QuantizedExperts
    return type(f"Quantized{plain.__name__}", (kind, plain), {})


def _has_experts(name: str, module: nn.Module) -> bool:
    """Whether ``module`` holds the weights of all experts in one parameter.

    Raises:
        ConfigError: it does, in another layout than [gate; up] and down.
    """
    down = getattr(module, "down_proj", None)
    if not (isinstance(down, nn.Parameter) and down.dim() == 3):
        return False
    layout = {
        "has_gate": True,
        "is_concatenated": True,
        "is_transposed": False,
        "has_bias": False,
        "has_post_expert_norm": False,
    }
    if any(getattr(module, flag, None) is not usual for flag, usual in layout.items()):
        raise ConfigError(
            f"fp8: {name} ({type(module).__name__}) lays its experts out in a way that is unknown here: "
            f"known is {layout}. Use bf16."
        )
    return True

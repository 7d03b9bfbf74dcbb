"""Modules as people bring them, by name: what each takes, and what becomes of a risk of it.

A `Stranger` is made anew at every call, always the same, in float32 unless it says otherwise. Its outputs are [B, 3],
or [B, 3, 3] for sequences, so that every loss of `strange_losses` fits. Where torch cannot differentiate a module
rightly, `twin` makes one of the same parameters from operations that it can.
"""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from expected import Refused, Warned, at_once, by_gradient, by_product
from strange_parts import (
    Alias,
    Attention,
    BackwardChain,
    BilinearOfOne,
    Cached,
    CachedBuffer,
    CachedClone,
    CallsItself,
    ClippedChain,
    CountsCalls,
    Doubled,
    Drifts,
    Encoder,
    Energy,
    Halved,
    HuggingLike,
    Keywords,
    Lora,
    Module,
    OnceDifferentiable,
    Recurrent,
    RenamedState,
    Reversed,
    RightTwice,
    SavedDetached,
    Shared,
    StraightThrough,
    Teaches,
    Tied,
    Two,
    Variadic,
    WholeMapping,
    WholeTuple,
    Words,
    accelerated,
    asserts,
    autocast_inside,
    batch_mean,
    between,
    clipped_backward,
    clipping_hook,
    closure_forward,
    closure_hook,
    compiled,
    complex_layer,
    conv,
    counter,
    equilibrium,
    experts,
    flow,
    fourier,
    frozen,
    full_backward_hook,
    gradient_hook,
    graph,
    half,
    half_cut,
    hooked,
    hyper,
    in_place,
    in_single,
    in_single_twin,
    inference,
    lin,
    made,
    masked_class,
    meta,
    minus_infinity,
    monkeypatched,
    no_gradient,
    norm,
    not_a_number,
    numpy_breaks,
    numpy_inside,
    old_weight_norm,
    old_weight_norm_twin,
    own_error,
    parametrised,
    per_example_gradient,
    plain_sequential,
    pruned,
    pure,
    quantised,
    remembered,
    replicas,
    scripted,
    sdpa,
    seeded,
    single_constants,
    sorts,
    sparse,
    stateful,
    traced,
    unpadded,
    vector,
    vmapped,
    wants_float32,
    weight_norm_twin,
    weight_normed,
    weight_standardised,
)
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential


@dataclass(frozen=True)
class Stranger:
    """A module and the kind of inputs it takes."""

    make: Callable[[], Any]
    inputs: str = "vectors"
    expect: Refused | Warned | None = None
    twin: Callable[[], nn.Module] | None = None
    tolerance: float = 1e-9  # of the largest magnitude, in float64
    own_dtype: bool = True  # whether float32 is compared as well
    outputs: Callable[[Any], Any] = field(default=lambda outputs: outputs)  # what the loss is to look at
    pairs: bool = True  # whether (inputs, targets) suit it


NO_SECOND = r"second derivative.*HessianByDifferences|HessianByDifferences"
NOT_DERIVATIVE = r"backward|derivative|gradient"
OTHER_WEIGHTS = r"theta|weight|parameter|copy|cached|alias"

# Smooth or with kinks, all with a right second derivative almost everywhere.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "softplus": lambda: nn.Softplus(beta=2), "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU("tanh"), "silu": nn.SiLU, "mish": nn.Mish, "elu": nn.ELU, "celu": lambda: nn.CELU(2),
    "selu": nn.SELU, "softsign": nn.Softsign, "tanhshrink": nn.Tanhshrink, "log_sigmoid": nn.LogSigmoid,
    "relu": nn.ReLU, "relu_in_place": lambda: nn.ReLU(inplace=True), "leaky": lambda: nn.LeakyReLU(0.2),
    "prelu": nn.PReLU, "rrelu": nn.RReLU, "hardtanh": nn.Hardtanh, "relu6": nn.ReLU6,
    "softshrink": lambda: nn.Softshrink(0.1), "hardshrink": lambda: nn.Hardshrink(0.1), "hardswish": nn.Hardswish,
    "threshold": lambda: nn.Threshold(0.1, 0.2), "softmin": lambda: nn.Softmin(1), "softmax": lambda: nn.Softmax(1),
    "dropout": nn.Dropout, "alpha_dropout": nn.AlphaDropout, "layer_norm": lambda: nn.LayerNorm(5),
    "rms_norm": lambda: nn.RMSNorm(5), "identity": nn.Identity, "sine": lambda: Module(lambda self, x: x.sin()),
    "exponential": lambda: Module(lambda self, x: (-x * x).exp()), "square": lambda: Module(lambda self, x: x**3),
}  # fmt: skip

MODULES: dict[str, Stranger] = {
    "linear": Stranger(lin()),
    "linear_no_bias": Stranger(lin(bias=False)),
    "bilinear": Stranger(lambda: BilinearOfOne()),
    "glu": Stranger(lambda: nn.Sequential(nn.Linear(4, 6), nn.GLU())),
    "residual": Stranger(made(lambda self, x: self.b(x + torch.tanh(self.a(x))), a=lin(4, 4), b=lin())),
    "parameter_list": Stranger(
        made(lambda self, x: torch.tanh(x @ self.ps[0]) @ self.ps[1],
             ps=lambda: nn.ParameterList([vector(4, 5)(), vector(5, 3)()])),
    ),
    "parameter_dict": Stranger(
        made(lambda self, x: torch.tanh(x @ self.ps["a"]) * self.ps["scale"],
             ps=lambda: nn.ParameterDict({"a": vector(4, 3)(), "scale": nn.Parameter(torch.tensor(0.7))})),
    ),
    "conv1d": Stranger(conv(lambda: nn.Conv1d(2, 3, 3, stride=2), features=6), "signals"),
    "conv2d": Stranger(conv(lambda: nn.Conv2d(2, 2, 3, padding=1), lambda: nn.MaxPool2d(2), features=8), "images"),
    "conv3d": Stranger(conv(lambda: nn.Conv3d(1, 2, 2), features=16), "volumes"),
    "conv_transposed": Stranger(
        conv(lambda: nn.Conv2d(2, 2, 2, stride=2), nn.Tanh, lambda: nn.ConvTranspose2d(2, 1, 2), features=9), "images"
    ),
    "conv_groups": Stranger(
        conv(lambda: nn.Conv2d(2, 4, 2, groups=2), lambda: nn.AvgPool2d(2), features=4), "images"
    ),
    "conv_circular": Stranger(
        conv(lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular", dilation=1), nn.Tanh,
             lambda: nn.AdaptiveAvgPool2d(2), features=8), "images"
    ),
    "conv_same": Stranger(
        conv(lambda: nn.Conv2d(2, 2, (1, 2), padding="same", dilation=2), lambda: nn.LPPool2d(2, 2), features=8),
        "images",
    ),
    "upsampling": Stranger(
        conv(lambda: nn.Conv2d(2, 1, 3), lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
             lambda: nn.AdaptiveMaxPool2d(2), features=4), "images"
    ),
    "unfold": Stranger(conv(lambda: nn.Unfold(2), features=72), "images"),
    "pixel_shuffle": Stranger(
        conv(lambda: nn.Conv2d(2, 4, 2, stride=2), lambda: nn.PixelShuffle(2), features=16), "images"
    ),
    "channels_last": Stranger(
        lambda: conv(lambda: nn.Conv2d(2, 3, 3), nn.Tanh, features=12)().to(memory_format=torch.channels_last), "images"
    ),
    "batch_norm": Stranger(norm(lambda: nn.BatchNorm2d(4)), "images"),
    "batch_norm_training": Stranger(lambda: norm(lambda: nn.BatchNorm2d(4))().train(), "images"),
    "instance_norm": Stranger(norm(lambda: nn.InstanceNorm2d(4, affine=True)), "images"),
    "instance_norm_statistics": Stranger(norm(lambda: nn.InstanceNorm2d(4, track_running_stats=True)), "images"),
    "group_norm": Stranger(norm(lambda: nn.GroupNorm(2, 4)), "images"),
    "local_response_norm": Stranger(norm(lambda: nn.LocalResponseNorm(2)), "images"),
    "weight_standardised": Stranger(
        made(weight_standardised, w=vector(4, 4), head=lin())
    ),
    "embedding": Stranger(lambda: Words(nn.Embedding(5, 3)), "tokens"),
    "embedding_padding": Stranger(lambda: Words(nn.Embedding(7, 3, padding_idx=6)), "tokens"),  # which does not occur
    "one_hot": Stranger(
        made(lambda self, x: self.lin(F.one_hot(x, 5).to(self.lin.weight).flatten(1)), lin=lin(15, 3)), "tokens"
    ),
    "lstm": Stranger(lambda: Recurrent(nn.LSTM), "sequences"),
    "gru": Stranger(lambda: Recurrent(nn.GRU), "sequences"),
    "rnn_relu": Stranger(lambda: Recurrent(nn.RNN, nonlinearity="relu"), "sequences"),
    "lstm_both_ways": Stranger(lambda: Recurrent(nn.LSTM, bidirectional=True), "sequences"),
    "lstm_projected": Stranger(lambda: Recurrent(nn.LSTM, proj_size=1), "sequences"),
    "gru_cell": Stranger(
        made(lambda self, x: self.head(self.cell(x[:, 1], self.cell(x[:, 0]))), cell=lambda: nn.GRUCell(4, 2),
             head=lin(2, 3)), "sequences"
    ),
    "encoder": Stranger(Encoder, "sequences"),
    "encoder_masked": Stranger(Encoder, "masked"),
    "attention": Stranger(Attention, "sequences"),
    "attention_masked": Stranger(Attention, "masked"),
    "sdpa": Stranger(made(sdpa, qkv=lin(4, 6), head=lin(2, 3)), "sequences"),
    "minus_infinity": Stranger(made(minus_infinity, qkv=lin(4, 6), head=lin(2, 3)), "sequences"),
    "two_arguments": Stranger(Two, "two"),
    "keywords": Stranger(Keywords, "named"),
    "whole_mapping": Stranger(WholeMapping, "named"),
    "whole_tuple": Stranger(WholeTuple, "two"),
    "output_object": Stranger(HuggingLike, "named", outputs=lambda o: o.logits),
    "output_tuple": Stranger(
        made(lambda self, x: (self.a(x).tanh(), self.b(x)), a=lin(), b=lin(4, 1)), outputs=lambda o: o[0] * o[1]
    ),
    "output_dict": Stranger(
        made(lambda self, x: {"a": self.a(x).tanh(), "b": [self.b(x)]}, a=lin(), b=lin(4, 1)),
        outputs=lambda o: o["a"] + o["b"][0],
    ),
    "tied": Stranger(Tied),
    "shared": Stranger(Shared),
    "weight_norm": Stranger(weight_normed, twin=weight_norm_twin),
    "spectral_norm": Stranger(parametrised(nn.utils.parametrizations.spectral_norm)),
    # Its Householder map truncates a diagonal to integers: forward jumps at its own theta, and is smooth elsewhere.
    "orthogonal": Stranger(parametrised(nn.utils.parametrizations.orthogonal)),
    "orthogonal_cayley": Stranger(
        parametrised(functools.partial(nn.utils.parametrizations.orthogonal, orthogonal_map="cayley"))
    ),
    "orthogonal_exponential": Stranger(
        parametrised(functools.partial(nn.utils.parametrizations.orthogonal, orthogonal_map="matrix_exp"))
    ),
    "old_weight_norm": Stranger(
        parametrised(old_weight_norm), twin=old_weight_norm_twin,
        expect=at_once("module", r"parametrizations|copy", or_right=True),
    ),
    "old_spectral_norm": Stranger(
        lambda: parametrised(nn.utils.spectral_norm)().eval(),
        expect=at_once("module", r"parametrizations|copy", or_right=True),
    ),
    "pruned": Stranger(parametrised(pruned), expect=at_once("module", r"prune|copy", or_right=True)),
    "remembers": Stranger(remembered, expect=at_once("module", r"copy|graph|stored", or_right=True)),
    "lora": Stranger(lambda: Lora(merged=False)),
    "lora_merged": Stranger(lambda: Lora(merged=True), expect=Warned(r"does not use.*(up|down)")),
    "frozen": Stranger(frozen),
    "checkpointed": Stranger(
        made(lambda self, x: self.b(checkpoint(lambda h: torch.tanh(self.a(h)), x, use_reentrant=False)), a=lin(4, 5),
             b=lin(5, 3)), twin=made(lambda self, x: self.b(torch.tanh(self.a(x))), a=lin(4, 5), b=lin(5, 3)),
    ),
    "checkpointed_sequence": Stranger(
        made(lambda self, x: checkpoint_sequential(self.net, 2, x, use_reentrant=False), net=pure(nn.Tanh)),
        twin=made(lambda self, x: self.net(x), net=pure(nn.Tanh)),
    ),
    "function_right": Stranger(between(RightTwice.apply)),
    "hooked": Stranger(hooked),
    "gradient_hook": Stranger(gradient_hook),
    "equilibrium": Stranger(made(equilibrium, step=lin(4, 4), head=lin())),
    "flow": Stranger(made(flow, field=lin(4, 4), head=lin())),
    "experts": Stranger(made(experts, gate=lin(4, 2), one=lin(), two=lin())),
    "hyper_network": Stranger(
        made(hyper, maker=lin(2, 12), inner=lambda: lin()().requires_grad_(False), code=vector(2, 1)), expect=None
    ),
    "vmapped": Stranger(made(vmapped, lin=lin())),
    "grad_inside": Stranger(made(per_example_gradient, lin=lin())),
    "energy": Stranger(lambda: Energy(switches=True)),
    "grid_sample": Stranger(
        made(lambda self, x: F.grid_sample(x, torch.tanh(self.g).expand(len(x), -1, -1, -1), align_corners=True)
             .flatten(1) @ self.w, g=vector(1, 2, 2, 2), w=vector(8, 3)), "images",
    ),
    "fourier": Stranger(made(fourier, s=vector(4), lin=lin(6, 3))),
    "einsum": Stranger(made(lambda self, x: torch.einsum("bi,ijk,bj->bk", x, self.w, x).tanh(), w=vector(4, 4, 3))),
    "radial": Stranger(
        made(lambda self, x: self.head((-(x[:, None] - self.c).square().sum(-1)).exp()), c=vector(5, 4), head=lin(5, 3))
    ),
    "matrix_exponential": Stranger(
        made(lambda self, x: torch.tanh(x @ torch.linalg.matrix_exp(self.w))[:, :3], w=vector(4, 4)),
        tolerance=1e-6,  # torch takes more or fewer terms by the size of what flows back
    ),
    "solve": Stranger(
        made(lambda self, x: torch.linalg.solve(torch.eye(4).to(x) * 3 + self.w, x.T).T[:, :3], w=vector(4, 4))
    ),
    "sorts": Stranger(made(sorts, lin=lin())),
    "numpy_constants": Stranger(made(numpy_inside, lin=lin())),
    "harmless_counter": Stranger(lambda: CountsCalls()),
    "inference": Stranger(inference),
    "bfloat16": Stranger(half, own_dtype=False),
    "training_dropout": Stranger(lambda: pure(lambda: nn.Dropout(0.5))().train()),
    "float32_inside": Stranger(
        made(in_single, one=lin(4, 5), two=lin(5, 3)), tolerance=2e-3,
        twin=made(in_single_twin, one=lin(4, 5), two=lin(5, 3)),
        expect=at_once("module|theta|precision", r"float32", or_right=True),
    ),
    "float32_constants": Stranger(
        made(single_constants, lin=lin()), tolerance=2e-3,
        twin=made(lambda self, x: self.lin(x) + torch.tanh(self.lin(x)).sum(1, keepdim=True) * 0.3, lin=lin()),
        expect=at_once("module|theta|precision", r"float32", or_right=True),
    ),
    "monkeypatched": Stranger(monkeypatched),
    "accelerated": Stranger(accelerated),
    "overridden_call": Stranger(CallsItself),
    "variadic": Stranger(Variadic, "two"),
    "renamed_state": Stranger(RenamedState),
    "holds_a_function": Stranger(made(lambda self, x: self.act(self.lin(x)), lin=lin(), act=lambda: torch.tanh)),
    "holds_a_generator": Stranger(
        made(lambda self, x: torch.tanh(self.lin(x)), lin=lin(), generator=lambda: torch.Generator()),
        expect=at_once("module", r"copy|copied", or_right=True),
    ),
    "empty_parameter": Stranger(
        made(lambda self, x: torch.tanh(self.lin(x)) + self.none.sum(), lin=lin(), none=vector(0, 3)),
    ),
    "expanded_parameter": Stranger(
        made(lambda self, x: torch.tanh(x @ self.w), w=lambda: nn.Parameter(torch.randn(1, 3).expand(4, 3)))
    ),
    "strided_parameter": Stranger(
        made(lambda self, x: torch.tanh(x @ self.w), w=lambda: nn.Parameter(torch.randn(3, 4).T))
    ),
    "bytes": Stranger(
        made(lambda self, x: self.two(torch.tanh(self.one(x.float() / 255))), one=lin(4, 5), two=lin(5, 3)), "bytes",
        twin=made(lambda self, x: self.two(torch.tanh(self.one(x.double() / 255))), one=lin(4, 5), two=lin(5, 3)),
        tolerance=1e-5,
    ),
    "upcast_logits": Stranger(  # as language models do before their loss
        made(lambda self, x: self.two(torch.tanh(self.one(x))).float(), one=lin(4, 5), two=lin(5, 3)),
        twin=between(torch.tanh), tolerance=1e-5,
    ),
    "wants_float32": Stranger(
        made(wants_float32, one=lin(4, 5), two=lin(5, 3)), twin=between(torch.tanh), tolerance=1e-4,
        expect=at_once("module|theta|precision", r"float32", or_right=True),
    ),
    "autocast_inside": Stranger(
        made(autocast_inside, one=lin(4, 5), two=lin(5, 3)), twin=between(torch.tanh), tolerance=3e-2,
        expect=Refused("construction|gradient|product", "module|theta|precision", r"autocast|bfloat16", or_right=True),
    ),
    "small_and_large": Stranger(
        made(lambda self, x: 30 * self.two(torch.tanh(self.one(x))) + 1e-3 * torch.sin(self.small(x)), one=lin(4, 5),
             two=lin(5, 3), small=lin(bias=False)), own_dtype=False,
    ),
    "clipped_chain": Stranger(ClippedChain),
    "layer_of_its_own": Stranger(lambda: nn.Sequential(Doubled(4, 5), nn.Tanh(), nn.Linear(5, 3))),
    "activation_of_its_own": Stranger(lambda: nn.Sequential(nn.Linear(4, 5), Halved(), nn.Linear(5, 3))),
    "backward_chain": Stranger(BackwardChain),
    "clipping_hook": Stranger(clipping_hook),
    "teacher_inside": Stranger(lambda: Teaches()),
    # --- what is noticed
    "small_reversed": Stranger(
        made(lambda self, x: 10 * self.two(torch.tanh(self.one(x))) + 0.1 * Reversed.apply(self.small(x)),
             one=lin(4, 5), two=lin(5, 3), small=lin(bias=False)), expect=by_gradient(NOT_DERIVATIVE),
    ),
    "small_detached": Stranger(
        made(lambda self, x: 10 * self.two(torch.tanh(self.one(x))) + 0.1 * SavedDetached.apply(self.small(x)),
             one=lin(4, 5), two=lin(5, 3), small=lin(bias=False)),
        twin=made(lambda self, x: 10 * self.two(torch.tanh(self.one(x))) + 0.1 * torch.tanh(self.small(x)),
             one=lin(4, 5), two=lin(5, 3), small=lin(bias=False)),
        expect=by_product(NOT_DERIVATIVE),
    ),
    # Gradients that flow back are small, and as they are; what a product with a long vector sends back is cut.
    "clipped_backward": Stranger(
        made(clipped_backward, one=lin(4, 5), two=lin(5, 3)), twin=between(torch.tanh), own_dtype=False,
        expect=Refused("gradient|product", "module", r"not linear"),
    ),
    "fake_quantised": Stranger(
        made(lambda self, x: self.two(torch.fake_quantize_per_tensor_affine(torch.tanh(self.one(x)), 0.1, 0, -8, 7)),
             one=lin(4, 5), two=lin(5, 3)), expect=by_gradient(NOT_DERIVATIVE),
    ),
    "closure_forward": Stranger(closure_forward, expect=at_once("module|loss|batch_loss", OTHER_WEIGHTS)),
    "closure_hook": Stranger(closure_hook, expect=at_once("module|loss|batch_loss", OTHER_WEIGHTS)),
    "stateful": Stranger(
        made(stateful, lin=lin(), state=lambda: None), expect=at_once("module", r"deterministic|same")
    ),
    "drifting_buffer": Stranger(lambda: Drifts(), expect=at_once("module", r"deterministic|same|buffer")),
    "holds_a_lock": Stranger(
        made(lambda self, x: torch.tanh(self.lin(x)), lin=lin(), lock=threading.Lock),
        expect=at_once("module", r"copy|copied", or_right=True),
    ),
    "asserts": Stranger(made(asserts, lin=lin()), expect=at_once("batches|module", r"seven")),
    "own_error": Stranger(made(own_error, lin=lin()), expect=at_once("batches|module", r"tired")),
    "infinite_slope": Stranger(  # |w| at w = 0: a value, and no gradient
        made(lambda self, x: torch.tanh(self.lin(x)) + self.w.square().sum().sqrt(), lin=lin(),
             w=lambda: nn.Parameter(torch.zeros(3))),
        expect=Refused("gradient", "module|theta|gradient|loss", r"finite|nan|NaN"),
    ),
    "no_statistics": Stranger(
        lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3)),
        expect=at_once("module", r"track_running_stats"),
    ),
    "batch_mean": Stranger(made(batch_mean, lin=lin()), expect=at_once("module", r"independent|batch")),
    "time_first": Stranger(
        lambda: Recurrent(nn.LSTM, batch_first=False), "sequences",
        expect=at_once("module", r"batch_first"),
    ),
    "max_norm": Stranger(
        lambda: Words(nn.Embedding(5, 3, max_norm=0.5)), "tokens",
        expect=at_once("module", r"max_norm|changes"),
    ),
    "embedding_bag": Stranger(
        lambda: Words(nn.EmbeddingBag(5, 3, mode="sum"), flat=True), "tokens",
        expect=by_product(NO_SECOND),
    ),
    "embedding_bag_mean": Stranger(
        lambda: Words(nn.EmbeddingBag(5, 3, mode="mean"), flat=True), "tokens",
        expect=by_product(NO_SECOND),
    ),
    "hardsigmoid": Stranger(pure(nn.Hardsigmoid), expect=by_product(NO_SECOND)),
    "once_differentiable": Stranger(
        between(OnceDifferentiable.apply), twin=between(torch.tanh), expect=by_product(r"once_differentiable")
    ),
    "saved_detached": Stranger(
        between(SavedDetached.apply), twin=between(torch.tanh), expect=by_product(NOT_DERIVATIVE)
    ),
    # torch gives no gradient to the padding's row, which forward reads like any other.
    "embedding_padding_read": Stranger(
        lambda: Words(nn.Embedding(5, 3, padding_idx=0)), "tokens", twin=lambda: Words(unpadded()),
        expect=by_gradient(r"padding_idx", or_right=True),
    ),
    "reversed": Stranger(between(Reversed.apply), expect=by_gradient(NOT_DERIVATIVE)),
    "straight_through": Stranger(
        between(StraightThrough.apply), expect=by_gradient(NOT_DERIVATIVE)
    ),
    "stop_gradient": Stranger(
        made(half_cut, one=lin(4, 5), two=lin(5, 3)), expect=by_gradient(NOT_DERIVATIVE)
    ),
    "no_gradient": Stranger(
        made(no_gradient, one=lin(4, 5), two=lin(5, 3)),
        expect=by_gradient(NOT_DERIVATIVE),
    ),
    "backward_hook": Stranger(
        full_backward_hook, twin=pure(nn.Tanh), expect=by_gradient(NOT_DERIVATIVE, or_right=True)
    ),
    "checkpointed_reentrant": Stranger(
        made(lambda self, x: self.b(checkpoint(lambda h: torch.tanh(self.a(h)), x, use_reentrant=True)), a=lin(4, 5),
             b=lin(5, 3)),
        twin=made(lambda self, x: self.b(torch.tanh(self.a(x))), a=lin(4, 5), b=lin(5, 3)),
        expect=by_gradient(r"use_reentrant"),
    ),
    "energy_needs_grad": Stranger(
        lambda: Energy(switches=False), expect=at_once("module|batches", r"enable_grad", or_right=True)
    ),
    "relu_on_the_input": Stranger(
        plain_sequential(lambda: nn.ReLU(inplace=True), lin()),
        expect=at_once("module|batches", r"in ?place|changes", or_right=True),
    ),
    "changes_its_inputs": Stranger(
        made(in_place, lin=lin()), expect=at_once("module|batches", r"in ?place|change", or_right=True)
    ),
    "random": Stranger(
        made(lambda self, x: self.lin(x + 0.1 * torch.randn_like(x)), lin=lin()),
        expect=at_once("module", r"deterministic"),
    ),
    "random_in_place": Stranger(
        made(lambda self, x: self.lin(F.dropout(x, 0.5, training=True)), lin=lin()),
        expect=at_once("module", r"deterministic"),
    ),
    "counter": Stranger(
        made(counter, lin=lin(), calls=lambda: 0), expect=at_once("module", r"deterministic|same")
    ),
    "alias": Stranger(Alias, expect=at_once("module", OTHER_WEIGHTS)),
    "cached_clone": Stranger(CachedClone, expect=Warned(r"does not use.*lin\.weight")),
    "cached_buffer": Stranger(CachedBuffer, expect=Warned(r"does not use.*lin\.weight")),
    "cached_at_first": Stranger(Cached, expect=at_once("module", r"another theta")),
    "breaks_the_graph": Stranger(
        made(numpy_breaks, lin=lin()), expect=by_gradient(r"detach|graph|gradient|derivative")
    ),
    "graph": Stranger(made(graph, lin=lin()), "graph"),  # whose one batch cannot be cut
    "masked_class": Stranger(made(masked_class, lin=lin()), expect=at_once("loss|module", r"finite")),
    "complex": Stranger(complex_layer, expect=at_once("module", r"complex|floating point")),
    "compiled": Stranger(compiled, expect=at_once("module", r"_orig_mod")),
    "data_parallel": Stranger(replicas, expect=at_once("module", r"\.module")),
    "scripted": Stranger(scripted, expect=at_once("module", r"jit|script")),
    "traced": Stranger(traced, expect=at_once("module", r"jit|script|trace")),
    "meta": Stranger(meta, expect=at_once("module", r"meta")),
    "lazy": Stranger(lambda: nn.LazyLinear(3), expect=at_once("module", r"[Ll]azy|initiali[sz]ed")),
    "sparse": Stranger(sparse, expect=at_once("module", r"sparse")),
    "quantised": Stranger(quantised, expect=at_once("module", r"quanti[sz]ed|no parameters")),
    "not_a_number": Stranger(not_a_number, expect=at_once("module", r"not finite")),
    "no_parameters": Stranger(
        lambda: nn.Sequential(nn.Flatten(), nn.Tanh()), expect=at_once("module", r"no parameters")
    ),
    "all_frozen": Stranger(
        lambda: lin()().requires_grad_(False),
        expect=at_once("module|space", r"requires_grad|space|trainable", or_right=True),
    ),
    "not_a_module": Stranger(lambda: 3, expect=at_once("module", r"nn\.Module")),
}  # fmt: skip


MODULES |= {f"mlp_{name}": Stranger(pure(activation)) for name, activation in ACTIVATIONS.items()}

# Outputs [B, 3, 3]: something at every position.
SEQUENCE_MODULES: dict[str, Stranger] = {
    "positions_gru": Stranger(
        made(lambda self, x: self.head(self.rnn(x)[0]), rnn=lambda: nn.GRU(4, 2, batch_first=True), head=lin(2, 3)),
        "sequences",
    ),
    "positions_words": Stranger(
        made(lambda self, x: self.head(torch.tanh(self.embed(x))), embed=lambda: nn.Embedding(5, 3), head=lin(3, 3)),
        "tokens",
    ),
}


def make(name: str) -> Any:
    """The module of that name, the same at every call."""
    return seeded((MODULES | SEQUENCE_MODULES)[name].make)


def oracle_module(name: str) -> nn.Module:
    """The same function with right derivatives, in float64 and evaluation mode."""
    stranger = (MODULES | SEQUENCE_MODULES)[name]
    net = seeded(stranger.twin or stranger.make)
    if stranger.twin is None and not isinstance(net, torch.jit.ScriptModule):
        with torch.inference_mode(False):
            net = copy.deepcopy(net) if name == "inference" else net
    return net.double().eval()

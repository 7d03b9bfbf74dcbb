"""The risk of a fully connected network at many parameter vectors at once, with its Hessian layer by layer."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import torch
from torch import Tensor

from hw1.risk.agreement import Standing
from hw1.risk.chain import Chain, Layer, Piece, hooked_everywhere
from hw1.risk.empirical import EmpiricalRisk
from hw1.risk.guard import differentiable
from hw1.risk.nested import cast

CHUNK = 2**21  # float64 numbers (16 MiB) that a chunk of members and examples takes; small networks go many at a time
FEWEST = 64  # examples in a chunk all the same: shorter matrix products are slow
TILE = 512

_recognised: weakref.WeakKeyDictionary[EmpiricalRisk, LayerwiseRisk | None] = weakref.WeakKeyDictionary()


class LayerwiseRisk:
    """An `EmpiricalRisk` of a fully connected network as a function of many parameter vectors, in float64.

    The block of the Hessian for layers l <= m, with h a layer's inputs, z its outputs before the activation, delta =
    dR/dz and H = d2R/dz2, both carried backwards example by example (the recursion of Botev et al. 2017):

        H[(l; a, b), (m; o, i)] = sum_n h_b (dz_m/dz_l^T H_m)[a, o] h_i + sum_n h_b (dh_(m-1)/dz_l)[i, a] delta_o

    the second term for l < m alone; each is one matrix product over examples. Made by `LayerwiseRisk.of`; the examples
    are held in memory. Nothing is compared with the module here: `dense_hessian` and `batched` do that.

    Attributes:
        size: P.
        standing: what comparisons with the risk itself have said so far.

    Example:
        >>> net = torch.nn.Linear(1, 1)  # loss (w x + b - y)^2 at x = 3
        >>> risk = EmpiricalRisk(net, torch.nn.functional.mse_loss, [(torch.tensor([[3.0]]), torch.zeros(1, 1))])
        >>> many = LayerwiseRisk.of(risk)
        >>> many.hessian(torch.zeros(4, 2)).shape, many.hessian(torch.zeros(2)).tolist()
        (torch.Size([4, 2, 2]), [[18.0, 6.0], [6.0, 2.0]])
    """

    def __init__(self, risk: EmpiricalRisk, chain: Chain) -> None:
        self.size = risk.space.size
        self.standing = Standing()
        assert risk.loss is not None
        self._chain, self._loss = chain, risk.loss
        self._inputs, self._targets = risk.examples.whole()

    @classmethod
    def of(cls, risk: EmpiricalRisk) -> LayerwiseRisk | None:
        """The same risk, where its module is a chain of nn.Linear and elementwise activations; None elsewhere.

        What stands before the first nn.Linear or after the last may be of a few other kinds without parameters. Every
        parameter must be differentiated by, and none be shared; the loss must be a mean over examples that count alike.
        Structure decides (see `Chain.of`), not values: a hook or a forward of its own may do anything elsewhere.
        """
        if hooked_everywhere():
            return None
        if risk not in _recognised:
            with differentiable(risk.theta.device):
                _recognised[risk] = cls._recognise(risk)
        return _recognised[risk]

    @classmethod
    def _recognise(cls, risk: EmpiricalRisk) -> LayerwiseRisk | None:
        if risk.loss is None or risk.examples.counted or risk.reduction != "mean":
            return None  # a batch weighs something else than its number of examples
        if not all(isinstance(part, Tensor) for part in risk.examples.first):
            return None
        chain = Chain.of(risk.module, risk.space)
        if chain is None:
            return None
        theta = risk.theta.double()
        one = cast(risk.examples.first[0][:1], theta)
        if chain.head.to(theta.device)(one).shape != (1, chain.layers[0].fan_in):
            return None  # a layer for every position of a sequence, say
        two = torch.eye(2, chain.layers[-1].fan_out).to(theta)
        if not torch.equal(chain.tail.to(theta.device)(two)[:1], chain.tail(two[:1])):
            return None  # its examples are not in dimension 0, or influence each other
        return cls(risk, chain)

    # --- values

    def __call__(self, thetas: Tensor) -> Tensor:
        """R(thetas): [R, P] -> [R]; here and below, [P] is one member, and its result has no R."""
        members = self.members(thetas)
        with differentiable(thetas.device), torch.no_grad():
            total = torch.zeros(len(members), dtype=torch.float64, device=thetas.device)
            for few, _, x, y in self._chunks(members, self._width):
                values = [self._loss(outputs, y) for outputs in self._outputs(members[few], x)]
                total[few] += torch.stack(values) * (len(y) / len(self._targets))
        return total.reshape(thetas.shape[:-1])

    def outputs(self, thetas: Tensor) -> Tensor:
        """The network's outputs for all examples: [R, P] -> [R, N, ...]."""
        members = self.members(thetas)
        total = torch.empty(0)
        with differentiable(thetas.device), torch.no_grad():
            for few, some, x, _ in self._chunks(members, self._width):
                part = self._outputs(members[few], x)
                if total.numel() == 0:
                    total = part.new_empty(len(members), len(self._targets), *part.shape[2:])
                total[few, some] = part
        return total.reshape(*thetas.shape[:-1], *total.shape[1:])

    def gradient(self, thetas: Tensor) -> Tensor:
        """Gradient of R: [R, P] -> [R, P]."""
        members = self.members(thetas)
        with differentiable(thetas.device):
            total = torch.zeros_like(members)
            for few, _, x, y in self._chunks(members, self._width):
                leaf = members[few].clone().requires_grad_()
                value = self._share(self._outputs(leaf, x).flatten(0, 1), y)
                if value.requires_grad:
                    total[few] += torch.autograd.grad(value, leaf)[0]
        return total.reshape(thetas.shape)

    def hessian(self, thetas: Tensor) -> Tensor:
        """Hessian of R: [R, P] -> [R, P, P], symmetric to the bit."""
        members = self.members(thetas)
        with differentiable(thetas.device), torch.no_grad():
            total = torch.zeros(*members.shape, self.size, dtype=torch.float64, device=thetas.device)
            for few, _, x, y in self._chunks(members, self._pair):
                self._add_half(total[few], members[few], x, y)
            for matrix in total:
                _add_transpose(matrix)
        return total.reshape(*thetas.shape, self.size)

    # --- members and examples

    def members(self, theta: Tensor) -> Tensor:
        """Theta [..., P] as members [R, P] in float64.

        Raises:
            ValueError: another shape, or values that are not finite.
        """
        if theta.shape[-1:] != (self.size,):
            raise ValueError(f"theta: got shape {list(theta.shape)}, expected [{self.size}] or [R, {self.size}]")
        if bad := int((~theta.isfinite()).sum()):
            raise ValueError(f"theta: got {bad} of {theta.numel()} values that are not finite, expected none of them")
        return theta.detach().double().reshape(-1, self.size)

    def chunks(self, members: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Members, and inputs [n, ...] and targets [n, ...] as the module gets them, for a forward pass."""
        for few, some in self._slices(members, self._width):
            yield few, cast(self._inputs[some], members), cast(self._targets[some], members)

    def _slices(self, members: Tensor, each: int) -> Iterator[tuple[slice, slice]]:
        """Members and examples, where a pair takes `each` numbers."""
        examples = min(len(self._targets), max(FEWEST, CHUNK // each))
        count = max(1, CHUNK // (each * examples))
        for first in range(0, len(self._targets), examples):
            for member in range(0, len(members), count):
                yield slice(member, member + count), slice(first, first + examples)

    def _chunks(self, members: Tensor, each: int) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
        """Members, examples, and the latter's x [in, n] and targets, where a pair takes `each` numbers."""
        for few, some in self._slices(members, each):
            if few.start == 0:  # other examples
                x, y = self._head(cast(self._inputs[some], members)), cast(self._targets[some], members)
            yield few, some, x, y

    def _head(self, inputs: Tensor) -> Tensor:
        """What the first layer gets: [n, ...] -> [in, n]."""
        x: Tensor = self._chain.head.to(inputs.device)(inputs)
        return x.T.contiguous()

    @property
    def _width(self) -> int:
        """Numbers a member and example in a forward pass."""
        return sum(layer.fan_in + layer.fan_out for layer in self._chain.layers)

    @property
    def _pair(self) -> int:
        """Numbers a member and example for the largest block of the Hessian."""
        widest = max(layer.fan_out for layer in self._chain.layers)
        return 4 * widest**2 + 2 * self._width

    # --- derivatives

    def outputs_of(self, members: Tensor, inputs: Tensor) -> Tensor:
        """Outputs [r, n, ...] of members [r, P] for inputs [n, ...]."""
        return self._outputs(members, self._head(inputs))

    def _outputs(self, members: Tensor, x: Tensor) -> Tensor:
        """Outputs [r, n, ...] of members [r, P] for x [in, n]."""
        h = x.expand(len(members), *x.shape)
        for layer in self._chain.layers:
            h = layer.activate(layer.affine(members, h))
        outputs: Tensor = self._chain.tail.to(x.device)(h.mT.flatten(0, 1))
        return outputs.reshape(len(members), x.shape[1], *outputs.shape[1:])

    def _share(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Sum over members of these examples' part of R: outputs [r n, ...], y [n, ...] -> []."""
        r = len(outputs) // len(y)
        return self._loss(outputs, y.repeat(r, *[1] * (y.ndim - 1))) * (len(outputs) / len(self._targets))

    def _at_outputs(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Delta [r, C, n] and H [r, C, C, n] at the last layer's z [r, C, n]."""
        r, classes, n = z.shape
        with torch.enable_grad():
            cut = z.mT.flatten(0, 1).requires_grad_()  # [r n, C]
            delta, rows = torch.zeros_like(cut), [torch.zeros_like(cut)] * classes
            share = self._share(self._chain.tail.to(cut.device)(cut), y)
            if share.requires_grad:
                (delta,) = torch.autograd.grad(share, cut, create_graph=True)
            if delta.requires_grad:
                rows = [torch.autograd.grad(delta[:, c].sum(), cut, retain_graph=True)[0] for c in range(classes)]
        curved = torch.stack(rows).view(classes, r, n, classes)
        return delta.detach().view(r, n, classes).mT, curved.permute(1, 0, 3, 2)

    def _add_half(self, total: Tensor, members: Tensor, x: Tensor, y: Tensor) -> None:
        """Add these examples' part of the blocks l <= m to total [r, P, P]."""
        layers = self._chain.layers
        h = x.expand(len(members), *x.shape)
        inputs, slopes, bends = [], [], []
        for layer in layers:
            inputs.append(torch.cat([h, torch.ones_like(h[:, :1])], 1) if layer.bias is not None else h)  # [r, b, n]
            z = layer.affine(members, h)
            with torch.enable_grad():
                h, slope, bend = layer.derivatives(z)
            slopes.append(slope)
            bends.append(bend)
        delta, curved = self._at_outputs(z, y)
        for m in reversed(range(len(layers))):
            pulled, reached = curved, torch.empty(0)
            _add_first(total, layers[m], layers[m], curved / 2, inputs[m], inputs[m])  # the other half is its transpose
            for k in reversed(range(m)):
                weight, slope = layers[k + 1].matrix(members), slopes[k]
                pulled = _pull(weight, slope, pulled)  # (dz_m/dz_l)^T H_m, [r, a, o, n]
                if k == m - 1:
                    reached = torch.diag_embed(slope.mT, dim1=1, dim2=2)  # dh_(m-1)/dz_l, [r, a, i, n]
                    below = torch.matmul(weight.mT[:, None], pulled) * slope[:, None]
                else:
                    reached = _pull(weight, slope, reached)
                _add_first(total, layers[k], layers[m], pulled, inputs[k], inputs[m])
                _add_second(total, layers[k], layers[m], reached, inputs[k], delta)
            if m > 0:
                back = torch.bmm(layers[m].matrix(members).mT, delta)  # dR/dh_(m-1), [r, a, n]
                curved, delta = below, slopes[m - 1] * back
                if (bend := bends[m - 1]) is not None:
                    curved.diagonal(dim1=1, dim2=2).add_((bend * back).mT)


def _pull(weight: Tensor, slope: Tensor, above: Tensor) -> Tensor:
    """Slope times W^T above: weight [r, a', a], slope [r, a, n], above [r, a', k, n] -> [r, a, k, n]."""
    pulled = torch.bmm(weight.mT, above.flatten(2))
    return pulled.view(*slope.shape[:2], *above.shape[2:]).mul_(slope[:, :, None])


def _add_first(total: Tensor, low: Layer, high: Layer, pulled: Tensor, h: Tensor, k: Tensor) -> None:
    """Sum_n h_b pulled[a, o] k_i, to the block of the layers: pulled [r, a, o, n], h [r, b, n], k [r, i, n]."""
    step = max(1, CHUNK // k.numel())
    for first in range(0, h.shape[1], step):
        pairs = h[:, first : first + step, None] * k[:, None]  # [r, b, i, n]
        product = torch.bmm(pulled.flatten(1, 2), pairs.flatten(1, 2).mT)
        product = product.view(*pulled.shape[:3], *pairs.shape[1:3])  # [r, a, o, b, i]
        for rows in low.pieces(first, first + pairs.shape[1]):
            for columns in high.pieces(0, k.shape[1]):
                part = product[..., rows.first - first : rows.last - first, columns.first : columns.last]
                _block(total, low, rows, high, columns).add_(part.permute(0, 1, 3, 2, 4))


def _add_second(total: Tensor, low: Layer, high: Layer, reached: Tensor, h: Tensor, delta: Tensor) -> None:
    """Sum_n h_b reached[a, i] delta_o, to the block of the layers: reached [r, a, i, n], delta [r, o, n]."""
    step = max(1, CHUNK // delta.numel())
    for first in range(0, h.shape[1], step):
        pairs = h[:, first : first + step, None] * delta[:, None]  # [r, b, o, n]
        product = torch.bmm(pairs.flatten(1, 2), reached.flatten(1, 2).mT)
        product = product.view(*pairs.shape[:3], *reached.shape[1:3])  # [r, b, o, a, i]
        for rows in low.pieces(first, first + pairs.shape[1]):
            for columns in high.pieces(0, high.fan_in):
                part = product[:, rows.first - first : rows.last - first]
                _block(total, low, rows, high, columns).add_(part.permute(0, 3, 1, 2, 4))


def _block(total: Tensor, low: Layer, rows: Piece, high: Layer, columns: Piece) -> Tensor:
    """Rows (a, b) and columns (o, i) of total [r, P, P], contiguous matrices: a view [r, a, b, o, i]."""
    size = total.shape[1]
    return total.as_strided(
        (len(total), low.fan_out, rows.last - rows.first, high.fan_out, columns.last - columns.first),
        (size * size, rows.stride * size, size, columns.stride, 1),
        total.storage_offset() + rows.start * size + columns.start,
    )


def _add_transpose(matrix: Tensor) -> None:
    """Matrix + its transpose, in place, in tiles that fit a cache."""
    for rows in (slice(first, first + TILE) for first in range(0, len(matrix), TILE)):
        for columns in (slice(first, first + TILE) for first in range(rows.start, len(matrix), TILE)):
            tile = matrix[rows, columns] + matrix[columns, rows].T
            matrix[rows, columns] = tile
            matrix[columns, rows] = tile.T

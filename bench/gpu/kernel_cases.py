"""Every GPU kernel: time, bandwidth or FLOP/s, PyTorch's nearest operator, and what float32 says of the result.

A kernel is one function here, named as in the table (worker/trainer/kernels/kernel_table.h), that returns a Case.
"""
import math

from kernel_bench import Case

CASES = {}
UNTIMED = {"advance": "counts one number", "advance_each": "counts one number a tensor"}


def case(function):
    CASES[function.__name__] = function
    return function


def wanting(*tensors):
    return [t.detach().clone().requires_grad_(True) for t in tensors]


def widened(*tensors):
    return [t.float() for t in tensors]


# ---- Norms.

def norm_sides(b):
    rows, d = b.side(65536, 12), b.side(768, 64)
    return rows, d, b.random(rows, d), b.random(d)


@case
def norm_forward(b):
    rows, d, x, w = norm_sides(b)
    y, scale = b.empty(rows, d), b.floats(rows)
    norm = b.torch.nn.functional.rms_norm
    return Case(b.caller("norm_forward", "NormForwardArgs", x=x, weight=w, y=y, scale=scale, rows=rows, d=d),
                lambda: [y, scale], lambda: [norm(x.float(), (d,), w.float(), 1e-6), (x.float().square().mean(1) + 1e-6).rsqrt()],
                bytes=4 * rows * d, nearest=lambda: norm(x, (d,), w, 1e-6), nearest_is="rms_norm")


@case
def norm_backward(b):
    rows, d, x, w = norm_sides(b)
    dy, residual, dx, dw = b.random(rows, d), b.random(rows, d), b.empty(rows, d), b.empty(d)
    scale = (x.float().square().mean(1) + 1e-6).rsqrt()
    workspace = b.floats(((rows + 3) // 4 if rows < 2048 else 512) * d)
    norm = b.torch.nn.functional.rms_norm
    narrow = wanting(x, w)

    def expected():
        wide = wanting(*widened(x, w))
        gx, gw = b.torch.autograd.grad(norm(wide[0], (d,), wide[1], 1e-6), wide, dy.float())
        return [gx + residual.float(), gw]
    return Case(b.caller("norm_backward", "NormBackwardArgs", dy=dy, x=x, weight=w, scale=scale, residual=residual, dx=dx, dweight=dw,
                         workspace=workspace, rows=rows, d=d),
                lambda: [dx, dw], expected, bytes=8 * rows * d, nearest=b.gradients(norm(narrow[0], (d,), narrow[1], 1e-6), narrow, dy),
                nearest_is="backward of rms_norm, without the residual")


# ---- Losses.

@case
def cross_entropy(b):
    n, v = b.side(8192, 6), b.side(32128, 500)
    logits, targets, nll = b.random(n, v), b.integers(1, v, (n,)), b.floats(n)
    start, (narrow,) = logits.clone(), wanting(logits)
    loss = b.torch.nn.functional.cross_entropy

    def expected():
        p = start.float().softmax(1)
        p[b.torch.arange(n, device=p.device), targets] -= 1
        return [p, loss(start.float(), targets, reduction="none")]

    def nearest():
        return b.torch.autograd.grad(loss(narrow, targets, reduction="sum"), narrow)
    return Case(b.caller("cross_entropy", "CrossEntropyArgs", logits=logits, targets=targets, nll=nll, n=n, v=v, gradient=True),
                lambda: [logits, nll], expected, bytes=4 * n * v, nearest=nearest, nearest_is="cross_entropy, forward and backward")


@case
def mixture(b):
    n, k, v = b.side(512, 3), b.side(15, 4), b.side(32128, 300)
    logits, targets, nll, dprior = b.random(n, k, v), b.integers(1, v, (n,)), b.floats(n), b.floats(n, k)
    prior = b.random(n, k, dtype=b.torch.float32).log_softmax(1)
    start = logits.clone()

    def loss(x, log_prior):
        of_target = x.float().log_softmax(2).gather(2, targets.view(n, 1, 1).expand(n, k, 1)).squeeze(2)
        return -(log_prior + of_target).logsumexp(1)

    def expected():
        wide = wanting(start.float(), prior)
        found = loss(*wide)
        gradient = b.torch.autograd.grad(found.sum(), wide)
        return [gradient[0], found.detach(), gradient[1]]
    narrow = wanting(start, prior)
    return Case(b.caller("mixture", "MixtureArgs", logits=logits, log_prior=prior, targets=targets, nll=nll, dlog_prior=dprior, n=n, k=k, v=v,
                         gradient=True),
                lambda: [logits, nll, dprior], expected, bytes=4 * n * k * v,
                nearest=lambda: b.torch.autograd.grad(loss(*narrow).sum(), narrow), nearest_is="log_softmax, gather, logsumexp and their backward")


# ---- Gates.

def gate_sides(b):
    rows, columns = b.side(65536, 9), b.side(2048, 40)
    both = b.random(rows, 2 * columns)
    return rows, columns, both, both[:, :columns], both[:, columns:], {"rows": rows, "columns": columns, "stride": 2 * columns,
                                                                      "activation": b.module.enum("Activation", "kGelu")}


def gelu_gate(b):
    return lambda u, v: b.torch.nn.functional.gelu(u, approximate="tanh") * v


@case
def gate_forward(b):
    rows, columns, _, u, v, sides = gate_sides(b)
    out, gate = b.empty(rows, columns), gelu_gate(b)
    return Case(b.caller("gate_forward", "GateForwardArgs", u=u, v=v, out=out, **sides), lambda: [out], lambda: [gate(u.float(), v.float())],
                bytes=6 * rows * columns, nearest=lambda: gate(u, v), nearest_is="gelu and a product")


@case
def gate_backward(b):
    rows, columns, _, u, v, sides = gate_sides(b)
    dout, gate, dboth = b.random(rows, columns), gelu_gate(b), b.empty(rows, 2 * columns)
    narrow = wanting(u, v)

    def expected():
        wide = wanting(*widened(u, v))
        return list(b.torch.autograd.grad(gate(*wide), wide, dout.float()))
    return Case(b.caller("gate_backward", "GateBackwardArgs", u=u, v=v, dout=dout, du=dboth, dv=dboth[:, columns:], **sides),
                lambda: [dboth[:, :columns], dboth[:, columns:]], expected, bytes=10 * rows * columns,
                nearest=b.gradients(gate(*narrow), narrow, dout), nearest_is="backward of gelu and a product")


@case
def relu_forward(b):
    x = b.random(b.side(65536 * 3072, 1000))
    y = b.empty(len(x))
    return Case(b.caller("relu_forward", "ReluForwardArgs", x=x, y=y, n=len(x)), lambda: [y], lambda: [x.float().relu()], bytes=4 * len(x),
                nearest=lambda: b.torch.relu(x), nearest_is="relu")


@case
def relu_backward(b):
    dy = b.random(b.side(65536 * 3072, 1000))
    y, dx = b.random(len(dy)).relu(), b.empty(len(dy))
    return Case(b.caller("relu_backward", "ReluBackwardArgs", dy=dy, y=y, dx=dx, n=len(dy)), lambda: [dx],
                lambda: [dy.float() * (y != 0)], bytes=6 * len(dy),
                nearest=lambda: b.torch.ops.aten.threshold_backward(dy, y, 0), nearest_is="threshold_backward")


def gru_sides(b):
    rows, d = b.side(65536, 9), b.side(768, 40)
    both = b.random(rows, 2 * d)
    return rows, d, b.random(rows, d), both[:, :d], both[:, d:], {"rows": rows, "d": d, "stride": 2 * d}


@case
def gru_reset_forward(b):
    rows, d, x, reset, _, sides = gru_sides(b)
    y = b.empty(rows, d)
    return Case(b.caller("gru_reset_forward", "GruResetForwardArgs", x=x, reset=reset, y=y, **sides), lambda: [y],
                lambda: [reset.float().sigmoid() * x.float()], bytes=6 * rows * d, nearest=lambda: reset.sigmoid() * x,
                nearest_is="sigmoid and a product")


@case
def gru_reset_backward(b):
    rows, d, x, reset, _, sides = gru_sides(b)
    dy, dx, dreset = b.random(rows, d), b.empty(rows, d), b.empty(rows, 2 * d)
    narrow = wanting(x, reset)

    def expected():
        wide = wanting(*widened(x, reset))
        return list(b.torch.autograd.grad(wide[1].sigmoid() * wide[0], wide, dy.float()))
    return Case(b.caller("gru_reset_backward", "GruResetBackwardArgs", x=x, reset=reset, dy=dy, dx=dx, dreset=dreset, **sides),
                lambda: [dx, dreset[:, :d]], expected, bytes=10 * rows * d,
                nearest=b.gradients(narrow[1].sigmoid() * narrow[0], narrow, dy), nearest_is="backward of sigmoid and a product")


def gru_mix(x, update, candidate):
    return x + update.sigmoid() * (candidate.tanh() - x)


@case
def gru_mix_forward(b):
    rows, d, x, update, _, sides = gru_sides(b)
    candidate, y = b.random(rows, d), b.empty(rows, d)
    return Case(b.caller("gru_mix_forward", "GruMixForwardArgs", x=x, update=update, candidate=candidate, y=y, **sides), lambda: [y],
                lambda: [gru_mix(*widened(x, update, candidate))], bytes=8 * rows * d, nearest=lambda: gru_mix(x, update, candidate),
                nearest_is="sigmoid, tanh, three others")


@case
def gru_mix_backward(b):
    rows, d, x, update, _, sides = gru_sides(b)
    candidate, dy, dx, dcandidate, dupdate = b.random(rows, d), b.random(rows, d), b.empty(rows, d), b.empty(rows, d), b.empty(rows, 2 * d)
    narrow = wanting(x, update, candidate)

    def expected():
        wide = wanting(*widened(x, update, candidate))
        return list(b.torch.autograd.grad(gru_mix(*wide), wide, dy.float()))
    return Case(b.caller("gru_mix_backward", "GruMixBackwardArgs", x=x, update=update, candidate=candidate, dy=dy, dx=dx, dupdate=dupdate,
                         dcandidate=dcandidate, **sides),
                lambda: [dx, dupdate[:, :d], dcandidate], expected, bytes=14 * rows * d,
                nearest=b.gradients(gru_mix(*narrow), narrow, dy), nearest_is="backward of sigmoid, tanh, three others")


# ---- Optimisers: the work is dealt out as kernels/optimizer_plan.cc does.

TILE_ROWS, TILE_COLUMNS = 64, 256


class Optimizer:
    """All tensors of a model: masters, states and gradients, and the plan of their tiles."""

    def __init__(self, b, factored):
        t, self.b = b.torch, b
        self.sides = b.side([(32128, 768), *[(768, 768)] * 144, *[(768, 3072)] * 48, *[(768, 1)] * 62], [(70, 300), (130, 129), (40, 1)])
        self.value = [b.random(*s, dtype=t.float32, scale=0.3) for s in self.sides]
        self.gradient = [b.random(*s) for s in self.sides]
        self.copy = [b.empty(*s) for s in self.sides]
        self.first, self.second = [b.floats(*s) for s in self.sides], [b.floats(*s) for s in self.sides]
        self.row_means, self.column_means = [b.floats(s[0]) for s in self.sides], [b.floats(s[1]) for s in self.sides]
        self.factored = [factored and min(s) >= 64 for s in self.sides]
        self.count = sum(math.prod(s) for s in self.sides)
        self.plan()

    def add_tiles(self, place, rows, columns):
        first = len(self.tiles)
        self.tiles += [(place, 0, row, column) for row in range(0, rows, TILE_ROWS) for column in range(0, columns, TILE_COLUMNS)]
        return {"rows": rows, "columns": columns, "first_tile": first, "tiles": len(self.tiles) - first}

    def reserve(self, floats):
        self.floats += floats
        return self.floats - floats

    def plan(self):
        self.tiles, self.means, self.matrices, self.floats, planned = [], [], [], 0, {}
        for place, (rows, columns) in enumerate(self.sides):
            if self.factored[place]:
                planned[place] = {**self.add_tiles(place, rows, columns), "factored": True,
                                  "row_sums": self.reserve(-(-columns // TILE_COLUMNS) * rows),
                                  "column_sums": self.reserve(-(-rows // TILE_ROWS) * columns), "matrix_means": self.reserve(1)}
                self.matrices.append((place, 0, 0, 0))
                for size, of_columns in ((rows, False), (columns, True)):
                    self.means += [(place, 0, first, of_columns) for first in range(0, size, TILE_COLUMNS)]
        factored_tiles = len(self.tiles)
        for place, (rows, columns) in enumerate(self.sides):
            if not self.factored[place]:
                planned[place] = self.add_tiles(place, -(-rows * columns // TILE_COLUMNS), TILE_COLUMNS)
        sums = self.floats
        self.reserve(2 * len(self.tiles) + 2 * len(self.sides))
        b, struct = self.b, self.b.module.struct
        tensors = [struct("OptimizerTensor", value=self.value[i], copy=self.copy[i], gradient=self.gradient[i], first_moment=self.first[i],
                          second_moment=self.second[i], row_means=self.row_means[i], column_means=self.column_means[i],
                          count=math.prod(self.sides[i]), whole_count=math.prod(self.sides[i]), **planned[i]) for i in range(len(self.sides))]
        names = ("tensor", "matrix", "row", "column")
        self.on_device = {
            "tensors": b.upload(tensors), "tiles": b.upload(struct("OptimizerTile", **dict(zip(names, tile))) for tile in self.tiles),
            "means": b.upload(struct("OptimizerMeans", tensor=m[0], matrix=m[1], first=m[2], of_columns=m[3]) for m in self.means),
            "matrices": b.upload(struct("OptimizerTile", **dict(zip(names, m))) for m in self.matrices),
            "workspace": b.floats(self.floats)}
        self.work = {**self.on_device, "tensor_count": len(self.sides), "tile_count": len(self.tiles), "factored_tiles": factored_tiles,
                     "means_count": len(self.means), "matrix_count": len(self.matrices), "sums": sums,
                     "totals": sums + 2 * len(self.tiles)}
        self.rate, self.steps = b.floats(1).fill_(0.01), b.floats(len(self.sides)).fill_(1)
        self.step = b.torch.ones(1, dtype=b.torch.int64, device=b.device)


@case
def gradient_norm(b):
    o = Optimizer(b, False)
    partial, norm, factor = b.empty(len(o.tiles), dtype=b.torch.float64), b.floats(1), b.floats(1)

    def nearest():
        return b.torch.linalg.vector_norm(b.torch.stack(b.torch._foreach_norm(o.gradient)))
    return Case(b.caller("gradient_norm", "GradientNormArgs", work=o.work, partial=partial, norm=norm, factor=factor, limit=1.0),
                lambda: [norm, factor], lambda: [g := sum(x.float().square().sum().double() for x in o.gradient).sqrt().float().view(1), 1 / g],
                bytes=2 * o.count, nearest=nearest, nearest_is="_foreach_norm")


@case
def adamw(b):
    o = Optimizer(b, False)
    start = [x.clone() for x in o.value]
    states = [[b.torch.zeros_like(x) for x in start] for _ in range(3)]
    values, gradients, steps = [x.clone() for x in start], [x.float() for x in o.gradient], [b.floats(1)[0].fill_(1) for _ in start]

    def expected():
        left = []
        for x, g in zip(start, gradients):
            left.append(x - 0.01 * g / (g.abs() + 1e-8))  # the first step
        return [left[0], left[0]]

    def nearest():
        b.torch._fused_adamw_(values, gradients, states[0], states[1], [], steps, lr=0.01, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=1e-8,
                              amsgrad=False, maximize=False)
    return Case(b.caller("adamw", "AdamWArgs", work=o.work, steps=o.steps, rate=o.rate), lambda: [o.value[0], o.copy[0]], expected,
                bytes=28 * o.count, nearest=nearest if b.on_gpu else None,
                nearest_is="_fused_adamw_ in float32, without the bfloat16 copy")


class Adafactor:
    """Its first step of the first tensor, in the two calls that it is."""

    def __init__(self, b):
        self.b, self.o = b, Optimizer(b, True)
        self.start, self.gradient = self.o.value[0].clone(), self.o.gradient[0].float()

    def call(self, kernel):
        return self.b.caller(kernel, "AdafactorArgs", work=self.o.work, step=self.o.step, rate=self.o.rate)

    def totals(self):
        first = self.o.work["totals"]
        return self.o.work["workspace"][first:first + 2]

    def update(self):
        square = self.gradient.square() + 1e-30
        rows, columns = square.mean(1, keepdim=True), square.mean(0, keepdim=True)
        return self.gradient * (rows / rows.mean()).rsqrt() * columns.rsqrt()


@case
def adafactor_measure(b):
    a = Adafactor(b)
    return Case(a.call("adafactor_measure"), lambda: [a.totals()],
                lambda: [b.torch.stack([a.start.square().sum(), a.update().square().sum()])],
                bytes=6 * a.o.count, nearest_is="none: PyTorch's Adafactor takes an operator after the other")


@case
def adafactor_apply(b):
    a = Adafactor(b)
    a.call("adafactor_measure")()

    def expected():
        update = a.update()
        update /= update.square().mean().sqrt().clamp(min=1.0)
        return [a.start - 0.01 * a.start.square().mean().sqrt().clamp(min=1e-3) * update]
    return Case(a.call("adafactor_apply"), lambda: [a.o.value[0]], expected,
                bytes=12 * a.o.count, nearest_is="none: PyTorch's Adafactor takes an operator after the other")


# ---- Convolutions.

def convolution_sides(b):
    sides = {"batch": b.side(128, 2), "length": b.side(512, 12), "channels": b.side(768, 40), "width": 9, "first": -4}
    x = b.random(sides["batch"], sides["length"], sides["channels"])
    return sides, x, x.numel()


def grouped(b, x, kernel):
    """x [b, t, c], kernel [width, c], by PyTorch's convolution in its own layout."""
    channels = x.shape[2]
    return b.torch.nn.functional.conv1d(x.transpose(1, 2), kernel.t().unsqueeze(1), padding=4, groups=channels).transpose(1, 2)


@case
def convolve(b):
    sides, x, count = convolution_sides(b)
    kernel, y = b.random(9, sides["channels"], dtype=b.torch.float32), b.torch.zeros_like(x)
    turned, taps = x.transpose(1, 2).contiguous(), kernel.t().unsqueeze(1).contiguous().to(x.dtype)
    return Case(b.caller("convolve", "ConvolveArgs", x=x, kernel=kernel, y=y, **sides), lambda: [y], lambda: [grouped(b, x.float(), kernel)],
                bytes=4 * count, nearest=lambda: b.torch.nn.functional.conv1d(turned, taps, padding=4, groups=sides["channels"]),
                nearest_is="conv1d, one group a channel, in its own layout")


@case
def convolve_kernel_gradient(b):
    sides, x, count = convolution_sides(b)
    dy, dkernel = b.random(*x.shape), b.floats(9, sides["channels"])
    workspace = b.floats(sides["batch"] * (-(-sides["length"] // 256)) * 9 * sides["channels"])
    turned, (taps,) = x.transpose(1, 2).contiguous(), wanting(b.random(sides["channels"], 1, 9))
    convolved = b.torch.nn.functional.conv1d(turned, taps, padding=4, groups=sides["channels"])

    def expected():
        (kernel,) = wanting(b.floats(9, sides["channels"]))
        return list(b.torch.autograd.grad(grouped(b, x.float(), kernel), [kernel], dy.float()))
    return Case(b.caller("convolve_kernel_gradient", "ConvolveKernelGradientArgs", x=x, dy=dy, dkernel=dkernel, workspace=workspace, **sides),
                lambda: [dkernel], expected, bytes=4 * count, nearest=b.gradients(convolved, [taps], dy.transpose(1, 2).contiguous()),
                nearest_is="backward of conv1d by its kernel")


def dynamic_sides(b):
    sides = {"batch": b.side(32, 2), "length": b.side(512, 12), "channels": b.side(768, 40), "width": 9, "first": -4}
    sides["kernels"] = sides["channels"]
    x = b.random(sides["batch"], sides["length"], sides["channels"])
    return sides, x, b.random(sides["batch"], sides["length"], 9, sides["channels"]), x.numel()


def unfolded(b, x, logits):
    taps = b.torch.nn.functional.pad(x, (0, 0, 4, 4)).unfold(1, 9, 1)
    return (taps * logits.softmax(2).transpose(2, 3)).sum(-1)


@case
def dynamic_convolve(b):
    sides, x, logits, count = dynamic_sides(b)
    y = b.torch.zeros_like(x)
    return Case(b.caller("dynamic_convolve", "DynamicConvolveArgs", x=x, logits=logits, y=y, **sides), lambda: [y],
                lambda: [unfolded(b, x.float(), logits.float())], bytes=22 * count, nearest=lambda: unfolded(b, x, logits),
                nearest_is="softmax, unfold, product and sum")


@case
def dynamic_convolve_backward(b):
    sides, x, logits, count = dynamic_sides(b)
    dy, dx, dlogits = b.random(*x.shape), b.torch.zeros_like(x), b.torch.zeros_like(logits)
    y, workspace, narrow = unfolded(b, x.float(), logits.float()).to(x.dtype), b.floats(*x.shape), wanting(x, logits)

    def expected():
        wide = wanting(*widened(x, logits))
        return list(b.torch.autograd.grad(unfolded(b, *wide), wide, dy.float()))
    return Case(b.caller("dynamic_convolve_backward", "DynamicConvolveBackwardArgs", x=x, logits=logits, y=y, dy=dy, dx=dx, dlogits=dlogits,
                         workspace=workspace, **sides),
                lambda: [dx, dlogits], expected, bytes=44 * count, nearest=b.gradients(unfolded(b, *narrow), narrow, dy),
                nearest_is="backward of softmax, unfold, product and sum", tolerance=3e-2)


# ---- Attention scores that are stored, and attention that stores none.

def softmax_sides(b):
    sides = {"batch": b.side(16, 2), "heads": b.side(12, 3), "q": b.side(512, 10), "k": b.side(512, 24)}
    return sides, [sides["batch"] * sides["heads"], sides["q"], sides["k"]]


@case
def softmax_forward(b):
    sides, shape = softmax_sides(b)
    scores, bias = b.random(*shape), b.random(sides["heads"], sides["q"], sides["k"], dtype=b.torch.float32)
    mask = b.floats(sides["batch"], sides["k"])
    mask[:, -2:] = -1e30
    start = scores.clone()
    narrow = bias.to(scores.dtype)

    def sums(x, bias):
        return x.view(sides["batch"], sides["heads"], sides["q"], sides["k"]) + bias + mask[:, None, None].to(x.dtype)
    return Case(b.caller("softmax_forward", "SoftmaxForwardArgs", scores=scores, bias=bias, mask=mask, **sides), lambda: [scores],
                lambda: [sums(start.float(), bias).softmax(-1).view(shape)], bytes=4 * scores.numel(),
                nearest=lambda: sums(start, narrow).softmax(-1), nearest_is="two sums and softmax")


@case
def softmax_backward(b):
    sides, shape = softmax_sides(b)
    p, dp = b.random(*shape).float().softmax(-1).to(b.torch.bfloat16), b.random(*shape)
    dbias, start = b.floats(sides["heads"], sides["q"], sides["k"]), dp.clone()

    def expected():
        left = p.float() * (start.float() - (p.float() * start.float()).sum(-1, keepdim=True))
        return [left, left.view(sides["batch"], *dbias.shape).sum(0)]
    return Case(b.caller("softmax_backward", "SoftmaxBackwardArgs", p=p, dp=dp, dbias=dbias, **sides), lambda: [dp, dbias], expected,
                bytes=6 * dp.numel() + 4 * dbias.numel(), nearest=lambda: b.torch.ops.aten._softmax_backward_data(start, p, -1, p.dtype),
                nearest_is="_softmax_backward_data, without the bias's gradient")


def bucket_of(torch, relative):
    """T5's bidirectional bucket of key - query: 32 of them, up to a distance of 128."""
    side, distance = (relative > 0).long() * 16, relative.abs()
    far = 8 + (torch.log(distance.clamp(min=1).float() / 8) / math.log(128 / 8) * 8).long()
    return side + torch.where(distance < 8, distance, far.clamp(max=15))


def attention_sides(b):
    batch, heads, length, depth = b.side(128, 2), b.side(12, 2), b.side(512, 24), b.side(64, 16)
    qkv = b.random(batch, length, 3, heads, depth, scale=depth ** -0.25)
    table = b.random(32, heads, dtype=b.torch.float32)
    place = b.torch.arange(length, device=b.device)
    bucket = bucket_of(b.torch, place[None, :] - place[:, None])
    packed = {"batch": length * 3 * heads * depth, "head": depth, "row": 3 * heads * depth}
    dense = {"batch": length * heads * depth, "head": depth, "row": heads * depth}
    inputs = {"shape": {"batch": batch, "heads": heads, "queries": length, "keys": length, "depth": depth}, "table": table,
              **{name: {"data": qkv[:, :, i], "strides": packed} for i, name in enumerate("qkv")}}
    q, k, v = (qkv[:, :, i].transpose(1, 2) for i in range(3))
    return inputs, (q, k, v), table, bucket, dense, batch * heads * length * length * depth


def attend(b, q, k, v, bias):
    return b.torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), scale=1.0)


def plain_attention(q, k, v, table, bucket):
    bias = table.t()[:, bucket]
    return (q @ k.transpose(2, 3) + bias).softmax(-1) @ v


@case
def attention_forward(b):
    inputs, qkv, table, bucket, dense, products = attention_sides(b)
    batch, heads, length, depth = qkv[0].shape
    out, lse = b.empty(batch, length, heads, depth), b.floats(batch, heads, length)
    bias = table.t()[:, bucket].unsqueeze(0)
    few = slice(0, 2)  # float32's scores of the whole batch would not fit
    return Case(b.caller("attention_forward", "AttentionForwardArgs", typed=False, **{"in": inputs}, out={"data": out, "strides": dense}, lse=lse),
                lambda: [out.transpose(1, 2)[few]], lambda: [plain_attention(*[x[few].float() for x in qkv], table, bucket)],
                flops=4 * products, nearest=lambda: attend(b, *qkv, bias.expand(batch, -1, -1, -1)),
                nearest_is="scaled_dot_product_attention with a stored bias that needs no gradient")


@case
def attention_backward(b):
    inputs, qkv, table, bucket, dense, products = attention_sides(b)
    batch, heads, length, depth = qkv[0].shape
    out, lse, dout = b.empty(batch, length, heads, depth), b.floats(batch, heads, length), b.random(batch, length, heads, depth)
    dqkv, dtable = b.empty(batch, length, 3, heads, depth), b.floats(32, heads)
    forward = b.caller("attention_forward", "AttentionForwardArgs", typed=False, **{"in": inputs}, out={"data": out, "strides": dense}, lse=lse)
    forward()
    blocks = -(-length // (128 if depth <= 64 else 64))
    workspace = b.empty(batch * heads * (length * 16 + blocks * 128), dtype=b.torch.uint8)
    gradients = {f"d{name}": {"data": dqkv[:, :, i], "strides": inputs["q"]["strides"]} for i, name in enumerate("qkv")}
    few = slice(0, 2)
    narrow = wanting(*qkv, table.t()[:, bucket].unsqueeze(0).to(b.torch.bfloat16))

    def expected():
        wide = wanting(*[x[few].float() for x in qkv])
        return list(b.torch.autograd.grad(plain_attention(*wide, table, bucket), wide, dout.transpose(1, 2)[few].float()))
    call = b.caller("attention_backward", "AttentionBackwardArgs", typed=False, **{"in": inputs}, out={"data": out, "strides": dense},
                    dout={"data": dout, "strides": dense}, lse=lse, dtable=dtable, workspace=workspace, **gradients)
    return Case(call, lambda: [dqkv[:, :, i].transpose(1, 2)[few] for i in range(3)], expected, flops=10 * products,
                nearest=b.gradients(attend(b, *narrow[:3], narrow[3].expand(batch, -1, -1, -1)), narrow, dout.transpose(1, 2)),
                nearest_is="backward of scaled_dot_product_attention with a stored bias and its gradient", tolerance=3e-2)


# ---- Experts.

@case
def route(b):
    batch, length, experts, capacity = b.side(128, 3), b.side(512, 40), b.side(32, 4), b.side(19, 6)
    expert = b.integers(0, experts, (batch, length))
    slot, token = b.integers(0, 1, (batch, length)), b.integers(0, 1, (experts, batch, capacity))

    def places():
        chosen = b.torch.nn.functional.one_hot(expert, experts)
        place = (chosen.cumsum(1) * chosen).sum(2) - 1
        number = (expert * batch + b.torch.arange(batch, device=expert.device)[:, None]) * capacity + place
        return b.torch.where(place < capacity, number, -1)
    return Case(b.caller("route", "RouteArgs", typed=False, expert=expert, slot_of_token=slot, token_of_slot=token, batch=batch, length=length,
                         experts=experts, capacity=capacity, width=capacity),
                lambda: [slot.float()], lambda: [places().float()], bytes=8 * (2 * slot.numel() + token.numel()), nearest=places,
                nearest_is="one_hot, cumsum and four others, one direction only")


def gather_sides(b):
    rows, d = b.side(65536, 20), b.side(768, 40)
    index = b.torch.randperm(rows, generator=b.generator, device=b.device)
    return rows, d, index, b.random(rows, d)


@case
def gather_rows(b):
    rows, d, index, x = gather_sides(b)
    gate, out = b.random(rows, dtype=b.torch.float32), b.empty(rows, d)
    return Case(b.caller("gather_rows", "GatherRowsArgs", x=x, index=index, by_destination=gate, out=out, rows=rows, d=d), lambda: [out],
                lambda: [x.float()[index] * gate[:, None]], bytes=4 * rows * d, nearest=lambda: x.index_select(0, index),
                nearest_is="index_select, without the gate")


@case
def row_dots(b):
    rows, d, index, a = gather_sides(b)
    other, dots = b.random(rows, d), b.floats(rows)
    return Case(b.caller("row_dots", "RowDotsArgs", a=a, b=other, index=index, dots=dots, rows=rows, d=d), lambda: [dots],
                lambda: [(a.float() * other.float()[index]).sum(1)], bytes=4 * rows * d,
                nearest=lambda: (a * other.index_select(0, index)).sum(1), nearest_is="index_select, product and sum")


# ---- Dropout's masks and the router's jitter: halves of SplitMix64's outputs, as layers/row_random.h says.

KEY = 0x0123456789abcdef


def random_bits(b, count):
    """32 bits for each of the values 0 ... count - 1 of one row, as int64."""
    torch, lowest = b.torch, 0xffffffff
    shifted = lambda x, n: torch.bitwise_right_shift(x, n) & ((1 << (64 - n)) - 1)  # noqa: E731
    signed = lambda x: (x + (1 << 63)) % (1 << 64) - (1 << 63)  # noqa: E731
    number = torch.arange(count, device=b.device)
    x = (shifted(number, 1) + 1) * signed(0x9e3779b97f4a7c15) + KEY
    x = (x ^ shifted(x, 30)) * signed(0xbf58476d1ce4e5b9)
    x = (x ^ shifted(x, 27)) * signed(0x94d049bb133111eb)
    x = x ^ shifted(x, 31)
    return torch.where(number % 2 == 1, shifted(x, 32), x & lowest)


@case
def random_mask(b):
    count = b.side(65536 * 768, 1000)
    out, threshold = b.empty(count), round(0.1 * 2 ** 32)
    return Case(b.caller("random_mask", "RandomMaskArgs", where={"key": KEY, "inner": count}, out=out, threshold=threshold, scale=1 / 0.9),
                lambda: [out], lambda: [(random_bits(b, count) >= threshold) / 0.9], bytes=2 * count,
                nearest=lambda: b.empty(count).bernoulli_(0.9), nearest_is="bernoulli_, of other draws")


@case
def random_uniform(b):
    count = b.side(65536 * 768, 1000)
    out = b.floats(count)
    return Case(b.caller("random_uniform", "RandomUniformArgs", typed=False, where={"key": KEY, "inner": count}, out=out, low=0.99, width=0.02),
                lambda: [out], lambda: [random_bits(b, count) * 2.0 ** -32 * 0.02 + 0.99], bytes=4 * count,
                nearest=lambda: b.floats(count).uniform_(0.99, 1.01), nearest_is="uniform_, of other draws")


# ---- Linear attention.

def feature_sides(b):
    rows, m, e = b.side(262144, 10), b.side(256, 48), b.side(64, 16)
    return {"side": b.module.enum("FeatureSide", "kKey"), "rows": rows, "m": m, "e": e}, b.random(rows, m, scale=0.3), b.random(rows, e, scale=0.2)


def key_features(projections, x):
    m = projections.shape[1]
    return m ** -0.5 * ((projections - x.square().sum(1, keepdim=True) / 2).clamp(max=60).exp() + 1e-6)


@case
def features_forward(b):
    sides, projections, x = feature_sides(b)
    features = b.torch.zeros_like(projections)
    return Case(b.caller("features_forward", "FeaturesForwardArgs", projections=projections, x=x, features=features, **sides),
                lambda: [features], lambda: [key_features(projections.float(), x.float())],
                bytes=2 * (2 * projections.numel() + x.numel()), nearest=lambda: key_features(projections, x),
                nearest_is="sum of squares, exp and five others")


@case
def features_backward(b):
    sides, projections, x = feature_sides(b)
    dfeatures, dprojections, dx = b.random(*projections.shape), b.torch.zeros_like(projections), b.torch.zeros_like(x)
    narrow = wanting(projections, x)

    def expected():
        wide = wanting(*widened(projections, x))
        return list(b.torch.autograd.grad(key_features(*wide), wide, dfeatures.float()))
    return Case(b.caller("features_backward", "FeaturesBackwardArgs", projections=projections, x=x, dfeatures=dfeatures,
                         dprojections=dprojections, dx_square=dx, **sides),
                lambda: [dprojections, dx], expected, bytes=2 * (3 * projections.numel() + 2 * x.numel()),
                nearest=b.gradients(key_features(*narrow), narrow, dfeatures), nearest_is="backward of sum of squares, exp and five others")


@case
def carried_sums(b):
    n, chunks, size = b.side(1536, 3), b.side(8, 5), b.side(65 * 256, 40)
    x = b.random(n, chunks, size)
    out = b.torch.zeros_like(x)
    return Case(b.caller("carried_sums", "CarriedSumsArgs", x=x, out=out, n=n, chunks=chunks, size=size), lambda: [out],
                lambda: [x.float().cumsum(1) - x.float()], bytes=4 * x.numel(), nearest=lambda: x.cumsum(1), nearest_is="cumsum")


def quotient(sums):
    return sums[:, :-1] / sums[:, -1:].clamp(min=1e-12)


@case
def quotient_forward(b):
    rows, d = b.side(786432, 10), b.side(64, 16)
    sums, y = b.random(rows, d + 1).abs() + 0.5, b.empty(rows, d)
    return Case(b.caller("quotient_forward", "QuotientForwardArgs", sums=sums, y=y, rows=rows, d=d), lambda: [y],
                lambda: [quotient(sums.float())], bytes=2 * (2 * rows * d + rows), nearest=lambda: quotient(sums), nearest_is="clamp and a quotient")


@case
def quotient_backward(b):
    rows, d = b.side(786432, 10), b.side(64, 16)
    sums, dy = b.random(rows, d + 1).abs() + 0.5, b.random(rows, d)
    dsums, narrow = b.torch.zeros_like(sums), wanting(sums)

    def expected():
        wide = wanting(sums.float())
        return list(b.torch.autograd.grad(quotient(*wide), wide, dy.float()))
    return Case(b.caller("quotient_backward", "QuotientBackwardArgs", sums=sums, dy=dy, dsums=dsums, rows=rows, d=d), lambda: [dsums],
                expected, bytes=2 * (3 * rows * d + 2 * rows), nearest=b.gradients(quotient(*narrow), narrow, dy),
                nearest_is="backward of clamp and a quotient")

"""What a GPU kernel's case is, what cases are made with, and how they are measured.

Bytes are the least that must move: every input read once, every output written once.
"""
import ctypes
import dataclasses

from kernel_module import BFLOAT16

TOLERANCE = 2e-2  # of results stored as bfloat16, relative to the value and the array's root mean square
WARM_UP, ROUNDS, EACH = 3, 9, 5
BANDWIDTH_GOAL = 0.8
COPY_BYTES = 1 << 30


@dataclasses.dataclass
class Case:
    call: object                 # queues the kernel
    outputs: object              # () -> what it left, after one call
    expected: object             # () -> the same from PyTorch in float32
    bytes: int = 0
    flops: int = 0
    nearest: object = None       # PyTorch's way to the same, in bfloat16
    nearest_is: str = ""
    tolerance: float = TOLERANCE


class Bench:
    """What cases are made with: a device, its kernels, and sides that are base's on a GPU and a few on a CPU."""

    def __init__(self, torch, module, device):
        self.torch, self.module, self.device, self.on_gpu = torch, module, device, device != "cpu"
        self.generator = torch.Generator(device).manual_seed(5)
        self.stream = torch.cuda.current_stream(device).cuda_stream if self.on_gpu else None

    def side(self, on_gpu, on_cpu):
        return on_gpu if self.on_gpu else on_cpu

    def random(self, *shape, dtype=None, scale=1.0):
        values = self.torch.randn(shape, generator=self.generator, device=self.device, dtype=self.torch.float32) * scale
        return values.to(dtype or self.torch.bfloat16)

    def integers(self, low, high, shape):
        return self.torch.randint(low, high, shape, generator=self.generator, device=self.device)

    def empty(self, *shape, dtype=None):
        return self.torch.zeros(shape, dtype=dtype or self.torch.bfloat16, device=self.device)

    def floats(self, *shape):
        return self.empty(*shape, dtype=self.torch.float32)

    def caller(self, kernel, struct, /, typed=True, **values):
        """() -> queues `kernel` with these arguments; they stay alive with it."""
        made, function = self.module.struct(struct, **values), getattr(self.module, kernel)
        leading = (self.stream, BFLOAT16) if typed else (self.stream,)

        def call():
            function(*leading, ctypes.byref(made))
            return values
        return call

    def gradients(self, outputs, inputs, gradient):
        """() -> PyTorch's own backward pass of what it has computed."""
        return lambda: self.torch.autograd.grad(outputs, inputs, gradient, retain_graph=True)

    def upload(self, structs):
        """An array of C structs on the device."""
        raw = b"".join(bytes(s) for s in structs) or bytes(1)
        return self.torch.frombuffer(bytearray(raw), dtype=self.torch.uint8).to(self.device)


def relative_error(found, expected):
    """The largest difference, relative to the value and the array's root mean square."""
    found, expected = found.float(), expected.float()
    scale = expected.abs() + expected.square().mean().sqrt() + 1e-30
    return ((found - expected).abs() / scale).max().item()


def correctness(made):
    expected = [x.clone() for x in made.expected()]
    made.call()
    return max(relative_error(found, wanted) for found, wanted in zip(made.outputs(), expected, strict=True))


def microseconds(torch, calls):
    """Median microseconds of each of `calls`, taken in turn, by the device's own clock."""
    taken = {name: [] for name in calls}
    for turn in range(WARM_UP + ROUNDS):
        for name, call in calls.items():
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            for _ in range(EACH):
                call()
            end.record()
            end.synchronize()
            if turn >= WARM_UP:
                taken[name].append(start.elapsed_time(end) * 1000 / EACH)
    return {name: sorted(values)[len(values) // 2] for name, values in taken.items()}


def copier(torch, device):
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def measure(bench, made, peak_flops):
    """A case's row. Bandwidth counts bytes read and written, for the copy too."""
    torch = bench.torch
    row = {"error": correctness(made), "bytes": made.bytes, "flops": made.flops, "nearest": made.nearest_is}
    error = getattr(bench.module, "last_error")()
    if error:
        raise RuntimeError(error.decode())
    if not row["error"] <= made.tolerance:
        row["wrong"] = f"differs from float32 by {row['error']:.2g}, more than {made.tolerance}"
    if not bench.on_gpu:
        return row
    calls = {"kernel": made.call, **({"nearest": made.nearest} if made.nearest else {}), "copy": copier(torch, bench.device)}
    taken = microseconds(torch, calls)
    row["microseconds"] = taken
    row["times_nearest"] = taken["nearest"] / taken["kernel"] if made.nearest else None
    row["copy_bytes_per_s"] = 2 * COPY_BYTES / taken["copy"] * 1e6
    if made.flops:
        row["flops_per_s"] = made.flops / taken["kernel"] * 1e6
        row["share_of_peak"] = row["flops_per_s"] / peak_flops
    else:
        row["bytes_per_s"] = made.bytes / taken["kernel"] * 1e6
        share = row["share_of_bandwidth"] = row["bytes_per_s"] / row["copy_bytes_per_s"]
        row["goals"] = [{"goal": "share of a copy's bandwidth", "wanted": BANDWIDTH_GOAL, "value": share, "hit": share >= BANDWIDTH_GOAL}]
    return row

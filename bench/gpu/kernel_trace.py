"""What the GPU was busy with while steps ran: kernel_trace.cc's lines, by kind of kernel."""
import collections
import glob
import os
import pathlib
import re
import subprocess
import sysconfig

# The first that matches. A fused attention's products are inside its kernel: it counts as matrix products.
KINDS = [("attention", r"flash|fmha|sdpa|attention"), ("products", r"gemm|nvjet|cutlass|cublas|xmma|splitk|gemv|wgrad|dgrad|_dot_"),
         ("copies", r"^\[copy\]|^\[fill\]|catarray|direct_copy|copy_kernel"), ("optimiser", r"adam|adafactor|multi_tensor|foreach|norm.*gradient|squarednorm"),
         ("loss and softmax", r"crossentropy|cross_entropy|mixture|softmax|nll"), ("norms", r"norm"), ("convolutions", r"convol"),
         ("sums", r"reduce|sum"), ("gathers", r"index|gather|scatter|embedding|route"), ("elementwise", r"elementwise|vectorized|gate|relu|gru")]
PRODUCTS = ("products", "attention")
IDLE_BOUND = 0.25


class NoTrace(Exception):
    """There are no records; says why."""


def kind_of(name):
    low = name.lower()
    return next((kind for kind, pattern in KINDS if re.search(pattern, low)), "others")


def build_library(folder):
    """kernel_trace.cc, built with CUPTI's header and library where they are found."""
    site = sysconfig.get_paths()["purelib"]
    homes = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda", *glob.glob(f"{site}/nvidia/cu*")]
    includes = [p for home in homes if home for p in (f"{home}/include", f"{home}/extras/CUPTI/include") if os.path.exists(f"{p}/cupti.h")]
    headers = [p for p in dict.fromkeys(includes + [f"{home}/include" for home in homes if home]) if os.path.isdir(p)]
    libraries = [p for pattern in (f"{site}/nvidia/*/lib/libcupti.so.1*", "/usr/local/cuda/extras/CUPTI/lib64/libcupti.so.1*",
                                   "/usr/local/cuda/lib64/libcupti.so.1*") for p in sorted(glob.glob(pattern))]
    if not includes or not libraries:
        raise NoTrace("there is no cupti.h or no libcupti.so")
    library = pathlib.Path(folder) / "libtrace.so"
    done = subprocess.run(["g++", "-std=c++20", "-shared", "-fPIC", "-O2", str(pathlib.Path(__file__).with_name("kernel_trace.cc")),
                           *[f"-I{p}" for p in headers], "-o", str(library), libraries[0],
                           f"-Wl,-rpath,{os.path.dirname(libraries[0])}"], capture_output=True, text=True)
    if done.returncode:
        raise NoTrace(f"kernel_trace.cc does not build: {done.stderr.strip()[:200]}")
    return library


def read(path, start, end):
    """(start, end, name) in seconds of what ran between two times."""
    if not path.exists():
        raise NoTrace("the trainer left no trace: the driver did not load it")
    records = []
    for line in path.read_text(errors="replace").splitlines():
        first, _, rest = line.partition("\t")
        last, _, name = rest.partition("\t")
        if first.isdigit() and last.isdigit() and int(last) / 1e9 > start and int(first) / 1e9 < end:
            records.append((max(int(first) / 1e9, start), min(int(last) / 1e9, end), name))
    if not records:
        raise NoTrace("no kernel was recorded in the time of the steps")
    return records


def busy(records):
    """Seconds in which at least one of them ran."""
    total, until = 0.0, float("-inf")
    for start, end, _ in sorted(records):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def shares(records, start, end, steps):
    """Shares of the wall time. Kernels that overlap count each, so that kinds may add up to more than the busy share."""
    wall, kinds, names = end - start, collections.Counter(), collections.Counter()
    for first, last, name in records:
        kinds[kind_of(name)] += (last - first) / wall
        names[name] += (last - first) / wall
    products = sum(kinds[kind] for kind in PRODUCTS)
    idle = max(0.0, 1 - busy(records) / wall)
    return {"how": "kernels recorded by CUPTI while steps ran", "seconds_per_step": wall / steps, "records_per_step": len(records) / steps,
            "idle": idle, "outside_products": max(0.0, 1 - products), "kinds": dict(kinds.most_common()),
            "largest": [[name[:120], share] for name, share in names.most_common(6)], "bound_by": bound_by(idle, kinds)}


def bound_by(idle, kinds):
    products = sum(kinds[kind] for kind in PRODUCTS)
    others = collections.Counter({kind: share for kind, share in kinds.items() if kind not in PRODUCTS})
    if idle > IDLE_BOUND:
        return f"launches and the host: the device is idle for {idle:.0%}"
    if products >= 0.5 or not others:
        return f"matrix products: {products:.0%} of the time"
    largest, share = others.most_common(1)[0]
    return f"memory traffic outside of products, most in {largest} ({share:.0%})"


def derived(share_of_peak):
    """Without records: products at the measured peak would take `share_of_peak` of the time; the rest is outside, or below it."""
    return {"how": "derived: what is left of the time if every product ran at the measured peak", "outside_products": 1 - share_of_peak,
            "bound_by": "not known without records"}

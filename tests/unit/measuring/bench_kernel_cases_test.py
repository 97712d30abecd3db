#!/usr/bin/env python3
"""bench/gpu's case of every kernel, through the emulated kernels on a CPU: the kernel is called rightly and agrees with PyTorch.

    bench_kernel_cases_test.py MODULE HEADERS
"""
import json
import pathlib
import subprocess
import sys
import tempfile

GPU = pathlib.Path(__file__).resolve().parents[3] / "bench/gpu"
sys.path.insert(0, str(GPU))
import kernel_cases  # noqa: E402


def main():
    module, headers = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "kernels.json"
        subprocess.run([sys.executable, str(GPU / "gpu.py"), "--rehearse", "--only", "3", "--kernels", module, "--kernel-headers", headers,
                        "--limit", "1e6", "-o", str(output)], check=True)
        rows = json.loads(output.read_text())["rows"]
    bad = [f"{row['name']}: {row.get('wrong') or row['skipped']}" for row in rows
           if "wrong" in row or ("skipped" in row and row["name"] not in kernel_cases.UNTIMED)]
    if bad or len(rows) < 20:
        sys.exit("\n".join([f"{len(rows)} kernels", *bad]))
    print(f"{len(rows)} kernels")


if __name__ == "__main__":
    main()

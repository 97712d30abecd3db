"""Item 4: loss curves on the GPU in bf16 against a CPU's in float32, on the same data, from the same weights.

A CPU's curves take longer than one wants to hold a GPU for: they lie in cpu_curves.json, of a prepared folder that it names by the
hashes of its tokens, and were made by

    python bench/gpu/gpu.py --only cpu-curves --trainer build/release/allo-trainer --curves-data PREPARED
"""
import concurrent.futures
import hashlib
import json
import os
import pathlib

import trainer_process
from trainer_process import Failed

FILE = pathlib.Path(__file__).resolve().with_name("cpu_curves.json")
STEPS, LAST, SEEDS, BATCH, LENGTH = 200, 50, (0, 1, 2), 16, 128
SHAPE = dict(encoder_layers=4, decoder_layers=4, d_model=32, d_ff=128, heads=2, d_kv=16)
OPTIONS = {"switch": {"placement": "huggingface"}}
OPTIMIZER = {"name": "adafactor", "learning_rate": 0.02, "schedule": "inverse_sqrt", "warmup_steps": 128}
FIRST_STEP = 1e-2
AT_ONCE = 6  # on a GPU these models are bound by their launches


def data_facts(folder):
    described = json.loads((pathlib.Path(folder) / "data.json").read_text())
    tokens = sorted((name, file["sha256"]) for name, file in described["files"].items() if name.endswith((".tokens", ".index")))
    return {"data_sha256": hashlib.sha256(json.dumps(tokens).encode()).hexdigest(), "vocabulary": described["tokenizer"]["vocabulary"]}


def recipe(facts):
    return {**facts, "shape": {**SHAPE, "vocabulary": facts["vocabulary"]}, "batch": BATCH, "input_length": LENGTH, "steps": STEPS,
            "optimizer": OPTIMIZER}


def curve(runner, architecture, seed, device, precision, made, steps=STEPS, **execution):
    outcome = runner.run(f"curve-{architecture}-{seed}-{device.replace(':', '')}", architecture, made["shape"], device, precision,
                         steps=steps, batch=made["batch"], length=made["input_length"], seed=seed, log_every=1,
                         options=OPTIONS.get(architecture), optimizer=OPTIMIZER, **execution)
    losses = outcome.losses()
    return [losses[step] for step in sorted(losses)]


def mean(values):
    return sum(values) / len(values)


def deviation(values):
    center = mean(values)
    return (sum((x - center) ** 2 for x in values) / max(len(values) - 1, 1)) ** 0.5


def judge(gpu, cpu, seed):
    """cpu: curves by seed. Over the last steps, the mean of what a step's loss differs by, and the mean of what the seeds' losses
    of one step do; beside it the same of the mean loss over those steps, which is the stricter comparison."""
    steps = range(len(gpu) - LAST, len(gpu))
    gap = mean([abs(gpu[step] - cpu[seed][step]) for step in steps])
    sd = mean([deviation([losses[step] for losses in cpu.values()]) for step in steps])
    first = abs(gpu[0] - cpu[seed][0])
    last = {s: mean(losses[-LAST:]) for s, losses in cpu.items()}
    return {"first_step_gap": first, "mean_gap": gap, "seeds_sd": sd, "last_loss": mean(gpu[-LAST:]),
            "gap_of_means": abs(mean(gpu[-LAST:]) - last[seed]), "seeds_sd_of_means": deviation(list(last.values())),
            "goals": [{"goal": "first step", "wanted": FIRST_STEP, "value": first, "hit": first <= FIRST_STEP},
                      {"goal": "mean gap in the seeds' sd", "wanted": 0.5, "value": gap / sd if sd else None, "hit": gap < 0.5 * sd}]}


class Curves:
    def __init__(self, context):
        self.c, self.options = context, context.options
        self.file = pathlib.Path(self.options.cpu_curves or FILE)
        self.runner = trainer_process.Trainer(self.options.trainer, self.options.curves_data, context.trainer.work)

    def architectures(self):
        return self.options.architectures or trainer_process.ARCHITECTURES

    def on_cpu(self, clock):
        """Makes or goes on with the file of the CPU's curves."""
        made = recipe(data_facts(self.options.curves_data))
        known = json.loads(self.file.read_text()) if self.file.exists() else {}
        if {key: known.get(key) for key in made} != made:
            known = {**made, "version": self.c.facts["version"], "curves": {}}
        for architecture in self.architectures():
            for seed in SEEDS:
                of_seeds = known["curves"].setdefault(architecture, {})
                if str(seed) in of_seeds:
                    continue
                if clock.left() < 30:
                    print(f"cpu-curves: the time was up before {architecture}, seed {seed}", flush=True)
                    return
                losses = curve(self.runner, architecture, seed, "cpu", "fp32", made, threads=self.options.threads or os.cpu_count())
                of_seeds[str(seed)] = [round(x, 5) for x in losses]
                self.file.with_suffix(".partial").write_text(self.compact(known))
                os.replace(self.file.with_suffix(".partial"), self.file)
                print(f"cpu-curves: {architecture}, seed {seed}: {losses[0]:.4f} to {mean(losses[-LAST:]):.4f}", flush=True)

    def compact(self, known):
        """A curve a line."""
        head = json.dumps({key: value for key, value in known.items() if key != "curves"}, indent=1)[:-2]
        lines = ",\n".join(f'  "{name}": {{' + ",\n   ".join(f'"{seed}": {json.dumps(c)}' for seed, c in seeds.items()) + "}"
                           for name, seeds in known["curves"].items())
        return f'{head},\n "curves": {{\n{lines}\n }}\n}}\n'

    def why_not(self, known):
        if not known:
            return f"there is no {self.file.name}: make it with --only cpu-curves where there is time"
        if known.get("data_sha256") != data_facts(self.options.curves_data)["data_sha256"]:
            return f"{self.file.name} is of other data than {self.options.curves_data}"
        return None

    def on_gpu(self, clock):
        known = json.loads(self.file.read_text()) if self.file.exists() else {}
        why = self.why_not(known)
        wanted = [a for a in self.architectures() if not self.c.rows.has(4, a)]
        for architecture in wanted:
            if why or len(known["curves"].get(architecture, {})) < len(SEEDS):
                self.c.rows.skip(4, architecture, why or f"{self.file.name} has not all of its curves")
        wanted = [a for a in wanted if not why and len(known["curves"].get(a, {})) == len(SEEDS)]
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda architecture: self.measure(architecture, known, clock), wanted))

    def measure(self, architecture, known, clock):
        if clock.left() < 20:
            self.c.rows.skip(4, architecture, "the time was up")
            return
        seed = SEEDS[0]
        try:
            steps = known["steps"]
            gpu = curve(self.runner, architecture, seed, self.options.device, self.options.precision, known, steps=steps, threads=2,
                        limit=max(clock.left(), 20))
        except Failed as failed:
            self.c.rows.skip(4, architecture, str(failed))
            return
        judged = judge(gpu, {int(s): losses for s, losses in known["curves"][architecture].items()}, seed)
        self.c.rows.put(4, architecture, {**judged, "precision": self.options.precision, "losses": [round(x, 5) for x in gpu]})
        sd = judged["seeds_sd"]
        print(f"item 4, {architecture}: first step {judged['first_step_gap']:.1e}, mean gap over the last {LAST} {judged['mean_gap']:.4f} = "
              f"{judged['mean_gap'] / sd if sd else float('nan'):.2f} sd of the seeds; "
              f"{', '.join(goal['goal'] + (' hit' if goal['hit'] else ' MISS') for goal in judged['goals'])}", flush=True)

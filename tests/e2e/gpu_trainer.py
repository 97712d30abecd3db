#!/usr/bin/env python3
"""The fake trainer on pretended GPUs: `--probe` prints what a file says, and a run on a device fails as that file says.

gpu_trainer.py STATE --probe | --config run.json. STATE is a JSON file: {"devices": [an entry of the probe each]}; an entry may have `raises`, an error text
that a trainer on that device ends with half way, as an exception of PyTorch's would end it, and `exit_code` (1),
and `then`, the fault that the probe tells from that moment on. Every start and end of a run is
appended to STATE.journal as "start|end DEVICE SHARE".
"""
import json
import pathlib
import sys

import fake_trainer


class GpuTrainer(fake_trainer.Trainer):
    def __init__(self, state, config):
        super().__init__(config)
        self.state = state
        self.journal_path = pathlib.Path(f"{state}.journal")

    def note(self, what):
        with open(self.journal_path, "a") as file:
            file.write(f"{what} {self.execution['device']} {self.execution.get('device_share', 1)}\n")

    def checkpoint(self, step):
        super().checkpoint(step)
        state = json.loads(self.state.read_text())
        entry = next((d for d in state["devices"] if d["device"] == self.execution["device"]), {})
        if "raises" in entry and not self.stop:
            self.note("end")
            entry["fault"] = entry.get("then", "")
            written = self.state.with_suffix(".failed")
            written.write_text(json.dumps(state))
            written.rename(self.state)
            print(entry["raises"], file=sys.stderr)
            sys.exit(entry.get("exit_code", 1))


def main():
    state = pathlib.Path(sys.argv[1])
    if sys.argv[2] == "--probe":
        print(state.read_text())
        return 0
    trainer = GpuTrainer(state, json.loads(pathlib.Path(sys.argv[3]).read_text()))
    trainer.note("start")
    try:
        code = trainer.train() if trainer.rank == 0 else trainer.follow()
    except fake_trainer.PeerLost as lost:
        print(lost, file=sys.stderr)
        code = fake_trainer.PEER_LOST
    trainer.note("end")
    return code


if __name__ == "__main__":
    sys.exit(main())

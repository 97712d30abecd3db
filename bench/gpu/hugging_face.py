#!/usr/bin/env python3
"""Training steps of Hugging Face's T5 on one GPU, as a process of its own; prints one JSON object.

    python bench/gpu/hugging_face.py --size base --batch 128 --mode compile --steps 12

bf16 weights, gradients and fused AdamW (allo-trainer keeps float32 masters besides: the comparison favours this side), no
dropout, its SDPA attention where this version of transformers has one for T5, else its eager one. The whole batch at once,
halved as often as the memory says so.
"""
import argparse
import json
import time

from trainer_process import SIZES

LENGTHS = {512: 114, 128: 30}  # targets of span corruption by the inputs' length


def make_model(shape, device, attention):
    import torch
    import transformers
    config = transformers.T5Config(
        vocab_size=shape["vocabulary"], d_model=shape["d_model"], d_kv=shape["d_kv"], d_ff=shape["d_ff"],
        num_layers=shape["encoder_layers"], num_decoder_layers=shape["decoder_layers"], num_heads=shape["heads"], dropout_rate=0.0,
        decoder_start_token_id=0, pad_token_id=0, feed_forward_proj="relu", use_cache=False, attn_implementation=attention)
    torch.manual_seed(1)
    return transformers.T5ForConditionalGeneration(config).to(device, torch.bfloat16).train()


def fastest_attention(shape, device):
    probe = {**dict.fromkeys(shape, 8), "encoder_layers": 1, "decoder_layers": 1, "heads": 1}
    try:
        make_model(probe, device, "sdpa")
        return "sdpa"
    except (ValueError, ImportError):  # "does not support an attention implementation through ..."
        return "eager"


class Steps:
    def __init__(self, options, micro):
        import torch
        self.torch, self.micro = torch, micro
        shape, device = SIZES[options.size], options.device
        self.attention = fastest_attention(shape, device)
        self.model = make_model(shape, device, self.attention)
        self.call = torch.compile(self.model) if options.mode == "compile" else self.model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        generator = torch.Generator().manual_seed(3)
        self.inputs, self.targets = (torch.randint(2, shape["vocabulary"], (options.batch, length), generator=generator).to(device)
                                     for length in (options.input_length, LENGTHS[options.input_length]))
        self.on_gpu = device != "cpu"

    def step(self):
        parts = len(self.inputs) // self.micro
        for row in range(0, len(self.inputs), self.micro):
            loss = self.call(input_ids=self.inputs[row:row + self.micro], labels=self.targets[row:row + self.micro]).loss
            (loss / parts).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def wait(self):
        if self.on_gpu:
            self.torch.cuda.synchronize()

    def seconds(self, steps, blocks):
        """A step's seconds in each of `blocks`, between which the host waits for the device and nowhere else."""
        taken = []
        for _ in range(blocks):
            self.wait()
            start = time.perf_counter()
            for _ in range(steps):
                loss = self.step()
            self.wait()
            taken.append((time.perf_counter() - start) / steps)
        assert loss.item() == loss.item(), "the loss is not a number"
        return taken

    def peak_memory(self):
        return self.torch.cuda.max_memory_reserved() if self.on_gpu else None


def measure(options):
    import torch
    import transformers
    micro = options.micro or options.batch
    while True:
        try:
            steps = Steps(options, micro)
            start = time.perf_counter()
            steps.seconds(options.warm_up, 1)
            warm_up = time.perf_counter() - start
            seconds = steps.seconds(options.steps, options.blocks)
            return {"seconds_per_step": seconds, "micro_batch": micro, "attention": steps.attention, "peak_memory": steps.peak_memory(),
                    "warm_up_seconds": warm_up, "transformers": transformers.__version__, "torch": torch.__version__}
        except torch.OutOfMemoryError:
            if micro == 1:
                raise
        micro //= 2
        steps = None
        torch.cuda.empty_cache()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", required=True, choices=list(SIZES))
    parser.add_argument("--mode", required=True, choices=["eager", "compile"])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--micro", type=int)
    parser.add_argument("--input-length", type=int, default=512, choices=list(LENGTHS))
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="steps of a block")
    parser.add_argument("--blocks", type=int, default=3)
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()

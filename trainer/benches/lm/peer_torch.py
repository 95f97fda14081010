"""The workloads of `rebel bench` in PyTorch, with transformers' GPT-NeoX, on a CPU.

    python peer_torch.py --mode sft|rebel|sample [--threads 2] [--layers 6 --hidden 256 ...]

prints one JSON line with the keys of `rebel bench --json`. `make bench BENCH=lm TORCH_PYTHON=...` alternates the two
(docs/speed.md). The committed numbers were taken with Python 3.11 and

    pip install torch==2.15.0 transformers==4.46.3

What is timed is the usual code: float32, scaled-dot-product attention, torch.optim.AdamW, a key-value cache. Rows of
the pair loss share no prompt here, and the same work is done where they do.
"""
import argparse
import json
import os
import resource
import statistics
import time

SIZES = {"layers": 6, "hidden": 256, "heads": 8, "vocab": 2048, "seq": 128, "batch": 8}
TEMPERATURE = 0.7


def model(of):
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        num_hidden_layers=of.layers, hidden_size=of.hidden, num_attention_heads=of.heads, vocab_size=of.vocab,
        intermediate_size=4 * of.hidden, max_position_embeddings=max(of.seq, 2048), rotary_pct=0.25,
        use_parallel_residual=True, attention_dropout=0.0, hidden_dropout=0.0, attn_implementation="sdpa",
        bos_token_id=0, eos_token_id=0,
    )
    return GPTNeoXForCausalLM(config)


def cross_entropy(torch, language_model, ids):
    """Mean over rows and all their tokens but the first of -ln p(token | those before)."""
    logits = language_model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def pair_loss(torch, language_model, ids, prompt, old, reward):
    """REBEL's regression with eta = 1; rows 2i and 2i + 1 are a pair."""
    logits = language_model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    logprobs = (logits[:, prompt - 1 : -1] / TEMPERATURE).log_softmax(dim=-1)  # [rows, response, vocab]
    new = logprobs.gather(-1, ids[:, prompt:, None]).squeeze(-1).sum(dim=1)  # [rows]
    moved, wanted = (new - old).view(-1, 2), reward.view(-1, 2)
    error = (moved[:, 0] - moved[:, 1]) - (wanted[:, 0] - wanted[:, 1])
    return error.square().mean()


def training_step(torch, of, language_model, random):
    """A closure that takes one optimizer step and says its loss, and the tokens it counts."""
    rows = of.batch if of.mode == "sft" else 2 * of.batch
    prompt, response = of.seq // 2, of.seq - of.seq // 2
    ids = torch.randint(of.vocab, (rows, of.seq), generator=random)
    old = 0.1 * torch.randn(rows, generator=random) - 5.0 * response
    reward = torch.randn(rows, generator=random)
    language_model.train()
    optimizer = torch.optim.AdamW(language_model.parameters(), lr=3e-4, eps=1e-5, weight_decay=0.0)

    def step():
        optimizer.zero_grad(set_to_none=True)
        if of.mode == "sft":
            loss = cross_entropy(torch, language_model, ids)
        else:
            loss = pair_loss(torch, language_model, ids, prompt, old, reward)
        loss.backward()
        if of.mode == "rebel":
            torch.nn.utils.clip_grad_norm_(language_model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step, rows * of.seq


def sampling_step(torch, of, language_model, random):
    """A closure that continues every prompt by as many tokens as the longest has, and the tokens it counts."""
    from transformers import DynamicCache

    width = of.seq // 2
    prompts = torch.randint(of.vocab, (of.batch, width), generator=random)
    seen = torch.ones_like(prompts)
    seen[::2, : width // 4] = 0  # every second prompt is a quarter shorter, padded on the left
    language_model.eval()

    @torch.inference_mode()
    def step():
        read, mask, cache = prompts, seen, DynamicCache()
        position = (mask.cumsum(dim=1) - 1).clamp_min(0)
        for _ in range(width):
            out = language_model(
                input_ids=read, attention_mask=mask, position_ids=position, past_key_values=cache, use_cache=True
            )
            read = torch.multinomial((out.logits[:, -1] / TEMPERATURE).softmax(dim=-1), 1)
            position = position[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(of.batch, 1)], dim=1)

    return step, of.batch * width


def rounded(seconds):
    return round(seconds, 6)


def measure(of):
    import torch
    import transformers

    torch.set_num_threads(of.threads)
    torch.manual_seed(0)
    language_model = model(of)
    prepare = sampling_step if of.mode == "sample" else training_step
    step, tokens = prepare(torch, of, language_model, torch.Generator().manual_seed(1))
    warm_up, repeats = (1, max(of.repeat // 2, 3)) if of.mode == "sample" else (2, of.repeat)
    for _ in range(warm_up):
        step()
    wall, cpu = [], []
    for _ in range(repeats):
        clock, processor = time.perf_counter(), time.process_time()
        value = step()
        wall.append(time.perf_counter() - clock)
        cpu.append(time.process_time() - processor)
    typical, best = statistics.median(wall), min(wall)
    return {
        "mode": of.mode,
        "tokens_per_s": round(tokens / typical, 1),
        "best_tokens_per_s": round(tokens / best, 1),
        "step_s": rounded(typical),
        "step_s_min": rounded(best),
        "step_cpu_s_min": rounded(min(cpu)),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "tokens_per_step": tokens,
        "repeats": repeats,
        "parameters": sum(p.numel() for p in language_model.parameters()),
        **{name: getattr(of, name) for name in SIZES},
        "threads": of.threads,
        "dtype": "f32",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "value": value,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mode", required=True, choices=["sft", "rebel", "sample"])
    for name, default in {**SIZES, "threads": 2, "repeat": 12}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    of = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["OMP_NUM_THREADS"] = str(of.threads)  # before torch is imported
    print(json.dumps(measure(of)), flush=True)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Load what `rebel convert` writes in transformers and peft, and compare with what they make of the source.

    check_python.py --rebel target/release/rebel [--vectors tests/vectors/hf]

For every folder of a language or reward model under lm/, lm_v5/ and rm/, and for every adapter under lora/: convert (whole,
cut into shards, bf16), load, compare. In f32 transformers' logits must be equal to the last bit, and the program's own within
2e-5 of the largest; in bf16 the weights must be equal to torch's own rounding. The checkpoints of a short training run are
loaded too. Prints a line a folder; exits 1 when one does not hold, and when transformers, peft or torch is missing.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

try:
    import peft
    import torch
    import transformers
    import yaml
    from safetensors.torch import load_file, save_file
except ImportError as error:
    sys.exit(f"check_python: {sys.executable}: {error} (expected torch, transformers, peft and pyyaml; name a Python by PYTHON=)")

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
MAJOR = int(transformers.__version__.split(".")[0])


class Wrong(Exception):
    """What does not hold."""


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rebel", required=True, help="the program")
    parser.add_argument("--vectors", default=os.path.join(here, "..", "tests", "vectors", "hf"))
    arguments = parser.parse_args()
    print(f"transformers {transformers.__version__}, peft {peft.__version__}, torch {torch.__version__}")
    checks = [(group, name, check) for group, check in CHECKS for name in folders(arguments.vectors, group)]
    checks += [("lm", "neox_bin", pickled), ("rebel", "train", trained)]
    failed = 0
    for group, name, check in checks:
        with tempfile.TemporaryDirectory() as scratch:
            convert = Converter(arguments.rebel, scratch)
            try:
                said = check(os.path.join(arguments.vectors, group, name), convert)
            except Wrong as error:
                failed += 1
                said = f"WRONG: {error}"
            print(f"{group + '/' + name:32} {said}", flush=True)
    print(f"{len(checks) - failed} of {len(checks)} folders hold")
    sys.exit(1 if failed or not checks else 0)


def folders(vectors, group):
    path = os.path.join(vectors, group)
    return sorted(os.listdir(path)) if os.path.isdir(path) else []


class Converter:
    """Runs `rebel convert` into a scratch folder."""

    def __init__(self, program, scratch):
        self.program, self.scratch, self.count = program, scratch, 0

    def run(self, *arguments):
        done = subprocess.run([self.program, *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            raise Wrong(done.stderr.strip())

    def place(self):
        self.count += 1
        return os.path.join(self.scratch, str(self.count))

    def __call__(self, source, *options):
        destination = self.place()
        self.run("convert", source, destination, *options)
        return destination

    def logits(self, folder):
        """The program's own logits of the made-up batch, by a case for `rebel vectors run`."""
        case, out = self.place(), self.place()
        os.mkdir(case)
        for name in os.listdir(folder):
            if name == "config.json" or name.startswith("model"):
                shutil.copyfile(os.path.join(folder, name), os.path.join(case, name))
        vocabulary = json.load(open(os.path.join(folder, "config.json")))["vocab_size"]
        ids, mask = batch(vocabulary)
        padded = ids.masked_fill(mask == 0, vocabulary).contiguous()
        save_file({"input_ids": padded, "gen.prompt_ids": padded.clone()}, os.path.join(case, "expected.safetensors"))
        described = {"kind": "causal_lm", "context_length": 8, "pad_id": vocabulary, "fill_id": 0,
                     "gen": {"new_tokens": 1}, "gen_eos": {"eos_id": 0, "pad_filled_with": 0}}
        with open(os.path.join(case, "expected.json"), "w") as file:
            json.dump(described, file)
        self.run("vectors", "run", case, "--out", out)
        return load_file(os.path.join(out, "got.safetensors"))["logits"][mask.bool()]


def require(holds, what):
    if not holds:
        raise Wrong(what)


def load(folder, dtype=torch.float32, kind=transformers.AutoModelForCausalLM):
    # The word for the type changed between transformers 4 and 5.
    word = "dtype" if MAJOR >= 5 else "torch_dtype"
    model, report = kind.from_pretrained(folder, output_loading_info=True, **{word: dtype})
    loose = [name for name in report["missing_keys"] if not name.endswith("rotary_emb.inv_freq")]
    require(not loose, f"missing in {folder}: {loose}")
    require(not report["mismatched_keys"], f"other shapes in {folder}: {report['mismatched_keys']}")
    return model.eval(), [name for name in report["unexpected_keys"]]


def batch(vocabulary, rows=3, time=17):
    """Left-padded rows of made-up ids: ids, mask."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, vocabulary, (rows, time), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(rows):
        mask[row, : 3 * row] = 0
    return ids, mask


def logits(model):
    ids, mask = batch(model.config.vocab_size)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[mask.bool()]


def farthest(a, b):
    return (a.double() - b.double()).abs().max().item()


def near(ours, theirs):
    """How far the program's logits are, which must be within 2e-5 of the largest."""
    apart = farthest(ours, theirs)
    require(apart <= 2e-5 * max(1.0, theirs.abs().max().item()), f"logits differ by {apart}")
    return apart


def same_texts(source, saved):
    if not os.path.exists(os.path.join(source, "tokenizer.json")):
        return "no tokenizer"
    described = json.load(open(os.path.join(source, "tokenizer_config.json")))
    if MAJOR < 5 and described.get("tokenizer_class") == "TokenizersBackend":
        return "its tokenizer is transformers 5's"
    tokenizers = [transformers.AutoTokenizer.from_pretrained(folder) for folder in (source, saved)]
    for text in ("Hello, world!\n\n TL;DR:", "  näive   русский 漢字 \U0001f642", "<|endoftext|> [PAD]"):
        ids = [tokenizer(text)["input_ids"] for tokenizer in tokenizers]
        require(ids[0] == ids[1], f"{text!r} has other tokens")
    if tokenizers[0].chat_template:
        require(tokenizers[0].chat_template == tokenizers[1].chat_template, "another chat template")
    return "tokenizer"


def card(saved):
    with open(os.path.join(saved, "README.md"), encoding="utf-8") as file:
        head = re.match(r"---\n(.*?)\n---\n", file.read(), re.S)
    require(head, "README.md has no head")
    fields = yaml.safe_load(head.group(1))
    require(fields.get("library_name") and fields.get("pipeline_tag"), f"README.md: {fields}")


def readable(source):
    """The folder itself, or where transformers 4 cannot read its config, the same model as transformers 4 saved it."""
    described = json.load(open(os.path.join(source, "expected.json")))
    return os.path.join(source, "..", "..", described["expected_in"]) if MAJOR < 5 and "expected_in" in described else source


def policy(source, convert):
    wanted = logits(load(readable(source))[0])
    whole = convert(source, "--dtype", "f32")
    apart = 0.0
    for saved in (whole, convert(source, "--dtype", "f32", "--shard-size", "20KB")):
        ours, unexpected = load(saved)
        require(not unexpected, f"unexpected: {unexpected}")
        apart = max(apart, farthest(logits(ours), wanted))
        require(apart == 0, f"logits differ by {apart}")
    own = near(convert.logits(whole), wanted)
    narrow = convert(source, "--dtype", "bf16")
    ours, _ = load(narrow, torch.bfloat16)
    for (name, a), (_, b) in zip(ours.state_dict().items(), load(source, torch.float32)[0].state_dict().items()):
        require(torch.equal(a, b.to(torch.bfloat16)), f"{name} in bf16")
    require(json.load(open(os.path.join(narrow, "config.json")))["torch_dtype"] == "bfloat16", "torch_dtype")
    card(whole)
    if os.path.exists(os.path.join(whole, "generation_config.json")):
        transformers.GenerationConfig.from_pretrained(whole)
    return f"logits, whole and sharded: {apart:g} apart, the program's own {own:.2g}; bf16 weights equal; {same_texts(source, whole)}"


def weights(folder):
    """Every tensor of a folder, whatever the file."""
    single = os.path.join(folder, "pytorch_model.bin")
    if os.path.exists(single):
        return torch.load(single, map_location="cpu", weights_only=True)
    files = [name for name in os.listdir(folder) if name.startswith("model") and name.endswith(".safetensors")]
    return {name: tensor for file in files for name, tensor in load_file(os.path.join(folder, file)).items()}


def pickled(source, convert):
    """What torch saves in its many ways arrives as the same tensors."""
    state = torch.load(os.path.join(source, "pytorch_model.bin"), map_location="cpu", weights_only=True)
    parameters = {name: torch.nn.Parameter(tensor) for name, tensor in state.items()}
    turned = {n: t.t().contiguous().t() if t.dim() == 2 else t for n, t in state.items()}
    storage, views, at = torch.cat([tensor.flatten() for tensor in state.values()]), {}, 0
    for name, tensor in state.items():
        views[name] = storage[at : at + tensor.numel()].view(tensor.shape)
        at += tensor.numel()
    narrow = {name: tensor.bfloat16() for name, tensor in state.items()}
    wrapped = {"epoch": 3, "state_dict": parameters, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}, "best": None}
    old = {"_use_new_zipfile_serialization": False}
    count = 0
    for content in (state, parameters, turned, views, narrow, wrapped):
        for options in ({}, {"pickle_protocol": 4}, old, {**old, "pickle_protocol": 4}):
            folder = convert.place()
            os.mkdir(folder)
            shutil.copyfile(os.path.join(source, "config.json"), os.path.join(folder, "config.json"))
            torch.save(content, os.path.join(folder, "pytorch_model.bin"), **options)
            got = weights(convert(folder))
            wanted = narrow if content is narrow else state
            require(got.keys() <= wanted.keys() and all(torch.equal(got[n], wanted[n]) for n in got), f"{options}: a tensor differs")
            count += 1
    return f"{count} ways of torch.save, each read to the last bit"


def reward(source, convert):
    saved = convert(source, "--dtype", "f32")
    before, after = weights(source), weights(saved)
    for name, tensor in after.items():
        require(name in before and torch.equal(before[name].float(), tensor), f"{name} differs")
    card(saved)
    said = f"{len(after)} of {len(before)} tensors, each equal"
    config = json.load(open(os.path.join(source, "config.json")))
    if config.get("architectures") == ["LlamaForSequenceClassification"]:
        scores = []
        for folder in (source, saved):
            model, unexpected = load(folder, kind=transformers.AutoModelForSequenceClassification)
            require(not unexpected, f"unexpected: {unexpected}")
            ids, _ = batch(model.config.vocab_size - 1)
            with torch.no_grad():
                scores.append(model(input_ids=ids).logits)
        require(torch.equal(*scores), f"rewards differ by {farthest(*scores)}")
        said += "; rewards equal"
    return f"{said}; {same_texts(source, saved)}"


def adapter(source, convert):
    """peft puts the adapter on the base model that we saved; the two worked into one say the same."""
    described = json.load(open(os.path.join(source, "expected.json")))
    base = os.path.join(source, "..", "..", described["base"])
    if not os.path.isdir(base):
        return "skipped: its base model is not here"
    expected = load_file(os.path.join(source, "expected.safetensors"))
    given = {"input_ids" if n == "model_input_ids" else n: expected[n] for n in ("model_input_ids", "attention_mask", "position_ids")}
    mask = given["attention_mask"].bool()
    beside = peft.PeftModel.from_pretrained(load(convert(base, "--dtype", "f32"))[0], source).eval()
    merged, unexpected = load(convert(source, "--base", base))
    require(not unexpected, f"unexpected: {unexpected}")

    def run(model):
        with torch.no_grad():
            return model(**given).logits[mask]

    ours = near(run(beside), expected["logits_adapter"][mask]), near(run(merged), run(beside.merge_and_unload()))
    return f"logits with the adapter on our base {ours[0]:.2g} from the vectors', merged {ours[1]:.2g} from peft's merged"


# A run of every stage in seconds.
SMALL = """world.corpus=60 world.train=24 world.validation=6 world.comparisons=16 world.comparisons_validation=6
world.comparisons_of_samples=10 world.vocabulary=300 world.prompt_length=180 model.hidden=24 model.layers=2 model.heads=3
model.intermediate=40 pretrain.updates=3 pretrain.batch=4 pretrain.eval_every=2 sft.updates=2 sft.batch=4 reward.updates=2
reward.batch=4 online.iterations=1 online.prompts=8 online.micro_batch=4 online.response_length=120
online.checkpoint_every=1 online.epochs=2 eval.every=2 eval.prompts=4""".split()


def trained(_, convert):
    """transformers and peft read the checkpoints of runs as they stand, and make of them what the program makes."""
    runs = convert.place()
    for name, more in (("full", []), ("lora", ["train.part=lora", "train.lora.rank=4", "train.merge=true"])):
        changes = [word for change in SMALL + more for word in ("--set", change)]
        convert.run("train", "--runs", runs, "--name", name, *changes)
    apart = []
    for folder in ("full/checkpoints/pretrain", "full/checkpoints/sft", "full/checkpoints/online", "lora/merged"):
        folder = os.path.join(runs, folder)
        model, unexpected = load(folder)
        require(not unexpected, f"unexpected: {unexpected}")
        apart.append(near(convert.logits(folder), logits(model)))
        require(transformers.AutoTokenizer.from_pretrained(folder)("TL;DR:")["input_ids"], "no tokens")
        card(folder)
    card(os.path.join(runs, "full", "checkpoints", "reward"))
    folder = os.path.join(runs, "lora", "checkpoints", "online")
    beside = peft.PeftModel.from_pretrained(load(os.path.join(runs, "lora", "checkpoints", "sft"))[0], folder).eval()
    merged = near(logits(beside), logits(load(os.path.join(runs, "lora", "merged"))[0]))
    card(folder)
    return f"logits of pretrain, sft, online, merged: {max(apart):.2g} apart; peft's of the adapter: {merged:.2g} from merged"


CHECKS = (("lm", policy), ("lm_v5", policy), ("rm", reward), ("lora", adapter))

if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Load what `rebel convert` writes in transformers and peft, and compare with what they make of the source.

    check_python.py --rebel target/release/rebel [--vectors tests/vectors/hf]

For every folder of a language or reward model under lm/, lm_v5/ and rm/, and for every adapter under lora/: convert (whole,
cut into shards, bf16), load, compare. In f32 logits must be equal to the last bit; in bf16 so must the weights be to torch's
own rounding. Prints a line a folder; exits 1 when one does not hold, and when transformers, peft or torch is missing.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

try:
    import peft
    import torch
    import transformers
    import yaml
    from safetensors.torch import load_file
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

    def __call__(self, source, *options):
        self.count += 1
        destination = os.path.join(self.scratch, str(self.count))
        done = subprocess.run([self.program, "convert", source, destination, *options], capture_output=True, text=True)
        if done.returncode != 0:
            raise Wrong(done.stderr.strip())
        return destination


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
    narrow = convert(source, "--dtype", "bf16")
    ours, _ = load(narrow, torch.bfloat16)
    for (name, a), (_, b) in zip(ours.state_dict().items(), load(source, torch.float32)[0].state_dict().items()):
        require(torch.equal(a, b.to(torch.bfloat16)), f"{name} in bf16")
    require(json.load(open(os.path.join(narrow, "config.json")))["torch_dtype"] == "bfloat16", "torch_dtype")
    card(whole)
    if os.path.exists(os.path.join(whole, "generation_config.json")):
        transformers.GenerationConfig.from_pretrained(whole)
    return f"logits, whole and sharded: {apart:g} apart; bf16 weights equal; {same_texts(source, whole)}"


def weights(folder):
    """Every tensor of a folder, whatever the file."""
    single = os.path.join(folder, "pytorch_model.bin")
    if os.path.exists(single):
        return torch.load(single, map_location="cpu", weights_only=True)
    files = [name for name in os.listdir(folder) if name.startswith("model") and name.endswith(".safetensors")]
    return {name: tensor for file in files for name, tensor in load_file(os.path.join(folder, file)).items()}


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
    """peft puts the adapter on the base model that we saved."""
    expected = load_file(os.path.join(source, "expected.safetensors"))
    described = json.load(open(os.path.join(source, "expected.json")))
    base = os.path.join(source, "..", "..", described["base"])
    if not os.path.isdir(base):
        return "skipped: its base model is not here"
    given = {n: expected[n] for n in ("model_input_ids", "attention_mask", "position_ids")}
    model = peft.PeftModel.from_pretrained(load(convert(base, "--dtype", "f32"))[0], source).eval()
    with torch.no_grad():
        got = model(input_ids=given["model_input_ids"], attention_mask=given["attention_mask"], position_ids=given["position_ids"]).logits
    mask = given["attention_mask"].bool()
    apart = farthest(got[mask], expected["logits_adapter"][mask])
    require(apart < 2e-5, f"logits with the adapter differ by {apart}")
    return f"logits with the adapter on our base: {apart:.2g} from the vectors'"


CHECKS = (("lm", policy), ("lm_v5", policy), ("rm", reward), ("lora", adapter))

if __name__ == "__main__":
    main()

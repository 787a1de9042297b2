#!/usr/bin/env bash
# After one forward pass in evaluation mode, a layer in four bits on the CPU passes no gradient on: what lies below it
# stops learning, and no error is raised.
#
# Versions: bitsandbytes 0.50.2, torch 2.13.0 (CPU), on a processor with AVX512-BF16; others do not take this way, and the
#   script says so and ends.
# Behaviour: in evaluation mode without gradients Linear4bit puts its weight into another form, for a faster product, and
#   keeps it. Back in training mode it still takes that product, which has no derivative: autograd leaves None in the
#   inputs, with a warning of torch's that names an operator.
# The usual guess: `eval()`, a look at held-out rows, `train()` changes nothing about a training.
# Why it matters: QLoRA with evaluation during training is the common recipe. Adapters of the last layer go on learning,
#   so the loss may even fall; all adapters below stand still from the first evaluation on.
# What to do: evaluate with gradients enabled, or let no layer take that way (`support_avx512bf16_for_cpu = False`).
# Output seen:
#   trained only: gradient below the layer 44.0
#   evaluated once, then trained: no gradient below the layer
set -euo pipefail
grep -q avx512_bf16 /proc/cpuinfo || { echo "no AVX512-BF16 here: nothing to see"; exit 0; }
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 packaging==26.0
"$place/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps bitsandbytes==0.50.2
cd "$place"
"$place/venv/bin/python" - 2>/dev/null <<'PYTHON'
import torch
from bitsandbytes.nn import Linear4bit

found = {}
for what, look in (("trained only", False), ("evaluated once, then trained", True)):
    torch.manual_seed(0)
    plain = torch.nn.Linear(256, 256, bias=False)
    layer = Linear4bit(256, 256, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
    layer.load_state_dict(plain.state_dict())
    layer.to("cpu")
    below = torch.randn(8, 256, dtype=torch.bfloat16, requires_grad=True)
    if look:
        layer.eval()
        with torch.no_grad():
            layer(below.detach())
        layer.train()
    layer(below).float().pow(2).sum().backward()
    found[what] = below.grad
    told = "no gradient" if below.grad is None else "gradient"
    size = "" if below.grad is None else f" {below.grad.float().norm():.1f}"
    print(f"{what}: {told} below the layer{size}")
assert found["trained only"] is not None, "it has changed: there is no gradient at all"
assert found["evaluated once, then trained"] is None, "it has changed: the gradient passes"
PYTHON

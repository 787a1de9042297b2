#!/usr/bin/env bash
# The verifier of mathematical answers holds different answers for one.
#
# Version: math-verify 0.9.0 with latex2sympy2_extended 1.11.0 and antlr4-python3-runtime 4.9.3.
# Behaviour: `verify(parse(gold), parse(answer))` is true for answers that differ from the gold by less than about 1e-6
#   of it, and by any factor where both are tiny: 10^{-20} and 10^{-21} are one answer. It reads `12_8` and `12_9`
#   (numbers in base 8 and 9) as the same, and a mixed number `11 5/6` as a quotient.
# The usual guess: two numbers that are written exactly are compared exactly; a numeric comparison comes only where a
#   symbolic one cannot decide.
# Why it matters: it is the reward and the filter of many pipelines. An answer that is wrong by a factor of ten is kept
#   as right, trained on, and counted in the benchmark's score.
# What to do: compare exactly first, and numerically only what is not exact.
# Output seen:
#   0.1 | 0.10000001 | True
#   $10^{-20}$ | $10^{-21}$ | True
#   $x^2+10^{-20}$ | $x^2$ | True
#   $12_8$ | $12_9$ | True
#   $0.5$ | $0.6$ | False
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check math-verify==0.9.0 antlr4-python3-runtime==4.9.3
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
from math_verify import parse, verify

pairs = [
    ("0.1", "0.10000001"), ("$10^{-20}$", "$10^{-21}$"), ("$x^2+10^{-20}$", "$x^2$"), ("$12_8$", "$12_9$"),
    ("$0.5$", "$0.6$"),
]
found = []
for gold, answer in pairs:
    found.append(verify(parse(gold), parse(answer)))
    print(gold, answer, found[-1], sep=" | ")
assert found == [True, True, True, True, False], f"it has changed: {found}"
PYTHON

"""Stillhouse: a data-centric distillation pipeline, as a graph of tables.

To read it, go from what the data is to what is done with it; a room imports only what stands above it here.

    contracts.py, errors.py, display.py    every table and column; what a run may end with; text made safe to show
    tables/       ids, Parquet, SQL: what the data is
    core/         how a stage and a method are declared, found and run
    kinds/        what each kind of method is given and gives: read the one that you want to write
    text/, model/, memo/    text without a model; a model folder; what was asked before
    gateway/      one address over HTTP
    origins/ sources/ verifiers/ backends/ scorers/ readers/ selectors/ objectives/    the methods, a file a family
    asking/, training/, checking/, report/    what stages are made of
    laws/         what every method of a kind obeys
    stages/       one verb each
    plan/         `params.yaml` to instances
    commands/     what people call
"""

import os

# Set before any library reads them: the pipeline speaks to nobody it was not told to speak to.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
# A bar in a log file is a thousand lines; stages report progress themselves.
os.environ.setdefault("TQDM_DISABLE", "1")

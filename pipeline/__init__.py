"""Stillhouse: a data-centric distillation pipeline, as a graph of tables."""

import os

# Set before any library reads them: the pipeline speaks to nobody it was not told to speak to.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
# A bar in a log file is a thousand lines; stages report progress themselves.
os.environ.setdefault("TQDM_DISABLE", "1")

"""Prefect over the graph of `dvc.yaml`: parallel branches, retries, schedules, a view.

Nothing needs it: `dvc repro` alone gives the same bytes. Importing this package first makes Prefect and DVC stay
on this machine, and keeps Prefect's data in `data/.prefect` of the folder that it is run in.
"""

import os
from pathlib import Path

for _name, _value in {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "PREFECT_HOME": str(Path.cwd() / "data" / ".prefect"),
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # A first start migrates a new database: about 40 s on two busy cores, where the default gives up after 20.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}.items():
    os.environ.setdefault(_name, _value)

"""Commands: what people and `dvc.yaml` call, one file each."""

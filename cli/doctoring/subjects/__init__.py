"""One file per subject; `doctoring/base.py` says what each defines."""

"""Data and recipes that headway ships: what `headway demo` trains on."""

"""End-to-end parity: what a bundle answers to raw strings, beside what the source's own library answers."""

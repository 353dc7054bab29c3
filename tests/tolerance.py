"""How far a result may be from its reference, per dtype: the only place where tolerances stand."""

TOLERANCE: dict[str, tuple[float, float]] = {  # dtype name -> (rtol, atol)
    "float32": (1e-5, 1e-6),
    "float16": (2e-3, 1e-3),
    "bfloat16": (1.6e-2, 1e-2),
    "int8": (0.1, 0.1),
}

MODEL: dict[
    str, tuple[float, float]
] = {  # precision of a whole model's logits and probabilities -> (rtol, atol)
    "fp32": (1e-4, 1e-5),
    "int8": (0.2, 0.25),
}
NEIGHBOURS: dict[str, tuple[float, float]] = {  # the same, a text alone against the same text in a batch
    "fp32": (1e-4, 1e-5),
    "int8": (1e-4, 1e-5),
}

"""A corpus of model folders in the forms that other people's models have, and what the reference libraries give.

Each builder writes a tiny random model. `tokenizers` has the kinds of tokenizer, `models` the architectures,
`embedders`, `cross_encoders`, `classifiers` and `taggers` the folder layouts and configuration files of a task, and
`references` the answers of sentence-transformers and transformers, which are the right ones.
"""

import time

t = time.time()
import sys


def test_x(pretrained, train_file, dev_file, texts, tmp_path):
    from headway.train.fit import train
    from headway.train.options import TrainOptions
    from headway.train import checkpoint as c
    from collections import Counter
    import numpy as np

    for lr in (1e-3, 3e-3):
        for e in (2, 3):
            t = time.time()
            r = train(
                "text-classification",
                TrainOptions(
                    model=str(pretrained),
                    train=train_file,
                    eval=dev_file,
                    output=tmp_path / f"{lr}-{e}",
                    epochs=e,
                    learning_rate=lr,
                    batch_size=16,
                    max_length=48,
                    precision="fp32",
                ),
            )
            o = c.outputs(c.open_checkpoint(r.checkpoint), texts)["logits"]
            print(lr, e, r.metrics, Counter(o.argmax(-1).tolist()), o.std(), time.time() - t)

"""The bundled model, from scratch: tokenizer, synthetic corpus, pre-training, gates.

`python -m erl_trainer nano` builds it and measures what it can do.
"""

from erl_trainer.nano.command import main

__all__ = ["main"]

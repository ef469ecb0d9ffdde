"""The bundled model, from scratch: tokenizer, synthetic corpus, pre-training, gates."""

"""The paper's experiments on your own datasets, other protocols, and robustness."""

"""The paper's experiments on your own datasets, next to the paper's AUCs."""

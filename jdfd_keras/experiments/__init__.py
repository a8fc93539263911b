"""The paper's experiments on your own datasets, with the paper's AUCs beside yours."""

"""The paper's tables and figures again, on data sets of one's own, beside the paper's numbers."""

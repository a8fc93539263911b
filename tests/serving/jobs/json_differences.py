"""Where two results of `predict` differ, and where they may."""

# All that may differ: the command line, times, and the path of the model.
VARYING = {
    "provenance.command",
    "provenance.created_at",
    "provenance.where",
    "files[0].analysed_at",
    "failed[0].analysed_at",
}


def find_differences(first, second, place=""):
    """Return the places where two JSON values differ."""
    if isinstance(first, dict) and isinstance(second, dict):
        if first.keys() != second.keys():
            return {f"{place}: {sorted(first.keys() ^ second.keys())}"}
        pairs = [(f"{place}.{name}".lstrip("."), first[name], second[name]) for name in first]
    elif isinstance(first, list) and isinstance(second, list):
        if len(first) != len(second):
            return {f"{place}: {len(first)} and {len(second)}"}
        pairs = [(f"{place}[{n}]", *both) for n, both in enumerate(zip(first, second, strict=True))]
    else:
        # True is not 1 here, and NaN would not be JSON.
        return set() if repr(first) == repr(second) else {place}
    return set().union(*(find_differences(one, other, at) for at, one, other in pairs))

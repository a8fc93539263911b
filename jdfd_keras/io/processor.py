"""Instructions of this machine's processor that decide in which precision it computes fast."""

from pathlib import Path

CPUINFO = "/proc/cpuinfo"
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}


def has_bfloat16(cpuinfo: str | Path = CPUINFO) -> bool:
    r"""Return whether the processor multiplies bfloat16 numbers by instructions of its own.

    These are AVX512-BF16 and AMX-BF16. Other processors compute bfloat16 by conversions, slower
    than float32.

    Args:
        cpuinfo: Description of the processors by Linux; elsewhere, where there is none, the
            answer is False.

    Example:
        >>> _ = Path("cpuinfo").write_text("processor : 0\nflags : fpu avx512_bf16\n")
        >>> has_bfloat16("cpuinfo"), has_bfloat16("missing")
        (True, False)
    """
    path = Path(cpuinfo)
    if not path.is_file():
        return False
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    flags = [set(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")]
    # All of them: a thread may run on any core.
    return bool(flags) and all(core & BFLOAT16_FLAGS for core in flags)

"""What the processors can do, in the names of os-traits.

Rules of this file: only what /proc/cpuinfo says of every CPU; names as in os-traits 3.2 (hw/cpu/x86, hw/arch).
"""

from __future__ import annotations

import re

from earmark.drivers.sysfs.tree import Tree

CPUINFO = "/proc/cpuinfo"
FLAGS = re.compile(r"^flags[ \t]*:[ \t]*(.*)$", re.MULTILINE)
MODEL = re.compile(r"^(?:model name|Processor|cpu model|cpu)[ \t]*:[ \t]*([ -~]{1,100}?)[ \t]*$", re.MULTILINE)
ARCHITECTURES = {
    "aarch64": "HW_ARCH_AARCH64",
    "ppc64": "HW_ARCH_PPC64",
    "ppc64le": "HW_ARCH_PPC64LE",
    "riscv64": "HW_ARCH_RISCV64",
    "s390x": "HW_ARCH_S390X",
    "x86_64": "HW_ARCH_X86_64",
}
X86 = {
    "abm": "ABM",
    "aes": "AESNI",
    "avx": "AVX",
    "avx2": "AVX2",
    "avx512bw": "AVX512BW",
    "avx512cd": "AVX512CD",
    "avx512dq": "AVX512DQ",
    "avx512f": "AVX512F",
    "avx512vl": "AVX512VL",
    "bmi1": "BMI",
    "bmi2": "BMI2",
    "f16c": "F16C",
    "fma": "FMA3",
    "pclmulqdq": "CLMUL",
    "pni": "SSE3",
    "sha_ni": "SHA",
    "sse4_1": "SSE41",
    "sse4_2": "SSE42",
    "ssse3": "SSSE3",
    "svm": "SVM",
    "vmx": "VMX",
}
HYPERTHREADING = "HW_CPU_HYPERTHREADING"


def read_traits(tree: Tree, architecture: str | None, *, threads: bool) -> tuple[str, ...]:
    """Return the traits of a host, sorted. `threads` says whether a core has more than one CPU."""
    lines = FLAGS.findall(tree.text(CPUINFO) or "")
    flags = set.intersection(*(set(line.split()) for line in lines)) if lines else set()
    traits = {f"HW_CPU_X86_{X86[flag]}" for flag in flags & X86.keys()}
    if architecture in ARCHITECTURES:
        traits.add(ARCHITECTURES[architecture])
    if threads:
        traits.add(HYPERTHREADING)
    return tuple(sorted(traits))


def read_model(tree: Tree) -> str | None:
    """Return the name of the processors as the first of them gives it; None if it gives none."""
    match = MODEL.search(tree.text(CPUINFO) or "")
    return " ".join(match[1].split()) if match else None

"""NVIDIA's XID codes that matter to serving, after the "XID Errors" catalogue of NVIDIA's GPU deployment documentation."""

from __future__ import annotations

from trimtab.messages import Severity

# code -> (what it means, how bad it is for the replica on that GPU). "info": the application's own doing, the GPU is well.
XID: dict[int, tuple[str, Severity]] = {
    13: ("graphics engine exception, mostly the application's", "warning"),
    31: ("memory page fault, mostly the application's", "warning"),
    32: ("invalid or corrupted push buffer stream", "warning"),
    43: ("GPU stopped processing for one application", "info"),
    45: ("preemptive cleanup after another error or a killed process", "info"),
    48: ("double bit ECC error", "critical"),
    61: ("internal micro-controller breakpoint", "critical"),
    62: ("internal micro-controller halt", "critical"),
    63: ("ECC page retirement or row remapping recorded", "info"),
    64: ("ECC page retirement or row remapping failed", "critical"),
    69: ("graphics engine class error", "warning"),
    74: ("NVLink error", "critical"),
    79: ("GPU has fallen off the bus", "critical"),
    92: ("high rate of single bit ECC errors", "warning"),
    94: ("contained ECC error", "warning"),
    95: ("uncontained ECC error", "critical"),
    119: ("GSP RPC timeout", "critical"),
    120: ("GSP error", "critical"),
    140: ("unrecovered ECC error", "critical"),
}


def meaning(code: int) -> tuple[str, Severity]:
    """What a code means and its severity; an unknown one is a warning."""
    return XID.get(code, ("an error this version does not know", "warning"))

"""The shape of `earmark fit --cases FILE --json`, one line a case; the rules are those of output.py, the words those of the cases."""

from __future__ import annotations

from earmark.cli.output import Out


class CaseCellOut(Out, frozen=True):
    """One guest cell on its host cell. `cpu_pinning` maps vCPUs to CPUs; `pagesize_kb` null: no size was asked for."""

    guest_cell: int
    host_cell: int
    vcpus: list[int]
    shared_vcpus: list[int]
    cpu_pinning: dict[str, int]
    pcpus: list[int]
    memory_mb: int
    pagesize_kb: int | None
    cpuset_reserved: list[int]


class CertificateOut(Out, frozen=True):
    """Why no placement can exist: `shortfall`, `hall` or `together` (docs/howto/fit-cases.md). `verified`: another program text has checked it."""

    kind: str
    guest_cells: list[int]
    host_cells: list[int]
    requirements: list[str]
    verified: bool


class CaseOut(Out, frozen=True):
    """The answer to the case of one line. `fits` null: not known, or the line is no case.

    `error` is the name of what is wrong with the request (MalformedCase: with the line), `reasons` are the words for a no. `cells` is null
    for a guest without cells and where it does not fit, `pci` has the addresses for each request. `passed_over`
    are words of the request that the answer does not speak of: a case has no stock for them, or nothing is made of them.
    """

    line: int
    id: str | int | None
    fits: bool | None
    error: str | None
    cells: list[CaseCellOut] | None
    pci: list[list[str]] | None
    reasons: list[str]
    certificate: CertificateOut | None
    passed_over: list[str]
